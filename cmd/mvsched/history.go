package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func newHistoryCmd(a *app) *cobra.Command {
	var filter schedule.HistoryFilter
	var since string
	cmd := &cobra.Command{
		Use:     "history [VIEW]",
		Short:   "Show past refreshes, newest first",
		GroupID: groupLook,
		Example: `  mvsched history cinema.venue_view --failed --since '7 days'`,

		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.listCommand(cmd, func(ctx context.Context, args []string) error {
		views, err := parseViews(args)
		if err != nil {
			return err
		}
		if len(views) > 0 {
			filter.View = &views[0]
		}
		if filter.Since, err = durationFlag(cmd.Flags().Changed("since"), "since", since, schedule.MaxDuration); err != nil {
			return err
		}
		if filter.Limit < 0 {
			return &usageError{problem: fmt.Sprintf("--limit: %d is negative", filter.Limit)}
		}
		return runHistory(ctx, a, filter)
	})
	flags := cmd.Flags()
	flags.StringVar(&since, "since", "", "only what started within this time")
	flags.BoolVar(&filter.OnlyFailed, "failed", false, "only what did not succeed")
	flags.IntVarP(&filter.Limit, "limit", "n", 50, "at most so many; 0 for all")
	return cmd
}

func runHistory(ctx context.Context, a *app, filter schedule.HistoryFilter) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	executions, err := store.History(ctx, filter)
	if err != nil {
		return err
	}
	return a.print(func(p report.Printer) error { return p.Executions(executions, filter.View != nil) })
}
