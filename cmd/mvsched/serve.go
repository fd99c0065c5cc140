package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

type serveOptions struct {
	jobs           int
	queues         []refresh.Queue // nil: all, with jobs together
	grace          time.Duration
	allowSuperuser bool
	notices        notices
	listen         *listenOptions // nil: no status page
}

// defaultGrace is how long what runs may go on when serve is told to stop.
const defaultGrace = 30 * time.Second

func newServeCmd(a *app) *cobra.Command {
	var opts serveOptions
	var queues, grace string
	var listen listenFlags
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Refresh what is due, for ever",
		GroupID: groupRefresh,
		Long: `Refreshes views when they are due, until it is stopped. Any number may run, on as many machines as you like: none leads,
and what one leaves undone, another takes over within seconds.

It sleeps until something is due. What changes in the schedules wakes it at once, or, behind a transaction pooler,
within 2 seconds. It outlives restarts and failovers of the database (name all hosts, and target_session_attrs=read-write).

--listen 127.0.0.1:8080 adds a status page that keeps itself up to date, /metrics for Prometheus, /healthz, /readyz,
/badge.svg, /api/status and /api/history. Without a host it is 127.0.0.1. Where other machines can reach it, it demands
--token-file, a file with a secret that only its owner may read, or --insecure.

--queue default=4,heavy=1 gives each queue its own places, so that slow views never hold up quick ones.

The first Ctrl-C (or SIGTERM) lets what is running go on for --grace, then cancels and records it; the second leaves at
once. Under systemd (Type=notify) it tells when it is ready, and feeds the watchdog.

With --notify-url it tells when a view is late, failing, suspended or in other trouble, and when it is well again: once a
change, and once a day while nothing changes, whichever of several servers it is. With --ping-url it tells every minute
that nothing is critical, for a service that notices when it does not hear so. What is a secret has a variable too:
MVSCHED_NOTIFY_URL (several with spaces between them), MVSCHED_NOTIFY_SECRET, MVSCHED_PING_URL.`,
		Example: `  mvsched serve -j 4
  mvsched serve --queue default=4,heavy=1 --grace 5m
  mvsched serve --listen :8080
  mvsched serve --listen 0.0.0.0:8080 --token-file /etc/mvsched/token
  MVSCHED_NOTIFY_URL=https://hooks.example/T0/secret mvsched serve --notify-format slack`,
		Args: noArguments,
	}
	notify := addNotifyFlags(cmd)
	cmd.RunE = a.command(cmd, func(ctx context.Context, _ []string) (err error) {
		if err := checkJobs(opts.jobs); err != nil {
			return err
		}
		if cmd.Flags().Changed("queue") {
			if cmd.Flags().Changed("jobs") {
				return &usageError{problem: "--jobs and --queue exclude each other", hint: "give each queue its number: --queue default=4,heavy=1"}
			}
			if opts.queues, err = parseQueues(queues); err != nil {
				return err
			}
		}
		opts.grace = defaultGrace
		if cmd.Flags().Changed("grace") && grace != "0" {
			given, err := durationFlag(true, "grace", grace, schedule.Day)
			if err != nil {
				return err
			}
			opts.grace = *given
		} else if grace == "0" {
			opts.grace = 0
		}
		if opts.notices, err = notify.read(a.getenv); err != nil {
			return err
		}
		if opts.listen, err = listen.parse(cmd); err != nil {
			return err
		}
		return runServe(ctx, a, opts)
	})
	jobsFlag(cmd, &opts.jobs)
	cmd.Flags().StringVar(&queues, "queue", "", "serve only these queues, each with its number of refreshes at a time: default=4,heavy=1")
	a.completeQueues(cmd)
	cmd.Flags().StringVar(&grace, "grace", "", "when stopped, let what is running go on for so long (default 30s)")
	listen.add(cmd)
	superuserFlag(cmd, &opts.allowSuperuser)
	return cmd
}

// parseQueues reads queues with their numbers of jobs: default=4,heavy=1. One without a number has one.
func parseQueues(text string) ([]refresh.Queue, error) {
	var queues []refresh.Queue
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		name, number, given := strings.Cut(strings.TrimSpace(part), "=")
		if err := checkQueue(name); err != nil {
			return nil, err
		}
		queue := refresh.Queue{Name: name, Jobs: 1}
		if given {
			var err error
			if queue.Jobs, err = strconv.Atoi(number); err != nil || checkJobs(queue.Jobs) != nil {
				return nil, &usageError{
					problem: fmt.Sprintf("--queue: %q is no number of refreshes between 1 and %d", number, maxJobs),
					hint:    "write for example default=4,heavy=1",
				}
			}
		}
		if seen[name] {
			return nil, &usageError{problem: fmt.Sprintf("--queue: %q is named twice", name)}
		}
		seen[name] = true
		queues = append(queues, queue)
	}
	return queues, nil
}

// beside is for what goes on beside the refreshes. A bug there (failed) ends the context: so the refreshes end as they do at a
// signal, and then the program as a bug in them ends it. Outcome is what it ended with.
func (a *app) beside(ctx context.Context) (_ context.Context, failed func(bug error), outcome func(error) error) {
	ctx, end := context.WithCancelCause(ctx)
	failed = func(bug error) {
		a.note("a bug in what goes on beside the refreshes; stopping")
		end(bug)
	}
	outcome = func(err error) error {
		bug := context.Cause(ctx)
		end(nil)
		if !errors.Is(bug, schedule.ErrBug) {
			return err
		}
		return errors.Join(bug, err)
	}
	return ctx, failed, outcome
}

func runServe(ctx context.Context, a *app, opts serveOptions) (err error) {
	jobs := opts.jobs
	var names []string
	if opts.queues != nil {
		jobs = len(opts.queues)
		for _, queue := range opts.queues {
			jobs += queue.Jobs
			names = append(names, queue.Name)
		}
	}
	page, err := opts.listen.open(ctx, a)
	if err != nil {
		return err
	}
	if page != nil {
		defer func() { _ = page.Close() }() // it may be closed already

		jobs++ // for who looks: the refreshes are not to wait for them
	}
	pool, store, err := a.connect(ctx, jobs+opts.notices.connections())
	if err == nil {
		defer closePool(pool)
		err = a.checkSuperuser(ctx, store, nil, opts.allowSuperuser)
	}
	if err == nil {
		err = a.noteQueues(ctx, store, names)
	}
	switch {
	case ctx.Err() != nil:
		return nil // told to stop before it could begin
	case err != nil:
		return err
	}
	a.grace.Store(int64(opts.grace))

	ctx, failed, outcome := a.beside(ctx)
	defer func() { err = outcome(err) }()

	service := newService(a.getenv)
	defer context.AfterFunc(ctx, func() {
		a.say("stopping; what is running may go on for %s, and a second Ctrl-C leaves at once", schedule.FormatDuration(opts.grace))
	})()
	defer context.AfterFunc(ctx, service.stopping)()
	ended, silence := opts.notices.begin(ctx, store, a.logger(), failed)
	defer silence()
	var mu sync.Mutex
	worker := &refresh.Worker{
		Pool: pool, Store: store, Jobs: opts.jobs, Name: workerName(), Log: a.logger(),
		Ended: func(e schedule.Execution) {
			ended(e)
			mu.Lock()
			defer mu.Unlock()
			if e.Status.Bad() || a.verbose {
				a.printRefresh(e)
			}
		},
	}
	serving := refresh.Serving{
		Queues: opts.queues, Grace: opts.grace, Pulse: service.pulse(), Alive: service.alive,
		Ready: func() {
			a.say("ready, refreshes what is due; Ctrl-C stops it")
			service.ready()
		},
	}
	if page != nil {
		serving.Told = page.Told
		defer servePage(ctx, a, page, store, pool.Config().ConnConfig.Database, failed)()
	}
	return worker.Serve(ctx, serving)
}
