package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

type doctorOptions struct {
	measure        *schedule.ViewName // nil: look at all, measure nothing
	timeout        time.Duration
	allowSuperuser bool
}

// defaultMeasuring bounds what doctor --measure does.
const defaultMeasuring = 10 * time.Minute

func newDoctorCmd(a *app) *cobra.Command {
	opts := doctorOptions{timeout: defaultMeasuring}
	var view, timeout string
	cmd := &cobra.Command{
		Use:     "doctor [--measure VIEW [--timeout D]]",
		Short:   "Look for what is wrong or risky, and say how to put it right",
		GroupID: groupLook,
		Long: `Looks for what is wrong or risky with the scheduled views, the role and the server, one line each:

  error    refreshes fail
  warning  they work, but not as they should
  advice   it could be better

FIX is SQL or a command of mvsched, to be pasted; where there is none, the message says what to do. Nothing is changed.
Several checks go by the server's statistics: ANALYZE the views first, and connect as a role that may read them.

The exit code is 1 when there is an error or a warning.

--measure VIEW refreshes a copy of that view in several ways instead, and says what each takes: plain, concurrently,
without the check for duplicates, with more work_mem. The copy is made in a transaction that is rolled back: it is seen by
nobody, and nothing remains of it. It takes the view's owner or a member of that role.`,
		Example: `  mvsched doctor
  mvsched doctor --measure cinema.sales_view --timeout 5m`,
		Args: noArguments,
	}
	cmd.RunE = a.listCommand(cmd, func(ctx context.Context, _ []string) (err error) {
		given := cmd.Flags().Changed
		if !given("measure") {
			if given("timeout") || given("allow-superuser") {
				return &usageError{problem: "--timeout and --allow-superuser are for --measure", hint: "name a view with --measure VIEW"}
			}
			return runDoctor(ctx, a)
		}
		measured, err := schedule.ParseViewName(view)
		if err != nil {
			return err
		}
		opts.measure = &measured
		limit, err := durationFlag(given("timeout"), "timeout", timeout, schedule.MaxTimeout)
		if err != nil {
			return err
		}
		if limit != nil {
			opts.timeout = *limit
		}
		return runMeasure(ctx, a, opts)
	})
	cmd.Flags().StringVar(&view, "measure", "", "measure what other ways to refresh this view would take, on a copy that is thrown away")
	cmd.Flags().StringVar(&timeout, "timeout", "", "with --measure: stop after this time, and print what is known by then (default 10m)")
	superuserFlag(cmd, &opts.allowSuperuser)
	register(cmd, "measure", a.completeBy(completeViewsSQL))
	return cmd
}

func runMeasure(ctx context.Context, a *app, opts doctorOptions) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := a.checkSuperuser(ctx, store, []schedule.ViewName{*opts.measure}, opts.allowSuperuser); err != nil {
		return err
	}
	measured, err := store.Measure(ctx, *opts.measure, opts.timeout, func(v schedule.MeasuredView) {
		a.talk("measuring %s (%s with its indexes) in %d ways, on copies that are rolled back. For %s at the most, that takes up to three times "+
			"its space, and as much WAL for each run; a plain refresh of the view waits, and VACUUM cannot clean up what dies meanwhile",
			v.View, report.ByteSize(v.Bytes), v.Ways, schedule.FormatDuration(opts.timeout))
	})
	if errors.Is(err, schedule.ErrNotMeasured) {
		return &usageError{
			problem: fmt.Sprintf("in %s no refresh of a copy of %s came to its end", schedule.FormatDuration(opts.timeout), opts.measure),
			hint:    "give it more time with --timeout",
		}
	}
	if err != nil {
		return err
	}
	if err := a.print(func(p report.Printer) error { return p.Measurements(measured) }); err != nil {
		return err
	}
	failed := 0
	for _, m := range measured {
		if m.Problem != "" {
			failed++
		}
	}
	if failed > 0 {
		return &findingsError{count: failed}
	}
	return nil
}

func runDoctor(ctx context.Context, a *app) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	findings, err := store.Doctor(ctx)
	if err != nil {
		return err
	}
	if len(findings) == 0 {
		a.say("nothing is wrong")
	}
	if err := a.print(func(p report.Printer) error { return p.Findings(findings) }); err != nil {
		return err
	}
	advice := func(f schedule.Finding) bool { return f.Severity == schedule.SeverityAdvice }
	findings = slices.DeleteFunc(findings, advice)
	if len(findings) > 0 {
		return &findingsError{count: len(findings)}
	}
	return nil
}

// findingsError says that doctor has found errors or warnings, which have been printed already.
type findingsError struct{ count int }

func (e *findingsError) Error() string { return fmt.Sprintf("%d things are wrong", e.count) }
