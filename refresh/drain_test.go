package refresh_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/schedule"
)

// items creates public.item with n rows to be materialized, a partial index, and a record of how often each row was.
func (b *bundle) items(n int) {
	b.Helper()
	b.Exec(`create table public.item (id int primary key, x text, materialized_at timestamptz, y bigint, z bigint)`)
	b.Exec(`create index on public.item (id) where materialized_at is null`)
	b.Exec(`insert into public.item (id, x) select n, n::text from generate_series(1, $1) n`, n)
	b.Exec(`create table public.written (id int, backend int default pg_backend_pid())`)
	b.Exec(`create function public.note() returns trigger language plpgsql as $$
		begin insert into public.written values (new.id); return null; end $$`)
	b.Exec(`create trigger note after update of y on public.item for each row
		when (new.materialized_at > '-infinity') execute function public.note()`)
}

const itemQuery = `select item.id, item.x::bigint * 2 as y from batch join public.item on item.id = batch.id`

func (b *bundle) columns(query string) {
	b.Helper()
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, kind, columns_query, on_change)
		values ('public.item', 'columns', $1, true)`, query)
}

// drained checks that nothing is left, and that nothing was done twice.
func (b *bundle) drained() {
	b.Helper()
	b.Check("0", `select count(*) from public.item where materialized_at is null`)
	b.Check("0", `select count(*) from (select id from public.written group by id having count(*) > 1) twice`)
}

func TestDrain(t *testing.T) {
	b := setup(t)
	b.items(5000)
	b.columns(itemQuery)

	done := b.runDue()["public.item"]
	if done.Status != schedule.Succeeded || *done.RowsInserted != 5000 || *done.Method != schedule.MethodColumns {
		t.Errorf("it ended as %s (%s), want 5000 rows to be materialized", done.Status, text(done.ErrorMessage))
	}
	b.drained()
	b.Check("5000", `select count(*) from public.item where y = 2 * id`)
	b.Check("0", `select rows_left from mvsched.materialized_view_refresh_schedule_execution`)

	if again := b.runDue(); len(again) > 0 {
		t.Errorf("with nothing to do it ran again: %v", again)
	}
	b.Exec(`insert into public.item (id, x) values (5001, 7)`)
	b.Exec(`update mvsched.materialized_view_refresh_schedule set last_attempted_at = now() - interval '1 minute'`)
	if again := b.runDue()["public.item"]; again.RowsInserted == nil || *again.RowsInserted != 1 {
		t.Errorf("a new row was not materialized by the next run: %+v", again)
	}
	b.drained()
}

func TestDrain_sets_poisoned_rows_aside(t *testing.T) {
	b := setup(t)
	b.items(1000)
	b.Exec(`update public.item set x = 'bad' where id in (1, 500, 933, 934)`)
	b.columns(itemQuery)

	if done := b.runDue()["public.item"]; done.Status != schedule.Succeeded || *done.RowsInserted != 996 {
		t.Errorf("it ended as %s (%s)", done.Status, text(done.ErrorMessage))
	}
	b.drained()
	b.Check("996", `select count(y) from public.item where materialized_at > '-infinity'`)
	b.Check("{1,500,933,934}", `select array_agg(row_key::int order by row_key::int) from mvsched.materialization_poison
		where error_message like '%"bad"%'`)

	// Tried again when it is null again, and forgotten when it is well.
	b.Exec(`update public.item set x = '0', materialized_at = null where id in (500, 933)`)
	b.Exec(`update mvsched.materialized_view_refresh_schedule set last_attempted_at = now() - interval '1 minute'`)
	b.runDue()
	b.Check("998", `select count(y) from public.item`)
	b.Check("{1,934}", `select array_agg(row_key::int order by row_key::int) from mvsched.materialization_poison`)
}

func TestDrain_ends_with_an_error_that_is_no_rows_doing(t *testing.T) {
	b := setup(t)
	b.items(10)
	b.columns(itemQuery)
	b.Exec(`alter table public.item drop column y cascade`)
	done := b.runDue()["public.item"]
	if done.Status != schedule.Failed || text(done.ErrorName) != "undefined_column" {
		t.Errorf("it ended as %s (%s)", done.Status, text(done.ErrorMessage))
	}
	b.Check("10", `select count(*) from public.item where materialized_at is null`)
}

func TestDrain_calls_a_function(t *testing.T) {
	b := setup(t)
	b.items(1000)
	b.Exec(`update public.item set x = 'bad' where id in (1, 500)`)
	b.Exec(`create function public.fill_item() returns void language sql as $$
		update public.item set y = x::bigint * 2, materialized_at = now()
		 where id in (select id from public.item where materialized_at is null order by id limit 100) $$`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, kind, columns_call, on_change)
		values ('public.item', 'columns', 'public.fill_item()', true)`)
	if done := b.runDue()["public.item"]; done.Status != schedule.Succeeded || *done.RowsInserted != 998 {
		t.Errorf("it ended as %s (%s)", done.Status, text(done.ErrorMessage))
	}
	b.drained()
	b.Check("998", `select count(*) from public.item where y = 2 * id and materialized_at > '-infinity'`)
	b.Check("{1,500}", `select array_agg(row_key::int order by row_key::int) from mvsched.materialization_poison`)
}

func TestDrain_fills_a_new_column_alone(t *testing.T) {
	b := setup(t)
	b.items(2500)
	b.columns(itemQuery)
	b.runDue()
	b.Exec(`create table public.before as select id, materialized_at from public.item`)
	b.Exec(`truncate public.written`)
	b.Exec(`update mvsched.materialized_view_refresh_schedule set last_attempted_at = now() - interval '1 minute', columns_query = $1`,
		strings.Replace(itemQuery, " as y", " as y, item.x::bigint + 1 as z", 1))
	if done := b.runDue()["public.item"]; done.Status != schedule.Succeeded || *done.RowsInserted != 2500 {
		t.Errorf("it ended as %s (%s)", done.Status, text(done.ErrorMessage))
	}
	b.Check("2500", `select count(*) from public.item join public.before using (id, materialized_at) where z = id + 1`)
	b.Check("0", `select count(*) from public.written`) // of y
	b.Check("0", `select count(*) from mvsched.materialization_fill`)
}

func TestDrain_lanes_share_the_rows(t *testing.T) {
	b := setupJobs(t, 3)
	b.items(3000)
	b.columns(`select item.id, item.x::bigint * 2 as y from batch join public.item on item.id = batch.id
		where pg_sleep(0.0005) is not null`)
	b.Exec(`update mvsched.materialized_view_refresh_schedule set lanes = 3`)
	executions, err := b.worker.RunDue(b.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows := int64(0)
	for _, e := range executions {
		if e.Status != schedule.Succeeded {
			t.Logf("%s", b.Value("select json_agg(e) from mvsched.materialized_view_refresh_schedule_execution e"))
			t.Fatalf("%s ended as %s (%s)", e.View, e.Status, text(e.ErrorMessage))
		}
		rows += *e.RowsInserted
	}
	if len(executions) != 3 || rows != 3000 {
		t.Errorf("%d lanes materialized %d rows", len(executions), rows)
	}
	b.drained()
	b.Check("3", `select count(distinct backend) from public.written`)
	b.Check("{0,1,2}", `select array_agg(lane order by lane) from mvsched.materialized_view_refresh_schedule_execution`)
}

func TestDrain_keeps_what_it_has_done(t *testing.T) {
	slow := `select item.id, item.x::bigint * 2 as y from batch join public.item on item.id = batch.id where pg_sleep(0.002) is not null`
	for _, test := range []struct {
		name      string
		interfere func(b *bundle)
		want      schedule.Status
		reason    string
	}{
		{"at_its_time_limit", func(b *bundle) { b.set("item", `maximum_execution_duration = '1 s'`) }, schedule.TimedOut, schedule.ReasonTimeLimit},
		{"when_it_is_cancelled", func(b *bundle) {
			go func() {
				b.Await("true", `select exists (select from mvsched.materialized_view_refresh_schedule_execution where rows_done > 0)`)
				b.Exec(`insert into mvsched.materialized_view_refresh_cancel (execution_id)
					select id from mvsched.materialized_view_refresh_schedule_execution`)
			}()
		}, schedule.Cancelled, schedule.ReasonRequested},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setup(t)
			b.items(5000)
			b.columns(slow)
			test.interfere(b)
			done := b.runDue()["public.item"]
			if done.Status != test.want || text(done.Reason) != test.reason {
				t.Errorf("it ended as %s (%s): %s", done.Status, text(done.Reason), text(done.ErrorMessage))
			}
			b.Check("true", `select rows_done > 0 and rows_done = (select count(*) from public.item where materialized_at is not null)
				       and rows_inserted = rows_done and rows_deleted = rows_done
				from mvsched.materialized_view_refresh_schedule_execution order by id limit 1`)
		})
	}
}

// A function that fails is shown its rows in blocks, all in one transaction. At the run's own limit that would be lost, and
// lost again by every run after it.
func TestDrain_of_a_function_that_fails_keeps_what_it_has_done(t *testing.T) {
	b := setup(t)
	b.items(600)
	b.Exec(`create function public.fill_item() returns void language plpgsql as $$ begin
		if (select count(*) > 100 from public.item where materialized_at is null) then
			raise exception 'too many' using errcode = 'data_exception';
		end if;
		perform pg_sleep(0.25);
		update public.item set y = x::bigint * 2, materialized_at = now() where materialized_at is null;
	end $$`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, kind, columns_call, on_change, maximum_execution_duration)
		values ('public.item', 'columns', 'public.fill_item()', true, '2 s')`)
	b.runDue()
	b.Check("true", `select rows_done > 0 and rows_done = (select count(*) from public.item where materialized_at is not null)
		from mvsched.materialized_view_refresh_schedule_execution order by id limit 1`)
}

// Whoever looks for dead runs leaves one alone that is between two batches, and takes it over when none has begun for its grace.
func TestDrain_between_two_batches(t *testing.T) {
	b := setup(t)
	b.items(10)
	b.columns(itemQuery)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		(materialized_view_refresh_schedule_id, view_name, view_oid, started_at)
		select id, materialized_view_name, view_oid, now() - interval '1 minute' from mvsched.materialized_view_refresh_schedule`)
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = null, last_attempted_at = now() - interval '1 minute', open_execution_id = (
		select id from mvsched.materialized_view_refresh_schedule_execution)`)
	batch := func() {
		b.Exec(`begin; select mvsched.begin_refresh(e.id, e.view_oid, 'columns', '1 minute', '5 s', e.started_at)
				from mvsched.materialized_view_refresh_schedule_execution e;
			savepoint s;
			select mvsched.materialize_batch(e.id, e.materialized_view_refresh_schedule_id, e.view_oid, 3, false, true, null)
				from mvsched.materialized_view_refresh_schedule_execution e where e.status = 'running';
			commit`, pgx.QueryExecModeSimpleProtocol)
	}
	batch()
	if _, err := b.store.Tend(t.Context(), schedule.TendOptions{}); err != nil {
		t.Fatal(err)
	}
	b.Check("running", `select status from mvsched.materialized_view_refresh_schedule_execution`)
	b.Check("3", `select rows_done from mvsched.materialized_view_refresh_schedule_execution`)

	b.Exec(`update mvsched.materialized_view_refresh_schedule_execution set batch_at = now() - interval '4 seconds'`)
	if _, err := b.store.Tend(t.Context(), schedule.TendOptions{}); err != nil {
		t.Fatal(err)
	}
	b.Check("abandoned worker_lost", `select status || ' ' || reason from mvsched.materialized_view_refresh_schedule_execution`)
	b.runDue()
	b.drained()
}

// Rows that somebody holds, or that a function leaves out, are not asked for all the time.
func TestDrain_that_can_do_nothing_waits(t *testing.T) {
	b := setup(t)
	b.items(10)
	b.columns(itemQuery)
	release := b.Hold(`select from public.item for update`)
	if done := b.runDue()["public.item"]; done.Status != schedule.Succeeded || *done.RowsInserted != 0 {
		t.Errorf("it ended as %s (%s)", done.Status, text(done.ErrorMessage))
	}
	b.Exec(`update mvsched.materialized_view_refresh_schedule set last_attempted_at = now() - interval '30 seconds'`)
	if again := b.runDue(); len(again) > 0 {
		t.Errorf("it ran again: %v", again)
	}
	release()
	b.Exec(`update mvsched.materialized_view_refresh_schedule set last_attempted_at = now() - interval '1 minute'`)
	b.runDue()
	b.drained()
}
