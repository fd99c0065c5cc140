package schedule_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// chain creates public.a, then each view reading the one before, all scheduled at the same interval.
func (b *bundle) chain(names ...string) {
	b.Helper()
	for i, name := range names {
		query := "select 1 as id"
		if i > 0 {
			query = "select id from public." + names[i-1]
		}
		b.Exec("create materialized view public." + name + " as " + query)
		b.Exec("create unique index on public." + name + " (id)")
		b.Schedule("public."+name, "1 hour")
	}
}

// claimAll claims what can be claimed now, one at a time.
func (b *bundle) claimAll() []schedule.Claim {
	b.Helper()
	var all []schedule.Claim
	for {
		got := b.claim(1)
		if len(got) == 0 {
			return all
		}
		all = append(all, got...)
	}
}

func (b *bundle) change(name, change string) {
	b.Helper()
	b.Exec(`update mvsched.materialized_view_refresh_schedule set `+change+` where materialized_view_name = $1`, "public."+name)
}

func TestOrder(t *testing.T) {
	t.Run("a_view_waits_for_its_ancestors_due_running_and_unsettled", func(t *testing.T) {
		b := setup(t)
		b.chain("c1", "b2", "a3") // names and ids against the order
		b.tend()
		for _, want := range []string{"public.c1", "public.b2", "public.a3"} {
			got := b.claimAll()
			if !slices.Equal(views(got), []string{want}) {
				t.Fatalf("claimed %v, want %s alone", views(got), want)
			}
			if outlook := b.tend(); want != "public.a3" && (!outlook.Held || !outlook.Waiting || outlook.Due != 0) {
				t.Errorf("%+v", outlook)
			}
			b.succeed(got[0])
		}
	})

	t.Run("through_plain_views_and_past_what_is_not_scheduled", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Exec("create view public.plain as select id from public.a")
		b.Exec("create materialized view public.between as select id from public.plain")
		b.Exec("create materialized view public.last as select id from public.between")
		b.Schedule("public.last", "1 hour")
		b.tend()
		if got := views(b.claimAll()); !slices.Equal(got, []string{"public.a"}) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("an_ancestor_that_cannot_run_holds_nobody", func(t *testing.T) {
		for _, change := range []string{
			"paused_at = now()", "suspended_at = now()", "next_run_at = now() + interval '1 minute', next_run_offset = interval '1 minute', next_run_reason = 'retry'",
			"next_run_at = now() + interval '1 minute'",
		} {
			t.Run(change, func(t *testing.T) {
				b := setup(t)
				b.chain("a", "b")
				b.tend()
				b.change("a", change)
				b.change("b", "next_run_at = now() - interval '1 second'")
				if got := views(b.claimAll()); !slices.Contains(got, "public.b") {
					t.Errorf("claimed %v", got)
				}
			})
		}
	})

	t.Run("an_ancestor_that_nobody_begins_holds_for_its_time_limit_at_most", func(t *testing.T) {
		b := setup(t)
		b.chain("a", "b")
		b.tend()
		b.Hold(`select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.a' for update`)
		if got := views(b.claimAll()); len(got) > 0 {
			t.Errorf("claimed %v", got)
		}
		b.store.Now = (&clock{time.Now().Add(31 * time.Minute)}).Now
		if got := views(b.claimAll()); !slices.Equal(got, []string{"public.b"}) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("an_end_that_cannot_be_settled_holds_for_seconds_at_most", func(t *testing.T) {
		b := setup(t)
		b.chain("a", "b")
		b.tend()
		b.succeed(b.claimAll()[0])
		b.Hold(`select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.a' for update`)
		if got := views(b.claimAll()); len(got) > 0 {
			t.Errorf("claimed %v", got)
		}
		b.store.Now = (&clock{time.Now().Add(11 * time.Second)}).Now
		if got := views(b.claimAll()); !slices.Equal(got, []string{"public.b"}) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("a_pause_written_by_hand_is_not_waited_for", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		b.change("a", "next_run_at = now() + interval '1 day', next_run_offset = interval '1 day', next_run_reason = 'retry'")
		if outlook := b.tend(); outlook.Due != 0 || outlook.LookAgain != nil {
			t.Errorf("%+v", outlook)
		}
	})

	t.Run("a_busy_parent_is_waited_for_once", func(t *testing.T) {
		b := setup(t)
		b.chain("a", "b")
		at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		now := &clock{at}
		b.store.Now = now.Now
		b.change("a", "refresh_interval = '1 second'")
		b.change("b", "refresh_interval = '5 seconds'")
		b.tend()
		first := b.claimAll()
		if !slices.Equal(views(first), []string{"public.a"}) {
			t.Fatalf("claimed %v", views(first))
		}
		b.succeed(first[0])
		now.now = at.Add(1500 * time.Millisecond) // the parent is due again
		if got := views(b.claimAll()); len(got) != 2 {
			t.Errorf("claimed %v, want both", got)
		}
	})

	t.Run("a_failed_ancestor_skips_its_due_descendants_once", func(t *testing.T) {
		b := setup(t)
		b.chain("a", "b", "c")
		b.view("d", "1 hour")
		b.Exec("create materialized view public.e as select id from public.b")
		b.Schedule("public.e", "1 hour")
		b.change("e", "on_parent_failure = 'run'")
		b.tend()
		round := func(ends map[string]schedule.Status) map[string]string {
			got := map[string]string{}
			for claims := b.claimAll(); len(claims) > 0; claims = b.claimAll() {
				for _, c := range claims {
					got[c.View] = c.Skipped
					switch {
					case c.Skipped != "":
					case ends[c.View] == schedule.Failed:
						b.end(c, schedule.Ending{Status: schedule.Failed, ErrorName: "division_by_zero"})
					default:
						b.succeed(c)
					}
				}
			}
			return got
		}
		got := round(map[string]schedule.Status{"public.b": schedule.Failed})
		if len(got) != 5 || got["public.c"] != schedule.ReasonUpstreamFailed || got["public.d"] != "" || got["public.e"] != "" {
			t.Errorf("%v", got)
		}
		b.Check("skipped upstream_failed public.b failed",
			`select concat_ws(' ', status, reason, error_message) from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.c'`)
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
		if got := round(nil); len(got) != 5 || got["public.c"] != "" {
			t.Errorf("mended: %v", got)
		}
	})

	t.Run("a_failed_ancestor_that_has_not_run_again_skips_no_second_slot", func(t *testing.T) {
		b := setup(t)
		b.chain("a", "b")
		b.tend()
		b.end(b.claimAll()[0], schedule.Ending{Status: schedule.Failed, ErrorName: "division_by_zero"})
		for _, want := range []string{schedule.ReasonUpstreamFailed, ""} {
			b.change("b", "next_run_at = now()")
			b.tend()
			if got := b.claimAll(); len(got) != 1 || got[0].View != "public.b" || got[0].Skipped != want {
				t.Errorf("%+v, want %q", got, want)
			}
		}
	})

	// The order of creation, for run and for refresh; and what reads one of a cycle waits for all of it.
	t.Run("a_cycle_has_an_order", func(t *testing.T) {
		b := setup(t)
		b.Exec("create view public.loop as select 1 as id")
		b.Exec("create materialized view public.z as select id from public.loop")
		b.Exec("create materialized view public.a as select id from public.z")
		b.Exec("create or replace view public.loop as select id from public.a")
		b.Exec("create materialized view public.below as select id from public.z")
		want := []string{"public.z", "public.a", "public.below"}
		for _, view := range want {
			b.Schedule(view, "1 hour")
		}
		b.tend()
		b.Check("2", `select count(*) from mvsched.materialized_view_graph where cyclic`)
		g, err := b.store.Graph(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ordered := range [][]string{{"public.below"}, {"public.below", "public.a", "public.z"}} {
			if got, above := g.Order(ordered, true); !slices.Equal(got, want) || !slices.Equal(above["public.below"], want[:2]) {
				t.Errorf("%v, %v", got, above)
			}
		}
		for _, view := range want {
			got := b.claimAll()
			if !slices.Equal(views(got), []string{view}) {
				t.Fatalf("claimed %v, want %s", views(got), view)
			}
			b.succeed(got[0])
		}
	})

	t.Run("follows_the_catalog", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.view("b", "1 hour")
		b.Exec("create view public.plain as select 1 as id")
		b.Exec("create materialized view public.c as select id from public.plain")
		b.tend()
		b.Check("0", `select count(*) from mvsched.materialized_view_graph`)
		b.Exec("create or replace view public.plain as select id from public.b")
		b.tend()
		b.Check("2", `select count(*) from mvsched.materialized_view_graph where parents <> '{}' or view_oid = 'public.b'::regclass`)
		b.Check("true", `select ancestors = array['public.b'::regclass::oid] from mvsched.materialized_view_graph where view_oid = 'public.c'::regclass`)
		b.Exec("drop materialized view public.c")
		b.tend()
		b.Check("0", `select count(*) from mvsched.materialized_view_graph`)
	})

	// A changed catalog is no reason to read thousands of histories, nor to write what is as it was.
	t.Run("what_has_changed_is_written", func(t *testing.T) {
		b := setup(t)
		b.chain("a", "b")
		b.view("c", "1 hour")
		takes := func(seconds int) {
			b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
				(materialized_view_refresh_schedule_id, view_name, view_oid, status, started_at, ended_at, method, data_as_of, refreshed_at)
				select id, materialized_view_name, view_oid, 'succeeded', now(), now() + make_interval(secs => $1), 'plain', now(), now()
				  from mvsched.materialized_view_refresh_schedule, generate_series(1, 5)`, seconds)
		}
		takes(3)
		b.tend()
		weights := func(want string) {
			t.Helper()
			b.Check(want, `select string_agg(concat_ws(' ', view_oid::regclass, path_seconds, seconds), ', ' order by view_oid)
				from mvsched.materialized_view_graph`)
		}
		weights("public.a 6 3, public.b 3 3, public.c 3 3")
		written := b.Value(`select array_agg(ctid order by view_oid) from mvsched.materialized_view_graph`)
		takes(30)
		b.Exec(`create materialized view public.d as select id from public.c`)
		b.tend()
		weights("public.a 6 3, public.b 3 3, public.c 6 3, public.d 3")
		b.Check("2", `select count(*) from mvsched.materialized_view_graph where ctid = any ($1::tid[])`, written)
		if err := b.store.Arrange(t.Context()); err != nil {
			t.Fatal(err)
		}
		weights("public.a 60 30, public.b 30 30, public.c 60 30, public.d 30")
	})

	t.Run("the_longest_chain_goes_first", func(t *testing.T) {
		b := setup(t)
		b.view("alone", "1 hour")
		b.chain("x1", "x2", "x3")
		b.tend()
		if got := views(b.claim(1)); !slices.Equal(got, []string{"public.x1"}) {
			t.Errorf("claimed %v first", got)
		}
	})

	t.Run("a_view_without_a_chain_weighs_what_it_takes", func(t *testing.T) {
		b := setup(t)
		b.chain("x1", "x2")
		b.view("alone", "1 hour")
		b.tend()
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
			(materialized_view_refresh_schedule_id, view_name, view_oid, trigger, status, started_at, ended_at, method, data_as_of, refreshed_at)
			select id, materialized_view_name, view_oid, 'schedule', 'succeeded', now() - interval '1 day',
			       now() - interval '1 day' + interval '1 second' * case materialized_view_name when 'public.alone' then 60 else 1 end,
			       'plain', now() - interval '1 day', now() - interval '1 day'
			  from mvsched.materialized_view_refresh_schedule`)
		if err := b.store.Arrange(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := views(b.claim(1)); !slices.Equal(got, []string{"public.alone"}) {
			t.Errorf("claimed %v first", got)
		}
	})
}

// By what the catalog was before, a view would be claimed before those that it reads.
func TestTendWaitsForTheWorkerThatReadsTheCatalog(t *testing.T) {
	b := setup(t)
	b.chain("parent", "child")
	release := b.Hold(`select from mvsched.catalog_state for no key update`)
	looked := make(chan schedule.Outlook, 1)
	go func() {
		looked <- b.tend()
	}()
	b.Await("1", `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
	release()
	if outlook := <-looked; outlook.Due != 1 {
		t.Errorf("%d are due", outlook.Due)
	}
	b.Check("1", `select count(*) from mvsched.materialized_view_graph where cardinality(ancestors) > 0`)

	// But whoever holds the row for long stops nobody.
	b.view("alone", "1 hour")
	b.Hold(`select from mvsched.catalog_state for no key update`)
	if outlook := b.tend(); outlook.Due != 2 {
		t.Errorf("%d are due while the row is held", outlook.Due)
	}
}

// A parent that is found anew by another worker at the same time is not known by its new OID yet.
func TestTendWaitsForTheWorkerThatFindsAView(t *testing.T) {
	b := setup(t)
	b.chain("parent", "child")
	b.tend()
	b.Exec(`drop materialized view public.parent cascade`)
	b.Exec(`create materialized view public.parent as select 1 as id`)
	b.Exec(`create materialized view public.child as select id from public.parent`)
	b.view("alone", "1 hour")
	b.Hold(`select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.parent' for no key update`)
	began := time.Now()
	b.tend()
	if waited := time.Since(began); waited < 300*time.Millisecond {
		t.Errorf("it waited %v for whoever holds the row", waited)
	}
	// But not for ever: whoever holds the row for long stops nobody.
	if got := views(b.claim(3)); !slices.Contains(got, "public.alone") {
		t.Errorf("claimed %v", got)
	}
}

func TestAfterParents(t *testing.T) {
	b := setup(t)
	b.view("a", "1 hour")
	b.view("b", "1 hour")
	b.Exec("create materialized view public.ab as select a.id from public.a join public.b using (id)")
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, after_parents) values ('public.ab', true)`)
	b.tend()
	finish := func(want ...string) {
		t.Helper()
		got := b.claimAll()
		names := views(got)
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Fatalf("claimed %v, want %v", names, want)
		}
		for _, c := range got {
			b.succeed(c)
		}
		b.tend()
	}
	// A new one is due at once, and like every other waits for its parents of the slot.
	finish("public.a", "public.b")
	finish("public.ab")
	finish()
	b.change("a", "next_run_at = now()")
	finish("public.a")
	finish("public.ab")
	finish()
	// Both parents in one slot: once.
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() where not after_parents`)
	finish("public.a", "public.b")
	finish("public.ab")
	finish()
	// By hand, and without a schedule, too.
	b.Exec(`delete from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.a'`)
	c, err := b.store.ClaimView(t.Context(), schedule.ViewName{Schema: "public", Name: "a"}, schedule.Settings{}, schedule.ClaimOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.succeed(*c)
	b.tend()
	finish("public.ab")
	finish()
}
