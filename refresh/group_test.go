package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// group schedules views of schema public together.
func (b *bundle) group(names ...string) {
	b.Helper()
	for _, name := range names {
		b.set(name, "refresh_group = 'g'")
	}
}

// gate is public.wait(), which waits as long as somebody holds the returned table.
func (b *bundle) gate() {
	b.Helper()
	b.Exec(`create table public.gate ()`)
	b.Exec(`create function public.wait() returns integer language plpgsql as
		$$begin lock table public.gate in share mode; return 0; end$$`)
}

const waits = `select count(*) from pg_locks where not granted and relation = 'public.gate'::regclass`

func (b *bundle) checkEnd(got map[string]schedule.Execution, view string, status schedule.Status, reason string) {
	b.Helper()
	e := got["public."+view]
	if e.Status != status || reason != "" && text(e.Reason) != reason {
		b.Errorf("%s: %s %s %s %s", view, e.Status, text(e.Reason), text(e.ErrorName), text(e.ErrorMessage))
	}
}

func TestGroup(t *testing.T) {
	t.Run("shows_totals_that_agree_at_any_time", func(t *testing.T) {
		for _, strategy := range []string{"concurrently", "plain"} {
			t.Run(strategy, func(t *testing.T) { testTotalsAgree(t, strategy) })
		}
	})

	const same = "select id, n from public.base"

	// three makes a, b and c over one table; the queries of a and b are given.
	three := func(t *testing.T, queryA, queryB string) *bundle {
		b := setup(t)
		b.Exec(`create table public.base as select g as id, 1 as n from generate_series(1, 10) g`)
		b.gate()
		b.view("a", queryA)
		b.view("b", queryB)
		b.view("c", same)
		b.group("a", "b", "c")
		b.Exec(`update public.base set n = 0 where id <= 4`)
		return b
	}
	const sums = `select concat_ws(' ', (select sum(n) from public.a), (select sum(n) from public.b), (select sum(n) from public.c))`

	t.Run("sets_what_one_member_asks_for_for_that_one_alone", func(t *testing.T) {
		const seen = `current_setting('work_mem') || ' ' || current_setting('enable_indexscan') as seen`
		b := three(t, "select 1 as id, "+seen, "select 1 as id, "+seen)
		own := b.Value("select " + seen)
		b.set("a", `settings = '{"work_mem": "77MB", "enable_indexscan": "off"}'`)
		b.checkEnd(b.runDue(), "c", schedule.Succeeded, "")
		b.Check("77MB off", `select seen from public.a`)
		b.Check(own, `select seen from public.b`)
	})

	t.Run("is_one_transaction_with_a_record_of_each", func(t *testing.T) {
		b := three(t, same, same)
		got := b.runDue()
		for _, name := range []string{"a", "b", "c"} {
			e := got["public."+name]
			if e.Status != schedule.Succeeded || *e.Method != schedule.MethodConcurrently || *e.RowsInserted != 4 || *e.RowsDeleted != 4 {
				t.Errorf("%+v", e)
			}
		}
		b.Check("6 6 6", sums)
		b.Check("1", `select count(distinct xmin::text) from mvsched.materialized_view_refresh_schedule_execution`)
		b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule where open_execution_id is not null`)
	})

	t.Run("leaves_all_as_they_were_when_one_fails", func(t *testing.T) {
		b := three(t, same, "select id, 10 / n as n from public.base")
		got := b.runDue()
		b.checkEnd(got, "a", schedule.Skipped, schedule.ReasonGroupFailed)
		b.checkEnd(got, "b", schedule.Failed, "null")
		b.checkEnd(got, "c", schedule.Skipped, schedule.ReasonGroupFailed)
		if e := got["public.b"]; text(e.ErrorName) != "division_by_zero" || text(got["public.c"].ErrorMessage) != "public.b could not be refreshed" {
			t.Errorf("%+v", got)
		}
		b.Check("10 100 10", sums)
		b.Check("0 1 0", `select string_agg(consecutive_failures::text, ' ' order by materialized_view_name) from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("refreshes_nothing_when_a_member_is_gone", func(t *testing.T) {
		b := three(t, same, same)
		b.Exec(`drop materialized view public.c`)
		got := b.runDue()
		b.checkEnd(got, "a", schedule.Skipped, schedule.ReasonGroupFailed)
		b.checkEnd(got, "c", schedule.Failed, schedule.ReasonMissing)
		b.Check("10 10", `select concat_ws(' ', (select sum(n) from public.a), (select sum(n) from public.b))`)
	})

	t.Run("refreshes_a_chain_from_its_own_new_contents", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create table public.base as select g as id, 1 as n from generate_series(1, 10) g`)
		b.Exec(`create materialized view public.c as select id, n from public.base`)
		b.Exec(`create materialized view public.b as select * from public.c with no data`)
		b.Exec(`create materialized view public.a as select b.id, b.n from public.b join public.c using (id) with no data`)
		for _, name := range []string{"a", "b", "c"} {
			b.schedule(name)
		}
		b.Exec(`create unique index on public.c (id)`)
		b.Exec(`create unique index on public.a (id)`)
		b.runDue() // each by itself
		b.group("a", "b", "c")
		b.Exec(`update public.base set n = 2`)
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() where materialized_view_name = 'public.b'`)
		got := b.runDue()
		b.Check("20 20 20", sums)
		for _, name := range []string{"a", "b", "c"} {
			b.checkEnd(got, name, schedule.Succeeded, "null")
			if !got["public."+name].DataAsOf.Equal(*got["public.c"].DataAsOf) || got["public."+name].DataAsOf.Before(got["public.c"].StartedAt) {
				t.Errorf("%s is as of %v, c as of %v", name, got["public."+name].DataAsOf, got["public.c"].DataAsOf)
			}
		}
		if e := got["public.a"]; *e.RowsInserted != 10 || *e.RowsDeleted != 10 {
			t.Errorf("%+v", e)
		}
	})

	for name, change := range map[string]string{
		"writes_rows_that_it_is_to_write":   `insert into public.base values (11, 1)`, // unique_violation
		"deletes_rows_that_it_is_to_delete": `delete from public.base where id = 1`,   // serialization_failure
	} {
		t.Run("begins_anew_when_somebody_who_refreshes_a_member_"+name, func(t *testing.T) {
			b := three(t, "select id, n + public.wait() as n from public.base", same)
			release := b.Hold(`lock table public.gate in access exclusive mode`)
			b.Exec(change)
			done := make(chan map[string]schedule.Execution)
			go func() { done <- b.runDue() }()
			b.Await("1", waits)
			b.Exec(`insert into public.base values (21, 100)`)
			b.Exec(`refresh materialized view concurrently public.b`)
			release()
			got := <-done
			for _, name := range []string{"a", "b", "c"} {
				b.checkEnd(got, name, schedule.Succeeded, "null")
			}
			sum := b.Value(`select sum(n) from public.base`)
			b.Check(sum+" "+sum+" "+sum, sums)
		})
	}

	for name, change := range map[string]string{
		"refreshes_a_member_plainly":    `refresh materialized view public.b`,
		"changes_a_setting_of_a_member": `alter materialized view public.b set (fillfactor = 80)`,
	} {
		t.Run("minds_nobody_who_meanwhile_"+name, func(t *testing.T) {
			b := three(t, "select id, n + public.wait() as n from public.base", same)
			b.Exec(`drop index public.b_id_idx`)
			release := b.Hold(`lock table public.gate in access exclusive mode`)
			done := make(chan map[string]schedule.Execution)
			go func() { done <- b.runDue() }()
			b.Await("1", waits)
			b.Exec(change)
			release()
			for view, e := range <-done {
				if e.Status != schedule.Succeeded {
					t.Errorf("%s: %s %s", view, e.Status, text(e.ErrorMessage))
				}
			}
			b.Check("6 6 6", sums)
		})
	}

	t.Run("refreshes_nothing_when_members_change_names_meanwhile", func(t *testing.T) {
		b := three(t, "select id, n + public.wait() as n from public.base", same)
		release := b.Hold(`lock table public.gate in access exclusive mode`)
		done := make(chan map[string]schedule.Execution)
		go func() { done <- b.runDue() }()
		b.Await("1", waits)
		b.Exec(`alter materialized view public.b rename to was_b; alter materialized view public.c rename to b; alter materialized view public.was_b rename to c`)
		release()
		reasons := map[string]int{}
		for _, e := range <-done {
			reasons[text(e.Reason)]++
		}
		if reasons[schedule.ReasonViewReplaced] != 1 || reasons[schedule.ReasonGroupFailed] != 2 {
			t.Errorf("%v", reasons)
		}
		b.Check("10 10 10", sums)
	})

	t.Run("is_not_taken_for_dead_when_it_begins_anew", func(t *testing.T) {
		b := three(t, "select id, n + public.wait() as n from public.base", same)
		release := b.Hold(`lock table public.gate in access exclusive mode`)
		b.Exec(`insert into public.base values (11, 1)`)
		done := make(chan map[string]schedule.Execution)
		go func() { done <- b.runDue() }()
		b.Await("1", waits)
		b.Exec(`refresh materialized view concurrently public.b`)
		held := make(chan func())
		go func() { // gets the lock on the first one's execution between the two attempts, and so keeps all of it there
			held <- b.Hold(`select from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.a' for update`)
		}()
		b.Await("2", `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`)
		release()
		letGo := <-held
		if outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{}); err != nil || len(outlook.Abandoned) > 0 {
			t.Errorf("taken for dead: %v, %v", outlook.Abandoned, err)
		}
		letGo()
		for name, execution := range <-done {
			if execution.Status != schedule.Succeeded {
				t.Errorf("%s has %s", name, execution.Status)
			}
		}
	})

	t.Run("has_a_time_limit_for_each", func(t *testing.T) {
		b := three(t, same, same)
		b.Exec(`create materialized view public.slow as select pg_sleep(3.2)::text as id with no data`)
		b.Exec(`create materialized view public.slower as select pg_sleep(60)::text as id with no data`)
		for _, name := range []string{"slow", "slower"} { // first fills are plain, and come last
			b.schedule(name)
			b.group(name)
		}
		b.set("slower", "maximum_execution_duration = '3 seconds'")
		got := b.runDue()
		b.checkEnd(got, "slower", schedule.TimedOut, schedule.ReasonTimeLimit)
		b.checkEnd(got, "slow", schedule.Skipped, schedule.ReasonGroupFailed)

		// What the others took does not count.
		b.set("slow", "next_run_at = now()")
		done := make(chan map[string]schedule.Execution)
		go func() { done <- b.runDue() }()
		b.Await("1", refreshing+` and query like '%slower%' and wait_event = 'PgSleep'`)
		b.Exec(`select pg_cancel_backend(pid) from pg_stat_activity
			where query like 'refresh%slower%' and datname = current_database() and pid <> pg_backend_pid()`)
		b.checkEnd(<-done, "slower", schedule.Cancelled, schedule.ReasonRequested)
	})

	t.Run("ends_as_a_whole_on_request", func(t *testing.T) {
		b := three(t, same, "select id, n + public.wait() as n from public.base")
		b.Hold(`lock table public.gate in access exclusive mode`)
		done := make(chan map[string]schedule.Execution)
		go func() { done <- b.runDue() }()
		b.Await("1", waits)
		ended, _, err := schedule.NewStore(b.Pool).Cancel(t.Context(), []schedule.ViewName{{Schema: "public", Name: "c"}})
		if err != nil || len(ended) != 1 || ended[0].Status != schedule.Cancelled {
			t.Errorf("%+v %v", ended, err)
		}
		got := <-done
		for _, name := range []string{"a", "b", "c"} {
			b.checkEnd(got, name, schedule.Cancelled, schedule.ReasonRequested)
		}
		b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule where next_run_at <= now() or open_execution_id is not null`)
	})

	t.Run("is_over_time_in_no_member_that_was_not_at_it", func(t *testing.T) {
		b := three(t, same, "select id, n + public.wait() as n from public.base")
		b.set("b", "maximum_execution_duration = '3 seconds'")
		b.Exec(`create function public.take_time() returns trigger language plpgsql as $$ begin perform pg_sleep(3.2); return new; end $$`)
		b.Exec(`create trigger take_time before update on mvsched.materialized_view_refresh_schedule_execution
			for each row when (new.view_name = 'public.a' and new.status = 'cancelled') execute function public.take_time()`)
		b.Hold(`lock table public.gate in access exclusive mode`)
		done := make(chan map[string]schedule.Execution)
		go func() { done <- b.runDue() }()
		b.Await("1", waits)
		b.Exec(`insert into mvsched.materialized_view_refresh_cancel (execution_id)
			select id from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.b'`)
		got := <-done
		b.checkEnd(got, "a", schedule.Cancelled, schedule.ReasonRequested)
		b.checkEnd(got, "c", schedule.Cancelled, schedule.ReasonRequested) // recorded when b's time is up
	})

	t.Run("stays_due_when_its_worker_is_told_to_stop", func(t *testing.T) {
		b := three(t, same, "select id, n + public.wait() as n from public.base")
		release := b.Hold(`lock table public.gate in access exclusive mode`)
		ctx, stop := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() {
			_, err := b.worker.RunDue(ctx)
			done <- err
		}()
		b.Await("1", waits)
		stop(errStop)
		if err := <-done; !errors.Is(err, errStop) {
			t.Error(err)
		}
		b.Check("3", `select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'cancelled' and reason = 'shutdown'`)
		release()
		got := b.runDue()
		for _, name := range []string{"a", "b", "c"} {
			b.checkEnd(got, name, schedule.Succeeded, "null")
		}
	})

	t.Run("is_refreshed_as_a_whole_by_hand", func(t *testing.T) {
		b := three(t, same, same)
		b.runDue()
		b.Exec(`create materialized view public.d as select id, n from public.b`)
		b.set("c", "paused_at = now()")
		b.Exec(`update public.base set n = 5`)
		slots := `select string_agg(next_run_at::text, ' ' order by id) from mvsched.materialized_view_refresh_schedule`
		before := b.Value(slots)
		executions, err := b.worker.Refresh(t.Context(), []schedule.ViewName{{Schema: "public", Name: "d"}, {Schema: "public", Name: "b"}}, refresh.Options{})
		if err != nil || len(executions) != 3 {
			t.Errorf("%+v %v", executions, err)
		}
		for _, e := range executions {
			if e.Status != schedule.Succeeded || e.Trigger != "manual" {
				t.Errorf("%+v", e)
			}
		}
		b.Check("50 50 6", sums)
		b.Check("50", `select sum(n) from public.d`)
		b.Check(before, slots)
		b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule where open_execution_id is not null`)
	})

	t.Run("is_waited_for_by_who_refreshes_a_member_by_hand", func(t *testing.T) { // I1
		b := three(t, "select id, n + public.wait() as n from public.base", same)
		release := b.Hold(`lock table public.gate in access exclusive mode`)
		done := make(chan map[string]schedule.Execution)
		go func() { done <- b.runDue() }()
		b.Await("1", waits)
		byHand := make(chan []schedule.Execution)
		go func() {
			executions, err := (&refresh.Worker{Pool: b.Pool, Store: schedule.NewStore(b.Pool)}).Refresh(
				t.Context(), []schedule.ViewName{{Schema: "public", Name: "c"}}, refresh.Options{})
			if err != nil {
				t.Error(err)
			}
			byHand <- executions
		}()
		b.Await("true", `select count(*) > 0 from pg_stat_activity where datname = current_database() and query like '%claim_group($1%'`)
		release()
		<-done
		for _, e := range <-byHand {
			if e.Status != schedule.Succeeded {
				t.Errorf("%+v", e)
			}
		}
		b.Check("6", `select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'`)
	})

	t.Run("is_not_locked_before_its_snapshot_since_views_cannot_be", func(t *testing.T) { // docs/groups.md says so
		b := three(t, same, same)
		if _, err := b.Pool.Exec(t.Context(), `lock table public.a in exclusive mode`); err == nil {
			t.Error("a materialized view can be locked")
		}
	})
}

var errStop = errors.New("stop")

// testTotalsAgree reads the totals of three views over one table in one statement, while that is written to a thousand times a
// second and a server refreshes the views.
func testTotalsAgree(t *testing.T, strategy string) {
	b := setup(t)
	b.Exec(`create table public.sale (id bigint generated always as identity, venue integer not null, amount integer not null)`)
	b.Exec(`insert into public.sale (venue, amount) select g % 50, g from generate_series(1, 20000) g`)
	b.view("a", "select venue as id, sum(amount) as total from public.sale group by venue")
	b.view("b", "select 1 as id, sum(amount) as total from public.sale")
	b.view("c", "select amount % 7 as id, sum(amount) as total from public.sale group by 1")
	b.Exec(`update mvsched.materialized_view_refresh_schedule set refresh_interval = '1 second'`)
	b.set("b", fmt.Sprintf("strategy = '%s'", strategy))
	b.group("a", "b", "c")

	ctx, stop := context.WithCancel(t.Context())
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, err := b.Pool.Exec(ctx, `do $$
			declare
			  began timestamptz := clock_timestamp();
			begin
			  for n in 1 .. 1000000 loop
			    insert into public.sale (venue, amount) values ((random() * 50)::integer, (random() * 1000)::integer);
			    commit;
			    perform pg_sleep(n / 1200.0 - extract(epoch from clock_timestamp() - began)::float8);
			  end loop;
			end $$`)
		if ctx.Err() == nil {
			t.Error(err)
		}
	}()
	b.serve(refresh.Serving{})
	began := time.Now()
	seen := map[string]bool{}
	samples, disagree := 0, 0
	for ; samples < 1000 || len(seen) < 6; samples++ {
		var one, two, three string
		if err := b.Pool.QueryRow(t.Context(), `select (select sum(total) from public.a)::text, (select sum(total) from public.b)::text,
			(select sum(total) from public.c)::text`).Scan(&one, &two, &three); err != nil {
			t.Fatal(err)
		}
		seen[two] = true
		if one != two || two != three {
			disagree++
		}
	}
	took := time.Since(began)
	stop()
	<-written
	writes := b.Value("select count(*) - 20000 from public.sale")
	t.Logf("%d samples, %d totals, %d disagree; %s writes in %v", samples, len(seen), disagree, writes, took)
	if disagree > 0 {
		t.Errorf("%d of %d samples disagree", disagree, samples)
	}
}
