package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

var errLookedWell = errors.New("the last look was well")

// A theme is what an episode is about.
type theme struct {
	name      string
	kinds     []*kind
	injectors int           // how many faults wait for their phase at a time
	calm      time.Duration // between two faults of an injector
	lone      bool          // one fault, then recovery, then the next: to measure it
	needs     need
	sampled   bool // the tests have one of it: most kinds in one episode, since its beginning and its end take longest

	views []view        // beside the usual ones
	alone bool          // without those
	slots time.Duration // how far apart those of its views are; 0: a second

	// Of the soak: what it has instead of the others' workers.
	staff   [][]string
	prepare []string // statements
}

// interval is how far apart the slots of the theme's views are.
func (t *theme) interval() time.Duration { return cmp.Or(t.slots, time.Second) }

func themes() []*theme {
	network, process, backend, server, database := networkFaults(), processFaults(), backendFaults(), serverFaults(), databaseFaults()
	others := database[:len(database)-2] // those that keep everybody from connecting would leave the rest nothing to hit
	planner := slices.DeleteFunc(slices.Clone(database), func(k *kind) bool { return k.name != statisticsFault && k.name != plansFault })
	clock := slices.Concat(clockFaults(), clockFaults(), process[:1], backend[:1])
	return []*theme{
		{name: "network", kinds: network, injectors: 24},
		{name: "process", kinds: process, injectors: 6},
		{name: "backend", kinds: backend, injectors: 20},
		{name: "server", kinds: server, injectors: 1, calm: time.Second},
		{name: "database", kinds: database, injectors: 8},
		{name: "mixed", kinds: slices.Concat(network, process, backend, others), injectors: 24, views: theTargets(), sampled: true},
		{name: "everything", kinds: slices.Concat(network, process, backend, others, server), injectors: 12},
		{name: "backend", kinds: backend, injectors: 20},
		{name: "network", kinds: network, injectors: 24},
		{name: "kinds", kinds: slices.Concat(network, process, backend, others), injectors: 24, views: theTargets(), alone: true},
		{name: "kinds", kinds: slices.Concat(network, process, backend, others, server), injectors: 12, views: theTargets(), alone: true},
		{name: "pooler", kinds: slices.Concat(poolerFaults(), network, process, others), injectors: 8, calm: 200 * time.Millisecond, needs: aPooler},
		{name: "clock", kinds: clock, injectors: 6, calm: 50 * time.Millisecond, needs: clocks},
		{name: "storage", kinds: storageFaults(), injectors: 1, lone: true, needs: disks},
		{name: "standby", kinds: standbyFaults(), injectors: 1, lone: true, needs: aStandby},
		{name: "loss", kinds: lossFaults(), injectors: 1, lone: true, needs: networks},
		{
			name: soakTheme, kinds: soakKinds(network, process, backend, server, others), injectors: 2, calm: time.Second, needs: endurance,
			views: soakViews(), alone: true, slots: 10 * time.Second, staff: soakStaff, prepare: soakHistory,
		},
		{name: "recovery", kinds: slices.Concat(network, process, backend, server), injectors: 1, lone: true},
		{name: "planner", kinds: slices.Concat(planner, planner, planner, process[:1]), injectors: 2, calm: time.Second},
	}
}

// episode is a database, its workers, a storm of faults, and a quiet end.
type episode struct {
	index int
	seed  uint64
	theme *theme
	site
	say      func(string)
	database string
	views    []view
	workers  []*worker
	armory   *armory
	admin    *pgxpool.Pool
	ctx      context.Context         // of the storm
	lose     context.CancelCauseFunc // ends the episode: what it runs on is gone

	serverLock sync.RWMutex // held by a fault of the whole server
	viewLocks  sync.Map     // by name, a *sync.Mutex: held by a fault that takes a view away and brings it back

	mu         sync.Mutex
	calls      []func() // what is to be undone at the end of the storm
	violations []string
	landings   []landing
	drawn      int
	exits      map[string]int
	stops      []time.Duration
	serverBack time.Time
	lost       []window
	trouble    string // of the last fault of the whole server that did not succeed
	recoveries map[string][]time.Duration
	quiet      time.Duration
	readings   [][]reading
	claims     int
	successes  int
	reads      atomic.Int64     // of what is never to be torn
	results    map[int64]string // of executions
	targets    map[int64]string // what each of them was of

	logNeedNotHave bool // any refreshes: in a test of the oracle
}

func (e *episode) violate(invariant, format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.violations = append(e.violations, invariant+": "+fmt.Sprintf(format, args...))
}

// now is what the server's clock shows.
func (e *episode) now() time.Time { return e.clock.now() }

func (e *episode) countExit(command string, code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.exits[fmt.Sprintf("%s %d", command, code)]++
}

func (e *episode) noteStop(took time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stops = append(e.stops, took)
}

func (e *episode) noteServerBack() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.serverBack = e.now()
}

// window is a time whose commits may be lost: the ledger does not tell how what it began has ended.
type window struct{ from, to time.Time }

// noteLag notes that a standby has stopped following.
func (e *episode) noteLag() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost = append(e.lost, window{from: e.now()})
}

// lostSince notes when the last commit was that the standby has got.
func (e *episode) lostSince(last time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w := &e.lost[len(e.lost)-1]; last.Before(w.from) {
		w.from = last
	}
}

// noteLost notes that it has taken over.
func (e *episode) noteLost() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost[len(e.lost)-1].to = e.now()
}

func (e *episode) worker(i int) *worker { return e.workers[i%len(e.workers)] }

// pause waits, unless the storm is over.
func (e *episode) pause(d time.Duration) {
	select {
	case <-e.ctx.Done():
	case <-time.After(d):
	}
}

// laterOrAtTheEnd does something after a while, and again when the storm is over.
func (e *episode) laterOrAtTheEnd(d time.Duration, do func()) {
	time.AfterFunc(d, do)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, do)
}

// insist does what has to be done for the episode to go on as it was.
func (e *episode) insist(do func() error) error {
	var err error
	for range 50 {
		if err = do(); err == nil {
			return nil
		}
		if e.ctx.Err() != nil {
			break // the end of the storm mends everything
		}
		e.pause(50 * time.Millisecond)
	}
	return err
}

// ask asks the server for one value, as superuser.
func (e *episode) ask(sql string, args []any, to ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return e.admin.QueryRow(ctx, sql, args...).Scan(to...)
}

// lookAt says what a backend does just now.
func (e *episode) lookAt(pid uint32) phase {
	var query, state string
	if e.ask(`select coalesce(query, ''), coalesce(state, '') from pg_catalog.pg_stat_activity where pid = $1`,
		[]any{int32(pid)}, &query, &state) != nil {
		return "refreshing: not seen"
	}
	switch {
	case strings.HasPrefix(state, "idle"):
		return "refreshing: just over"
	case strings.HasPrefix(query, "refresh"):
		return "refreshing: REFRESH"
	case strings.Contains(query, "mvsched.merge("):
		return "refreshing: MERGE"
	case strings.Contains(query, "mvsched.materialize_batch("):
		return "refreshing: batch"
	case strings.Contains(query, "mvsched.settle") || strings.Contains(query, "synchronous_commit"):
		return "refreshing: settle"
	case strings.Contains(query, "begin"):
		return "refreshing: lock and limits"
	case strings.Contains(query, "refresh_succeeded"):
		return "refreshing: record"
	case query == "commit":
		return "refreshing: commit"
	}
	return "refreshing: between"
}

// awaitSuccess waits until others see that the execution that a link refreshes for has succeeded; not for long.
func (e *episode) awaitSuccess(l *link) bool {
	id, began := l.execution.Load(), time.Now()
	for id != 0 && time.Since(began) < time.Second {
		var status string
		err := e.ask(`select status from mvsched.materialized_view_refresh_schedule_execution where id = $1`, []any{id}, &status)
		switch {
		case err == nil && status != "running":
			return status == "succeeded"
		case err != nil:
			return false
		}
		l.hold(5 * time.Millisecond)
	}
	return false
}

// run is the whole episode; the error is the harness's own.
func (e *episode) run(ctx context.Context, storm time.Duration) error {
	rng := rand.New(rand.NewPCG(e.seed, uint64(e.index)))
	e.views, e.armory = slices.Concat(theViews(), e.theme.views), newArmory()
	if e.theme.alone {
		e.views = e.theme.views
	}
	e.exits, e.recoveries, e.results = map[string]int{}, map[string][]time.Duration{}, map[int64]string{}
	e.targets = map[int64]string{}
	ctx, e.lose = context.WithCancelCause(ctx)
	defer e.lose(nil)
	stormy, calm := context.WithCancel(ctx)
	defer calm()
	e.ctx = stormy
	if err := os.Truncate(e.server.LogFile(), 0); err != nil {
		return err
	}
	if err := e.open(ctx); err != nil {
		return err
	}
	defer e.admin.Close()

	keeping, stop := context.WithCancel(ctx)
	defer stop()
	var processes sync.WaitGroup
	if err := e.hire(); err != nil {
		return err
	}
	for _, w := range e.workers {
		processes.Go(func() { w.keep(keeping) })
	}
	watching, unwatch := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { e.sample(watching) })
	watch.Go(func() { e.watchSite(watching, absence) })
	watch.Go(func() { e.read(watching) })
	if e.theme.needs == endurance {
		watch.Go(func() { e.watchSoak(stormy, storm) })
	}

	err := e.awaitRefreshes(ctx, e.now(), 2*time.Minute, true)
	var writing sync.WaitGroup
	if err == nil {
		if len(e.targetNames(kindColumns)) > 0 {
			writing.Go(func() { e.write(stormy) })
		}
		e.storm(rng, storm)
	}
	calm()
	writing.Wait()
	began := e.now()
	err = orElse(err, func() error { return e.mend(ctx) })
	if err == nil {
		if late := e.awaitRefreshes(ctx, began, e.quietLimit(), true); late != nil {
			e.violate("L1", "after the storm: %v", late)
		}
		e.quiet = e.now().Sub(began)
	}
	for _, w := range e.workers {
		processes.Go(w.retire)
	}
	processes.Wait()
	if len(e.hosts) > 0 {
		err = orElse(err, func() error { return e.findStragglers(ctx) })
	}
	unwatch()
	watch.Wait()
	for _, w := range e.workers {
		w.proxy.close()
	}
	if lost := context.Cause(ctx); lost != nil {
		return lost
	}
	return orElse(err, func() error { return e.check(ctx) })
}

func orElse(err error, next func() error) error {
	if err != nil {
		return err
	}
	return next()
}

// storm lets the planned faults strike until the time is up.
func (e *episode) storm(rng *rand.Rand, d time.Duration) {
	faults := plan(rng, e.theme.kinds, 20000)
	over, cancel := context.WithTimeout(e.ctx, d)
	defer cancel()
	next := make(chan *fault)
	go func() {
		defer close(next)
		for _, f := range faults {
			f.episode = e
			select {
			case next <- f:
			case <-over.Done():
				return
			}
		}
	}()
	var injectors sync.WaitGroup
	for range e.theme.injectors {
		injectors.Go(func() {
			for f := range next {
				e.mu.Lock()
				e.drawn++
				e.mu.Unlock()
				landed, hit := f.inject(over)
				if hit {
					e.mu.Lock()
					e.landings = append(e.landings, landed)
					e.mu.Unlock()
					if e.theme.lone {
						e.measure(over, landed)
					}
				}
				if e.theme.calm > 0 {
					e.pause(e.theme.calm)
				}
			}
		})
	}
	injectors.Wait()
}

// mend takes back what faults have left that the storm's end came before.
func (e *episode) mend(ctx context.Context) error {
	e.mu.Lock()
	calls := e.calls
	e.mu.Unlock()
	for _, do := range calls {
		do()
	}
	for _, w := range e.workers {
		w.thaw()
		w.proxy.heal()
	}
	e.ctx = ctx
	e.awaitWrites(ctx)
	statements := []string{
		`alter role worker login`,
		`delete from mvsched.materialized_view_refresh_schedule where materialized_view_name like '%\_away'`,
	}
	for _, setting := range plannerSettings {
		statements = append(statements, fmt.Sprintf(`alter database %s reset %s`, e.database, setting))
	}
	for _, v := range e.views {
		statements = append(statements,
			fmt.Sprintf(`alter table if exists chaos.%[1]s_away rename to %[1]s`, v.name), // of views too
			fmt.Sprintf(`alter table chaos.%s owner to worker`, v.name))
		if v.unique {
			statements = append(statements, v.createIndex())
		}
		statements = append(statements, fmt.Sprintf(`do $$ begin
			if not exists (select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'chaos.%s') then
				%s;
			end if; end $$`, v.name, v.schedule()))
	}
	return execute(ctx, e.server, e.database, statements...)
}

// quietLimit is how long it may take after the storm until every healthy view has been refreshed: L1's 5 s; for those that
// were claimed and never begun, their grace, which doubles; the next slot, the refresh itself, a lock or a retry.
func (e *episode) quietLimit() time.Duration {
	var grace float64
	_ = e.ask(`select coalesce(max(extract(epoch from start_grace)), 3)::float8 from mvsched.materialized_view_refresh_schedule`, nil, &grace)
	return 9*time.Second + e.theme.interval() + time.Duration(grace*float64(time.Second))
}

// awaitRefreshes waits until every healthy view has a refresh that began after an instant, and every claim of before has
// ended. Of columns the backlog is to be empty, or, where that is asked for while the writer goes on, to have had a batch.
func (e *episode) awaitRefreshes(ctx context.Context, since time.Time, limit time.Duration, drained bool) error {
	var refreshed, empty []string
	for _, v := range e.views {
		switch {
		case !v.healthy:
		case v.kind == kindColumns && drained:
			empty = append(empty, "chaos."+v.name)
		default:
			refreshed = append(refreshed, "chaos."+v.name)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		var missing []string
		err := e.ask(`select coalesce(array_agg(v), '{}') from (
			select v from unnest($1::text[]) v where not exists (select from chaos.materialized m where m.view = v and m.began > $2)
			union all
			select v from unnest($3::text[]) v where chaos.backlog(v) > 0
			union all
			select format('%s (execution %s)', view_name, id) from mvsched.materialized_view_refresh_schedule_execution
			where status = 'running' and started_at < $2) missing (v)`, []any{refreshed, since, empty}, &missing)
		if err == nil && len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not refreshed within %s: %s (%w)", limit, strings.Join(missing, ", "), cmp.Or(err, errLookedWell))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
