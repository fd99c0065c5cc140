package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// The exit codes of check, which are those of every monitoring plugin.
const (
	checkOK       = 0
	checkWarning  = 1
	checkCritical = 2
	checkUnknown  = 3
)

const checkName = "check"

// checkPatience is shorter than the ten seconds after which monitoring gives a plugin up without having heard why.
const checkPatience = 8 * time.Second

type checkOptions struct {
	views       []schedule.ViewName
	maxLag      *time.Duration
	unscheduled bool
}

func newCheckCmd(a *app) *cobra.Command {
	var opts checkOptions
	var maxLag string
	cmd := &cobra.Command{
		Use:     checkName + " [VIEW...]",
		Short:   "Say in one line whether all is well, for Nagios and the like",
		GroupID: groupLook,
		Long: `Says in one line how the scheduled views stand, in the form of a monitoring plugin: a word, which views are in trouble,
and after a bar the numbers. The exit code goes with the word:

  0  OK
  1  WARNING   never refreshed, or a lock was not to be had
  2  CRITICAL  missing, suspended, failing, late, or older than --max-lag
  3  UNKNOWN   no database, no schema mvsched, wrong use

A failing view is a WARNING while its data is younger than its --max-lag. Views that a person has paused are well.`,
		Example: `  mvsched check --max-lag 1h --unscheduled`,

		ValidArgsFunction: a.completeViews,
	}
	cmd.RunE = a.commandIn(cmd, []report.Format{report.Text}, func(ctx context.Context, args []string) (err error) {
		if opts.views, err = parseViews(args); err != nil {
			return err
		}
		if opts.maxLag, err = durationFlag(cmd.Flags().Changed("max-lag"), "max-lag", maxLag, schedule.MaxDuration); err != nil {
			return err
		}
		if opts.unscheduled && len(opts.views) > 0 {
			return &usageError{problem: "name the views, or say --unscheduled", hint: "one of the two"}
		}
		return runCheck(ctx, a, opts)
	})
	cmd.Flags().StringVar(&maxLag, "max-lag", "", "how old the data of every view may be, in place of each schedule's own target")
	cmd.Flags().BoolVar(&opts.unscheduled, "unscheduled", false, "also a WARNING: materialized views without a schedule")
	return cmd
}

func runCheck(ctx context.Context, a *app, opts checkOptions) error {
	a.monitors = true
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	standings, err := store.Status(ctx, opts.views)
	if err != nil {
		return err
	}
	summary := schedule.Summarize(standings, opts.maxLag)
	if opts.unscheduled {
		views, err := store.Unscheduled(ctx)
		if err != nil {
			return err
		}
		summary.AddUnscheduled(views)
	}
	code := map[schedule.Health]int{schedule.Healthy: checkOK, schedule.Warning: checkWarning, schedule.Critical: checkCritical}[summary.Health]
	var printed error
	if !a.quiet || code != checkOK {
		printed = a.print(func(p report.Printer) error { return p.Check(summary) })
	}
	switch code {
	case checkOK:
		return printed
	case checkWarning:
		a.annotate(report.AnnotateWarning, "mvsched check", report.CheckLine(summary), "")
	default:
		a.annotate(report.AnnotateError, "mvsched check", report.CheckLine(summary), "")
	}
	return errors.Join(&checkError{code}, printed)
}

// checkError says that not all is well, which has been printed already.
type checkError struct{ code int }

func (e *checkError) Error() string { return fmt.Sprintf("the check ended with %d", e.code) }

// unknown is how check ends where it cannot tell: monitoring reads stdout, a person also the hint. Without a stdout all of it
// is for stderr.
func (a *app) unknown(problem, hint string) int {
	if err := a.write(fmt.Sprintf("%s UNKNOWN - %s\n", report.CheckName, report.CheckText(problem))); err != nil {
		a.printError(problem, hint)
	} else if hint != "" {
		_, _ = fmt.Fprintf(a.stderr, "hint: %s\n", report.OneLine(hint))
	}
	a.annotate(report.AnnotateError, "mvsched check", problem, hint)
	return checkUnknown
}
