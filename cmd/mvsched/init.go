package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
	"github.com/mvsched/mvsched/sql"
)

func newInitCmd(a *app) *cobra.Command {
	var printSQL bool
	cmd := &cobra.Command{
		Use:     "init",
		Short:   "Install schema mvsched in the database",
		GroupID: groupInstall,
		Long: `Installs schema mvsched: the schedules and the record of every refresh. Doing it again changes nothing.

It needs CREATE on the database and no superuser. With --print it writes the SQL instead, for your own migration tool:
run it once, in one transaction.`,
		Args: noArguments,
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, _ []string) error {
		if printSQL {
			return a.write(sql.Schema)
		}
		return runInit(ctx, a)
	})
	cmd.Flags().BoolVar(&printSQL, "print", false, "write the SQL to stdout and change nothing")
	return cmd
}

func runInit(ctx context.Context, a *app) error {
	pool, err := a.open(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	installed, err := schedule.Install(ctx, pool)
	if err != nil {
		return connectFailure(err)
	}
	if installed {
		a.say("schema mvsched is installed; go on with `mvsched add VIEW --every 5m`")
	} else {
		a.say("schema mvsched is there already")
	}
	return nil
}

func newUninstallCmd(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "uninstall --yes",
		Short:   "Remove schema mvsched with all schedules and history",
		GroupID: groupInstall,
		Long: `Removes schema mvsched: all schedules, the whole history, and what was built on them (your views on mvsched.status).
The materialized views stay as they are.`,
		Args: noArguments,
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, _ []string) error {
		if !yes {
			return &usageError{problem: "this removes all schedules and the whole history", hint: "say --yes to do it"}
		}
		return runUninstall(ctx, a)
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func runUninstall(ctx context.Context, a *app) error {
	pool, err := a.open(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	err = schedule.NewStore(pool).Uninstall(ctx)
	if errors.Is(err, schedule.ErrNoSchema) {
		a.say("there is no schema mvsched")
		return nil
	}
	return connectFailure(err)
}
