package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

type refreshOptions struct {
	views          []schedule.ViewName
	how            refresh.Options
	jobs           int
	allowSuperuser bool
}

func newRefreshCmd(a *app) *cobra.Command {
	var opts refreshOptions
	var flags settingsFlags
	cmd := &cobra.Command{
		Use:     "refresh VIEW...",
		Short:   "Refresh views now and wait",
		GroupID: groupRefresh,
		Long: `Refreshes views now and waits for them, due or not, scheduled or not, paused or not. The schedule does not move.
A view that is being refreshed already is waited for, then refreshed. Options given here are for this time only.
Of several views each comes after those among them that it reads; where one of these fails, it is skipped.`,
		Args:              someViews,
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.listCommand(cmd, func(ctx context.Context, args []string) (err error) {
		if opts.views, err = parseViews(args); err != nil {
			return err
		}
		if opts.how.Settings, err = flags.settings(cmd); err != nil {
			return err
		}
		if err := checkJobs(opts.jobs); err != nil {
			return err
		}
		return runRefresh(ctx, a, opts)
	})
	flags.register(cmd)
	cmd.Flags().BoolVar(&opts.how.Ancestors, "ancestors", false, "first refresh the materialized views that they read")
	cmd.Flags().BoolVar(&opts.how.Force, "force", false, "also when nothing has changed, where the schedule says to skip that")
	cmd.Flags().BoolVar(&opts.how.Whole, "full", false, "all rows of a merge table, not only those in its window")
	jobsFlag(cmd, &opts.jobs)
	superuserFlag(cmd, &opts.allowSuperuser)
	return cmd
}

func runRefresh(ctx context.Context, a *app, opts refreshOptions) error {
	pool, store, err := a.connect(ctx, opts.jobs)
	if err != nil {
		return err
	}
	defer closePool(pool)
	if err := a.checkSuperuser(ctx, store, opts.views, opts.allowSuperuser); err != nil {
		return err
	}
	if !opts.how.Ancestors { // which may be of another kind
		if err := store.CheckRefresh(ctx, opts.views, opts.how.Settings, opts.how.Whole); err != nil {
			return err
		}
	}
	return a.work(pool, store, opts.jobs, func(w *refresh.Worker) ([]schedule.Execution, error) {
		return w.Refresh(ctx, opts.views, opts.how)
	})
}
