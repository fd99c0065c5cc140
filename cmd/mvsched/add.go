package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

type addOptions struct {
	views       []schedule.ViewName
	settings    schedule.Settings
	ifNotExists bool
}

func newAddCmd(a *app) *cobra.Command {
	var opts addOptions
	var flags settingsFlags
	cmd := &cobra.Command{
		Use:     "add VIEW... --every D",
		Short:   "Schedule materialized views",
		GroupID: groupSchedule,
		Long: `Schedules materialized views. All of them are added, or none.

--every D refreshes from slot to slot, anchored at the first run: no drift, and after an outage one run, not many.
A new schedule is due at once.`,
		Example: `  mvsched add cinema.venue_view --every 5m
  mvsched add '"Sales 2026"."By Day"' --every '1 day' --timeout 1h --strategy plain`,
		Args:              someViews,
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.command(func(ctx context.Context, args []string) (err error) {
		if opts.views, err = parseViews(args); err != nil {
			return err
		}
		if opts.settings, err = flags.settings(cmd); err != nil {
			return err
		}
		if opts.settings.Every == nil {
			return &usageError{problem: "say when to refresh", hint: "for example --every 5m"}
		}
		return runAdd(ctx, a, opts)
	})
	flags.registerSchedule(cmd)
	cmd.Flags().BoolVar(&opts.ifNotExists, "if-not-exists", false, "leave views alone that are scheduled already")
	return cmd
}

func runAdd(ctx context.Context, a *app, opts addOptions) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer pool.Close()
	added, err := store.Add(ctx, opts.views, opts.settings, opts.ifNotExists)
	if err != nil {
		return err
	}
	a.say("%d added, every %s", added, schedule.FormatDuration(*opts.settings.Every))
	return nil
}
