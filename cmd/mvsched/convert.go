package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

type convertOptions struct {
	schedule.ConvertOptions
	view   schedule.ViewName
	dryRun bool
}

func newConvertCmd(a *app) *cobra.Command {
	var opts convertOptions
	var key string
	cmd := &cobra.Command{
		Use:     "convert VIEW [--key COLUMNS] [--back] [--rebuild-dependents]",
		Short:   "Turn a materialized view into a merge table, or back",
		GroupID: groupSchedule,
		Long: `Turns a scheduled materialized view into a merge table of the same name, kept equal to the plain view VIEW_source, which
gets its query. Its indexes, grants and comments stay, and so do the plain views that read it. A materialized view that
reads it itself is in the way: with --rebuild-dependents it is made again, with its indexes, grants and comments, and so is
what reads that. Readers of all of them wait until they have been refreshed; how long that usually takes is told.

The statements are printed, then run in one transaction: the table is built beside the view, and takes its place in a
moment. --back undoes it.`,
		Example:           `  mvsched convert cinema.venue_view`,
		Args:              oneView,
		ValidArgsFunction: a.completeBy(completeViewsSQL, completeMergeSQL),
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, args []string) (err error) {
		if opts.view, err = schedule.ParseViewName(args[0]); err != nil {
			return err
		}
		if cmd.Flags().Changed("key") {
			if opts.Key, err = parseKey(key); err != nil {
				return err
			}
		}
		return runConvert(ctx, a, opts)
	})
	cmd.Flags().StringVar(&key, "key", "", "the columns that say which rows are the same one (default: those of its unique index)")
	cmd.Flags().BoolVar(&opts.Back, "back", false, "turn a merge table into a materialized view")
	cmd.Flags().BoolVar(&opts.Rebuild, "rebuild-dependents", false, "make materialized views again that read it")
	cmd.Flags().BoolVar(&opts.dryRun, "dry-run", false, "only print the statements")
	return cmd
}

func runConvert(ctx context.Context, a *app, opts convertOptions) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer pool.Close()
	conversion, err := store.PlanConversion(ctx, opts.view, opts.ConvertOptions)
	if err != nil {
		return err
	}
	if !a.quiet || opts.dryRun {
		sql := "begin;\n" + strings.Join(conversion.Build, ";\n") + ";\n-- from here on readers wait\n" +
			strings.Join(slices.Concat(conversion.Lock, conversion.Swap), ";\n") + ";\ncommit;\n"
		if err := a.write(sql); err != nil {
			return err
		}
	}
	for _, r := range conversion.Rebuilt {
		usual := "how long it takes is not known"
		if r.Usual != nil {
			usual = "usually " + schedule.FormatSpan(*r.Usual)
		}
		a.note("%s is made again, readers wait for it: %s", r.View, usual)
	}
	if opts.dryRun {
		return nil
	}
	if err := store.Convert(ctx, conversion); err != nil {
		return err
	}
	undo := "mvsched convert " + schedule.ShellWord(conversion.View)
	if !opts.Back {
		undo += " --back"
	}
	if len(conversion.Rebuilt) > 0 {
		undo += " --rebuild-dependents"
	}
	a.talk("undo: %s", undo)
	return nil
}
