package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what bench is told.
type options struct {
	rounds  int
	views   int
	bigMB   int
	columns int
	rows    int
	figures string
	plots   string
	binary  string // of mvsched; "": build it
	quick   bool
	sizes
}

// figure is something to measure, and to print.
type figure struct {
	name    string
	measure func(b *bench, ctx context.Context, out io.Writer) error // the method expression of a bench
}

func figures() []figure {
	return []figure{
		{"burst", (*bench).measureBurst},
		{"nothing", (*bench).measureNothing},
		{"serve", (*bench).measureServe},
		{"big", (*bench).measureBig},
		{"claim", (*bench).measureClaim},
		{"claimers", (*bench).measureClaimers},
		{"graph", (*bench).measureGraph},
		{"growth", (*bench).measureGrowth},
		{"mixed", (*bench).measureMixed},
		{"fresh", (*bench).measureFresh},
		{"columns", (*bench).measureColumns},
		{"merge", (*bench).measureMerge},
	}
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 7, "measure everything so often, in turn")
	flag.IntVar(&o.views, "views", 200, "how many tiny views a burst has")
	flag.IntVar(&o.bigMB, "big", 200, "megabytes of the big view")
	flag.IntVar(&o.columns, "columns", 40_000, "rows of the backlog of materialized columns")
	flag.IntVar(&o.rows, "rows", 1_000_000, "rows of the merge table")
	flag.StringVar(&o.figures, "figures", "burst,nothing,serve,big,columns,merge", "what to measure; scale is "+scaleFigures)
	flag.StringVar(&o.plots, "plots", "", "draw plots into this directory")
	flag.StringVar(&o.binary, "mvsched", "", "the program to measure; built when it is not given")
	flag.BoolVar(&o.quick, "quick", false, "a small round of everything, to see that it works; its figures mean nothing")
	o.register()
	flag.Parse()
	if o.quick {
		o.rounds, o.views, o.bigMB, o.columns, o.rows = 1, 16, 2, 1000, 10_000
		o.quickly()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1)
	}
}

// run measures the figures that are asked for.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	wanted := strings.Split(strings.ReplaceAll(o.figures, "scale", scaleFigures), ",")
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		if closed := b.close(); err == nil {
			err = closed
		}
	}()
	fmt.Fprintf(out, "%s\n\n", b.machine(ctx))
	for _, f := range figures() {
		if !slices.Contains(wanted, f.name) {
			continue
		}
		began := time.Now()
		if err := f.measure(b, ctx, out); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s took %s\n", f.name, time.Since(began).Round(time.Second))
	}
	return nil
}
