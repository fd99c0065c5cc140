package schedule_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/schedule"
)

func TestClaim(t *testing.T) {
	t.Run("takes_what_has_been_due_for_longest", func(t *testing.T) {
		b := setup(t)
		for _, name := range []string{"a", "b", "c"} {
			b.view(name, "1 hour")
		}
		b.tend()
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() - interval '1 minute'
			where materialized_view_name = 'public.b'`)
		if got := views(b.claim(1)); !slices.Equal(got, []string{"public.b"}) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("records_the_claim_and_moves_the_slot_in_one_statement", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		c := b.claim(5)
		if len(c) != 1 || c[0].Schema != "public" || c[0].Name != "a" || !c[0].Populated || !c[0].UniqueIndex || !c[0].OwnerTemp ||
			c[0].Timeout != 30*time.Minute || c[0].Attempt != 1 || c[0].OID == 0 {
			t.Fatalf("%+v", c)
		}
		b.Check("running schedule test", `select concat_ws(' ', status, trigger, worker)
			from mvsched.materialized_view_refresh_schedule_execution`)
		b.Check("true", `select s.next_run_at = e.scheduled_at + interval '1 hour' and s.open_execution_id = e.id
			from mvsched.materialized_view_refresh_schedule s, mvsched.materialized_view_refresh_schedule_execution e`)
		if again := b.claim(5); len(again) != 0 {
			t.Errorf("claimed twice: %v", again)
		}
	})

	t.Run("skips_a_row_another_worker_holds", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.view("b", "1 hour")
		b.tend()
		release := b.Hold(`select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.a' for update`)
		if got := views(b.claim(2)); !slices.Equal(got, []string{"public.b"}) {
			t.Errorf("claimed %v while a was held", got)
		}
		release()
		if got := views(b.claim(2)); !slices.Equal(got, []string{"public.a"}) {
			t.Errorf("claimed %v after a was released", got)
		}
	})

	t.Run("leaves_out_paused_suspended_and_future_ones", func(t *testing.T) {
		b := setup(t)
		for i, change := range []string{"paused_at = now()", "suspended_at = now()", "next_run_at = now() + interval '1 second'"} {
			name := fmt.Sprintf("v%d", i)
			b.view(name, "1 hour")
			b.tend()
			b.Exec(`update mvsched.materialized_view_refresh_schedule set ` + change + ` where materialized_view_name = 'public.` + name + `'`)
		}
		if got := b.claim(5); len(got) != 0 {
			t.Errorf("claimed %v", views(got))
		}
	})

	t.Run("prefers_priority_among_what_is_due_and_starves_nobody", func(t *testing.T) {
		b := setup(t)
		for _, name := range []string{"low", "high"} {
			b.view(name, "1 second")
		}
		b.Exec(`update mvsched.materialized_view_refresh_schedule set priority = 10 where materialized_view_name = 'public.high'`)
		b.tend()
		if got := views(b.claim(1)); !slices.Equal(got, []string{"public.high"}) {
			t.Errorf("claimed %v first", got)
		}
		// 150 more of high priority are due now; the low one has waited for longer than its priority takes to make up.
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule
			(materialized_view_name, refresh_interval, priority, next_run_at)
			select 'public.more' || g, '1 hour', 10, now() from generate_series(1, 150) g`)
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() - interval '11 minutes'
			where materialized_view_name = 'public.low'`)
		if got := views(b.claim(1)); !slices.Equal(got, []string{"public.low"}) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("never_takes_more_than_its_limit_whatever_the_plan", func(t *testing.T) {
		b := setup(t)
		for i := range 10 {
			b.view(fmt.Sprintf("v%d", i), "1 hour")
		}
		b.tend()
		conn, err := b.Pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		if _, err := conn.Exec(t.Context(), "set jit = off"); err != nil { // what is forbidden costs so much that it would compile
			t.Fatal(err)
		}
		for _, setting := range []string{
			"enable_hashjoin = off", "enable_mergejoin = off", "enable_material = off", "enable_sort = off", "enable_indexscan = off",
			"enable_bitmapscan = off", "enable_seqscan = off", "enable_hashagg = off", "enable_nestloop = off",
		} {
			if _, err := conn.Exec(t.Context(), "set "+setting); err != nil {
				t.Fatal(err)
			}
			claims, err := b.store.On(conn).Claim(t.Context(), schedule.ClaimOptions{Limit: 1})
			if err != nil || len(claims) != 1 {
				t.Errorf("with %s: %d claims, %v", setting, len(claims), err)
			}
		}
		if _, err := conn.Exec(t.Context(), "discard all"); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("has_its_claims_put_together_without_a_call", func(t *testing.T) {
		b := setup(t)
		for _, name := range []string{"alone", "one", "other"} {
			b.view(name, "1 hour")
		}
		b.group("g", "one", "other")
		b.tend()
		err := pgx.BeginFunc(t.Context(), b.Pool, func(tx pgx.Tx) error {
			var claims, calls int
			if _, err := tx.Exec(t.Context(), `set local track_functions = 'all'`); err != nil { // but for what is put in the place of a call
				return err
			}
			if err := tx.QueryRow(t.Context(), `select count(*) from mvsched.claim('w', 3, null, null, null, true)`).Scan(&claims); err != nil {
				return err
			}
			err := tx.QueryRow(t.Context(), `select sum(coalesce(pg_stat_get_xact_function_calls(p.oid), 0))
				from pg_proc p where p.proname = 'claim_of' and p.pronamespace = 'mvsched'::regnamespace`).Scan(&calls)
			if claims != 3 || calls != 0 {
				t.Errorf("%d claims, %d calls", claims, calls)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})

	t.Run("moves_the_slot_by_whole_intervals_past_now", func(t *testing.T) {
		b := setup(t)
		at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		now := &clock{at}
		b.store.Now = now.Now
		b.view("a", "1 day") // across the spring change of New York, where that day has 23 hours
		b.Exec("alter database " + b.Value("quote_ident(current_database())") + " set timezone = 'America/New_York'")
		b.Pool.Reset()
		b.tend()
		b.Check("true", `select next_run_at = $1 from mvsched.materialized_view_refresh_schedule`, at)
		for _, step := range []struct{ now, next time.Duration }{
			{0, schedule.Day},
			{schedule.Day, 2 * schedule.Day},
			{2*schedule.Day + time.Hour, 3 * schedule.Day},
			{10*schedule.Day + time.Minute, 11 * schedule.Day},
			{11 * schedule.Day, 12 * schedule.Day},
		} {
			now.now = at.Add(step.now)
			claims := b.claim(1)
			if len(claims) != 1 {
				t.Fatalf("at %v: %d claims", step.now, len(claims))
			}
			b.Check("true", `select next_run_at = $1 from mvsched.materialized_view_refresh_schedule`, at.Add(step.next))
			b.succeed(claims[0])
		}
	})

	t.Run("is_not_stopped_by_bad_rows", func(t *testing.T) { // rows that came past the trigger, as with a restore
		b := setup(t)
		b.view("good", "1 hour")
		b.Exec(`alter table mvsched.materialized_view_refresh_schedule disable trigger check_schedule`)
		for _, name := range []string{`"`, `a.b.c`, `public.gone`, strings.Repeat("x", 70), `mvsched.status`} {
			b.Schedule(name, "1 hour")
		}
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, last_attempted_at, next_run_at)
			values ('public.far', '3650 days', '9999-12-31', '1970-01-01 00:00+00')`)
		b.tend()
		claims := b.claim(100)
		if len(claims) != 7 {
			t.Errorf("claimed %v", views(claims))
		}
		if !slices.ContainsFunc(claims, func(c schedule.Claim) bool { return c.View == "public.good" && c.OID != 0 }) {
			t.Errorf("the good one is not among %v", views(claims))
		}
	})

	t.Run("goes_past_a_view_that_somebody_refreshes_by_hand", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.view("b", "1 hour")
		b.tend()
		release := b.Hold(`select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.a' for update`)
		manual, err := b.store.ClaimView(t.Context(), schedule.ViewName{Schema: "public", Name: "a"}, schedule.Settings{}, schedule.ClaimOptions{})
		if err != nil || manual == nil {
			t.Fatalf("%v, %v", manual, err)
		}
		release()
		if got := views(b.claim(1)); !slices.Equal(got, []string{"public.b"}) {
			t.Errorf("claimed %v", got)
		}
	})
}

// I1: many workers, each view once, also where the database's default isolation is stricter.
func TestClaimConcurrently(t *testing.T) {
	for _, isolation := range []string{"read committed", "repeatable read", "serializable"} {
		t.Run(isolation, func(t *testing.T) {
			b := setup(t)
			b.Exec("alter database " + b.Value("quote_ident(current_database())") + " set default_transaction_isolation = '" + isolation + "'")
			b.Pool.Reset()
			b.Check(isolation, "current_setting('transaction_isolation')")
			const due = 120
			for i := range due {
				b.view(fmt.Sprintf("v%d", i), "1 hour")
			}
			b.tend()
			var mu sync.Mutex
			var got []string
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for {
						claims, err := b.store.Claim(t.Context(), schedule.ClaimOptions{Limit: 3})
						if err != nil {
							t.Error(err)
							return
						}
						if len(claims) == 0 {
							return
						}
						mu.Lock()
						got = append(got, views(claims)...)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			slices.Sort(got)
			if n := len(slices.Compact(slices.Clone(got))); n != due || len(got) != due {
				t.Errorf("%d claims of %d views, want %d", len(got), n, due)
			}
			b.Check(fmt.Sprint(due), `select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'running'`)
		})
	}
}

// I7: the database's clock decides. A worker's own does only where a test says so.
func TestTheDatabaseHasTheClock(t *testing.T) {
	if schedule.NewStore(nil).TellsTheTime() {
		t.Error("statements get the worker's time")
	}
}

// The guard of I1 that holds whatever the code does.
func TestASecondRunningExecutionCannotExist(t *testing.T) {
	b := setup(t)
	b.view("a", "1 hour")
	insert := `insert into mvsched.materialized_view_refresh_schedule_execution (view_name, view_oid) values ('public.a', 4711)`
	b.Exec(insert)
	if _, err := b.Pool.Exec(t.Context(), insert); err == nil {
		t.Error("two running executions of one view")
	}
}

// The claim reads its index and nothing else, also where the statistics are stale, and with the plans that the server
// keeps from the sixth call on.
func TestClaimPlan(t *testing.T) {
	b := setup(t)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
		select 'public.v' || g, '1 hour', now() + make_interval(mins => g % 60) - interval '1 minute' from generate_series(1, 20000) g`)
	for _, statistics := range []string{"stale", "fresh"} {
		if statistics == "fresh" {
			b.Exec(`analyze mvsched.materialized_view_refresh_schedule`)
		}
		tx, err := b.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			if _, err := tx.Exec(t.Context(), schedule.ClaimSQL, "test", 1, nil, nil, nil, false, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		var sequential, byIndex, claimed int
		err = tx.QueryRow(t.Context(), `select
			pg_stat_get_xact_numscans('mvsched.materialized_view_refresh_schedule'::regclass),
			pg_stat_get_xact_numscans('mvsched.materialized_view_refresh_schedule_due'::regclass),
			(select count(*) from mvsched.materialized_view_refresh_schedule_execution)`).Scan(&sequential, &byIndex, &claimed)
		if err != nil || sequential > 0 || byIndex == 0 || claimed != 8 {
			t.Errorf("with %s statistics: %d sequential scans, %d of the index, %d claims, %v", statistics, sequential, byIndex, claimed, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// What has ended is found by its key, also where the statistics are of an empty history: they make all that ever succeeded
// look like a handful of rows.
func TestSettlePlan(t *testing.T) {
	b := setup(t)
	b.view("a", "1 hour")
	b.Exec(`analyze mvsched.materialized_view_refresh_schedule_execution`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		(materialized_view_refresh_schedule_id, view_name, view_oid, status, started_at, ended_at, method, data_as_of, refreshed_at)
		select id, materialized_view_name, view_oid, 'succeeded', began, began, 'plain', began, began
		  from mvsched.materialized_view_refresh_schedule, pg_catalog.generate_series(now() - interval '1 day', now(), interval '1 minute') began`)
	for _, sql := range []string{`select mvsched.settle(1)`, `select mvsched.settle()`} {
		tx, err := b.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 8 { // from the sixth on by a plan that is kept
			if _, err := tx.Exec(t.Context(), `update mvsched.materialized_view_refresh_schedule set open_execution_id =
				(select max(id) from mvsched.materialized_view_refresh_schedule_execution)`); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		var open, read int
		err = tx.QueryRow(t.Context(), `select count(s.open_execution_id),
			       (select sum(pg_stat_get_xact_tuples_returned(i.indexrelid)) from pg_catalog.pg_index i
			         where i.indrelid = 'mvsched.materialized_view_refresh_schedule_execution'::regclass)
			  from mvsched.materialized_view_refresh_schedule s`).Scan(&open, &read)
		if err != nil || open != 0 || read > 100 {
			t.Errorf("%s: %d left, %d entries read, %v", sql, open, read, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// What was running leaves entries in the index on what is running as long as a transaction is open that could still see it. A refresh
// reads none of them, whatever the statistics say: they would be half a million for the last of a thousand.
func TestRefreshPlan(t *testing.T) {
	b := setup(t)
	b.view("a", "1 hour")
	b.tend()
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (view_name, status, started_at, ended_at)
		select 'public.a', 'failed', now(), now() from generate_series(1, 5000)`)
	b.Exec(`vacuum analyze mvsched.materialized_view_refresh_schedule_execution`)
	b.Hold(`select pg_current_xact_id()`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (view_name, view_oid, started_at)
		select 'public.a', oid, now() - interval '1 hour' from generate_series(900000, 900999) oid`)
	b.Exec(`update mvsched.materialized_view_refresh_schedule_execution
		set status = 'failed', ended_at = now() where status = 'running'`)
	claims := b.claim(1)
	if len(claims) != 1 {
		t.Fatalf("claimed %v", claims)
	}
	c := claims[0]
	for what, do := range map[string]func(tx pgx.Tx) error{
		"begin": func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `select mvsched.begin_refresh($1, $2, 'plain', '1 min', '1 s', $3)`, c.ExecutionID, c.OID, c.ClaimedAt)
			return err
		},
		"success": func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `select from mvsched.refresh_succeeded($1, $2, 'public', 'a', 'plain')`, c.ExecutionID, c.OID)
			return err
		},
		"failure": func(tx pgx.Tx) error {
			_, err := b.store.On(tx.Conn()).EndUnderLock(t.Context(), c, schedule.Ending{Status: schedule.Failed})
			return err
		},
	} {
		tx, err := b.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		read := func() (entries int) {
			err := tx.QueryRow(t.Context(), `select coalesce(sum(pg_stat_get_xact_tuples_returned(i.indexrelid)), 0) from pg_catalog.pg_index i
				where i.indrelid = 'mvsched.materialized_view_refresh_schedule_execution'::regclass`).Scan(&entries)
			if err != nil {
				t.Fatal(err)
			}
			return entries
		}
		before := read()
		if err := do(tx); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n := read() - before; n > 20 {
			t.Errorf("%s: %d entries read", what, n)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClaimView(t *testing.T) {
	name := schedule.ViewName{Schema: "public", Name: "a"}
	claim := func(b *bundle) *schedule.Claim {
		b.Helper()
		c, err := b.store.ClaimView(b.Context(), name, schedule.Settings{Timeout: ptr(time.Minute)}, schedule.ClaimOptions{Worker: "test"})
		if err != nil {
			b.Fatal(err)
		}
		return c
	}

	t.Run("does_not_move_the_slot", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		before := b.Value(`select next_run_at from mvsched.materialized_view_refresh_schedule`)
		c := claim(b)
		if c == nil || c.Timeout != time.Minute || c.ScheduleID == nil {
			t.Fatalf("%+v", c)
		}
		b.Check(before, `select next_run_at from mvsched.materialized_view_refresh_schedule`)
		b.Check("manual", `select trigger from mvsched.materialized_view_refresh_schedule_execution`)
		if again := claim(b); again != nil {
			t.Errorf("claimed twice: %+v", again)
		}
	})

	t.Run("takes_a_view_without_a_schedule", func(t *testing.T) {
		b := setup(t)
		b.view("a", "")
		if c := claim(b); c == nil || c.ScheduleID != nil || c.Strategy != schedule.Auto {
			t.Errorf("%+v", c)
		}
	})

	t.Run("settles_into_the_schedule", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Exec(`update mvsched.materialized_view_refresh_schedule set consecutive_failures = 3`)
		b.succeed(*claim(b))
		if err := b.store.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.Check("0", `select consecutive_failures from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("does_not_wait_for_a_held_schedule", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Hold(`delete from mvsched.materialized_view_refresh_schedule`)
		if claim(b) == nil {
			t.Error("no claim")
		}
	})
}
