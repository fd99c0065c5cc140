package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// with reconnects the worker with other startup parameters.
func (b *bundle) with(parameters map[string]string, jobs int) {
	b.Helper()
	config := b.Pool.Config()
	delete(config.ConnConfig.RuntimeParams, "search_path")
	refresh.ConfigurePool(config, jobs)
	for name, value := range parameters {
		if _, set := config.ConnConfig.RuntimeParams[name]; !set {
			config.ConnConfig.RuntimeParams[name] = value
		}
	}
	b.connect(config, jobs)
}

// Whoever may create objects in a schema of the worker's search_path, or write a schedule's, does not get to act as it
// (CVE-2018-1058).
func TestSearchPathIsNoWayIn(t *testing.T) {
	for name, path := range map[string]string{"default": `"$user", public`, "public_first": "public, pg_catalog", "schedule": ""} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.Exec(`create table public.pwned (what text)`)
			b.Exec(`create function public.trap(text, text) returns boolean language plpgsql as
				$$begin insert into public.pwned values ('text = text'); return true; end$$`)
			b.Exec(`create operator public.= (leftarg = text, rightarg = text, function = public.trap)`)
			for _, operator := range []string{"*", "+"} {
				for _, left := range []string{"numeric", "double precision", "interval"} {
					function := fmt.Sprintf("public.%q", "trap "+left+operator)
					b.Exec(fmt.Sprintf(`create function %s(%s, integer) returns %[2]s language plpgsql as
						$$begin insert into public.pwned values ('%[2]s %[3]s integer'); return $1; end$$`, function, left, operator))
					b.Exec(fmt.Sprintf(`create operator public.%s (leftarg = %s, rightarg = integer, function = %s)`, operator, left, function))
				}
			}
			b.Exec("create materialized view public.v as select 1 as id")
			b.schedule("v")
			b.Exec(`create function public.evil(x pg_catalog.text) returns boolean language plpgsql as
				$$begin insert into public.pwned values ('type text'); return true; end$$`)
			b.Exec(`create domain public.text as pg_catalog.text check (public.evil(value))`)
			if path == "" {
				b.with(nil, 1)
				b.set("v", "search_path = 'public, pg_catalog'")
			} else {
				b.with(map[string]string{"search_path": path}, 1)
			}
			if e := b.runDue()["public.v"]; e.Status != schedule.Succeeded {
				t.Errorf("%+v %s", e, text(e.ErrorMessage))
			}
			if _, err := b.store.Status(t.Context(), []schedule.ViewName{{Name: "v"}}); err != nil {
				t.Error(err)
			}
			every := time.Hour
			if _, err := b.store.Add(t.Context(), []schedule.ViewName{{Name: "v"}}, schedule.Settings{Every: &every}, true); err != nil {
				t.Error(err)
			}
			if path != "" {
				b.Exec("set search_path = " + strings.ReplaceAll(path, `"$user"`, `"nobody"`))
				b.Exec(`update mvsched.materialized_view_refresh_schedule set materialized_view_name = 'v', refresh_interval = '2 h'`)
			}
			b.Check("null", `select pg_catalog.string_agg(distinct what, ', ') from public.pwned`)
		})
	}
}

// Settings of the role or the database that change how values look or how statements run.
func TestHostileSettings(t *testing.T) {
	for name, settings := range map[string]map[string]string{
		"datestyle":      {"datestyle": "German"},
		"intervalstyle":  {"intervalstyle": "sql_standard", "timezone": "Australia/Lord_Howe"},
		"isolation":      {"default_transaction_isolation": "serializable"},
		"strings":        {"standard_conforming_strings": "off", "bytea_output": "escape", "quote_all_identifiers": "on"},
		"plans":          {"plan_cache_mode": "force_generic_plan", "jit_above_cost": "0"},
		"limits":         {"statement_timeout": "3s", "lock_timeout": "100ms", "idle_in_transaction_session_timeout": "100ms"},
		"client_min":     {"client_min_messages": "debug5"},
		"client_latin_1": {"client_encoding": "LATIN1"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			for setting, value := range settings {
				b.Exec("alter database " + b.Value("quote_ident(current_database())") + " set " + setting + " = '" + value + "'")
			}
			b.with(nil, 1)
			b.view("a", "select 1 as id")
			b.view("clock", "select 1 as id, now()")
			b.set("clock", "skip_unchanged = true")
			b.set("a", "vacuum = 'always'")
			b.view("\"café\"", "select 1 as id")
			for range 2 {
				b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
				executions := b.runDue()
				for view, e := range executions {
					if e.Status != schedule.Succeeded || *e.Method != schedule.MethodConcurrently {
						t.Errorf("%s: %+v %s", view, e, text(e.ErrorMessage))
					}
				}
				if len(executions) != 3 {
					t.Errorf("%v", executions)
				}
			}
			b.Check(`{"public.\"café\"",public.a,public.clock}`, `select array_agg(distinct view_name order by view_name)
				from mvsched.materialized_view_refresh_schedule_execution`)
			b.Check("public.a", `select distinct view_name from mvsched.materialized_view_vacuum`)
			standings, err := b.store.Status(t.Context(), nil)
			if err != nil || len(standings) != 3 || !strings.Contains(standings[0].View, "café") || standings[0].State != schedule.StateFresh {
				t.Errorf("%+v, %v", standings, err)
			}
			findings, err := b.store.Doctor(t.Context())
			if err != nil || !slices.ContainsFunc(findings, func(f schedule.Finding) bool {
				return f.View == "public.clock" && strings.Contains(f.Message, "function now()")
			}) {
				t.Errorf("%+v, %v", findings, err)
			}
		})
	}
}

// Under a stricter isolation level a refresh that waits for a lock would go on with the snapshot of before, and store old
// data.
func TestARefreshIsReadCommitted(t *testing.T) {
	b := setup(t)
	b.Exec("alter database " + b.Value("quote_ident(current_database())") + " set default_transaction_isolation = 'repeatable read'")
	b.with(nil, 1)
	b.view("a", "select 1 as id, current_setting('transaction_isolation') as level")
	b.runDue()
	b.Check("read committed", `select level from public.a`)
}

// A plan may be parallel whenever the server thinks so.
func TestForcedParallelPlans(t *testing.T) {
	b := setup(t)
	setting := "force_parallel_mode"
	if b.Value("current_setting('server_version_num')::integer >= 160000") == "true" {
		setting = "debug_parallel_query"
	}
	b.with(map[string]string{setting: "on"}, 1)
	b.view("v", "select 1 as id")
	b.runDue()
	if _, err := b.store.List(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := b.store.Status(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if _, err := b.store.Due(t.Context(), nil, 10); err != nil {
		t.Error(err)
	}
}

// L2: rows that somebody holds in psql, however many, do not keep the others from their turn.
func TestHeldRowsStarveNobody(t *testing.T) {
	b := setup(t)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
		select 'public.held' || g, '1 hour', now() - interval '1 hour' from generate_series(1, 250) g`)
	b.view("v", "select 1 as id")
	b.Hold(`select from mvsched.materialized_view_refresh_schedule where materialized_view_name like 'public.held%' for update`)
	if executions := b.runDue(); executions["public.v"].Status != schedule.Succeeded || len(executions) != 1 {
		t.Errorf("%v", executions)
	}
}

// A view that a migration drops and creates again while the run is under way is found by its name.
func TestRecreatedDuringTheRun(t *testing.T) {
	b := setupJobs(t, 1)
	b.view("first", "select 1 as id, pg_sleep(1)::text")
	b.view("v", "select 1 as id")
	done := make(chan map[string]schedule.Execution)
	go func() { done <- b.runDue() }()
	b.Await("1", refreshing)
	b.Exec("drop materialized view public.v")
	b.Exec("create materialized view public.v as select 2 as id")
	if e := (<-done)["public.v"]; e.Status != schedule.Succeeded {
		t.Errorf("%+v %s", e, text(e.ErrorMessage))
	}
}

// The name that REFRESH looks up stands for nothing any more, which PostgreSQL says; where it stands for another view, the
// refresh itself has to find out (TestTheNameGoesToAnotherViewDuringTheWait).
func TestRenamedDuringTheWait(t *testing.T) {
	b := setup(t)
	b.view("v", "select 1 as id")
	tx, err := b.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "alter materialized view public.v rename to renamed"); err != nil {
		t.Fatal(err)
	}
	done := make(chan map[string]schedule.Execution)
	go func() { done <- b.runDue() }()
	b.Await("1", `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'refresh materialized view%' and datname = current_database()`)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := (<-done)["public.v"]
	if e.Status != schedule.Failed || text(e.Reason) != schedule.ReasonViewReplaced || !strings.Contains(refresh.Hint(e), "renamed") {
		t.Errorf("%+v", e)
	}
}

// A connection that is lost while it claims is no reason to leave what is due.
func TestAConnectionIsLostWhileItClaims(t *testing.T) {
	b := setup(t)
	for _, name := range []string{"v", "w", "x"} {
		b.view(name, "select 1 as id")
	}
	b.Exec(`create table public.slow as select true as is_on`)
	b.Exec(`create function public.nap() returns trigger language plpgsql as
		$$begin if (select is_on from public.slow) then perform pg_sleep(60); end if; return new; end$$`)
	b.Exec(`create trigger nap before insert on mvsched.materialized_view_refresh_schedule_execution for each row execute function public.nap()`)
	done := make(chan map[string]schedule.Execution)
	go func() { done <- b.runDue() }()
	b.Await("2", `select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()`)
	b.Exec(`update public.slow set is_on = false`)
	b.Exec(`select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()`)
	if executions := <-done; len(executions) != 3 {
		t.Errorf("%v", executions)
	}
}

// The record is gone: that is somebody's will, and no reason to stop.
func TestTheRecordIsDeleted(t *testing.T) {
	b := setupJobs(t, 1)
	b.view("v", "select 1 as id")
	b.view("w", "select 1 as id")
	b.worker.Started = func(claim schedule.Claim) {
		if claim.View == "public.v" {
			b.Exec(`delete from mvsched.materialized_view_refresh_schedule_execution where id = $1`, claim.ExecutionID)
		}
	}
	began := time.Now()
	if executions := b.runDue(); len(executions) != 1 || executions["public.w"].Status != schedule.Succeeded {
		t.Errorf("%v", executions)
	}
	since(began, 5*time.Second, b)
}

// With one connection nobody else finds out that the run which a refresh waits for is dead.
func TestRefreshWithOneConnectionBehindADeadClaim(t *testing.T) {
	b := setup(t)
	b.view("v", "select 1 as id")
	config := b.worker.Pool.Config()
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (view_name, view_oid) values ('public.v', 'public.v'::regclass)`)
	worker := &refresh.Worker{Pool: pool, Store: schedule.NewStore(pool), Jobs: 2}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	executions, err := worker.Refresh(ctx, []schedule.ViewName{{Schema: "public", Name: "v"}}, refresh.Options{Settings: schedule.Settings{}})
	if err != nil || len(executions) != 1 || executions[0].Status != schedule.Succeeded {
		t.Errorf("%+v, %v", executions, err)
	}
}

func TestAPanicInASlotIsABugAndLeavesNoConnectionBehind(t *testing.T) {
	b := setup(t)
	b.view("v", "select 1 as id")
	b.worker.Started = func(schedule.Claim) { panic("in a callback") }
	if _, err := b.worker.RunDue(t.Context()); !errors.Is(err, refresh.ErrBug) {
		t.Errorf("%v", err)
	}
	pgtest.WaitFor(t, t.Context(), "all connections are released", func() bool { return b.worker.Pool.Stat().AcquiredConns() == 0 })
}
