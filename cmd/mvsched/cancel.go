package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func newCancelCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cancel VIEW...",
		Short:   "Ask for the end of running refreshes and wait for it",
		GroupID: groupRefresh,
		Long: `Asks for the end of refreshes that are running, scheduled or not, wherever their workers are, and waits for it. The
worker cancels that refresh and goes on with its others. Where no worker takes note within 3 seconds, since it is gone,
the server is asked.

A cancelled refresh is not tried again; the view is refreshed at its next slot. Exit code 0 when all have ended, also
when one succeeded first, which is said; 1 when nothing was running.`,
		Args:              someViews,
		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.listCommand(cmd, func(ctx context.Context, args []string) error {
		views, err := parseViews(args)
		if err != nil {
			return err
		}
		return runCancel(ctx, a, views)
	})
	return cmd
}

// idleError says that none of the views is being refreshed.
type idleError struct{ views []string }

func (e *idleError) Error() string { return "nothing was running of " + strings.Join(e.views, ", ") }

func runCancel(ctx context.Context, a *app, views []schedule.ViewName) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	ended, idle, err := store.Cancel(ctx, views)
	if err != nil {
		return err
	}
	var printed error
	if !a.quiet {
		printed = a.print(func(p report.Printer) error { return p.Run(ended) })
	}
	if len(ended) == 0 {
		return errors.Join(&idleError{idle}, printed)
	}
	for _, view := range idle {
		a.note("%s: nothing was running", view)
	}
	for _, e := range ended {
		if e.Status != schedule.Cancelled {
			a.note("%s had %s before it could be cancelled", e.View, ending(e))
		}
	}
	return printed
}

// ending is how an execution ended, in a sentence.
func ending(e schedule.Execution) string {
	text := strings.ReplaceAll(string(e.Status), "_", " ")
	if e.Status == schedule.Skipped || e.Status == schedule.Abandoned {
		text = "been " + text
	}
	if e.Reason != nil {
		text += " (" + *e.Reason + ")"
	}
	return text
}
