package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

type addOptions struct {
	views       []schedule.ViewName // nil: all
	schema      *string             // of all, those in it; nil: those in every schema
	merge       *schedule.Merge     // nil: materialized views
	settings    schedule.Settings
	ifNotExists bool
}

func newAddCmd(a *app) *cobra.Command {
	var opts addOptions
	var flags settingsFlags
	var columns columnsFlags
	var merge mergeFlags
	var all bool
	var schema string
	cmd := &cobra.Command{
		Use:     "add {{VIEW... | --all [--schema S] | TABLE --merge-from VIEW --key COLUMNS} WHEN | TABLE --columns {--from FILE | --call FN} [WHEN]}",
		Short:   "Schedule materialized views",
		GroupID: groupSchedule,
		Long: `Schedules materialized views. All of them are added, or none.

WHEN is one of these:
  --every D         from slot to slot, anchored at the first run: no drift, and after an outage one run, not many
  --after D         so long after the end of the last run
  --cron EXPR       five fields as in crontab, or @daily and the like, in --timezone
  --after-parents   no clock: once whenever a materialized view that it reads got new data
  --on-change       no clock: when what it reads has changed, or mvsched.request_refresh() asks
  --max-lag D       as late as possible, early enough that its data is never older than that

With --merge-from it is a table that is kept equal to a plain view: only rows that differ are written, by --key, and
with --window only those for which that is true. --create makes the table. Query and window run with the rights of the
role that refreshes.

--all takes every materialized view that has no schedule, of one schema with --schema.

--columns fills computed columns of a table instead, of rows whose materialized_at is null: with --from by a query over
batch(id), with --call by calling a function until nothing is left. Without any of the above it is --on-change: whenever
there are such rows.
A new schedule is due at once.`,
		Example: `  mvsched add cinema.venue_view --every 5m
  mvsched add '"Sales 2026"."By Day"' --every '1 day' --timeout 1h --strategy plain
  mvsched add cinema.report_view --cron '30 6 * * 1-5' --timezone Europe/Berlin
  mvsched add cinema.sales_view --max-lag 10m
  mvsched add cinema.top_venues_view --after-parents
  mvsched add event_seat_state_change --columns --from event_seat_state_change_materialize.sql --parallel 2
  mvsched add event_seat_state_change --columns --call 'materialize_event_seat_state_change()'
  mvsched add sales_by_day --merge-from sales_by_day_source --key day,country --window 'day >= current_date - 7' --every 5m
  mvsched add --all --schema cinema --every 1h`,
		ValidArgsFunction: a.completeNewViews,
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, args []string) (err error) {
		if opts.views, err = viewsOrAll(args, all); err != nil {
			return err
		}
		if cmd.Flags().Changed("schema") {
			if !all {
				return &usageError{problem: "--schema is for --all", hint: "name a view with its schema: schema.view"}
			}
			if opts.schema, err = parseSchema(schema); err != nil {
				return err
			}
		}
		if opts.settings, err = flags.settings(cmd); err != nil {
			return err
		}
		if err := columns.newSettings(a, cmd, &opts.settings); err != nil {
			return err
		}
		if opts.settings.Columns != nil && len(opts.views) != 1 {
			return &usageError{problem: "--columns is for one table", hint: "name it: mvsched add TABLE --columns --from FILE.sql"}
		}
		if opts.settings.When() == "" {
			return &usageError{
				problem: "say when to refresh",
				hint:    `for example --every 5m, --cron "0 3 * * *", --on-change, --max-lag 10m, or --after-parents`,
			}
		}
		if err = flags.complete(opts.settings); err != nil {
			return err
		}
		if opts.merge, err = merge.merge(cmd, opts.views); err != nil {
			return err
		}
		return runAdd(ctx, a, opts)
	})
	flags.registerSchedule(a, cmd)
	columns.register(cmd)
	cmd.Flags().BoolVar(&columns.columns, "columns", false, "fill computed columns of a table, with --from or --call")
	merge.register(cmd)
	register(cmd, "merge-from", a.completeBy(completePlainViewsSQL))
	cmd.Flags().BoolVar(&all, "all", false, "every materialized view that has no schedule")
	cmd.Flags().StringVar(&schema, "schema", "", "with --all: only those in this schema")
	cmd.Flags().BoolVar(&opts.ifNotExists, "if-not-exists", false, "leave views alone that are scheduled already")
	return cmd
}

func runAdd(ctx context.Context, a *app, opts addOptions) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	var added int
	switch {
	case opts.merge != nil:
		added, err = store.AddMerge(ctx, opts.views[0], *opts.merge, opts.settings, opts.ifNotExists)
	case opts.views == nil:
		added, err = store.AddAll(ctx, opts.schema, opts.settings)
	default:
		added, err = store.Add(ctx, opts.views, opts.settings, opts.ifNotExists)
	}
	if err != nil {
		return err
	}
	a.say("%d added, %s", added, opts.settings.When())
	return a.noteWindows(ctx, store, opts.views, opts.settings)
}

// noteWindows tells of targets that the window of their schedule stands in the way of.
func (a *app) noteWindows(ctx context.Context, store *schedule.Store, views []schedule.ViewName, given schedule.Settings) error {
	if given.MaxLag == nil && given.Window == nil {
		return nil
	}
	missed, err := store.WindowedLags(ctx, views)
	if err != nil || len(missed) == 0 {
		return err
	}
	a.note("%s", someOf(schedule.Remark{
		Message: "--between lets no refresh begin for longer than --max-lag, which cannot be kept then", Views: missed,
	}))
	return nil
}

// parseSchema reads a schema as in SQL.
func parseSchema(text string) (*string, error) {
	name, err := schedule.ParseViewName(text)
	if err == nil && name.Schema != "" {
		err = &schedule.InvalidError{Value: text, Problem: "it is more than one name"}
	}
	if invalid := (*schedule.InvalidError)(nil); errors.As(err, &invalid) {
		invalid.What = "--schema"
		invalid.Hint = `write it as in SQL: cinema, "Sales 2026"`
	}
	return &name.Name, err
}
