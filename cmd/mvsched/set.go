package main

import (
	"context"
	"reflect"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

func newSetCmd(a *app) *cobra.Command {
	var flags settingsFlags
	var columns columnsFlags
	cmd := &cobra.Command{
		Use:     "set VIEW... [flags]",
		Short:   "Change schedules: only what is given",
		GroupID: groupSchedule,
		Long: `Changes of the views' schedules only the options given; of several views all are changed, or none.

A new interval counts from the last run. A refresh under way goes on with what it began with.`,
		Example:           `  mvsched set cinema.venue_view --every 10m --timeout 5m`,
		Args:              someViews,
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, args []string) error {
		views, err := parseViews(args)
		if err != nil {
			return err
		}
		settings, err := flags.settings(cmd)
		if err != nil {
			return err
		}
		if err := flags.fits(settings); err != nil {
			return err
		}
		if settings.Columns, err = columns.settings(a, cmd); err != nil {
			return err
		}
		if reflect.ValueOf(settings).IsZero() {
			return &usageError{problem: "say what to change", hint: "see `mvsched set --help`"}
		}
		return runSet(ctx, a, views, settings)
	})
	flags.registerSchedule(a, cmd)
	columns.register(cmd)
	return cmd
}

func runSet(ctx context.Context, a *app, views []schedule.ViewName, settings schedule.Settings) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	if err := store.Set(ctx, views, settings); err != nil {
		return err
	}
	return a.noteWindows(ctx, store, views, settings)
}
