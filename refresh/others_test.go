package refresh_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// another is a second worker on the same database.
func (b *bundle) another() *refresh.Worker {
	other := *b.worker
	other.Name = "another"
	return &other
}

// within gives a run so long, and fails the test when that is not enough.
func (b *bundle) within(patience time.Duration, run func(context.Context) ([]schedule.Execution, error)) (byView map[string][]schedule.Execution) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	executions, err := run(ctx)
	if err != nil {
		b.Errorf("it did not end: %v", err)
	}
	byView = map[string][]schedule.Execution{}
	for _, e := range executions {
		byView[e.View] = append(byView[e.View], e)
	}
	return byView
}

// later does something after a while; whoever waits has it behind them.
func later(after time.Duration, do func()) (wait func()) {
	var done sync.WaitGroup
	done.Go(func() {
		<-time.After(after)
		do()
	})
	return done.Wait
}

// paced schedules a view of which a refresh takes so many seconds, and its creation none.
func (b *bundle) paced(name, query string, seconds float64) {
	b.Helper()
	b.Exec(`create table public.pace as select 0::float8 as seconds`)
	b.view(name, query)
	b.Exec(`update public.pace set seconds = $1`, seconds)
}

// The batches of somebody else's drain go on for hours, and each might be the last that its worker has sent.
func TestRunDoesNotWaitForADrain(t *testing.T) {
	b := setup(t)
	b.items(100000)
	b.Exec(`create function public.slow() returns bigint language plpgsql volatile as $$ begin perform pg_sleep(0.002); return 1; end $$`)
	b.columns(`select item.id, public.slow() as y from batch join public.item on item.id = batch.id`)
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan error, 1)
	go func() {
		_, err := b.worker.RunDue(ctx)
		drained <- err
	}()
	b.Await("1", `select count(*) from mvsched.materialized_view_refresh_schedule_execution where batch_at is not null`)
	b.within(20*time.Second, b.another().RunDue)
	cancel()
	<-drained
}

// Who plans a view does not have to serve its queue.
func TestRunWaitsForWhatAnotherOnePlans(t *testing.T) {
	b := setup(t)
	b.view("v", "select 1 as id")
	release := b.Hold(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() - interval '1 second'`)
	defer later(200*time.Millisecond, release)()
	if got := b.runDue(); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// What was in somebody else's hands for a moment is claimed while the run still goes on.
func TestRunComesBackToWhatWasHeld(t *testing.T) {
	b := setup(t)
	b.paced("slow", "select seconds as id, pg_catalog.pg_sleep(seconds)::text as slept from public.pace", 6)
	b.view("v", "select 1 as id")
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
	release := b.Hold(`select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.v' for update`)
	defer later(time.Second, release)()
	got := b.runDue()
	if v, slow := got["public.v"], got["public.slow"]; v.EndedAt == nil || v.EndedAt.After(*slow.EndedAt) {
		t.Errorf("%+v\n%+v", v, slow)
	}
}

// A parent's end makes its children due, and there are slots for all of them.
func TestChildrenBeginTogether(t *testing.T) {
	b := setupJobs(t, 4)
	b.paced("parent", "select seconds as id, random() as r, pg_catalog.pg_sleep(seconds)::text as slept from public.pace", 1.5)
	for i := range 4 {
		b.Exec(fmt.Sprintf(`create materialized view public.child%d as select id, r, pg_catalog.pg_sleep(id)::text as slept from public.parent with no data`, i))
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, after_parents) values ($1, true)`,
			fmt.Sprintf("public.child%d", i))
	}
	b.runDue()
	b.set("parent", "next_run_at = now()")
	got := b.runDue()
	for i := range 4 {
		child := got[fmt.Sprintf("public.child%d", i)]
		if ended := got["public.parent"].EndedAt; child.EndedAt == nil || child.StartedAt.Sub(*ended) > time.Second {
			t.Errorf("%+v, and its parent ended at %v", child, ended)
		}
	}
}

// Slots that want something at the same time get it from one claim, also when that takes a while.
func TestSlotsWaitForASlowClaim(t *testing.T) {
	b := overheard(t, 4, 4, `
		if nextval('public.calls') = 1 then
			perform pg_advisory_xact_lock(1);
			perform pg_sleep(0.3);
		elsif not pg_try_advisory_xact_lock(1) then
			insert into public.impatient values (now());
		end if;`)
	b.Exec(`create table public.impatient (at timestamptz)`)
	b.allSucceed(4)
	b.Check("0", `select count(*) from public.impatient`)
}

// A server that does not hear any more asks.
func TestServeLosesItsListener(t *testing.T) {
	b := setup(t)
	b.view("v", "select 1 as id")
	b.limit(3)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.worker.Serve(ctx, refresh.Serving{}) }()
	const refreshed = `select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded' and view_name = $1`
	b.Await("1", refreshed, "public.v")
	const listening = `select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and query like 'listen %'`
	b.Await("1", `select count(*) from pg_stat_activity where datname = current_database() and query like 'listen %'`)
	b.Await("0", `select count(*) from pg_stat_activity where datname = current_database() and usename like 'few_connections_%'
		and state_change > clock_timestamp() - interval '3.5 seconds'`) // nothing is open, and it sleeps
	b.Check("1", listening)
	var taken *pgx.Conn
	for taken == nil { // its place
		taken, _ = pgx.ConnectConfig(t.Context(), b.worker.Pool.Config().ConnConfig.Copy())
	}
	b.view("late", "select 1 as id")
	b.Await("1", refreshed, "public.late")
	if err := taken.Close(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	<-served
}

// Where there is a single connection, the control loop itself refreshes, and is alive.
func TestServeIsAliveInItsOnlyConnection(t *testing.T) {
	defer refresh.SetStuckAfter(time.Second)()
	b := setup(t)
	b.limit(2) // one more listens
	b.paced("slow", "select seconds as id, pg_catalog.pg_sleep(seconds)::text as slept from public.pace", 4)
	ctx, cancel := context.WithCancel(t.Context())
	var beats atomic.Int64
	served := make(chan error, 1)
	go func() {
		served <- b.worker.Serve(ctx, refresh.Serving{Alive: func() { beats.Add(1) }, Pulse: 50 * time.Millisecond})
	}()
	b.Await("1", refreshing)
	const after = `select count(*) from mvsched.materialized_view_refresh_schedule_execution
		where status = 'running' and started_at < clock_timestamp() - $1::interval`
	b.Await("1", after, "2.5 seconds")
	before := beats.Load()
	b.Await("1", after, "3.5 seconds")
	if beats.Load() == before {
		t.Error("it counts as stuck")
	}
	cancel()
	<-served
}
