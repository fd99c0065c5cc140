package main

import (
	"context"

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
  late        the data is older than two intervals
  due         it is waiting for a worker
  fresh       all is well

AGE is how old the data is at the most, NEXT when the next run is due, LAST RUN how long the last one took. RUNNING is for
how long a view has been refreshed by now, how long that usually takes, and who holds a lock that it waits for.
The same is there for SQL: select * from mvsched.status`,
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.commandIn(report.StatusFormats(), func(ctx context.Context, args []string) error {
		views, err := parseViews(args)
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("interval") && !watches {
			return &usageError{problem: "--interval is for --watch", hint: "leave it out, or use --watch"}
		}
		if !watches {
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
	defer pool.Close()
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
