package main

import (
	"github.com/spf13/cobra"

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
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.began = true
			return cmd.Help()
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	flags := root.PersistentFlags()
	flags.StringVarP(&a.databaseURL, "database-url", "d", "", "the database: postgres://… or key=value pairs")
	flags.StringVarP(&a.format, "output", "o", string(report.Table), "output format: table or json; for rows also jsonl, csv or markdown")
	completeWith(root, "output", string(report.Table), string(report.JSON), string(report.JSONLines), string(report.CSV), string(report.Markdown))
	flags.StringVar(&a.color, "color", colorAuto, "colours in tables: auto, always or never (auto: on a terminal, and NO_COLOR is not set)")
	completeWith(root, "color", colorAuto, colorAlways, colorNever)
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "print nothing unless something failed")
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
	return root
}

const (
	groupSchedule = "schedule"
	groupRefresh  = "refresh"
	groupLook     = "look"
	groupInstall  = "install"
)
