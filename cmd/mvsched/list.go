package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
)

func newListCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the schedules: what is configured",
		GroupID: groupSchedule,
		Args:    noArguments,
	}
	cmd.RunE = a.listCommand(cmd, func(ctx context.Context, _ []string) error { return runList(ctx, a) })
	return cmd
}

func runList(ctx context.Context, a *app) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	schedules, err := store.List(ctx)
	if err != nil {
		return err
	}
	if len(schedules) == 0 {
		a.say("nothing is scheduled yet; begin with `mvsched add VIEW --every 5m`")
	}
	return a.print(func(p report.Printer) error { return p.Schedules(schedules) })
}
