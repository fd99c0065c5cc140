package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func newDoctorCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "Look for what is wrong or risky, and say how to put it right",
		GroupID: groupLook,
		Long: `Looks for what is wrong or risky with the scheduled views, the role and the server, one line each:

  error    refreshes fail
  warning  they work, but not as they should
  advice   it could be better

FIX is SQL or a command of mvsched, to be pasted; where there is none, the message says what to do. Nothing is changed.
Several checks go by the server's statistics: ANALYZE the views first, and connect as a role that may read them.

The exit code is 1 when there is an error or a warning.`,
		Args: noArguments,
	}
	cmd.RunE = a.listCommand(func(ctx context.Context, _ []string) error { return runDoctor(ctx, a) })
	return cmd
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
