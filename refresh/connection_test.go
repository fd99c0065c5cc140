package refresh_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// overheard is a worker with so many jobs, and so many views. Each claim does first what is given, in plpgsql, and notes whether it
// was made over the control connection, which is the one that a run opens first.
func overheard(t *testing.T, jobs, views int, first string) *bundle {
	t.Helper()
	b := setupJobs(t, jobs)
	b.numberConnections(0)
	for n := range views {
		b.view(fmt.Sprintf("v%d", n), "select 1 as id, pg_catalog.pg_sleep(0.002)::text as slept")
	}
	b.Exec(`create table public.claims (control boolean, claimed bigint)`)
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
			insert into public.claims values (` + overControl + `, n);
		end $$`)
	return b
}

// overControl is whether a session is that of the control connection.
const overControl = `current_setting('application_name') = 'connection 1'`

// numberConnections gives the worker a pool that tells its connections apart, of so many; 0: as many as there were.
func (b *bundle) numberConnections(most int32) {
	b.Helper()
	config := b.worker.Pool.Config()
	var opened atomic.Int64
	config.BeforeConnect = func(_ context.Context, config *pgx.ConnConfig) error {
		config.RuntimeParams["application_name"] = fmt.Sprint("connection ", opened.Add(1))
		return nil
	}
	config.MaxConns = cmp.Or(most, config.MaxConns)
	b.connect(config, b.worker.Jobs)
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

// Several slots claim over the control connection, but for the moments at which the control loop itself is at it.
func TestClaimsOverTheControlConnection(t *testing.T) {
	defer refresh.SetPatience(time.Minute)()
	b := overheard(t, 4, 24, "")
	b.allSucceed(24)
	b.Check("true", `select count(*) > 4 from public.claims where claimed > 0`)
	b.Check("true", `select count(*) filter (where control) > count(*) / 2 from public.claims where claimed > 0`)
}

// A single slot has the claims for itself: of two sessions each would hear of all tables that the other changes.
func TestSingleSlotClaimsOverItsOwn(t *testing.T) {
	b := overheard(t, 1, 8, "")
	b.allSucceed(8)
	b.Check("0", `select count(*) from public.claims where claimed > 0 and control`)
}

// When the control connection is lost in the middle of a claim, the slot claims over its own; and that one may find nothing, because the
// server has not let go yet of what the other has claimed.
func TestControlConnectionIsLostInAClaim(t *testing.T) {
	for _, second := range []string{"null", "return"} {
		t.Run(second, func(t *testing.T) {
			b := overheard(t, 2, 4, `
				case nextval('public.calls')
				when 1 then perform pg_terminate_backend(pg_backend_pid());
				when 2 then `+second+`;
				else null;
				end case;`)
			log := &pgtest.Buffer{}
			b.worker.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			b.allSucceed(4)
			if !strings.Contains(log.String(), "lost the control connection while claiming") {
				t.Errorf("the claim was not over the control connection, or the connection was not lost: %s", log.String())
			}
		})
	}
}

// A claim that hangs does not keep the control loop from hearing that somebody wants a refresh cancelled; and where that finds no
// other connection, it goes on with the one that the claim gives back.
func TestClaimHangsOverTheControlConnection(t *testing.T) {
	const running = `select count(*) from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.slow' and status = 'running'`
	const cancelSlow = `insert into mvsched.materialized_view_refresh_cancel (execution_id)
		select id from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.slow'`
	hanging := func(t *testing.T) *bundle {
		b := overheard(t, 2, 4, `
			if `+overControl+` and exists (`+strings.Replace(running, "count(*)", "", 1)+`) and nextval('public.calls') = 1 then
				perform from public.gate;
			end if;`)
		b.Exec(`create table public.gate ()`)
		b.Exec(`create table public.pace as select 0 as seconds`)
		b.view("slow", "select 1 as id, pg_catalog.pg_sleep(seconds)::text as slept from public.pace")
		b.set("slow", "priority = 10")
		b.Exec(`update public.pace set seconds = 60`)
		return b
	}
	const hangs = `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`

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
	})

	t.Run("without_a_connection_to_spare", func(t *testing.T) {
		b := hanging(t)
		b.numberConnections(3)
		log := &pgtest.Buffer{}
		b.worker.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		release := b.Hold(`lock table public.gate in access exclusive mode`)
		ended := make(chan map[string]schedule.Execution)
		go func() { ended <- b.runDue() }()
		b.Await("1", hangs)
		pgtest.WaitFor(t, t.Context(), "the control loop leaves its connection to the claim", func() bool {
			return strings.Contains(log.String(), "leaves its connection")
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

// A claim passes over what is being settled that moment, and is asked for again, for however many slots it was.
func TestRunDoesNotEndBehindEmptyClaims(t *testing.T) {
	b := overheard(t, 4, 4, `if nextval('public.calls') <= 3 then return; end if;`)
	b.allSucceed(4)
}
