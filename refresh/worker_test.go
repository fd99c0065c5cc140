package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

func TestRunDue(t *testing.T) {
	t.Run("refreshes_what_is_due_and_records_it", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create table public.base as select g as id, 0 as n from generate_series(1, 10) g`)
		b.view("a", "select id, n from public.base")
		b.Exec(`update public.base set n = 1 where id <= 4`)
		b.Exec(`insert into public.base values (11, 0)`)
		e := b.runDue()["public.a"]
		if e.Status != schedule.Succeeded || *e.Method != schedule.MethodConcurrently || *e.RowsInserted != 5 || *e.RowsDeleted != 4 ||
			e.DataAsOf == nil || e.DataAsOf.Before(e.StartedAt.Add(-time.Second)) || e.DataAsOf.After(*e.EndedAt) {
			t.Errorf("%+v", e)
		}
		b.Check("4 11", `select concat_ws(' ', sum(n), count(*)) from public.a`)
		b.Check("fresh", `select state from mvsched.status`)
		if again := b.runDue(); len(again) != 0 {
			t.Errorf("refreshed again: %v", again)
		}
	})

	t.Run("counts_only_its_own_rows", func(t *testing.T) { // the counters of a session go on from refresh to refresh
		b := setupJobs(t, 1)
		b.Exec(`create table public.base as select g as id, 0 as n from generate_series(1, 10) g`)
		b.view("a", "select id, n from public.base")
		for range 3 {
			b.Exec(`update public.base set n = n + 1 where id <= 3`)
			b.set("a", "next_run_at = now()")
			if e := b.runDue()["public.a"]; *e.RowsInserted != 3 || *e.RowsDeleted != 3 {
				t.Errorf("+%d -%d", *e.RowsInserted, *e.RowsDeleted)
			}
		}
	})

	t.Run("leaves_nothing_set_on_its_connections", func(t *testing.T) {
		b := setupJobs(t, 1)
		settings := `concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('client_min_messages'),
			current_setting('idle_in_transaction_session_timeout'), current_setting('search_path'))`
		before := b.Value(settings)
		b.view("a", "select 1 as id")
		b.set("a", "search_path = 'public'")
		b.runDue()
		for range b.worker.Pool.Config().MaxConns { // all at once, so that the one that refreshed is among them
			conn, err := b.worker.Pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			var after string
			if err := conn.QueryRow(t.Context(), "select "+settings).Scan(&after); err != nil || after != before {
				t.Errorf("%s, %v; want %s", after, err, before)
			}
		}
	})

	t.Run("shares_the_work_with_other_workers", func(t *testing.T) { // I1
		b := setupJobs(t, 3)
		const due = 60
		for i := range due {
			b.view(fmt.Sprintf("v%d", i), "select 1 as id")
		}
		var wg sync.WaitGroup
		for range 4 {
			pool, err := pgxpool.NewWithConfig(t.Context(), b.worker.Pool.Config())
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			worker := &refresh.Worker{Pool: pool, Store: schedule.NewStore(pool), Jobs: 3}
			wg.Go(func() {
				if _, err := worker.RunDue(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		b.Check("60 60 60", `select concat_ws(' ', count(*), count(distinct view_name), count(*) filter (where status = 'succeeded'))
			from mvsched.materialized_view_refresh_schedule_execution`)
	})

	t.Run("goes_on_with_one_connection", func(t *testing.T) {
		b := setupJobs(t, 2)
		config := b.worker.Pool.Config()
		config.MaxConns = 1
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		b.worker.Pool, b.worker.Store = pool, schedule.NewStore(pool)
		b.view("a", "select 1 as id")
		b.view("b", "select 1 as id")
		if got := b.runDue(); len(got) != 2 {
			t.Errorf("%v", got)
		}
	})

	t.Run("respects_its_limit", func(t *testing.T) {
		b := setupJobs(t, 4)
		for i := range 6 {
			b.view(fmt.Sprintf("v%d", i), "select 1 as id")
		}
		b.worker.Limit = 3
		if got := b.runDue(); len(got) != 3 {
			t.Errorf("%d refreshed", len(got))
		}
	})

	t.Run("runs_each_view_once_however_short_its_interval", func(t *testing.T) {
		b := setup(t)
		b.view("slow", "select 1 as id, pg_sleep(1.2)::text")
		b.view("quick", "select 1 as id")
		b.set("quick", "refresh_interval = '1 second'")
		if got := b.runDue(); len(got) != 2 { // runDue fails on a second run of one view
			t.Errorf("%v", got)
		}
	})

	t.Run("stops_when_all_that_is_due_is_held_by_somebody", func(t *testing.T) {
		b := setup(t)
		b.view("a", "select 1 as id")
		if _, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1}); err != nil {
			t.Fatal(err)
		}
		b.Hold(`select from mvsched.materialized_view_refresh_schedule for update`)
		began := time.Now()
		if got := b.runDue(); len(got) != 0 {
			t.Errorf("%v", got)
		}
		since(began, 5*time.Second, b)
	})

	t.Run("takes_over_from_a_worker_that_died_before_its_refresh", func(t *testing.T) { // L1
		b := setup(t)
		b.view("a", "select 1 as id")
		if _, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1}); err != nil {
			t.Fatal(err)
		}
		if claims, err := b.store.Claim(t.Context(), schedule.ClaimOptions{Worker: "dead", Limit: 1}); err != nil || len(claims) != 1 {
			t.Fatal(claims, err)
		}
		began := time.Now()
		e := b.runDue()["public.a"]
		since(began, 5*time.Second, b)
		if e.Status != schedule.Succeeded || e.Attempt != 2 {
			t.Errorf("%+v", e)
		}
		b.Check("abandoned never_started succeeded", `select string_agg(concat_ws(' ', status, reason), ' ' order by id)
			from mvsched.materialized_view_refresh_schedule_execution`)
	})
}

func TestTimeLimit(t *testing.T) {
	b := setup(t)
	b.Exec("create materialized view public.slow as select pg_sleep(60)::text as id with no data")
	b.schedule("slow")
	b.set("slow", "maximum_execution_duration = '1 second'")
	b.view("good", "select 1 as id")
	began := time.Now()
	executions := b.runDue()
	since(began, 4*time.Second, b)
	e := executions["public.slow"]
	if e.Status != schedule.TimedOut || e.TerminatedAt == nil || text(e.Reason) != schedule.ReasonTimeLimit || text(e.ErrorName) != "query_canceled" {
		t.Errorf("%+v", e)
	}
	if executions["public.good"].Status != schedule.Succeeded {
		t.Errorf("%+v", executions["public.good"])
	}
	b.Check("0", refreshing)
}

func TestSomebodyCancels(t *testing.T) {
	b := setup(t)
	b.Exec("create materialized view public.slow as select pg_sleep(60)::text as id with no data")
	b.schedule("slow")
	done := make(chan map[string]schedule.Execution)
	go func() { done <- b.runDue() }()
	b.Await("1", refreshing)
	b.Exec(`select pg_cancel_backend(pid) from pg_stat_activity where query like 'refresh materialized view%' and datname = current_database()`)
	if e := (<-done)["public.slow"]; e.Status != schedule.Cancelled || text(e.Reason) != schedule.ReasonRequested {
		t.Errorf("%+v", e)
	}
}

func TestSomebodyTerminates(t *testing.T) {
	b := setup(t)
	b.Exec("create materialized view public.slow as select pg_sleep(60)::text as id with no data")
	b.schedule("slow")
	b.view("good", "select 1 as id")
	b.set("good", "priority = -1")
	b.worker.Jobs = 1 // the other view has to wait for what becomes of this one
	done := make(chan []schedule.Execution)
	go func() {
		executions, err := b.worker.RunDue(t.Context())
		if err != nil {
			t.Error(err)
		}
		done <- executions
	}()
	b.Await("1", refreshing)
	b.Exec(`select pg_terminate_backend(pid) from pg_stat_activity where query like 'refresh materialized view%' and datname = current_database()`)
	// The slot is due again, and taken again.
	b.Await("2", `select count(*) from mvsched.materialized_view_refresh_schedule_execution`)
	b.Check("abandoned worker_lost admin_shutdown", `select concat_ws(' ', status, reason, error_name)
		from mvsched.materialized_view_refresh_schedule_execution order by id limit 1`)
	b.Await("1", refreshing)
	b.Exec(`select pg_cancel_backend(pid) from pg_stat_activity where query like 'refresh materialized view%' and datname = current_database()`)
	executions := <-done
	var ends []string
	for _, e := range executions {
		ends = append(ends, e.View+" "+string(e.Status))
	}
	if got := strings.Join(ends, ", "); got != "public.slow abandoned, public.slow cancelled, public.good succeeded" {
		t.Error(got)
	}
}

// Stopping: what runs is cancelled on the server, recorded, and due again (I9).
func TestStop(t *testing.T) {
	b := setup(t)
	b.Exec("create materialized view public.slow as select pg_sleep(60)::text as id with no data")
	b.schedule("slow")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	type result struct {
		executions []schedule.Execution
		err        error
	}
	done := make(chan result)
	go func() {
		executions, err := b.worker.RunDue(ctx)
		done <- result{executions, err}
	}()
	b.Await("1", refreshing)
	began := time.Now()
	cancel(stop)
	r := <-done
	since(began, 4*time.Second, b)
	if !errors.Is(r.err, stop) || len(r.executions) != 1 || r.executions[0].Status != schedule.Cancelled || text(r.executions[0].Reason) != schedule.ReasonShutdown {
		t.Errorf("%+v", r)
	}
	b.Check("0", refreshing)
	b.Check("null t", `select concat_ws(' ', coalesce(open_execution_id::text, 'null'), next_run_at <= now()) from mvsched.materialized_view_refresh_schedule`)
}

// A reader in an open transaction blocks a plain refresh; whoever holds an exclusive lock blocks any. New readers wait
// behind the refresh, but not for long: it gives up and lets them through before it tries again.
func TestLockBusy(t *testing.T) {
	b := setup(t)
	b.view("v", "select 1 as id")
	b.view("good", "select 1 as id")
	b.set("v", "strategy = 'plain'")
	b.Hold(`select from public.v`)
	pid := b.Value(`select pid from pg_stat_activity where state = 'idle in transaction' and datname = current_database()`)
	readers := b.readersOf("public.v")
	executions, err := b.worker.RunDue(t.Context())
	if longest := readers(); longest < time.Second || longest > 2*time.Second {
		t.Errorf("a new reader waited for %v", longest)
	}
	if err != nil {
		t.Fatal(err)
	}
	attempts := 0
	for _, e := range executions {
		if e.View == "public.good" {
			if e.Status != schedule.Succeeded {
				t.Errorf("%+v", e)
			}
			continue
		}
		attempts++
		if e.Status != schedule.Skipped || text(e.Reason) != schedule.ReasonLockBusy || text(e.ErrorName) != "lock_not_available" ||
			e.Attempt != attempts || !strings.Contains(text(e.ErrorMessage), "pid "+pid+" (user postgres)") {
			t.Errorf("%+v %s, want pid %s in it", e, text(e.ErrorMessage), pid)
		}
	}
	if attempts != 4 {
		t.Errorf("%d attempts in the slot", attempts)
	}
	b.Check("blocked", `select state from mvsched.status where view_name = 'public.v'`)
	b.Check("0", `select consecutive_failures from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.v'`)
	b.Check("true", `select next_run_at > now() and next_run_reason is null from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.v'`)
}

// readersOf reads the view again and again until the returned function is called, which returns how long the longest of
// these readers waited.
func (b *bundle) readersOf(view string) (stop func() time.Duration) {
	b.Helper()
	done, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		var longest time.Duration
		for {
			select {
			case <-done:
				result <- longest
				return
			case <-time.After(10 * time.Millisecond):
			}
			began := time.Now()
			if _, err := b.Pool.Exec(b.Context(), "select from "+view); err != nil {
				b.Error(err)
			}
			longest = max(longest, time.Since(began))
		}
	}()
	return sync.OnceValue(func() time.Duration { close(done); return <-result })
}

// An idle session that holds or deletes the schedule row can neither throw the refresh away nor has it to wait.
func TestTheScheduleRowIsHeldDuringTheRefresh(t *testing.T) {
	for name, sql := range map[string]string{
		"locked":  `select from mvsched.materialized_view_refresh_schedule for update`,
		"deleted": `delete from mvsched.materialized_view_refresh_schedule`,
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.view("v", "select 1 as id, pg_sleep(0.5)::text")
			done := make(chan map[string]schedule.Execution)
			go func() { done <- b.runDue() }()
			b.Await("1", refreshing)
			release := b.Hold(sql)
			if e := (<-done)["public.v"]; e.Status != schedule.Succeeded {
				t.Errorf("%+v", e)
			}
			release()
			b.Check("succeeded", `select status from mvsched.materialized_view_refresh_schedule_execution`)
		})
	}
}

// I6: REFRESH looks its view up by name after every wait, so another view may have the name by then.
func TestTheNameGoesToAnotherViewDuringTheWait(t *testing.T) {
	b := setup(t)
	b.view("v", "select 1 as id")
	b.Exec("create materialized view public.other as select 2 as id, clock_timestamp() as at")
	b.Exec("create unique index on public.other (id)")
	before := b.Value("select at from public.other")
	tx, err := b.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"alter materialized view public.v rename to gone", "alter materialized view public.other rename to v"} {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan map[string]schedule.Execution)
	go func() { done <- b.runDue() }()
	b.Await("1", `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'refresh materialized view%' and datname = current_database()`)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := (<-done)["public.v"]
	if e.Status != schedule.Failed || text(e.Reason) != schedule.ReasonViewReplaced || text(e.ErrorName) != "view_replaced" {
		t.Errorf("%+v", e)
	}
	b.Check(before, "select at from public.v") // the other one, under its new name
}

func TestRefresh(t *testing.T) {
	name := schedule.ViewName{Schema: "public", Name: "v"}

	t.Run("works_on_paused_and_unscheduled_views_and_moves_no_slot", func(t *testing.T) {
		b := setup(t)
		b.view("v", "select 1 as id")
		b.set("v", "paused_at = now(), next_run_at = '2040-01-01 00:00+00'")
		b.Exec("create materialized view public.w as select 1 as id")
		executions, err := b.worker.Refresh(t.Context(), []schedule.ViewName{name, {Schema: "public", Name: "w"}}, refresh.Options{Settings: schedule.Settings{}})
		if err != nil || len(executions) != 2 || executions[0].Status != schedule.Succeeded || executions[1].Status != schedule.Succeeded ||
			executions[0].Trigger != "manual" || executions[0].ScheduledAt != nil {
			t.Errorf("%+v, %v", executions, err)
		}
		b.Check("2040-01-01", `select next_run_at::date from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("refreshes_nothing_when_one_is_no_view", func(t *testing.T) {
		b := setup(t)
		b.view("v", "select 1 as id")
		_, err := b.worker.Refresh(t.Context(), []schedule.ViewName{name, {Schema: "public", Name: "nowhere"}}, refresh.Options{Settings: schedule.Settings{}})
		if !errors.Is(err, schedule.ErrNoView) {
			t.Errorf("%v", err)
		}
		b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule_execution`)
	})

	t.Run("waits_for_a_run_then_refreshes", func(t *testing.T) {
		b := setup(t)
		b.view("v", "select 1 as id, pg_sleep(0.5)::text")
		done := make(chan map[string]schedule.Execution)
		go func() { done <- b.runDue() }()
		b.Await("1", refreshing)
		pool, err := pgxpool.NewWithConfig(t.Context(), b.worker.Pool.Config())
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		second := &refresh.Worker{Pool: pool, Store: schedule.NewStore(pool)}
		executions, err := second.Refresh(t.Context(), []schedule.ViewName{name}, refresh.Options{Settings: schedule.Settings{}})
		first := (<-done)["public.v"]
		if err != nil || len(executions) != 1 || executions[0].Status != schedule.Succeeded || executions[0].StartedAt.Before(*first.EndedAt) {
			t.Errorf("%+v after %+v, %v", executions, first, err)
		}
	})

	t.Run("takes_its_settings_for_this_time_only", func(t *testing.T) {
		b := setup(t)
		b.view("v", "select 1 as id")
		plain := schedule.Plain
		executions, err := b.worker.Refresh(t.Context(), []schedule.ViewName{name}, refresh.Options{Settings: schedule.Settings{Strategy: &plain}})
		if err != nil || *executions[0].Method != schedule.MethodPlain {
			t.Errorf("%+v, %v", executions, err)
		}
		b.Check("auto", `select strategy from mvsched.materialized_view_refresh_schedule`)
	})
}
