package schedule_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

func (b *bundle) why(name string) schedule.Explanation {
	b.Helper()
	view, err := schedule.ParseViewName(name)
	if err != nil {
		b.Fatal(err)
	}
	e, err := b.store.Why(b.Context(), view)
	if err != nil {
		b.Fatal(err)
	}
	return e
}

func codes(e schedule.Explanation) []string {
	var codes []string
	for _, r := range e.Reasons {
		codes = append(codes, r.Code)
	}
	return codes
}

func reason(t *testing.T, e schedule.Explanation, code string) schedule.Reason {
	t.Helper()
	i := slices.IndexFunc(e.Reasons, func(r schedule.Reason) bool { return r.Code == code })
	if i < 0 {
		t.Fatalf("no reason %s in %+v", code, e)
	}
	return e.Reasons[i]
}

// run claims everything that can be claimed until nothing is left, and lets it succeed.
func (b *bundle) run() {
	b.Helper()
	b.tend()
	for claims := b.claimAll(); len(claims) > 0; claims = b.claimAll() {
		for _, c := range claims {
			b.succeed(c)
		}
		b.tend()
	}
}

// succeeded gives each schedule a history of so many refreshes by hand that began so long ago and took so long.
func (b *bundle) succeeded(times int, ago, took time.Duration) {
	b.Helper()
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		       (materialized_view_refresh_schedule_id, view_name, view_oid, trigger, status, started_at, ended_at, method, data_as_of, refreshed_at)
		select s.id, s.materialized_view_name, s.view_oid, 'manual', 'succeeded', began, began + make_interval(secs => $3), 'plain', began, began
		  from mvsched.materialized_view_refresh_schedule s, generate_series(1, $1),
		       lateral (select now() - make_interval(secs => $2) as began) ago`, times, ago.Seconds(), took.Seconds())
}

// begin locks what is running, as the transaction of a refresh does.
func (b *bundle) begin() {
	b.Helper()
	b.Hold(`select from mvsched.materialized_view_refresh_schedule_execution where status = 'running' for no key update`)
}

// TestWhyAnswers provokes each state of public.b, which reads public.a, after both have been refreshed once.
func TestWhyAnswers(t *testing.T) {
	const due = "next_run_at = now() - interval '1 minute'"
	for _, c := range []struct {
		name    string
		provoke func(*bundle)
		state   schedule.State
		codes   []string // all of them
		answer  string   // in the first message
		since   bool
		until   bool
	}{
		{
			name: "not_due", state: schedule.StateFresh, provoke: func(*bundle) {},
			codes: []string{"not_due", "last_run", "method"}, answer: "not due yet", until: true,
		},
		{
			name: "due", state: schedule.StateDue, provoke: func(b *bundle) { b.change("b", due) },
			codes: []string{"due", "last_run", "method"}, answer: "next worker that looks claims it", since: true,
		},
		{
			name: "claimed", state: schedule.StateRunning, provoke: func(b *bundle) { b.change("b", due); b.claimAll() },
			codes: []string{"running", "last_run", "method", "next_slot"}, answer: "has not begun, by worker test", since: true, until: true,
		},
		{
			name: "running", state: schedule.StateRunning, provoke: func(b *bundle) { b.change("b", due); b.claimAll(); b.begin() },
			codes: []string{"running", "last_run", "method", "next_slot"}, answer: "being refreshed, by worker test", since: true, until: true,
		},
		{
			name: "running_by_hand_though_paused", state: schedule.StateRunning, provoke: func(b *bundle) {
				b.change("b", "paused_at = now()")
				if _, err := b.store.ClaimView(b.Context(), schedule.ViewName{Schema: "public", Name: "b"}, schedule.Settings{}, schedule.ClaimOptions{}); err != nil {
					b.Fatal(err)
				}
				b.begin()
			},
			codes: []string{"running", "paused", "last_run", "method"}, answer: "by hand", since: true,
		},
		{
			name: "paused", state: schedule.StatePaused,
			provoke: func(b *bundle) { b.change("b", due+", paused_at = now(), paused_reason = 'the cat is ill'") },
			codes:   []string{"paused", "last_run", "method"}, answer: "paused it: the cat is ill", since: true,
		},
		{
			name: "suspended", state: schedule.StateSuspended,
			provoke: func(b *bundle) { b.change("b", "suspended_at = now(), suspended_reason = '7 failed slots in a row'") },
			codes:   []string{"suspended", "last_run", "method"}, answer: "7 failed slots in a row", since: true,
		},
		{
			name: "just_ended", state: schedule.StateFailing, provoke: func(b *bundle) {
				b.change("b", due)
				b.end(b.claimAll()[0], schedule.Ending{Status: schedule.Failed, ErrorName: "division_by_zero", ErrorMessage: "division by zero"})
			},
			codes: []string{"ended", "last_run", "method", "next_slot"}, answer: "has ended", since: true,
		},
		{
			name: "unplanned", state: schedule.StateDue, provoke: func(b *bundle) { b.change("b", "next_run_at = null") },
			codes: []string{"unplanned", "last_run", "method"}, answer: "to be planned",
		},
		{
			name: "lock_busy", state: schedule.StateBlocked, provoke: func(b *bundle) {
				b.change("b", due)
				b.end(b.claimAll()[0], schedule.Ending{Status: schedule.Skipped, Reason: schedule.ReasonLockBusy, ErrorMessage: "held by 4711"})
				b.tend()
				b.change("b", "next_run_at = now() + interval '1 minute', next_run_offset = interval '1 minute', next_run_reason = 'retry'")
			},
			codes: []string{"lock_busy", "last_run", "method"}, answer: "try 2 of 4, since a lock was not to be had: held by 4711", since: true, until: true,
		},
		{
			name: "second_look", state: schedule.StateDue,
			provoke: func(b *bundle) {
				b.change("b", "next_run_at = now() + interval '14 seconds', next_run_offset = interval '15 seconds', next_run_reason = 'second_look'")
			},
			codes: []string{"look_again", "last_run", "method"}, answer: "second look", since: true, until: true,
		},
		{
			name: "restored_elsewhere", state: schedule.StateDue,
			provoke: func(b *bundle) { b.change("b", due+", database_identity = 'elsewhere'") },
			codes:   []string{"moved", "last_run", "method"}, answer: "finds its view again", since: true,
		},
		{
			name: "parent_due", state: schedule.StateBlocked, provoke: func(b *bundle) { b.change("a", due); b.change("b", due) },
			codes: []string{"awaited", "last_run", "method"}, answer: "waits for public.a, which is due", since: true, until: true,
		},
		{
			name: "parent_running", state: schedule.StateBlocked,
			provoke: func(b *bundle) { b.change("a", due); b.change("b", due); b.claimAll() },
			codes:   []string{"awaited", "last_run", "method"}, answer: "waits for public.a, which is being refreshed", since: true, until: true,
		},
		{
			name: "parent_just_ended", state: schedule.StateBlocked,
			provoke: func(b *bundle) { b.change("a", due); b.change("b", due); b.succeed(b.claimAll()[0]) },
			codes:   []string{"awaited", "last_run", "method"}, answer: "waits for public.a, which has just ended", since: true,
		},
		{
			name: "a_parent_of_its_group_due", state: schedule.StateDue,
			provoke: func(b *bundle) {
				b.view("c", "1 hour")
				b.Exec("create materialized view public.d as select id from public.c")
				b.Schedule("public.d", "1 hour")
				b.run()
				b.change("b", "refresh_group = 'g', "+due)
				b.change("d", "refresh_group = 'g', "+due)
				b.change("c", "next_run_at = now() - interval '2 minutes'")
			},
			codes: []string{"awaited", "last_run", "method"}, answer: "waits for public.c, which is due", since: true, until: true,
		},
		{
			name: "window_closed", state: schedule.StateDue, provoke: func(b *bundle) {
				b.change("b", "window_start = (now() at time zone 'UTC' + interval '1 hour')::time, window_end = (now() at time zone 'UTC' + interval '2 hours')::time")
				b.change("b", due)
			},
			codes: []string{"window_closed", "last_run", "method"}, answer: "until its window opens", since: true, until: true,
		},
		{
			name: "capped", state: schedule.StateDue, provoke: func(b *bundle) {
				b.view("c", "1 hour")
				b.tend()
				b.claimAll()
				b.change("b", due)
				b.Exec("update mvsched.settings set max_concurrent_refreshes = 1")
			},
			codes: []string{"capped", "last_run", "method"}, answer: "as many refreshes run as may (max_concurrent_refreshes is 1)", since: true,
		},
		{
			name: "parent_failed", state: schedule.StateFresh, provoke: func(b *bundle) {
				b.change("a", due)
				b.end(b.claimAll()[0], schedule.Ending{Status: schedule.Failed, ErrorName: "division_by_zero"})
				b.tend()
			},
			codes: []string{"not_due", "last_run", "upstream_failed", "method"}, until: true,
		},
		{
			name: "after_parents", state: schedule.StateFresh, provoke: func(b *bundle) {
				b.change("b", "after_parents = true, refresh_interval = null")
				b.change("b", "last_attempted_at = now()")
			},
			codes: []string{"awaits_parents", "last_run", "parent_data", "method"}, answer: "new data in public.a", since: true,
		},
		{
			name: "missing", state: schedule.StateMissing, provoke: func(b *bundle) { b.Exec("drop materialized view public.b") },
			codes: []string{"not_due", "missing", "last_run"}, until: true,
		},
		{
			name: "claimed_and_created_again", state: schedule.StateNever, provoke: func(b *bundle) {
				b.change("b", due)
				b.claimAll()
				b.Exec("drop materialized view public.b")
				b.Exec("create materialized view public.b as select 1 as id")
			},
			codes: []string{"running", "last_run", "method", "next_slot"}, answer: "by worker test", since: true, until: true,
		},
		{
			name: "missing_and_due", state: schedule.StateMissing,
			provoke: func(b *bundle) { b.change("b", due); b.Exec("drop materialized view public.b") },
			codes:   []string{"due", "missing", "last_run"}, since: true,
		},
		{
			name: "unscheduled", state: schedule.StateUnscheduled,
			provoke: func(b *bundle) {
				b.Exec("delete from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.b'")
			},
			codes: []string{"unscheduled", "last_run", "method"}, answer: "no schedule",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setup(t)
			b.chain("a", "b")
			b.run()
			c.provoke(b)
			got := b.why("public.b")
			if got.View != "public.b" || !slices.Equal(codes(got), c.codes) {
				t.Errorf("%s %v, want %v", got.View, codes(got), c.codes)
			}
			if got.State != c.state {
				t.Errorf("state %s, want %s", got.State, c.state)
			}
			first := got.Reasons[0]
			if !strings.Contains(first.Message, c.answer) || (first.Since != nil) != c.since || (first.Until != nil) != c.until {
				t.Errorf("%+v", first)
			}
			if first.Since != nil && first.Since.After(got.Now.Add(time.Second)) || first.Until != nil && first.Until.Before(got.Now) {
				t.Errorf("at %s: since %s until %s", got.Now, first.Since, first.Until)
			}
			if first.Code == "awaited" && (len(first.Views) != 1 || !strings.Contains(c.answer, "waits for "+first.Views[0]+",")) {
				t.Errorf("views %v", first.Views)
			}
		})
	}
}

func TestWhyGrounds(t *testing.T) {
	t.Run("all_awaited_ancestors_until_their_limits", func(t *testing.T) {
		b := setup(t)
		b.chain("a", "b", "c")
		b.tend()
		got := b.why("public.c")
		if !slices.Equal(codes(got)[:2], []string{"awaited", "awaited"}) {
			t.Fatalf("%v", codes(got))
		}
		first := got.Reasons[0]
		if limit := first.Until.Sub(*first.Since); first.Views[0] != "public.a" || limit != 30*time.Minute {
			t.Errorf("%+v: %s", first, limit)
		}
	})

	t.Run("method", func(t *testing.T) {
		const (
			concurrently = "; update mvsched.materialized_view_refresh_schedule set strategy = 'concurrently'"
			noTemp       = `do $$ begin
				execute format('revoke temp on database %I from public', current_database());
				alter materialized view public.b owner to pg_monitor;
			end $$`
		)
		for _, c := range []struct{ change, want string }{
			{"select 1", "concurrently: it has a unique index"},
			{noTemp, "plain: its owner may not create temporary tables"},
			{noTemp + concurrently, "concurrently: its strategy is concurrently, and will fail: the view's owner may not create temporary tables"},
			{"drop index public.b_id_idx" + concurrently, "and will fail: the view has no unique index"},
			{"drop index public.b_id_idx", "plain: it has no unique index"},
			{"refresh materialized view public.b with no data", "plain: it has no contents yet"},
			{"update mvsched.materialized_view_refresh_schedule set strategy = 'plain'", "plain: its strategy is plain"},
			{"update mvsched.materialized_view_refresh_schedule set strategy = 'concurrently'", "concurrently: its strategy is concurrently"},
		} {
			t.Run(c.want, func(t *testing.T) {
				b := setup(t)
				b.chain("a", "b")
				b.aside(c.change)
				if got := reason(t, b.why("public.b"), "method").Message; !strings.Contains(got, c.want) {
					t.Error(got)
				}
			})
		}
	})

	t.Run("last_run", func(t *testing.T) {
		b := setup(t)
		b.chain("a", "b")
		b.tend()
		b.end(b.claimAll()[0], schedule.Ending{Status: schedule.Failed, ErrorName: "division_by_zero", ErrorMessage: "division by zero"})
		b.tend()
		b.claimAll()
		got := reason(t, b.why("public.b"), "last_run")
		if !strings.Contains(got.Message, "skipped, since a view that it depends on had failed: public.a failed") || got.Since == nil {
			t.Errorf("%+v", got)
		}
		if got := reason(t, b.why("public.a"), "last_run").Message; !strings.Contains(got, "failed: division by zero") {
			t.Error(got)
		}
	})

	t.Run("last_run_of_a_view_of_the_same_name_without_a_schedule", func(t *testing.T) {
		b := setup(t)
		b.Exec("create materialized view public.a as select 1 as id")
		b.succeed(*b.claimView("a"))
		reason(t, b.why("public.a"), "last_run")
		b.Exec("alter materialized view public.a rename to b")
		b.Exec("create materialized view public.a as select 1 as id")
		if got := b.why("public.a"); slices.Contains(codes(got), "last_run") || got.Last != nil {
			t.Errorf("%+v", got)
		}
	})

	t.Run("skip_unchanged", func(t *testing.T) {
		b := setup(t)
		if !tellsChanges(b) {
			return
		}
		b.chain("a", "b")
		b.run()
		b.change("b", "skip_unchanged = true")
		if got := reason(t, b.why("public.b"), "skip_unchanged"); got.Until == nil {
			t.Errorf("%+v", got)
		}
		b.Exec("create materialized view public.now as select now() as id")
		b.Schedule("public.now", "1 hour")
		b.change("now", "skip_unchanged = true")
		if got := reason(t, b.why("public.now"), "changes_unseen"); !strings.Contains(got.Message, "function now()") {
			t.Errorf("%+v", got)
		}
	})

	t.Run("new_data_in_a_parent_is_about_to_be_planned", func(t *testing.T) {
		b := setup(t)
		b.chain("a", "b")
		b.run()
		b.change("b", "after_parents = true, refresh_interval = null")
		b.tend()
		c, err := b.store.ClaimView(t.Context(), schedule.ViewName{Schema: "public", Name: "a"}, schedule.Settings{}, schedule.ClaimOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b.Exec(`select mvsched.refresh_succeeded($1, $2::bigint::oid, 'public', 'a', 'plain')`, c.ExecutionID, int64(c.OID))
		if got := codes(b.why("public.b")); got[0] != "unplanned" {
			t.Errorf("%v", got)
		}
	})

	t.Run("what_somebody_has_asked_for", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.run()
		b.Exec("select mvsched.request_refresh('public.a')")
		e := b.why("public.a")
		if r := e.Reasons[0]; r.Code != "requested" || r.Since == nil || r.Until != nil || !strings.Contains(r.Message, "the next worker that looks") {
			t.Errorf("%+v", e)
		}
		b.tend()
		e = b.why("public.a")
		reason(t, e, "requested")
		if got := codes(e); got[0] != "due" {
			t.Errorf("%v", got)
		}
		b.succeed(b.claim(1)[0])
		b.tend()
		if got := codes(b.why("public.a")); slices.Contains(got, "requested") {
			t.Errorf("%v", got)
		}
	})

	t.Run("a_request_waits_for_a_window", func(t *testing.T) {
		for name, settings := range map[string]schedule.Settings{
			"every": {Every: ptr(schedule.Day)}, "cron": {Cron: ptr("0 12 * * *")}, "on_change": {OnChange: ptr(true)},
		} {
			t.Run(name, func(t *testing.T) {
				c := setupCourse(t, settings)
				c.run("12:00")
				c.set("v", schedule.Settings{Window: &schedule.Window{Start: schedule.TimeOfDay(13 * time.Hour), End: schedule.TimeOfDay(14 * time.Hour)}})
				c.tend()
				c.request("12:20")
				c.now = when(t, "12:20:10")
				c.tend()
				e := c.why("public.v")
				if r := e.Reasons[0]; r.Code != "requested" || !strings.Contains(r.Message, "window") || r.Until == nil || clockOf(*r.Until) != "13:00:00" {
					t.Errorf("%+v", e)
				}
				for _, r := range e.Reasons[1:] {
					if r.Code == "requested" || strings.Contains(r.Message, "for a request") {
						t.Errorf("%+v", r)
					}
				}
				if got := c.run("13:00"); got != "13:00:00" {
					t.Errorf("it is refreshed at %q", got)
				}
			})
		}
	})

	t.Run("a_request_waits_for_a_pause", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{OnChange: ptr(true), AtMostEvery: ptr(time.Minute)})
		c.run("12:00")
		c.request("12:00:10")
		c.now = when(t, "12:00:20")
		if r := c.why("public.v").Reasons[0]; r.Code != "requested" || !strings.Contains(r.Message, "a pause") || r.Until == nil || clockOf(*r.Until) != "12:01:00" {
			t.Errorf("%+v", r)
		}
	})

	t.Run("on_change", func(t *testing.T) {
		b := setup(t)
		b.Exec("create materialized view public.a as select random() as id")
		b.add("a", schedule.Settings{OnChange: ptr(true)})
		b.run()
		e := b.why("public.a")
		if r := reason(t, e, "changes_unseen"); e.Reasons[0].Code != "awaits_change" || r.Until == nil || !strings.Contains(r.Message, "function random()") {
			t.Errorf("%+v", e)
		}
	})

	t.Run("max_lag", func(t *testing.T) {
		b := setup(t)
		b.view("a", "")
		b.add("a", schedule.Settings{MaxLag: ptr(time.Minute)})
		b.run()
		if got := reason(t, b.why("public.a"), "planned_ahead").Message; !strings.Contains(got, "no older than 1m; its refresh is assumed to take up to ") || !strings.HasSuffix(got, "ms") {
			t.Error(got)
		}
		for reachable, want := range map[string]string{"81.45 s": "up to 1m22s old, not 1m as", "60.04 s": "up to 1m1s old, not 1m as"} {
			b.change("a", "predicted_duration = '40 s', reachable_lag = '"+reachable+"'")
			if got := reason(t, b.why("public.a"), "out_of_reach").Message; !strings.Contains(got, want) {
				t.Error(got)
			}
		}
	})

	t.Run("columns", func(t *testing.T) {
		b := setup(t)
		b.Exec(itemTable)
		b.add("item", columnsOf("select id, 1 as y from batch"))
		const want = "the next refresh is columns: rows whose materialized_at is null, and columns that are asked for again, in batches"
		if got := reason(t, b.why("public.item"), "method").Message; got != want {
			t.Error(got)
		}
	})

	t.Run("no_view_at_all", func(t *testing.T) {
		b := setup(t)
		b.Exec("create table public.t (id int)")
		for name, want := range map[string]error{"nosuch": schedule.ErrNoView, "t": schedule.ErrNotAView} {
			if _, err := b.store.Why(t.Context(), schedule.ViewName{Schema: "public", Name: name}); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
	})

	t.Run("changes_nothing_and_waits_for_no_lock", func(t *testing.T) {
		b := setup(t)
		b.chain("a", "b")
		b.Hold("refresh materialized view public.b")
		before := b.Value("(select max(xmin::text) from mvsched.materialized_view_refresh_schedule)")
		b.why("public.b")
		b.Check(before, "select max(xmin::text) from mvsched.materialized_view_refresh_schedule")
	})
}

// What refreshes of a view cost and what for is said where there is a history.
func TestWhyTellsTheCost(t *testing.T) {
	b := setup(t)
	b.arrange(`create materialized view public.v as select 1 as id; create unique index on public.v (id); {v every 1h}; {3 runs of 12 s, +30 -20}`)
	if got, want := reason(t, b.why("public.v"), "cost").Message, "its concurrent refreshes take 12s and write 3% of its rows"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
	               (materialized_view_refresh_schedule_id, view_name, status, method, started_at, ended_at, data_as_of)
	        select id, 'public.v', 'succeeded', 'plain', now(), now() + interval '3.456 s', now() from mvsched.materialized_view_refresh_schedule`)
	if got, want := reason(t, b.why("public.v"), "cost").Message, "rows; plain ones took 3.4s"; !strings.HasSuffix(got, want) {
		t.Errorf("%q, want …%q", got, want)
	}
}
