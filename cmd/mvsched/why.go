package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func newWhyCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "why VIEW",
		Short:   "Say why a view is or is not being refreshed, and what happens next",
		GroupID: groupLook,
		Long: `Says why a view is or is not being refreshed now, and what happens next: the answer first, then its grounds. The first
line has the view's name and state, as status shows it; without a schedule that is unscheduled.

Nothing is changed, and no lock on a view is waited for.`,
		Args:              oneView,
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.listCommand(cmd, func(ctx context.Context, args []string) error {
		views, err := parseViews(args)
		if err != nil {
			return err
		}
		return runWhy(ctx, a, views[0])
	})
	return cmd
}

func runWhy(ctx context.Context, a *app, view schedule.ViewName) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	explanation, err := store.Why(ctx, view)
	if err != nil {
		return err
	}
	if last := explanation.Last; last != nil && last.Status.Bad() {
		if hint := refresh.Hint(*last); hint != "" {
			explanation.Insert(schedule.WhyLastRun, schedule.Reason{Code: "hint", Message: "hint: " + hint})
		}
	}
	return a.print(func(p report.Printer) error { return p.Explanation(explanation) })
}
