package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// serving is a server that runs.
type serving struct {
	*bundle
	stop context.CancelFunc
	log  *pgtest.Buffer
	done chan struct{}
	err  error
}

// listening counts the connections that hear what changes.
const listening = `select count(*) from pg_stat_activity where datname = current_database() and query like 'listen%'`

// serve runs a server until the test ends, and returns when it is ready.
func (b *bundle) serve(opts refresh.Serving) *serving {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	s := &serving{bundle: b, stop: stop, log: &pgtest.Buffer{}, done: make(chan struct{})}
	worker := *b.worker
	worker.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ready := make(chan struct{})
	opts.Ready = func() { close(ready) }
	go func() {
		defer close(s.done)
		s.err = worker.Serve(ctx, opts)
	}()
	b.Cleanup(func() {
		stop()
		<-s.done
	})
	select {
	case <-ready:
	case <-s.done:
		b.Fatalf("it has ended: %v", s.err)
	case <-time.After(20 * time.Second):
		b.Fatal("it does not get ready")
	}
	return s
}

// wait waits for the server to end, and returns what it returned.
func (s *serving) wait() error {
	s.Helper()
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		s.Fatal("it does not end")
	}
	return s.err
}

const successes = `select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'`

// enters awaits that a refresh is under way.
func (b *bundle) enters() {
	b.Helper()
	b.Await("1", refreshing)
}

// asleep awaits that no server has sent anything for so long.
func (b *bundle) asleep(interval string) {
	b.Helper()
	b.Await("0", `select count(*) from pg_stat_activity where datname = current_database() and backend_type = 'client backend'
		and pid not in (select pid from pg_stat_activity where query like '%pg_stat_activity%')
		and state_change > clock_timestamp() - $1::text::interval`, interval)
}

func TestServe(t *testing.T) {
	t.Run("refreshes_slot_after_slot", func(t *testing.T) { // I10
		b := setup(t)
		b.view("a", "select 1 as id")
		b.set("a", "refresh_interval = '1 s'")
		s := b.serve(refresh.Serving{})
		b.Await("true", `select count(*) >= 3 from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'`)
		s.stop()
		if err := s.wait(); err != nil {
			t.Error(err)
		}
		b.Check("0", `select count(*) from (select scheduled_at - lag(scheduled_at) over (order by id) as gap
			from mvsched.materialized_view_refresh_schedule_execution) x where gap <> interval '1 s'`)
	})

	t.Run("hears_what_changes", func(t *testing.T) { // without that it would look in ten minutes
		b := setup(t)
		b.view("far", "select 1 as id")
		b.serve(refresh.Serving{})
		b.Await("1", listening)
		b.Await("1", successes)
		b.view("a", "select 1 as id")
		b.Await("2", successes)
		b.Exec(`select mvsched.request_refresh('public.far')`)
		b.Await("3", successes)
		b.asleep("1 s")
		b.set("far", "next_run_at = now()")
		b.Await("4", successes)
		b.set("far", "paused_at = now(), next_run_at = now()")
		b.asleep("1 s")
		b.set("far", "paused_at = null")
		b.Await("5", successes)
	})

	// An error of one claim, such as a lost deadlock, is not to hold up what is due until the longest refresh has ended.
	t.Run("goes_on_beside_a_claim_that_fails", func(t *testing.T) { // L2
		b := setupJobs(t, 2)
		b.slow("long")
		b.Exec(`create sequence public.claims`)
		b.Exec(`create function public.fail_once() returns trigger language plpgsql as $$ begin
			if nextval('public.claims') = 2 then raise exception 'once' using errcode = 'deadlock_detected'; end if; return new; end $$`)
		b.serve(refresh.Serving{})
		b.enters()
		b.Exec(`create trigger fail_once before insert on mvsched.materialized_view_refresh_schedule_execution
			for each row when (new.view_name = 'public.quick') execute function public.fail_once()`)
		b.view("quick", "select 1 as id")
		b.set("quick", "refresh_interval = '1 s'")
		b.Await("3", `select least(3, count(*)) from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.quick' and status = 'succeeded'`)
		b.Check("true", `select last_value > 3 from public.claims`)
		b.Check("1", refreshing)
	})

	t.Run("says_that_a_look_went_wrong_while_refreshes_go_on", func(t *testing.T) {
		b := setupJobs(t, 2)
		b.slow("long")
		s := b.serve(refresh.Serving{})
		b.enters()
		b.Exec(`alter table mvsched.catalog_state rename to elsewhere`)
		b.Exec(`create materialized view public.new as select 1 as id`) // the look that sees it reads the catalog
		b.Exec(`notify mvsched_schedule`)
		pgtest.WaitFor(t, t.Context(), "it says so", func() bool {
			return strings.Contains(s.log.String(), "cannot look after the schedules; what runs goes on")
		})
		b.Check("1", refreshing)
		b.Exec(`alter table mvsched.elsewhere rename to catalog_state`)
	})

	t.Run("looks_when_a_grace_ends_while_all_its_slots_are_at_work", func(t *testing.T) { // L1
		b := setupJobs(t, 1)
		b.Exec(`create materialized view public.slow as select 1 as id from pg_sleep(30) with no data`)
		b.Exec(`create materialized view public.b as select 1 as id`)
		b.schedule("b")
		b.serve(refresh.Serving{})
		b.Await("1", successes)
		b.schedule("slow")
		b.enters()
		b.set("b", "next_run_at = now() + interval '1.5 seconds'") // between two looks
		b.Await("1", `select count(*) from mvsched.materialized_view_refresh_schedule where next_run_at < clock_timestamp()`)
		if claims, err := b.store.Claim(t.Context(), schedule.ClaimOptions{Limit: 1}); err != nil || len(claims) != 1 {
			t.Fatal(claims, err) // and nobody begins it
		}
		b.Await("1", `select count(*) from mvsched.materialized_view_refresh_schedule_execution
			where reason = 'never_started' and terminated_at < started_at + start_grace + interval '1 second'`)
	})

	t.Run("looks_again_for_what_it_has_passed_over", func(t *testing.T) { // L1
		t.Cleanup(refresh.SetLookMayPass(0))
		b := setup(t)
		b.Hold(`select pg_current_xact_id()`) // so what has been claimed leaves entries that lead nowhere
		b.view("a", "select 1 as id")
		b.serve(refresh.Serving{})
		b.Await("1", successes)
		b.Await("1", listening)
		for i := range 3 { // each is before where the last look began
			b.set("a", fmt.Sprintf("next_run_at = now() - interval '%d hours'", 1+i))
			b.Await(strconv.Itoa(2+i), successes)
		}
	})

	t.Run("hears_of_new_data_in_a_parent", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create table public.base as select 1 as id`)
		b.Exec(`create materialized view public.parent as select id from public.base`)
		b.view("child", "select id from public.parent")
		b.set("child", "refresh_interval = null, after_parents = true")
		b.serve(refresh.Serving{})
		b.Await("1", successes)
		b.schedule("parent")
		b.Await("1", listening)
		b.Await("true", `select count(*) >= 3 from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'`)
		before := b.Value(successes)
		if _, err := b.worker.Refresh(t.Context(), []schedule.ViewName{{Schema: "public", Name: "parent"}}, refresh.Options{}); err != nil {
			t.Fatal(err)
		}
		b.Await("true", `select count(*) = $1::int + 2 from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'`, before)
	})

	t.Run("is_quiet_when_nothing_is_due", func(t *testing.T) {
		b := setup(t)
		b.view("a", "select 1 as id")
		b.serve(refresh.Serving{})
		b.Await("1", successes)
		b.Await("1", listening)
		b.asleep("4 s") // longer than any poll
	})

	t.Run("lets_what_runs_go_on_for_the_grace", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create table public.base as select 1 as id`)
		b.view("a", "select id from public.base")
		release := b.Hold(`lock table public.base`)
		s := b.serve(refresh.Serving{Grace: time.Minute})
		b.enters()
		b.view("b", "select 1 as id")
		b.Await("1", successes)
		s.stop()
		b.Await("0", listening)
		b.view("c", "select 1 as id") // it claims no more
		b.Check("1", refreshing)
		release()
		if err := s.wait(); err != nil {
			t.Error(err)
		}
		b.Check("public.a public.b", `select string_agg(view_name, ' ' order by view_name)
			from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'`)
		b.Check("2", `select count(*) from mvsched.materialized_view_refresh_schedule_execution`)
	})

	// Two views are due at once; the claim for both of them hangs at its commit, so that one slot loses patience, finds
	// nothing, and ends. Meanwhile the server is told to stop.
	stopped := func(t *testing.T) (s *serving, release func()) {
		t.Cleanup(refresh.SetPatience(100 * time.Millisecond))
		b := setup(t)
		b.Exec(`create table public.base as select 1 as id`)
		b.view("a", "select id from public.base")
		b.view("b", "select id from public.base")
		s = b.serve(refresh.Serving{Grace: time.Minute})
		b.Await("2", successes) // so its slots have connections, and claim together
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() + interval '1500 ms'`)
		b.Exec(`create function public.hang() returns trigger language plpgsql as $$
			begin perform pg_advisory_xact_lock_shared(1); return null; end $$`)
		b.Exec(`create constraint trigger hang after insert on mvsched.materialized_view_refresh_schedule_execution
			deferrable initially deferred for each row execute function public.hang()`)
		release = b.Hold(`select pg_advisory_xact_lock(1)`)
		b.Await("true", `select count(*) > 0 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
			and query_start < clock_timestamp() - interval '300 ms'`)
		s.stop()
		return s, release
	}
	const ends = `select string_agg(distinct status, ' ' order by status) || ' ' || count(*) from mvsched.materialized_view_refresh_schedule_execution`

	t.Run("leaves_nothing_that_it_has_claimed_when_it_is_told_to_stop", func(t *testing.T) {
		s, release := stopped(t)
		release()
		if err := s.wait(); err != nil {
			t.Error(err)
		}
		s.Check("succeeded 4", ends)
	})

	t.Run("leaves_nothing_that_it_has_claimed_when_the_connection_for_it_is_lost", func(t *testing.T) {
		s, release := stopped(t)
		held := s.Hold(`lock table public.base`)
		release()
		s.enters()
		s.Exec(`select pg_terminate_backend(min(pid)) from pg_stat_activity where query like 'refresh%' and datname = current_database()`)
		if err := s.wait(); err != nil {
			t.Error(err)
		}
		held()
		// The other slot may have come for it, where it was slow to find nothing; then the lock is in its way.
		s.Check("abandoned or the like 1, left 1, succeeded 2", `select string_agg(what || ' ' || n, ', ' order by what) from (
			select case when status in ('cancelled', 'skipped') then 'left' when status in ('abandoned', 'failed') then 'abandoned or the like' else status end as what, count(*) as n
			  from mvsched.materialized_view_refresh_schedule_execution group by 1) e`)
	})

	t.Run("cancels_and_records_what_outlasts_the_grace", func(t *testing.T) { // L4
		b := setup(t)
		b.Exec(`create table public.base as select 1 as id`)
		b.view("a", "select id from public.base")
		b.Hold(`lock table public.base`)
		s := b.serve(refresh.Serving{Grace: 50 * time.Millisecond})
		b.enters()
		s.stop()
		if err := s.wait(); err != nil {
			t.Error(err)
		}
		b.Check("0", refreshing) // I9
		b.Check("cancelled shutdown t 0", `select concat_ws(' ', e.status, e.reason, s.next_run_at <= now(), s.consecutive_failures)
			from mvsched.materialized_view_refresh_schedule_execution e, mvsched.materialized_view_refresh_schedule s`)
	})

	t.Run("does_not_ask_for_long_how_a_refresh_ended_once_it_is_told_to_stop", func(t *testing.T) { // L4
		b := setup(t)
		b.Exec(`create table public.base as select 1 as id`)
		b.view("a", "select id from public.base")
		b.Hold(`lock table public.base`)
		s := b.serve(refresh.Serving{})
		b.enters()
		// Whoever asks comes behind that lock; behind one on the row it could be quicker.
		var held sync.WaitGroup
		held.Go(func() { b.Hold(`lock table mvsched.materialized_view_refresh_schedule_execution in exclusive mode`) })
		b.Await("1", `select count(*) from pg_stat_activity where query like 'lock table mvsched%' and wait_event_type = 'Lock'`)
		b.Exec(`select pg_terminate_backend(pid) from pg_stat_activity where query like 'refresh%' and datname = current_database()`)
		held.Wait() // so it is not to be known now, and half an hour is its time
		pgtest.WaitFor(t, t.Context(), "it asks", func() bool { return strings.Contains(s.log.String(), "asks how it ended") })
		stopped := time.Now()
		s.stop()
		if err := s.wait(); err != nil || time.Since(stopped) > 7*time.Second { // 5 are promised; a statement has 10
			t.Errorf("%v, after %v", err, time.Since(stopped))
		}
	})

	t.Run("gives_each_queue_its_own_places", func(t *testing.T) { // L2
		b := setupJobs(t, 4)
		b.Exec(`create table public.base as select 1 as id`)
		b.view("slow", "select id from public.base")
		b.set("slow", "queue = 'heavy', priority = 1000")
		b.view("slow2", "select id from public.base")
		b.set("slow2", "queue = 'heavy', priority = 1000")
		b.view("nobodys", "select 1 as id")
		b.set("nobodys", "queue = 'other'")
		b.Hold(`lock table public.base`)
		b.serve(refresh.Serving{Queues: []refresh.Queue{{Name: "default", Jobs: 1}, {Name: "heavy", Jobs: 1}}})
		b.enters()
		b.view("quick", "select 1 as id")
		b.Await("1", successes)
		b.Check("1", refreshing)
		b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.nobodys'`)
	})

	t.Run("begins_what_is_due_also_while_a_look_at_the_schedules_takes_long", func(t *testing.T) {
		b := setup(t)
		b.view("a", "select 1 as id")
		b.set("a", "refresh_interval = '2 s'")
		b.serve(refresh.Serving{})
		b.Await("1", listening)
		b.Await("1", successes)
		b.asleep("600 ms")                                    // longer than it waits with the look behind a refresh
		release := b.Hold(`lock table mvsched.catalog_state`) // only a look reads it
		b.Exec(`notify mvsched_schedule`)
		b.Await("1", `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
		b.Await("2", successes)
		b.Check("1", `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
		release()
	})

	t.Run("ends_where_it_cannot_go_on", func(t *testing.T) {
		b := setup(t)
		s := b.serve(refresh.Serving{})
		b.Await("1", listening)
		b.Exec(`create schema other`)
		b.Exec(`drop schema mvsched cascade`)
		b.Exec(`notify mvsched_schedule`)
		var pgErr *pgconn.PgError
		if err := s.wait(); !errors.As(err, &pgErr) || pgErr.Code != pgerrcode.UndefinedTable {
			t.Error(err)
		}
	})

	t.Run("tells_that_it_is_alive", func(t *testing.T) {
		b := setup(t)
		alive := make(chan struct{}, 1)
		b.Exec(`create table public.base as select 1 as id`)
		b.view("a", "select id from public.base")
		release := b.Hold(`lock table public.base`)
		beat := func() {
			select {
			case alive <- struct{}{}:
			default:
			}
		}
		s := b.serve(refresh.Serving{Pulse: 5 * time.Millisecond, Alive: beat, Grace: time.Minute})
		b.enters()
		await := func(when string) {
			t.Helper()
			select {
			case <-alive:
			case <-time.After(20 * time.Second):
				t.Fatal("no sign of life " + when)
			}
		}
		await("while it serves")
		s.stop()
		b.Await("0", listening)
		for range 3 {
			await("in the grace")
		}
		release()
		if err := s.wait(); err != nil {
			t.Error(err)
		}
	})

	t.Run("keeps_to_its_connections", func(t *testing.T) {
		t.Cleanup(refresh.SetPatience(time.Minute)) // where a claim takes long, a control loop opens one more
		b := setupJobs(t, 4)
		for i := range 60 {
			b.view(fmt.Sprintf("v%d", i), "select 1 as id")
		}
		b.serve(refresh.Serving{})
		b.Await("60", successes)
		goroutines := runtime.NumGoroutine()
		for i := range 2 {
			b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
			b.Await(fmt.Sprint(60*(i+2)), successes)
		}
		if now := runtime.NumGoroutine(); now > goroutines+8 {
			t.Errorf("%d goroutines, once %d", now, goroutines)
		}
		// A control loop, four slots, one for vacuum, one that listens.
		b.Check("true", `select count(*) <= 7 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
			and backend_type = 'client backend' and query not like 'create%'`) // autovacuum is not ours
	})
}

// A server that is restarted, or gone and replaced by its standby.
func TestServeSurvives(t *testing.T) {
	start := func(t *testing.T, dsn func(own string) string) *bundle {
		t.Helper()
		b := &bundle{DB: pgtest.NewServerDB(t)}
		config := b.Pool.Config()
		if dsn != nil {
			config = parse(t, dsn(b.Server.DSN("postgres")))
		}
		refresh.ConfigurePool(config, 2)
		b.connect(config, 2)
		b.view("a", "select 1 as id")
		b.set("a", "refresh_interval = '1 s'")
		return b
	}
	again := func(b *bundle, s *serving, since time.Time) {
		b.Helper()
		b.Pool.Reset()
		id := b.Value(`select coalesce(max(id), 0) from mvsched.materialized_view_refresh_schedule_execution`)
		b.Await("true", `select count(*) > 0 from mvsched.materialized_view_refresh_schedule_execution where id > $1::bigint and status = 'succeeded'`, id)
		if took := time.Since(since); took > 5*time.Second {
			b.Errorf("it took %v to begin again", took)
		}
		pgtest.WaitFor(b, b.Context(), "all that was lost is back", func() bool {
			log := s.log.String()
			return strings.Count(log, "lost the database")+strings.Count(log, "takes no writes") == strings.Count(log, "the database is back")
		})
		if strings.Count(s.log.String(), "the database is back") > 1 {
			b.Errorf("said more than once that the database is gone: %s", s.log.String())
		}
		b.Await("1", listening)
	}

	for name, immediate := range map[string]bool{"a_restart": false, "a_restart_in_immediate_mode": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, nil)
			s := b.serve(refresh.Serving{})
			b.Await("true", `select count(*) > 0 from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'`)
			b.Exec(`checkpoint`) // the server of the tests does not hurry to the disk, and would forget the schedule
			if err := b.Server.Restart(t.Context(), immediate); err != nil {
				t.Fatal(err)
			}
			again(b, s, time.Now())
			s.stop()
			if err := s.wait(); err != nil {
				t.Error(err)
			}
			b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'running'`)
		})
	}

	t.Run("a_failover", func(t *testing.T) {
		t.Parallel()
		primary := pgtest.NewServerDB(t)
		b := start(t, func(own string) string { return bothHosts(t, primary.Server.DSN("postgres"), own) })
		if err := b.Server.MakeStandby(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := b.serve(refresh.Serving{}) // on the primary, the other one takes no writes
		if err := primary.Server.Stop(); err != nil {
			t.Fatal(err)
		}
		pgtest.WaitFor(t, t.Context(), "it is lost", func() bool {
			b.Pool.Reset()
			return b.Value(`pg_is_in_recovery()`) == "true" && primary.Pool.Ping(t.Context()) != nil
		})
		b.Exec(`select pg_promote()`)
		again(b, s, time.Now())
	})

	t.Run("a_standby_quietly", func(t *testing.T) {
		t.Parallel()
		b := start(t, nil)
		if err := b.Server.MakeStandby(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.Pool.Reset()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		log := &pgtest.Buffer{}
		worker := *b.worker
		worker.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- worker.Serve(ctx, refresh.Serving{Ready: func() { close(ready) }}) }()
		pgtest.WaitFor(t, t.Context(), "it has tried a few times", func() bool {
			return strings.Count(log.String(), "still not to be had") >= 3
		})
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "takes no writes") {
			t.Errorf("%d notes: %s", n, log.String())
		}
		select {
		case <-ready:
			t.Error("ready on a standby")
		default:
		}
		b.Exec(`select pg_promote()`)
		<-ready
		b.Await("true", `select count(*) > 0 from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'`)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
