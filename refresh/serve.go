package refresh

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/schedule"
)

// How often the order of views is worked out anew from what their refreshes took.
const arrangeInterval = 10 * time.Minute

// How long a server waits before it asks again for a database that it has lost: at first, and at most, within a quarter.
const (
	reconnectPause    = 100 * time.Millisecond
	reconnectMaxPause = time.Second
)

// Queue is a queue with the number of refreshes that a server has for it at a time.
type Queue struct {
	Name string
	Jobs int
}

// Serving says how Serve is to work.
type Serving struct {
	Queues []Queue       // nil: all queues, with the worker's Jobs together
	Grace  time.Duration // how long refreshes may go on when the context has ended, before they are cancelled

	// Ready, when given, is called once, when the schedules have been looked at. Alive, when given, is called every Pulse
	// as long as every part of the server takes its turns.
	Ready func()
	Alive func()
	Pulse time.Duration

	// Told, when given, is called when the database tells that a schedule was written or that an execution has ended, and
	// when it begins to be heard, or ceases to be (hears is false). It must not wait.
	Told func(hears bool, ended *schedule.End)
}

// Serve refreshes views when they are due, until ctx ends: then it claims no more, lets what runs go on for the grace,
// has the server cancel the rest, records that, and returns nil. Any number of servers may be at it; none leads.
//
// It sleeps until the next slot, and is woken by notifications where its connections can listen. It survives the
// database: while that is away, or takes no writes, it asks again. It returns an error where that is of no use: schema
// mvsched or a right is missing.
//
// Its pool has to have room for each queue as for a worker of its own, and one connection more to listen on.
func (w *Worker) Serve(ctx context.Context, opts Serving) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	work, cancel := afterGrace(ctx, opts.Grace)
	defer cancel()

	log := cmp.Or(w.Log, slog.New(slog.DiscardHandler))
	ear := &listener{config: w.Pool.Config().ConnConfig, log: log, told: opts.Told}
	database := &database{log: log, ready: opts.Ready}
	var servers []*server
	for _, worker := range w.divided(opts.Queues) {
		views := &servedViews{worker: worker, ear: ear, database: database}
		r := worker.newRun(work, views)
		r.endless = true
		defer r.close()
		ear.tell = append(ear.tell, r)
		servers = append(servers, &server{run: r, database: database})
	}

	// What is running has its grace, and the pulse goes on until it is over.
	beating, rest := context.WithCancel(work)
	defer rest()

	var mu sync.Mutex
	var failed error
	guard := func(do func() error) {
		if err := schedule.Guarded(do); err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed = cmp.Or(failed, err)
			stop(err) // the others end with it
		}
	}
	var beats, running sync.WaitGroup
	beats.Go(func() { guard(func() error { pulse(beating, opts, ear.tell); return nil }) })
	running.Go(func() { guard(func() error { ear.listen(ctx); return nil }) })
	for _, s := range servers {
		running.Go(func() { guard(func() error { return s.serve(ctx) }) })
	}
	running.Wait()
	rest()
	beats.Wait()
	return failed
}

// divided returns a worker for each queue.
func (w *Worker) divided(queues []Queue) []*Worker {
	if len(queues) == 0 {
		all := *w
		return []*Worker{&all}
	}
	var workers []*Worker
	for _, queue := range queues {
		worker := *w
		worker.Jobs, worker.Queues = queue.Jobs, []string{queue.Name}
		workers = append(workers, &worker)
	}
	return workers
}

// afterGrace returns a context that ends so long after ctx.
func afterGrace(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		pause(work, grace)
		cancel(context.Cause(ctx))
	})
	return work, func() {
		stop()
		cancel(nil)
	}
}

// server is one control loop of a server, for one of its queues or for all.
type server struct {
	run      *run
	database *database
}

func (s *server) serve(ctx context.Context) error {
	wait := reconnectPause
	for ctx.Err() == nil {
		began := time.Now()
		err := s.run.control(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil && isLasting(err) {
			return errors.Join(err, s.run.janitor.finish(s.run.work)) //nolint:contextcheck // what is being vacuumed may end
		}
		if err != nil {
			s.database.isLost(err)
			s.run.Pool.Reset() // what is there may be the old primary
		}
		if time.Since(began) > 2*reconnectMaxPause {
			wait = reconnectPause
		}
		pause(ctx, wait/2+rand.N(wait)) //nolint:gosec // jitter
		wait = min(2*wait, reconnectMaxPause)
	}
	return s.run.janitor.finish(ctx)
}

// isLasting reports whether an error of mvsched's own statements stays until a person does something about it.
func isLasting(err error) bool {
	if errors.Is(err, ErrBug) || errors.Is(err, schedule.ErrNoSchema) {
		return true
	}
	var connect *pgconn.ConnectError
	var pgErr *pgconn.PgError
	if errors.As(err, &connect) || !errors.As(err, &pgErr) {
		return false
	}
	return pgerrcode.IsSyntaxErrororAccessRuleViolation(pgErr.Code) || pgErr.Code == pgerrcode.InvalidSchemaName
}

// database is what a server knows of it: it tells once that it has lost it, and once that it is back.
type database struct {
	log   *slog.Logger
	ready func()

	mu   sync.Mutex
	lost bool
}

func (d *database) isLost(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost {
		d.log.Debug("the database is still not to be had", "error", err)
		return
	}
	d.lost = true
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == pgerrcode.ReadOnlySQLTransaction {
		d.log.Warn("the server takes no writes; waits until it does")
		return
	}
	d.log.Warn("lost the database, and asks for it again", "because", err)
}

func (d *database) isThere() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ready != nil {
		d.ready()
		d.ready = nil
	}
	if d.lost {
		d.log.Warn("the database is back")
		d.lost = false
	}
}

// stuckAfter is how long a control loop may be late for a turn: each of its calls has a deadline, and there are a few. Less in a test.
var stuckAfter = 2 * time.Minute

// pulse says at every pulse that the server is alive, as long as all its control loops take their turns.
func pulse(ctx context.Context, opts Serving, runs []*run) {
	if opts.Alive == nil || opts.Pulse <= 0 {
		return
	}
	ticker := time.NewTicker(opts.Pulse)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		alive := true
		for _, r := range runs {
			alive = alive && time.Now().Before(r.expected.load())
		}
		if alive {
			opts.Alive()
		}
	}
}
