package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func newStatusCmd(a *app) *cobra.Command {
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
  late        the data is older than two intervals
  due         it is waiting for a worker
  fresh       all is well

AGE is how old the data is at the most, NEXT when the next run is due, LAST RUN how long the last one took.
-o html is a page for people, with the runs of the last day and the graph, in one file that needs nothing else.
The same is there for SQL: select * from mvsched.status`,
		Example: `  mvsched status
  mvsched status -o html > views.html`,
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.commandIn(report.StatusFormats(), func(ctx context.Context, args []string) error {
		views, err := parseViews(args)
		if err != nil {
			return err
		}
		if report.Format(a.format) == report.HTML {
			return runStatusPage(ctx, a, views)
		}
		return runStatus(ctx, a, views)
	})
	return cmd
}

func runStatus(ctx context.Context, a *app, views []schedule.ViewName) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer pool.Close()
	standings, err := store.Status(ctx, views)
	if err != nil {
		return err
	}
	if len(standings) == 0 {
		a.say("nothing is scheduled yet; begin with `mvsched add VIEW --every 5m`")
	}
	return a.print(func(p report.Printer) error { return p.Status(standings) })
}

// runStatusPage writes the status as a page, with what belongs to these views; none means all.
func runStatusPage(ctx context.Context, a *app, views []schedule.ViewName) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer pool.Close()
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
