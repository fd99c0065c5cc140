package schedule_test

import (
	"fmt"
	"testing"
)

// past inserts terminal executions of public.a, one a minute, the last one the given time ago, and returns its id.
func (b *bundle) past(status, reason, trigger, ago string, count int) string {
	b.Helper()
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution as e
	           (materialized_view_refresh_schedule_id, view_name, view_oid, status, reason, trigger, method, data_as_of, refreshed_at, started_at, ended_at)
		select (select s.id from mvsched.materialized_view_refresh_schedule s where s.materialized_view_name = 'public.a'),
		       'public.a', 'public.a'::regclass, $1::text, nullif($2, ''), $3, case $1::text when 'succeeded' then 'plain' end,
		       case when $1::text = 'succeeded' or $2 = 'unchanged' then at end, case when $1::text = 'succeeded' or $2 = 'unchanged' then at end, at, at
		  from generate_series($5::integer - 1, 0, -1) n
		 cross join lateral (select now() - $4::text::interval - n * interval '1 minute' as at) t`, status, reason, trigger, ago, count)
	return b.Value(`select max(id) from mvsched.materialized_view_refresh_schedule_execution`)
}

// recent makes what was inserted before the last of nothing.
func (b *bundle) recent() { b.past("succeeded", "", "schedule", "1 minute", 1) }

func (b *bundle) prune() int64 {
	b.Helper()
	deleted, err := b.store.Prune(b.Context(), 0)
	if err != nil {
		b.Fatal(err)
	}
	return deleted
}

// left is what of the history is left, by status.
const left = `select string_agg(status || ' ' || n, ', ' order by status) from (
	select status, count(*) as n from mvsched.materialized_view_refresh_schedule_execution group by status) s`

func TestPrune(t *testing.T) {
	scheduled := func(t *testing.T) *bundle {
		b := setup(t)
		b.view("a", "1 hour")
		return b
	}

	t.Run("goes_by_outcome", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		for _, status := range []string{"failed", "timed_out", "cancelled", "abandoned"} {
			b.past(status, "", "schedule", "91 days", 3)
			b.past(status, "", "schedule", "89 days", 2)
		}
		b.past("skipped", "lock_busy", "schedule", "8 days", 4)
		b.past("skipped", "lock_busy", "schedule", "6 days", 5)
		b.recent()
		if n := b.prune(); n != 16 {
			t.Errorf("%d", n)
		}
		b.Check("abandoned 2, cancelled 2, failed 2, skipped 5, succeeded 1, timed_out 2", left)
		b.Check("true", `select pruned_at = now() or pruned_at > now() - interval '1 min' from mvsched.settings`)
	})

	t.Run("keeps_the_last_successes_of_each_view", func(t *testing.T) {
		b := scheduled(t)
		b.past("succeeded", "", "schedule", "40 days", 150)
		b.recent()
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (view_name, status, method, data_as_of, started_at, ended_at)
			select 'public.rare', 'succeeded', 'plain', now(), at, at from generate_series(1, 90) n cross join lateral (select now() - interval '1 day' * (n + 31) as at) t`)
		if n := b.prune(); n != 51 {
			t.Errorf("%d", n)
		}
		b.Check("100 90", `select string_agg(n::text, ' ' order by view_name) from (
			select view_name, count(*) as n from mvsched.materialized_view_refresh_schedule_execution group by view_name) v`)
		b.Exec(`update mvsched.settings set keep_last = 0`)
		b.prune()
		b.Check("succeeded 1", left) // the view without a schedule is not there
	})

	t.Run("keeps_what_something_is_decided_by", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Exec(`update mvsched.settings set keep_last = 0`)
		newData := b.past("succeeded", "", "schedule", "200 days", 5)
		b.Exec(`alter table mvsched.materialized_view_refresh_schedule_execution disable trigger keep_terminal_execution`)
		b.past("succeeded", "", "schedule", "190 days", 5)
		b.Exec(`update mvsched.materialized_view_refresh_schedule_execution
			set method = 'concurrently', rows_inserted = 0, rows_deleted = 0 where id > $1::bigint`, newData)
		open := b.past("failed", "", "schedule", "189 days", 1)
		b.Exec(`update mvsched.materialized_view_refresh_schedule set open_execution_id = $1::bigint`, open)
		upToDate := b.past("skipped", "unchanged", "schedule", "188 days", 5)
		telling := b.past("failed", "", "schedule", "187 days", 5)
		b.past("cancelled", "shutdown", "schedule", "186 days", 2)
		last := b.past("failed", "", "manual", "185 days", 5)
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (materialized_view_refresh_schedule_id, view_name, view_oid, started_at)
			select s.id, 'public.a', s.view_oid, now() - interval '1 year' from mvsched.materialized_view_refresh_schedule s`)
		running := b.Value(`select max(id) from mvsched.materialized_view_refresh_schedule_execution`)
		b.prune()
		b.Check(fmt.Sprintf("{%s,%s,%s,%s,%s,%s}", newData, open, upToDate, telling, last, running),
			`select array_agg(id order by id) from mvsched.materialized_view_refresh_schedule_execution`)

		// Without its schedule and its view nothing is decided any more.
		b.Exec(`delete from mvsched.materialized_view_refresh_schedule`)
		b.Exec(`drop materialized view public.a`)
		b.prune()
		b.Check("running 1", left)
	})

	t.Run("goes_in_batches", func(t *testing.T) {
		b := scheduled(t)
		b.past("skipped", "lock_busy", "schedule", "8 days", 2500)
		b.recent()
		for _, want := range []int64{1000, 1000, 500} {
			b.Check("null", `select pruned_at from mvsched.settings`)
			if n, err := b.store.Prune(t.Context(), 1); err != nil || n != want {
				t.Errorf("%d, %v; want %d", n, err, want)
			}
		}
		b.Check("false", `select pruned_at is null from mvsched.settings`)
	})

	t.Run("waits_for_nobody", func(t *testing.T) {
		b := scheduled(t)
		held := b.past("skipped", "lock_busy", "schedule", "8 days", 10)
		b.recent()
		b.Hold(`select from mvsched.materialized_view_refresh_schedule_execution where id = $1::bigint for update`, held)
		b.Hold(`select from mvsched.settings for update`)
		if n := b.prune(); n != 9 {
			t.Errorf("%d", n)
		}
	})

	t.Run("keeps_for_ever_what_has_no_limit", func(t *testing.T) {
		b := scheduled(t)
		for _, status := range []string{"failed", "succeeded"} {
			b.past(status, "", "schedule", "3000 days", 200)
		}
		b.past("skipped", "lock_busy", "schedule", "3000 days", 200)
		b.recent()
		b.Exec(`update mvsched.settings set keep_failures = null, keep_successes = null, keep_skips = null`)
		if n := b.prune(); n != 0 {
			t.Errorf("%d", n)
		}
	})

	t.Run("takes_vacuums_and_requests_that_are_over_with_it", func(t *testing.T) {
		b := scheduled(t)
		b.recent()
		b.Exec(`insert into mvsched.materialized_view_vacuum (view_name, view_oid, command, dead_rows, started_at, ended_at, status)
			select 'public.a', 1, 'vacuum', 0, at, at, 'succeeded' from (values (now() - interval '31 days'), (now())) t (at)`)
		b.tend()
		claim := b.claim(1)[0]
		b.Exec(`insert into mvsched.materialized_view_refresh_cancel (execution_id) values ($1), (1), (1000000)`, claim.ExecutionID)
		if n := b.prune(); n != 1 {
			t.Errorf("%d", n)
		}
		b.Check("1", `select count(*) from mvsched.materialized_view_vacuum`)
		b.Check(fmt.Sprint(claim.ExecutionID), `select string_agg(execution_id::text, ' ') from mvsched.materialized_view_refresh_cancel`)
	})

	t.Run("is_due_once_an_hour", func(t *testing.T) {
		b := setup(t)
		for pruned, want := range map[string]bool{"null": true, "now() - interval '59 min'": false, "now() - interval '61 min'": true} {
			b.Exec(`update mvsched.settings set pruned_at = ` + pruned)
			if outlook := b.tend(); outlook.PruneDue != want {
				t.Errorf("%s: %+v", pruned, outlook)
			}
		}
		b.Exec(`delete from mvsched.settings`)
		if outlook := b.tend(); outlook.PruneDue {
			t.Errorf("%+v", outlook)
		}
	})

	// I2 is about what is there: a success is reported the same before and after.
	t.Run("leaves_the_status_as_it_is", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Exec(`update mvsched.settings set keep_last = 0`)
		b.past("succeeded", "", "schedule", "200 days", 5)
		b.past("skipped", "unchanged", "schedule", "190 days", 5)
		b.past("failed", "", "schedule", "180 days", 5)
		const shown = `select to_json(s)::jsonb - 'age' from mvsched.status s`
		before := b.Value(shown)
		if n := b.prune(); n != 12 {
			t.Errorf("%d", n)
		}
		b.Check(before, shown)
	})
}
