package main

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

const (
	watchInterval = 2 * time.Second // how often the database is asked when it tells nothing
	watchTick     = time.Second     // how often the screen is drawn anew, and at most how often the database is asked
)

// What a terminal is told of a page: to begin at the top, and to forget the rest of the one before.
const (
	homeScreen = "\x1b[H"
	restOfLine = "\x1b[K"
	restOfPage = "\x1b[J"
)

// watch shows the status on the terminal until ctx ends.
type watch struct {
	app      *app
	store    *schedule.Store
	views    []schedule.ViewName
	interval time.Duration

	standings []schedule.Standing
	asked     time.Time // when the database was asked for them
	failed    error     // why the last look brought nothing
}

// runWatch draws until it is stopped, which is how it is meant to end.
func runWatch(ctx context.Context, a *app, views []schedule.ViewName, interval time.Duration) error {
	if !isTerminal(a.terminalOut) {
		return &usageError{
			problem: "--watch draws on a terminal, and stdout is none",
			hint:    "without --watch it prints the status once; `listen mvsched` in SQL hears every refresh that ends",
		}
	}
	if report.Format(a.format) != report.Table {
		return &usageError{problem: "--watch draws tables", hint: "leave -o " + a.format + " out"}
	}
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer pool.Close()
	w := &watch{app: a, store: store, views: views, interval: interval}
	if w.look(ctx); w.failed != nil { // a view that is not scheduled, for one
		return w.failed
	}

	told := make(chan struct{}, 1)
	var listening sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	listening.Go(func() {
		refresh.Listen(ctx, pool.Config().ConnConfig, func() {
			select {
			case told <- struct{}{}:
			default:
			}
		})
	})
	defer listening.Wait()
	defer stop()

	if err := a.screen.enter(); err != nil {
		return err
	}
	defer a.screen.leave()
	return w.loop(ctx, told)
}

func (w *watch) loop(ctx context.Context, told <-chan struct{}) error {
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	stops := make(chan os.Signal, 1)
	notifySuspend(stops)
	defer signal.Stop(stops)
	news := false
	for {
		if err := w.draw(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-stops:
			w.app.screen.leave()
			suspend()
			if err := w.app.screen.enter(); err != nil {
				return err
			}
			continue
		case <-told:
			news = true
			if time.Since(w.asked) < watchTick {
				continue // the next tick sees to it
			}
		case <-tick.C:
		}
		// A tick may come a little early; what it is early by is not waited for again.
		if age := time.Since(w.asked); news && age >= watchTick || age >= w.interval-watchTick/10 {
			w.look(ctx)
			news = false
		}
	}
}

// look asks the database. What it said last stays on the screen when it does not answer.
func (w *watch) look(ctx context.Context) {
	w.asked = time.Now()
	standings, err := w.store.Status(ctx, w.views)
	if w.failed = err; err == nil {
		w.standings = standings
	}
}

// draw fills the screen. Its own size is asked for every time, since terminals are resized.
func (w *watch) draw() error {
	columns, lines := size(w.app.terminalOut)
	var page bytes.Buffer
	printer := report.Printer{W: &page, Format: report.Table, Width: columns, ASCII: !w.app.isUTF8(), Color: w.app.colors()}
	trouble := ""
	if w.failed != nil {
		_, trouble, _ = explain(connectFailure(w.failed))
		trouble = "error: " + report.OneLine(trouble)
	}
	if err := printer.Watch(schedule.Later(w.standings, time.Since(w.asked)), trouble, lines); err != nil {
		return err
	}
	var clean, screen strings.Builder
	if _, err := report.NewColorWriter(&clean).Write(page.Bytes()); err != nil {
		return err
	}
	screen.WriteString(homeScreen)
	for line := range strings.Lines(clean.String()) {
		text := strings.TrimSuffix(line, "\n")
		screen.WriteString(text + restOfLine)
		if text != line {
			screen.WriteString("\n")
		}
	}
	screen.WriteString(restOfPage)
	return w.app.screen.send(screen.String())
}
