package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
)

func newPruneCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "prune",
		Short:   "Trim the history now",
		GroupID: groupInstall,
		Long: `Deletes what has been kept long enough, by the row of mvsched.settings: executions that failed (90 days), succeeded (30
days, and the last 100 of each view however old), or were skipped (7 days). What says how old a view's data is, or what
becomes of its next slot, stays. ` + "`mvsched run`" + ` does the same once an hour, a few thousand rows at a time.

It deletes 1,000 rows a transaction, in nobody's way, and may be stopped at any time.`,
		Args: noArguments,
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, _ []string) error { return runPrune(ctx, a) })
	return cmd
}

func runPrune(ctx context.Context, a *app) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	var deleted int64
	for more := true; more; {
		var n int64
		if n, more, err = store.PruneBatch(ctx); err != nil {
			break
		}
		deleted += n
		a.line(fmt.Sprintf("trimming the history: %d rows deleted", deleted))
	}
	a.line("")
	if err != nil {
		return err
	}
	if a.format == string(report.JSON) {
		return a.write(fmt.Sprintf("{\"deleted\": %d}\n", deleted))
	}
	if a.quiet {
		return nil
	}
	return a.write(fmt.Sprintf("deleted: %d\n", deleted))
}
