package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

type pauseOptions struct {
	views  []schedule.ViewName // nil: all
	reason *string
}

func newPauseCmd(a *app) *cobra.Command {
	var opts pauseOptions
	var all bool
	var reason string
	cmd := &cobra.Command{
		Use:     "pause {VIEW... | --all}",
		Short:   "Keep views from being refreshed until resumed",
		GroupID: groupSchedule,
		Long: `Keeps views from being refreshed on schedule until ` + "`mvsched resume`" + `. A refresh under way goes on;
` + "`mvsched refresh`" + ` still works.`,
		Example:           `  mvsched pause --all --reason 'migration until Monday'`,
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, args []string) (err error) {
		if opts.views, err = viewsOrAll(args, all); err != nil {
			return err
		}
		if cmd.Flags().Changed("reason") {
			if strings.ContainsRune(reason, 0) {
				return &usageError{problem: fmt.Sprintf("--reason: %q is no text", reason)}
			}
			opts.reason = &reason
		}
		return runPause(ctx, a, opts)
	})
	cmd.Flags().BoolVar(&all, "all", false, "all schedules")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who wonder")
	return cmd
}

func runPause(ctx context.Context, a *app, opts pauseOptions) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	return store.Pause(ctx, opts.views, opts.reason)
}

func newResumeCmd(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "resume {VIEW... | --all}",
		Short:   "End a pause or a suspension",
		GroupID: groupSchedule,
		Long:    `Ends a pause or a suspension. Slots missed meanwhile are made up for by one refresh.`,

		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, args []string) error {
		views, err := viewsOrAll(args, all)
		if err != nil {
			return err
		}
		return runResume(ctx, a, views)
	})
	cmd.Flags().BoolVar(&all, "all", false, "all schedules")
	return cmd
}

func runResume(ctx context.Context, a *app, views []schedule.ViewName) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	return store.Resume(ctx, views)
}
