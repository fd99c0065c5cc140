package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func newStatusCmd(a *app) *cobra.Command {
	var watches bool
	var interval string
	cmd := &cobra.Command{
		Use:     "status [VIEW...]",
		Short:   "Show how the scheduled views stand",
		GroupID: groupLook,
		Long: `Shows how the scheduled views stand. STATE is the first of these that holds:

  missing     the view is gone
  running     it is being refreshed
  paused      by a person
  suspended   by mvsched, after repeated failures
  failing     the last run was neither a success nor a skip
  blocked     the last run could not get its lock, or it waits for what it reads
  never       mvsched has not refreshed it yet
  late        the data is older than --max-lag, else than two intervals of --every; else a slot was missed for a minute
  due         it is waiting for a worker
  fresh       all is well

AGE is how old the data is at the most, NEXT when the next run is due, LAST RUN how long the last one took. RUNNING is for
how long a view has been refreshed by now, how long that usually takes, and who holds a lock that it waits for.
-o html is a page for people, with the runs of the last day and the graph, in one file that needs nothing else.
The same is there for SQL: select * from mvsched.status`,
		Example: `  mvsched status
  mvsched status -o html > views.html`,
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.commandIn(cmd, report.StatusFormats(), func(ctx context.Context, args []string) error {
		views, err := parseViews(args)
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("interval") && !watches {
			return &usageError{problem: "--interval is for --watch", hint: "leave it out, or use --watch"}
		}
		switch {
		case report.Format(a.format) == report.HTML:
			return runStatusPage(ctx, a, views)
		case !watches:
			return runStatus(ctx, a, views)
		}
		every, err := durationFlag(true, "interval", interval, schedule.Day)
		if err != nil {
			return err
		}
		return runWatch(ctx, a, views, *every)
	})
	cmd.Flags().BoolVarP(&watches, "watch", "w", false, "keep it on the terminal and up to date, until Ctrl-C")
	cmd.Flags().StringVar(&interval, "interval", schedule.FormatDuration(watchInterval), "with --watch: ask the database so often; where it tells that a refresh has ended, at once")
	return cmd
}

func runStatus(ctx context.Context, a *app, views []schedule.ViewName) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	standings, err := store.Status(ctx, views)
	if err != nil {
		return err
	}
	if len(standings) == 0 {
		a.say("nothing is scheduled yet; begin with `mvsched add VIEW --every 5m`")
	}
	if report.Format(a.format) == report.Prometheus {
		activity, err := store.Activity(ctx)
		if err != nil {
			return err
		}
		return a.print(func(p report.Printer) error { return p.Metrics(standings, activity) })
	}
	return a.print(func(p report.Printer) error { return p.Status(standings) })
}

// runStatusPage writes the status as a page, with what belongs to these views; none means all.
func runStatusPage(ctx context.Context, a *app, views []schedule.ViewName) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	snap, err := store.Snapshot(ctx, nil)
	if err != nil {
		return err
	}
	if len(views) > 0 {
		standings, err := store.Status(ctx, views)
		if err != nil {
			return err
		}
		snap = only(snap, standings)
	}
	opts := report.PageOptions{Database: pool.Config().ConnConfig.Database}
	return a.print(func(p report.Printer) error { return report.WritePage(p.W, snap, opts) })
}

// only leaves in a snapshot what is about these views.
func only(snap schedule.Snapshot, standings []schedule.Standing) schedule.Snapshot {
	other := func(view string) bool {
		return !slices.ContainsFunc(standings, func(s schedule.Standing) bool { return s.View == view })
	}
	snap.Standings = slices.DeleteFunc(snap.Standings, func(s schedule.Standing) bool { return other(s.View) })
	snap.Runs = slices.DeleteFunc(snap.Runs, func(e schedule.Execution) bool { return other(e.View) })
	snap.Graph.Views = slices.DeleteFunc(snap.Graph.Views, other)
	snap.Graph.Edges = slices.DeleteFunc(snap.Graph.Edges, func(e schedule.Edge) bool { return other(e.Parent) || other(e.Child) })
	return snap
}
