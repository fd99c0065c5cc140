package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

func newRemoveCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove VIEW...",
		Aliases: []string{"rm"},
		Short:   "Remove schedules; their history stays",
		GroupID: groupSchedule,
		Long: `Removes the schedules of views; of several all are removed, or none. The views stay, and so does their history.
A refresh under way goes on and is recorded.`,
		Args:              someViews,
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, args []string) error {
		views, err := parseViews(args)
		if err != nil {
			return err
		}
		return runRemove(ctx, a, views)
	})
	return cmd
}

func runRemove(ctx context.Context, a *app, views []schedule.ViewName) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	err = store.Remove(ctx, views)
	if view := (*schedule.ViewError)(nil); errors.As(err, &view) && errors.Is(err, schedule.ErrNotScheduled) {
		return &usageError{problem: view.Error(), hint: "there is nothing to remove; `mvsched list` shows what there is", err: err}
	}
	return err
}
