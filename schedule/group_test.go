package schedule_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// group puts views of schema public into a group, in the order in which they are given.
func (b *bundle) group(name string, members ...string) {
	b.Helper()
	for _, member := range members {
		b.set(member, schedule.Settings{Group: &name})
	}
}

// notDue puts a view's next slot off by an hour.
func (b *bundle) notDue(name string) {
	b.Helper()
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() + interval '1 hour'
		where materialized_view_name = $1`, "public."+name)
}

func TestGroup(t *testing.T) {
	abc := func(t *testing.T) *bundle {
		b := setup(t)
		for _, name := range []string{"a", "b", "c"} {
			b.view(name, "1 hour")
		}
		b.group("g", "a", "b", "c")
		b.tend()
		return b
	}
	all := []string{"public.a", "public.b", "public.c"}
	// failB claims a, b and c, of which b fails so that it is tried again.
	failB := func(b *bundle) {
		b.Helper()
		for i, c := range b.claim(1) {
			ending := schedule.Ending{Status: schedule.Skipped, Reason: schedule.ReasonGroupFailed, ErrorMessage: "public.b"}
			if i == 1 {
				ending = schedule.Ending{Status: schedule.Failed, ErrorName: "deadlock_detected", ErrorMessage: "x"}
			}
			b.end(c, ending)
		}
		b.tend()
	}
	retryNow := func(b *bundle) {
		b.Helper()
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_offset = next_run_offset - (next_run_at - now()), next_run_at = now()
			where next_run_reason = 'retry'`)
	}

	t.Run("is_claimed_as_a_whole", func(t *testing.T) {
		b := abc(t)
		b.view("other", "1 hour")
		b.tend()
		got := b.claim(1)
		if !slices.Equal(views(got), all) {
			t.Fatalf("claimed %v", views(got))
		}
		for _, c := range got {
			if c.Group != "g" || !c.ClaimedAt.Equal(got[0].ClaimedAt) || c.Timeout != 30*time.Minute || !c.UniqueIndex {
				t.Errorf("%+v", c)
			}
		}
		b.Check("3", `select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'running' and refresh_group = 'g'`)
		if got := views(b.claim(5)); !slices.Equal(got, []string{"public.other"}) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("takes_in_a_view_that_is_just_being_claimed_with_others", func(t *testing.T) {
		b := setup(t)
		b.view("first", "1 hour")
		b.view("joins", "1 hour")
		b.tend()
		b.set("first", schedule.Settings{Priority: ptr(1000)})
		// The claim has found both, and waits for what becomes of an execution of the first.
		release := b.Hold(`insert into mvsched.materialized_view_refresh_schedule_execution (view_name, view_oid)
			values ('public.first', 'public.first'::regclass)`)
		claimed := make(chan []schedule.Claim, 1)
		go func() { claimed <- b.claim(5) }()
		b.Await("1", `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
		b.group("g", "joins")
		release()
		if got := views(<-claimed); !slices.Equal(got, []string{"public.first"}) {
			t.Errorf("claimed %v", got)
		}
		if got := b.claim(5); len(got) != 1 || got[0].View != "public.joins" || got[0].Group != "g" {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("is_due_with_its_first_member_and_leaves_the_clocks_of_the_others", func(t *testing.T) {
		b := abc(t)
		b.notDue("b")
		b.Exec(`update mvsched.materialized_view_refresh_schedule set refresh_interval = null, refresh_delay = interval '1 hour'
			where materialized_view_name = 'public.c'`)
		b.notDue("c")
		before := b.Value(`select next_run_at from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.b'`)
		if got := views(b.claim(1)); !slices.Equal(got, all) {
			t.Fatalf("claimed %v", got)
		}
		b.Check(before, `select next_run_at from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.b'`)
		b.Check("null", `select next_run_at from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.c'`)
		b.Check("1", `select count(distinct scheduled_at) from mvsched.materialized_view_refresh_schedule_execution`)
	})

	t.Run("whose_slots_jitter_puts_apart_uses_up_all_of_them", func(t *testing.T) { // I10
		b := setup(t)
		b.view("a", "1 hour")
		b.view("b", "1 hour")
		b.group("g", "a", "b")
		b.tend()
		b.Exec(`update mvsched.materialized_view_refresh_schedule s set next_run_at = n.at, next_run_offset = n.off
			from (values ('public.a', now(), interval '-10 seconds'), ('public.b', now() + interval '20 seconds', interval '10 seconds')) n (name, at, off)
			where n.name = s.materialized_view_name`)
		if got := views(b.claim(1)); len(got) != 2 {
			t.Fatalf("claimed %v", got)
		}
		b.Check("true", `select bool_and(next_run_at > now() + interval '50 minutes') from mvsched.materialized_view_refresh_schedule`)
		b.Check("1", `select count(distinct scheduled_at) from mvsched.materialized_view_refresh_schedule_execution`)
	})

	t.Run("goes_on_without_a_member_that_is_paused_or_suspended", func(t *testing.T) {
		b := abc(t)
		b.Exec(`update mvsched.materialized_view_refresh_schedule set paused_at = now() where materialized_view_name = 'public.a'`)
		b.Exec(`update mvsched.materialized_view_refresh_schedule set suspended_at = now() where materialized_view_name = 'public.c'`)
		if got := views(b.claim(1)); !slices.Equal(got, []string{"public.b"}) {
			t.Errorf("claimed %v", got)
		}
	})

	for _, c := range []struct{ name, busy string }{
		{"is_held", `select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.c' for update`},
		{"is_held_that_is_the_first", `select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.a' for update`},
	} {
		t.Run("waits_while_a_member_"+c.name, func(t *testing.T) {
			b := abc(t)
			release := b.Hold(c.busy)
			if got := views(b.claim(5)); len(got) != 0 {
				t.Errorf("claimed %v", got)
			}
			release()
			if got := views(b.claim(5)); !slices.Equal(got, all) {
				t.Errorf("claimed %v", got)
			}
		})
	}

	t.Run("waits_while_a_member_is_refreshed_by_hand", func(t *testing.T) { // I1
		b := abc(t)
		by := b.claimView("b")
		if got := views(b.claim(5)); len(got) != 0 {
			t.Errorf("claimed %v", got)
		}
		b.succeed(*by)
		b.tend()
		if got := views(b.claim(5)); !slices.Equal(got, all) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("is_in_the_order_of_what_reads_what", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create materialized view public.z as select 1 as id`)
		b.Exec(`create materialized view public.y as select * from public.z`)
		b.Exec(`create materialized view public.x as select y.id from public.y join public.z using (id)`)
		for _, name := range []string{"x", "y", "z"} {
			b.Schedule("public."+name, "1 hour")
		}
		b.group("g", "x", "y", "z")
		b.tend()
		if got := views(b.claim(1)); !slices.Equal(got, []string{"public.z", "public.y", "public.x"}) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("waits_for_an_ancestor_outside_of_it", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create materialized view public.base as select 1 as id`)
		b.Exec(`create materialized view public.a as select * from public.base`)
		b.Exec(`create materialized view public.b as select 1 as id`)
		for _, name := range []string{"base", "a", "b"} {
			b.Schedule("public."+name, "1 hour")
		}
		b.group("g", "a", "b")
		b.tend()
		first := b.claim(5)
		if !slices.Equal(views(first), []string{"public.base"}) {
			t.Fatalf("claimed %v", views(first))
		}
		b.succeed(first[0])
		b.tend()
		if got := views(b.claim(5)); !slices.Equal(got, []string{"public.a", "public.b"}) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("does_not_wait_for_one_outside_that_waits_for_a_member", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create materialized view public.a as select 1 as id`)
		b.Exec(`create materialized view public.between as select * from public.a`)
		b.Exec(`create materialized view public.c as select * from public.between`)
		for _, name := range []string{"a", "between", "c"} {
			b.Schedule("public."+name, "1 hour")
		}
		b.group("g", "a", "c")
		b.tend()
		if got := views(b.claim(1)); !slices.Equal(got, []string{"public.a", "public.c"}) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("is_skipped_when_an_ancestor_of_one_has_failed", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create materialized view public.base as select 1 as id`)
		b.Exec(`create materialized view public.a as select * from public.base`)
		b.Exec(`create materialized view public.b as select 1 as id`)
		for _, name := range []string{"base", "a", "b"} {
			b.Schedule("public."+name, "1 hour")
		}
		b.group("g", "a", "b")
		b.tend()
		b.end(b.claim(5)[0], schedule.Ending{Status: schedule.Failed, ErrorName: "x", ErrorMessage: "y"})
		b.tend()
		got := b.claim(5)
		if len(got) != 2 || got[0].Skipped != schedule.ReasonUpstreamFailed || got[1].Skipped != schedule.ReasonGroupFailed {
			t.Errorf("%+v", got)
		}
		b.Check("2 public.base failed", `select concat_ws(' ', count(*), min(error_message)) from mvsched.materialized_view_refresh_schedule_execution
			where status = 'skipped'`)
	})

	t.Run("is_due_again_as_a_whole_when_its_worker_is_lost", func(t *testing.T) {
		b := abc(t)
		b.notDue("b")
		for _, c := range b.claim(1) {
			b.end(c, schedule.Ending{Status: schedule.Abandoned, Reason: schedule.ReasonWorkerLost})
		}
		b.tend()
		again := b.claim(1)
		if !slices.Equal(views(again), all) || again[0].Attempt != 2 || again[1].Attempt != 2 {
			t.Errorf("%+v", again)
		}
		b.Check("true", `select next_run_at > now() + interval '59 minutes' and next_run_at < now() + interval '61 minutes'
			from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.b'`)
	})

	t.Run("is_tried_again_as_a_whole", func(t *testing.T) {
		b := abc(t)
		failB(b)
		b.Check("public.b", `select string_agg(materialized_view_name, ' ') from mvsched.materialized_view_refresh_schedule
			where next_run_reason = 'retry'`)
		retryNow(b)
		if again := b.claim(1); !slices.Equal(views(again), all) || again[1].Attempt != 2 {
			t.Errorf("%+v", again)
		}
	})

	t.Run("leaves_the_clock_of_a_member_where_it_is_that_is_tried_again", func(t *testing.T) {
		b := abc(t)
		b.notDue("b")
		const nextOfB = `select next_run_at - next_run_offset from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.b'`
		next := b.Value(nextOfB)
		failB(b)
		retryNow(b)
		for _, c := range b.claim(1) {
			b.succeed(c)
		}
		b.tend()
		b.Check(next, nextOfB)
	})

	t.Run("is_called_again_after_a_pause_where_a_member_has_no_clock", func(t *testing.T) {
		b := setup(t)
		b.view("p", "1 hour")
		b.view("a", "1 hour")
		b.Exec(`create materialized view public.child as select * from public.p`)
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, after_parents, refresh_group)
			values ('public.child', true, 'g')`)
		b.group("g", "a")
		b.tend()
		b.notDue("a")
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = null, last_attempted_at = now()
			where materialized_view_name = 'public.child'`)
		b.succeed(b.claim(5)[0])
		for _, minutes := range []int{1, 2, 4} {
			b.tend()
			got := b.claim(5)
			if !slices.Equal(views(got), []string{"public.a", "public.child"}) {
				t.Fatalf("claimed %v", views(got))
			}
			b.end(got[0], schedule.Ending{Status: schedule.Failed, ErrorName: "division_by_zero", ErrorMessage: "x"})
			end := b.end(got[1], schedule.Ending{Status: schedule.Skipped, Reason: schedule.ReasonGroupFailed, ErrorMessage: "public.a"})
			b.tend()
			if got := b.claim(5); len(got) != 0 {
				t.Fatalf("at once: %v", views(got))
			}
			b.Check("true", `select next_run_at = $1::timestamptz + make_interval(mins => $2) from mvsched.materialized_view_refresh_schedule
				where materialized_view_name = 'public.child'`, *end.EndedAt, minutes)
			b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() where materialized_view_name = 'public.child'`)
		}
	})

	t.Run("waits_as_a_whole_for_what_one_of_it_reads", func(t *testing.T) {
		b := setup(t)
		b.chain("parent", "a")
		b.view("other", "1 hour")
		b.group("g", "a", "other")
		b.tend()
		b.notDue("parent")
		b.notDue("a")
		if b.claimView("parent") == nil {
			t.Fatal("the parent is not claimed")
		}
		if outlook := b.tend(); outlook.Due != 0 || !outlook.Waiting {
			t.Errorf("%+v", outlook)
		}
	})

	t.Run("is_asked_once_what_each_of_it_waits_for", func(t *testing.T) {
		b := setup(t)
		b.view("parent", "1 hour")
		for i := range 12 {
			name := fmt.Sprint("reader", i)
			b.Exec("create materialized view public." + name + " as select id from public.parent")
			b.Schedule("public."+name, "1 hour")
			b.group("g", name)
		}
		b.tend()
		b.Exec(`create sequence public.asked`)
		b.Exec(`alter function mvsched.awaited(oid, timestamptz, timestamptz, timestamptz, text[], boolean) rename to awaited_them`)
		b.Exec(`create function mvsched.awaited(view oid, slot timestamptz, round timestamptz, clock timestamptz, queues text[] default null,
			one_will_do boolean default false) returns table (view_oid oid, because text) language plpgsql rows 5 as $$
			begin
				perform nextval('public.asked');
				return query select * from mvsched.awaited_them(view, slot, round, clock, queues, one_will_do);
			end $$`)
		b.tend()
		b.Check("12", `select last_value from public.asked`)
	})

	t.Run("answers_the_requests_for_its_members", func(t *testing.T) {
		b := abc(t)
		b.notDue("b")
		b.notDue("c")
		b.Exec(`select mvsched.request_refresh('public.c')`)
		b.claim(1)
		b.Check("0", `select count(*) from mvsched.materialized_view_refresh_request`)
		b.Check("true", `select requested_at is not null from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.c'`)
	})

	t.Run("begins_when_the_windows_of_all_are_open", func(t *testing.T) {
		b := abc(t)
		now := &clock{time.Date(2027, 3, 2, 12, 0, 0, 0, time.UTC)}
		b.store.Now = now.Now
		b.set("b", schedule.Settings{Window: &schedule.Window{Start: schedule.TimeOfDay(14 * time.Hour), End: schedule.TimeOfDay(16 * time.Hour)}})
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = '2027-03-02 11:00+00'`)
		if got := views(b.claim(1)); len(got) != 0 {
			t.Errorf("claimed %v", got)
		}
		b.Check("2027-03-02 14:00:00+00 03:00:00", `select distinct concat_ws(' ', next_run_at at time zone 'UTC' || '+00', next_run_offset)
			from mvsched.materialized_view_refresh_schedule`)
		now.now = now.now.Add(2 * time.Hour)
		if got := views(b.claim(1)); !slices.Equal(got, all) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("a_request_that_waits_for_the_windows_of_others_leaves_the_clock_where_it_is", func(t *testing.T) {
		b := abc(t)
		now := &clock{time.Date(2027, 3, 2, 12, 0, 0, 0, time.UTC)}
		b.store.Now = now.Now
		b.set("b", schedule.Settings{Window: &schedule.Window{Start: schedule.TimeOfDay(14 * time.Hour), End: schedule.TimeOfDay(16 * time.Hour)}})
		b.tend()
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = '2027-03-02 15:30+00'`)
		b.Exec(`select mvsched.request_refresh('public.a')`)
		b.Exec(`update mvsched.materialized_view_refresh_request set requested_at = '2027-03-02 11:59+00'`)
		b.tend()
		if got := views(b.claim(1)); len(got) != 0 {
			t.Errorf("claimed %v", got)
		}
		slot := `select (next_run_at - next_run_offset) at time zone 'UTC' from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.a'`
		b.Check("2027-03-02 14:00:00", `select min(next_run_at) at time zone 'UTC' from mvsched.materialized_view_refresh_schedule`)
		b.Check("2027-03-02 15:30:00", slot)
		now.now = now.now.Add(2 * time.Hour)
		if got := views(b.claim(1)); !slices.Equal(got, all) {
			t.Errorf("claimed %v", got)
		}
		b.Check("2027-03-02 15:30:00", slot)
	})

	t.Run("is_of_materialized_views", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Exec(`create table public.t (id integer primary key)`)
		_, err := b.Pool.Exec(t.Context(), `insert into mvsched.materialized_view_refresh_schedule
			(materialized_view_name, kind, refresh_interval, refresh_group) values ('public.t', 'columns', '1 hour', 'g')`)
		if sqlState(err) != "0A000" {
			t.Error(err)
		}
		b.group("g", "a")
		b.group("", "a")
		b.Check("null", `select refresh_group from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("is_not_called_again_by_what_its_members_get", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create table public.base as select 1 as id`)
		b.Exec(`create materialized view public.a as select * from public.base`)
		b.Exec(`create materialized view public.b as select * from public.a`)
		b.Exec(`create materialized view public.c as select * from public.a`)
		b.add("a", schedule.Settings{Every: ptr(time.Hour)})
		b.add("b", schedule.Settings{AfterParents: ptr(true)})
		b.add("c", schedule.Settings{OnChange: ptr(true), AtMostEvery: ptr(time.Second)})
		b.group("g", "a", "b", "c")
		refreshAll := func() {
			b.Helper()
			b.tend()
			claims := b.claim(1)
			if !slices.Equal(views(claims), all) {
				t.Fatalf("claimed %v", views(claims))
			}
			tx, err := b.Pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range claims {
				if _, err := tx.Exec(t.Context(), `select mvsched.refresh_succeeded($1, $2::bigint::oid, $3, $4, 'plain')`,
					c.ExecutionID, int64(c.OID), c.Schema, c.Name); err != nil {
					t.Fatal(err)
				}
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.tend()
		}
		refreshAll()
		b.Exec(`update mvsched.materialized_view_refresh_schedule set last_attempted_at = now() - interval '1 minute'`)
		outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1000, Look: true})
		if got := views(b.claim(1)); err != nil || outlook.Changed > 0 && b.Value(majorSQL) >= "15" || len(got) != 0 {
			t.Errorf("%+v %v, claimed %v", outlook, err, got)
		}
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() where materialized_view_name = 'public.a'`)
		refreshAll()
		if got := views(b.claim(1)); len(got) != 0 {
			t.Errorf("claimed %v", got)
		}
	})
}
