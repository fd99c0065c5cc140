package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mvsched/mvsched/report"
)

const rootLong = `mvsched refreshes PostgreSQL materialized views on schedule.

It keeps view names and refresh intervals in a table of the database, refreshes what is due, concurrently where
PostgreSQL can, under a timeout, and records every refresh truthfully. Any number of copies may run at once.

  mvsched init
  mvsched add cinema.venue_view --every 5m
  mvsched run -j 4
  mvsched status

A view is named as in SQL: venue_view, cinema.venue_view, "Sales 2026"."By Day".
A duration is written 90s, 1h30m, "1 day" or 00:30:00.

The database is the one of -d, else of MVSCHED_DATABASE_URL, else of DATABASE_URL, else what libpq's own variables and
files say (PGHOST, PGSERVICE, ~/.pgpass …).

Exit codes: 0 done, 1 a refresh did not succeed, doctor found something wrong, or nothing was running to cancel, 2 wrong
use (nothing was changed), 3 no connection or no permission, 4 schema mvsched is missing or of another version, 5 stopped
by a signal, 70 a bug, 74 stdout cannot be written.`

func newRootCmd(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "mvsched",
		Short:         "The materialized-view refresh scheduler for PostgreSQL",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
	}
	version := root.Flags().Bool("version", false, "the same as the command version")
	root.RunE = a.command(root, func(context.Context, []string) error {
		if *version {
			return a.printVersion()
		}
		return root.Help()
	})
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.CompletionOptions.HiddenDefaultCmd = false
	flags := root.PersistentFlags()
	flags.StringVarP(&a.databaseURL, "database-url", "d", "", "the database: postgres://… or key=value pairs")
	flags.StringVarP(&a.format, "output", "o", string(report.Table), "output format: table or json; for rows also jsonl, csv or markdown")
	register(root, "output", a.completeFormats)
	flags.StringVar(&a.color, "color", colorAuto, "colours in tables: auto, always or never (auto: on a terminal, and NO_COLOR is not set)")
	completeWith(root, "color", colorAuto, colorAlways, colorNever)
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "no results of run and refresh, and no notes; errors are printed all the same")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say more about what happens (stderr)")
	root.AddGroup(
		&cobra.Group{ID: groupSchedule, Title: "Schedules:"},
		&cobra.Group{ID: groupRefresh, Title: "Refreshing:"},
		&cobra.Group{ID: groupLook, Title: "Looking:"},
		&cobra.Group{ID: groupInstall, Title: "Installing:"},
	)
	root.AddCommand(
		newAddCmd(a), newSetCmd(a), newRemoveCmd(a), newPauseCmd(a), newResumeCmd(a), newListCmd(a), newConvertCmd(a),
		newRunCmd(a), newServeCmd(a), newRefreshCmd(a), newCancelCmd(a), newInvalidateCmd(a),
		newStatusCmd(a), newCheckCmd(a), newWhyCmd(a), newHistoryCmd(a), newGraphCmd(a), newPlanCmd(a), newDoctorCmd(a),
		newInitCmd(a), newUninstallCmd(a), newPruneCmd(a), newDemoCmd(a), newVersionCmd(a), newDocsCmd(a),
	)
	root.SetFlagErrorFunc(flagError)
	refuseUnknown(root)
	return root
}

// refuseUnknown has cobra's own commands refuse what they do not know: left alone, they print help and end well.
func refuseUnknown(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				_, unknown, err := root.Find(args)
				if err == nil && len(unknown) > 0 {
					err = fmt.Errorf("there is no command %q", unknown[0])
				}
				return err
			}
		case "completion":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if len(args) == 0 {
					return errors.New("say for which shell: bash, zsh, fish or powershell")
				}
				return fmt.Errorf("there is no completion for %q", args[0])
			}
			cmd.RunE = func(*cobra.Command, []string) error { return nil } // or cobra would not look at the arguments
		}
	}
}

// flagError says in our words what is wrong with the value of a flag.
func flagError(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	problem := map[string]string{"int": "it is no whole number", "float64": "it is no number", "bool": "it is neither true nor false"}[invalid.GetFlag().Value.Type()]
	switch {
	case errors.Is(err, strconv.ErrRange):
		problem = "it is out of range"
	case problem == "":
		return err
	}
	return fmt.Errorf("invalid --%s %q: %s", invalid.GetFlag().Name, invalid.GetValue(), problem)
}

const (
	groupSchedule = "schedule"
	groupRefresh  = "refresh"
	groupLook     = "look"
	groupInstall  = "install"
)
