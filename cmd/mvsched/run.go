package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

type runOptions struct {
	jobs           int
	limit          int
	queues         []string
	dryRun         bool
	allowSuperuser bool
}

func newRunCmd(a *app) *cobra.Command {
	var opts runOptions
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Refresh everything that is due, then exit",
		GroupID: groupRefresh,
		Long: `Refreshes everything that is due, -j at a time, each view once, and exits: for cron, and for trying things out.
Any number may run at the same time. Runs whose worker has died are found and taken over.

The first Ctrl-C (or SIGTERM) cancels what is running, records that, and exits with 5; the second leaves at once.`,
		Example: `  * * * * *  mvsched run -q -j 4`,
		Args:    noArguments,
	}
	cmd.RunE = a.listCommand(cmd, func(ctx context.Context, _ []string) error {
		if err := checkJobs(opts.jobs); err != nil {
			return err
		}
		if opts.limit < 0 {
			return &usageError{problem: fmt.Sprintf("--limit: %d is negative", opts.limit)}
		}
		for _, queue := range opts.queues {
			if err := checkQueue(queue); err != nil {
				return err
			}
		}
		return runRun(ctx, a, opts)
	})
	jobsFlag(cmd, &opts.jobs)
	cmd.Flags().StringSliceVar(&opts.queues, "queue", nil, "refresh only views of these queues; all without")
	a.completeQueues(cmd)
	cmd.Flags().IntVar(&opts.limit, "limit", 0, "refresh at most so many views; 0 for all")
	cmd.Flags().BoolVar(&opts.dryRun, "dry-run", false, "only show what is due")
	superuserFlag(cmd, &opts.allowSuperuser)
	return cmd
}

func superuserFlag(cmd *cobra.Command, allow *bool) {
	cmd.Flags().BoolVar(allow, "allow-superuser", false,
		"go on as superuser although this server's REFRESH is known to let a view's owner take over")
}

func runRun(ctx context.Context, a *app, opts runOptions) error {
	pool, store, err := a.connect(ctx, opts.jobs)
	if err != nil {
		return err
	}
	defer closePool(pool)
	if err := a.noteQueues(ctx, store, opts.queues); err != nil {
		return err
	}
	if opts.dryRun {
		due, err := store.Due(ctx, opts.queues, opts.limit)
		if err != nil {
			return err
		}
		return a.print(func(p report.Printer) error { return p.Due(due) })
	}
	if err := a.checkSuperuser(ctx, store, nil, opts.allowSuperuser); err != nil {
		return err
	}
	return a.work(pool, store, opts.jobs, func(w *refresh.Worker) ([]schedule.Execution, error) {
		w.Limit, w.Queues = opts.limit, opts.queues
		return w.RunDue(ctx)
	})
}

// work runs a worker and shows what it does and has done.
func (a *app) work(pool *pgxpool.Pool, store *schedule.Store, jobs int,
	do func(*refresh.Worker) ([]schedule.Execution, error),
) error {
	worker := &refresh.Worker{Pool: pool, Store: store, Jobs: jobs, Name: workerName(), Log: a.logger()}
	stop := func() {}
	if a.terminal != nil && !a.quiet {
		live := report.NewLive(a.terminal, func() (columns, lines int) { return size(a.terminal) })
		a.stderr = report.NewCleanWriter(live) // for good: whoever has something to say need not know whether there are lines
		worker.Started, worker.Ended, worker.Progressed, worker.Usual = live.Started, live.Ended, live.Progressed, true
		stop = live.Stop
	}
	executions, err := do(worker)
	stop()

	failed := 0
	for _, e := range executions {
		if e.Status.Bad() {
			failed++
		}
	}
	var printed error
	if !a.quiet {
		printed = a.print(func(p report.Printer) error { return p.Run(executions) })
	}
	for _, e := range executions {
		if e.Status.Bad() || e.Status == schedule.Skipped && !a.quiet {
			a.printRefresh(e)
		}
	}
	if err == nil && failed > 0 { // whatever else went wrong weighs more
		err = &refreshesError{failed}
	}
	return errors.Join(err, printed)
}

// printRefresh tells in full what a table can only hint at.
func (a *app) printRefresh(e schedule.Execution) {
	problem := fmt.Sprintf("%s %s", e.View, e.Status)
	if e.Reason != nil {
		problem += " (" + *e.Reason + ")"
	}
	if e.ErrorMessage != nil {
		problem += ": " + *e.ErrorMessage
	}
	hint := refresh.Hint(e)
	if e.Status.Bad() {
		a.printError(problem, hint)
		a.annotate(report.AnnotateError, "mvsched: "+e.View, problem, hint)
	} else {
		a.note("%s", problem)
	}
}

// checkSuperuser warns a superuser who is about to run other roles' queries, and refuses where the server is known to
// let those roles take over.
func (a *app) checkSuperuser(ctx context.Context, store *schedule.Store, views []schedule.ViewName, allow bool) error {
	superuser, err := store.CheckSuperuser(ctx, views)
	if err != nil || superuser == nil {
		return err
	}
	if superuser.Vulnerable != "" && !allow {
		return &usageError{
			problem: fmt.Sprintf("this server's REFRESH lets a view's owner act as the superuser (%s)", superuser.Vulnerable),
			hint:    "update PostgreSQL's minor version, or connect as the views' owner; --allow-superuser goes on all the same",
		}
	}
	if superuser.ForeignViews > 0 {
		a.note("connected as superuser, which runs other roles' queries with too many rights (views of theirs: %d); "+
			"connect as their owner instead", superuser.ForeignViews)
	}
	return nil
}

// workerName is for people who look at the history: which process it was.
func workerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s:%d", host, os.Getpid())
}
