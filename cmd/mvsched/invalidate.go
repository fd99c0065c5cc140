package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

type invalidateOptions struct {
	table   schedule.ViewName
	where   string
	columns []string
}

func newInvalidateCmd(a *app) *cobra.Command {
	var opts invalidateOptions
	cmd := &cobra.Command{
		Use:     "invalidate TABLE --where EXPR [--columns a,b]",
		Short:   "Have rows of a table materialized again",
		GroupID: groupRefresh,
		Long: `Has rows of a table with materialized columns (see mvsched add --columns) materialized again: those for which EXPR, a
boolean expression over the table's columns, is true; --where true for all.

Their materialized_at becomes null, in small transactions. With --columns nothing is set to null: only these columns are
computed again, behind whatever else is to be done, and until then the rows are as they were. That is done by the
next run; this command returns at once.`,
		Example: `  mvsched invalidate event_seat_state_change --where 'event_id = 7'
  mvsched invalidate event_seat_state_change --where true --columns seat_count
  mvsched invalidate event_seat_state_change --where "materialized_at = '-infinity'"   # those that were set aside`,
		Args:              oneView,
		ValidArgsFunction: a.completeBy(completeColumnsSQL),
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, args []string) error {
		views, err := parseViews(args)
		if err != nil {
			return err
		}
		if opts.where == "" {
			return &usageError{problem: "say which rows", hint: "--where EXPR; --where true for all"}
		}
		opts.table = views[0]
		return runInvalidate(ctx, a, opts)
	})
	cmd.Flags().StringVar(&opts.where, "where", "", "which rows: a boolean expression over the table's columns")
	cmd.Flags().StringSliceVar(&opts.columns, "columns", nil, "compute only these columns again")
	return cmd
}

func runInvalidate(ctx context.Context, a *app, opts invalidateOptions) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer pool.Close()
	rows, err := store.Invalidate(ctx, opts.table, opts.where, opts.columns, func(rows int64) {
		if a.verbose {
			a.note("%d rows so far", rows)
		}
	})
	switch {
	case err != nil:
		return err
	case len(opts.columns) > 0:
		a.say("the columns are computed again by the next run")
	default:
		a.say("%d rows are to be materialized again", rows)
	}
	return nil
}
