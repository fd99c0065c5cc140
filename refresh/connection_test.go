package refresh_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// overheard is a worker with so many jobs, and views that know which session has refreshed them; each claim does first what is given, in
// plpgsql, and notes its session.
func overheard(t *testing.T, jobs, views int, first string) *bundle {
	t.Helper()
	b := setupJobs(t, jobs)
	for n := range views {
		b.view(fmt.Sprintf("v%d", n), "select 1 as id, pg_catalog.pg_backend_pid() as session, pg_catalog.pg_sleep(0.002)::text as slept")
	}
	b.Exec(`create table public.claims (session integer, claimed bigint)`)
	b.Exec(`create sequence public.calls`) // not undone by a rollback
	b.Exec(`alter function mvsched.claim(text, integer, text[], timestamptz, timestamptz, boolean, timestamptz, bigint) rename to claim_them`)
	b.Exec(`create function mvsched.claim(worker text, wanted integer, queues text[], round timestamptz, clock timestamptz, with_usual boolean,
			since_at timestamptz default null, since_id bigint default null) returns setof mvsched.claim language plpgsql as $$
		declare
			n bigint;
		begin
			` + first + `
			return query select * from mvsched.claim_them(worker, wanted, queues, round, clock, with_usual, since_at, since_id);
			get diagnostics n = row_count;
			insert into public.claims values (pg_backend_pid(), n);
		end $$`)
	return b
}

// sessions is a query for the sessions that have refreshed these views.
func sessions(views int) string {
	queries := make([]string, views)
	for n := range views {
		queries[n] = fmt.Sprintf("select session from public.v%d", n)
	}
	return strings.Join(queries, " union ")
}

func (b *bundle) allSucceed(views int) {
	b.Helper()
	executions := b.runDue()
	if len(executions) != views {
		b.Errorf("%d executions of %d", len(executions), views)
	}
	for view, e := range executions {
		if e.Status != schedule.Succeeded {
			b.Errorf("%s: %+v %s", view, e, text(e.ErrorMessage))
		}
	}
}

// With several slots, the session of the control loop claims, and those that refresh do not: but for the moments at which it looks after
// what runs, or a claim takes too long.
func TestClaimsOverTheControlConnection(t *testing.T) {
	defer refresh.SetLendPatience(time.Minute)()
	b := overheard(t, 4, 24, "")
	b.allSucceed(24)
	b.Check("true", `select count(*) > 4 from public.claims where claimed > 0`)
	b.Check("true", `select count(*) filter (where session in (`+sessions(24)+`)) <= count(*) / 2 from public.claims where claimed > 0`)
}

// A single slot has the claims for itself: of two sessions each would hear of all tables that the other changes.
func TestSingleSlotClaimsOverItsOwn(t *testing.T) {
	b := overheard(t, 1, 8, "")
	b.allSucceed(8)
	b.Check("0", `select count(*) from public.claims where claimed > 0 and session not in (`+sessions(8)+`)`)
}

// When the control connection is lost in the middle of a claim, the slot claims over its own.
func TestControlConnectionIsLostInAClaim(t *testing.T) {
	b := overheard(t, 2, 4, `if nextval('public.calls') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;`)
	log := &pgtest.Buffer{}
	b.worker.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.allSucceed(4)
	if !strings.Contains(log.String(), "lost the control connection while claiming") {
		t.Errorf("the claim was not over the control connection, or the connection was not lost: %s", log.String())
	}
}

// A claim that hangs does not keep the control loop from hearing that somebody wants a refresh cancelled; and where that finds no
// other connection, it goes on with the one that the claim gives back.
func TestClaimHangsOverTheControlConnection(t *testing.T) {
	const running = `select count(*) from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.slow' and status = 'running'`
	const cancelSlow = `insert into mvsched.materialized_view_refresh_cancel (execution_id)
		select id from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.slow'`
	hanging := func(t *testing.T) *bundle {
		b := overheard(t, 2, 4, `if exists (`+strings.Replace(running, "count(*)", "", 1)+`) and nextval('public.calls') = 1 then
			perform setval('public.hanging', pg_backend_pid());
			perform from public.gate;
		end if;`)
		b.Exec(`create sequence public.hanging`)
		b.Exec(`create table public.gate ()`)
		b.Exec(`create table public.pace as select 0 as seconds`)
		b.view("slow", "select 1 as id, pg_catalog.pg_sleep(seconds)::text as slept from public.pace")
		b.set("slow", "priority = 10")
		b.Exec(`update public.pace set seconds = 60`)
		return b
	}
	const hangs = `select count(*) from pg_stat_activity where pid = (select last_value from public.hanging) and wait_event_type = 'Lock'`

	t.Run("while_something_is_to_be_cancelled", func(t *testing.T) {
		b := hanging(t)
		release := b.Hold(`lock table public.gate in access exclusive mode`)
		ended := make(chan map[string]schedule.Execution)
		go func() { ended <- b.runDue() }()
		b.Await("1", hangs)
		b.Check("1", running)
		b.Exec(cancelSlow)
		b.Await("0", running)
		b.Check("1", hangs)
		release()
		if e := (<-ended)["public.slow"]; e.Status != schedule.Cancelled {
			t.Errorf("%+v", e)
		}
		b.Check("false", `select last_value in (`+sessions(4)+`) from public.hanging`)
	})

	t.Run("without_a_connection_to_spare", func(t *testing.T) {
		b := hanging(t)
		config := b.worker.Pool.Config()
		config.MaxConns = 3
		b.connect(config, 2)
		release := b.Hold(`lock table public.gate in access exclusive mode`)
		ended := make(chan map[string]schedule.Execution)
		go func() { ended <- b.runDue() }()
		b.Await("1", hangs)
		// Whoever watches gives up soon, and comes again; whoever looks at the schedules, which is every 3 s, waits, and nobody watches meanwhile.
		tries, since := int64(0), time.Now()
		pgtest.WaitFor(t, t.Context(), "the control loop waits for a connection", func() bool {
			if now := b.worker.Pool.Stat().CanceledAcquireCount(); now != tries {
				tries, since = now, time.Now()
			}
			return tries > 0 && time.Since(since) > 1500*time.Millisecond
		})
		b.Check("1", hangs)
		release()
		b.Await("4", `select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'`)
		b.Check("1", running)
		b.Exec(cancelSlow)
		if got := <-ended; len(got) != 5 {
			t.Errorf("%+v", got)
		}
	})
}
