package refresh_test

import (
	"fmt"
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

// overheard is a worker with so many jobs, and views that know which session has refreshed them; before each claim it does what is given
// (in plpgsql, where number is the claim's), and notes its session.
func overheard(t *testing.T, jobs, views int, before string) *bundle {
	t.Helper()
	b := setupJobs(t, jobs)
	for n := range views {
		b.view(fmt.Sprintf("v%d", n), "select 1 as id, pg_catalog.pg_backend_pid() as session, pg_catalog.pg_sleep(0.002)::text as slept")
	}
	const parameters = `worker text, wanted integer, queues text[], round timestamptz, clock timestamptz, with_usual boolean,
		since_at timestamptz default null, since_id bigint default null`
	b.Exec(`create sequence public.numbers`)
	b.Exec(`create table public.claims (number bigint, session integer, claimed bigint)`)
	b.Exec(`alter function mvsched.claim(text, integer, text[], timestamptz, timestamptz, boolean, timestamptz, bigint) rename to claim_them`)
	b.Exec(`create function mvsched.claim(` + parameters + `) returns setof mvsched.claim language plpgsql as $$
		declare
			number bigint := nextval('public.numbers');
			n bigint;
		begin
			` + before + `
			return query select * from mvsched.claim_them(worker, wanted, queues, round, clock, with_usual, since_at, since_id);
			get diagnostics n = row_count;
			insert into public.claims values (number, pg_backend_pid(), n);
		end $$`)
	return b
}

// sessions is a query for the sessions that have refreshed.
func (b *bundle) sessions(views int) (query string) {
	for n := range views {
		query += fmt.Sprintf(" union select session from public.v%d", n)
	}
	return query[len(" union "):]
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

// With several slots, the session of the control loop claims, and those that refresh do not: but for those moments at which it looks after
// what runs.
func TestClaimsOverTheControlConnection(t *testing.T) {
	b := overheard(t, 4, 24, "")
	b.allSucceed(24)
	b.Check("true", `select count(*) > 4 from public.claims where claimed > 0`)
	b.Check("true", `select count(*) filter (where session in (`+b.sessions(24)+`)) <= count(*) / 2 from public.claims where claimed > 0`)
}

// A single slot has the claims for itself: of two sessions each would hear of all tables that the other changes.
func TestSingleSlotClaimsOverItsOwn(t *testing.T) {
	b := overheard(t, 1, 8, "")
	b.allSucceed(8)
	b.Check("0", `select count(*) from public.claims where claimed > 0 and session not in (`+b.sessions(8)+`)`)
}

// When the control connection is lost in the middle of a claim, the slot claims over its own.
func TestControlConnectionIsLostInAClaim(t *testing.T) {
	b := overheard(t, 2, 4, `if number = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;`)
	b.allSucceed(4)
	b.Check("true", `select min(number) = 2 from public.claims`)
}

// A claim that hangs keeps the control loop from nothing: somebody who wants a refresh cancelled is heard meanwhile.
func TestClaimHangsOverTheControlConnection(t *testing.T) {
	b := overheard(t, 2, 1, `if number = 2 then perform pg_sleep(6); end if;`)
	b.view("slow", "select 1 as id, pg_catalog.pg_sleep(8)::text as slept")
	ended := make(chan map[string]schedule.Execution)
	go func() { ended <- b.runDue() }()
	const hangs = `select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query like '%mvsched.claim(%' and datname = current_database()`
	b.Await("1", hangs)
	b.Exec(`insert into mvsched.materialized_view_refresh_cancel (execution_id)
		select id from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.slow'`)
	b.Await("cancelled", `select status::text from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.slow'`)
	b.Check("1", hangs)
	<-ended
}
