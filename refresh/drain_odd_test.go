package refresh_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// again lets the next run look at public.item at once, although the last one has just been.
func (b *bundle) again() {
	b.Helper()
	b.set("item", `last_attempted_at = now() - interval '1 minute'`)
}

// Rows that can neither be materialized nor set aside stay as they are. They keep neither the others from being
// materialized nor the run from ending.
func TestDrain_past_rows_that_no_update_changes(t *testing.T) {
	for _, test := range []struct {
		name, obstacle, poisoned string
	}{
		{"for_a_trigger", `create function public.no() returns trigger language plpgsql as 'begin return null; end';
			create trigger no before update on public.item for each row when (old.id = 5) execute function public.no()`, "null"},
		{"for_a_trigger_that_takes_it_back", `create function public.no() returns trigger language plpgsql as 'begin new.materialized_at = null; return new; end';
			create trigger no before update on public.item for each row when (old.id = 5) execute function public.no()`, "null"},
		{"for_a_constraint_that_is_not_valid", `alter table public.item add constraint odd check (id <> 5) not valid`, "{5}"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setup(t)
			b.items(10)
			for statement := range strings.SplitSeq(test.obstacle, ";\n") {
				b.Exec(statement)
			}
			b.columns(itemQuery)
			b.set("item", `batch_rows = 2`)
			b.Exec(`insert into mvsched.materialization_fill (materialized_view_refresh_schedule_id, columns, condition)
				select id, '{y}', 'false' from mvsched.materialized_view_refresh_schedule`)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			executions, err := b.worker.RunDue(ctx)
			if err != nil || len(executions) != 1 || executions[0].Status != schedule.Succeeded || *executions[0].RowsInserted != 9 {
				t.Errorf("%+v, %v", executions, err)
			}
			b.Check("{5}", `select array_agg(id) from public.item where materialized_at is null`)
			b.Check(test.poisoned, `select array_agg(row_key) from mvsched.materialization_poison`)
			b.Check("0", `select count(*) from mvsched.materialization_fill`)
		})
	}
}

// What is checked only at the commit is the doing of a row like anything else.
func TestDrain_sets_rows_aside_for_a_deferred_constraint(t *testing.T) {
	b := setup(t)
	b.items(10)
	b.Exec(`create table public.parent (id bigint primary key)`)
	b.Exec(`insert into public.parent select n * 2 from generate_series(1, 10) n where n <> 5`)
	b.Exec(`alter table public.item add foreign key (y) references public.parent deferrable initially deferred`)
	b.columns(itemQuery)
	if done := b.runDue()["public.item"]; done.Status != schedule.Succeeded || *done.RowsInserted != 9 {
		t.Errorf("it ended as %s (%s)", done.Status, text(done.ErrorMessage))
	}
	b.drained()
	b.Check("{5}", `select array_agg(row_key) from mvsched.materialization_poison`)
}

// A name that the statement uses itself, and a key that has no min() up to PostgreSQL 17.
func TestDrain_columns_of_any_name_and_keys_of_any_type(t *testing.T) {
	b := setup(t)
	b.Exec(`create table public.item (id uuid primary key, materialized_at timestamptz, copies int, "c1" int, "%I" int)`)
	b.Exec(`insert into public.item (id) select md5(n::text)::uuid from generate_series(1, 10) n`)
	b.columns(`select id, 1 as copies, 2 as c1 from batch`)
	b.runDue()
	b.Check("10", `select count(*) from public.item where copies = 1 and c1 = 2`)

	b.again()
	b.set("item", `columns_query = 'select id, 1 as copies, 2 as c1, 3 as "%I" from batch', batch_rows = 3`)
	b.runDue()
	b.Check("10", `select count(*) from public.item where "%I" = 3`)

	rows, err := b.store.Invalidate(t.Context(), schedule.ViewName{Schema: "public", Name: "item"}, "id > '8'::text::uuid or copies = 1", nil, nil)
	if err == nil || rows != 0 { // '8' is no uuid
		t.Errorf("%d rows, %v", rows, err)
	}
	rows, err = b.store.Invalidate(t.Context(), schedule.ViewName{Schema: "public", Name: "item"}, "copies = 1", nil, nil)
	if err != nil || rows != 10 {
		t.Errorf("%d rows, %v, want all to be invalidated", rows, err)
	}
}

// Rows that come while those to blame are looked for wait for the next batch; none is lost, and none blamed for them.
func TestDrain_calls_a_function_while_rows_come(t *testing.T) {
	b := setup(t)
	b.items(10)
	b.Exec(`update public.item set x = 'bad' where id = 3`)
	b.Exec(`create function public.fill_item() returns void language sql as $$
		update public.item set y = x::bigint * 2, materialized_at = now()
		 where id in (select id from public.item where materialized_at is null order by id limit 100 for no key update skip locked) $$`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, kind, columns_call, on_change)
		values ('public.item', 'columns', 'public.fill_item()', true)`)
	release := b.Hold(`select from public.item where id = 7 for update`)
	var released sync.WaitGroup
	released.Go(func() {
		b.Await("1", `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`)
		b.Exec(`insert into public.item (id, x) select n, n::text from generate_series(11, 20) n`)
		release()
	})
	if done := b.runDue()["public.item"]; done.Status != schedule.Succeeded || *done.RowsInserted != 19 {
		t.Errorf("it ended as %s (%s)", done.Status, text(done.ErrorMessage))
	}
	released.Wait()
	b.drained()
	b.Check("{3}", `select array_agg(id order by id) from public.item where materialized_at = '-infinity'`)
}

func TestDrain_says_what_the_table_has_not_any_more(t *testing.T) {
	for _, test := range []struct{ name, change, message string }{
		{"a_key", `alter table public.item drop constraint item_pkey`, `public.item is gone, or has no primary key of one column any more`},
		{
			"rows_for_all", `alter table public.item enable row level security, force row level security, owner to plain`,
			`row security of table public.item applies to role plain`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setup(t)
			b.items(10)
			b.columns(itemQuery)
			b.Exec(`do $$ begin create role plain; exception when duplicate_object then null; end $$`)
			b.Exec(`grant create on schema public to plain`)
			b.Exec(test.change)
			tx, err := b.Pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(t.Context()) }()
			if test.name == "rows_for_all" {
				for _, sql := range []string{
					`grant usage on schema mvsched to plain`, `grant all on all tables in schema mvsched to plain`, `set local role plain`,
				} {
					if _, err := tx.Exec(t.Context(), sql); err != nil {
						t.Fatal(err)
					}
				}
			}
			var work bool // or no run would come to say it
			const hasWork = `select mvsched.has_work(s.id, s.view_oid) from mvsched.materialized_view_refresh_schedule s`
			if err := tx.QueryRow(t.Context(), hasWork).Scan(&work); err != nil || !work {
				t.Errorf("has_work: %t, %v", work, err)
			}
			_, err = tx.Exec(t.Context(), `select mvsched.materialize_batch(0, s.id, s.view_oid, 3, false, true, null)
				from mvsched.materialized_view_refresh_schedule s`)
			if err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("%v, want it to say: %s", err, test.message)
			}
		})
	}
}

// With a function instead of the query nothing is left of what the query was asked for.
func TestDrain_forgets_fills_with_their_query(t *testing.T) {
	b := setup(t)
	b.items(10)
	b.columns(itemQuery)
	b.runDue()
	b.Exec(`insert into mvsched.materialization_fill (materialized_view_refresh_schedule_id, columns)
		select id, '{y}' from mvsched.materialized_view_refresh_schedule`)
	b.set("item", `columns_query = null, columns_call = 'pg_sleep(0)'`)
	b.Check("false", `select mvsched.has_work(id, view_oid) from mvsched.materialized_view_refresh_schedule`)
}

// A condition that fails, at a row or since its column is gone, does not end every run from then on.
func TestDrain_past_a_condition_that_fails(t *testing.T) {
	b := setup(t)
	b.items(10)
	b.columns(itemQuery)
	b.set("item", `batch_rows = 2`)
	b.runDue()
	for condition, computed := range map[string]string{`1 / (id - 5) > 5`: "{5}", `gone > 1`: "{5,10}"} {
		b.Exec(`update public.item set y = 0`)
		b.Exec(`insert into mvsched.materialization_fill (materialized_view_refresh_schedule_id, columns, condition)
			select id, '{y}', $1 from mvsched.materialized_view_refresh_schedule`, condition)
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
		if executions := b.runDue(); len(executions) != 1 || executions["public.item"].Status != schedule.Succeeded {
			t.Errorf("%s: %+v", condition, executions)
		}
		b.Check(computed, `select array_agg(id order by id) from public.item where y = id * 2 and id in (5, 10)`)
		b.Check("0", `select count(*) from mvsched.materialization_fill`)
	}
}
