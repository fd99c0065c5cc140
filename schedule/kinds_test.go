package schedule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// course is one schedule, of public.v, in the course of time, which the test makes pass.
type course struct {
	*bundle
	clock
}

var begins = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func setupCourse(t *testing.T, settings schedule.Settings) *course {
	t.Helper()
	c := &course{setup(t), clock{begins}}
	c.store.Now = c.Now
	c.view("v", "")
	c.add("v", settings)
	return c
}

func (b *bundle) add(name string, settings schedule.Settings) {
	b.Helper()
	if _, err := b.store.Add(b.Context(), []schedule.ViewName{{Schema: "public", Name: name}}, settings, false); err != nil {
		b.Fatal(err)
	}
}

func (b *bundle) set(name string, settings schedule.Settings) {
	b.Helper()
	if err := b.store.Set(b.Context(), []schedule.ViewName{{Schema: "public", Name: name}}, settings); err != nil {
		b.Fatal(err)
	}
}

// claimView claims a view out of turn, as somebody who refreshes it by hand.
func (b *bundle) claimView(name string) *schedule.Claim {
	b.Helper()
	c, err := b.store.ClaimView(b.Context(), schedule.ViewName{Schema: "public", Name: name}, schedule.Settings{}, schedule.ClaimOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// run lets a worker look at a time of the day, or a day and a time: it refreshes what is due. What it returns are the
// slots that it did that for.
func (c *course) run(at string) string {
	c.Helper()
	c.now = when(c.TB, at)
	c.tend()
	var slots []string
	for _, claim := range c.claimAll() {
		slots = append(slots, clockOf(*claim.ScheduledAt))
		if claim.Skipped == "" {
			c.succeed(claim)
		}
	}
	c.tend()
	return strings.Join(slots, " ")
}

// next is when the view is to be refreshed next; "": not planned.
func (c *course) next() string {
	c.Helper()
	var next *time.Time
	if err := c.Pool.QueryRow(c.Context(), `select next_run_at from mvsched.materialized_view_refresh_schedule
		where materialized_view_name = 'public.v'`).Scan(&next); err != nil {
		c.Fatal(err)
	}
	if next == nil {
		return ""
	}
	return clockOf(*next)
}

// when reads a time on the day on which courses begin, or a whole one, in UTC.
func when(t testing.TB, text string) time.Time {
	t.Helper()
	if len(text) < len("2006") || text[4] != '-' {
		text = begins.Format("2006-01-02 ") + text
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05.999"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at
		}
	}
	t.Fatalf("what time is %s?", text)
	return time.Time{}
}

func clockOf(t time.Time) string {
	layout := "15:04:05.999999"
	if t.UTC().Format("2006-01-02") != begins.Format("2006-01-02") {
		layout = "2006-01-02 15:04:05.999999"
	}
	return t.UTC().Format(layout)
}

// step is one look of a worker: what it finds due, and when the next run is after that.
type step struct{ at, slots, next string }

func (c *course) goes(steps ...step) {
	c.Helper()
	for _, s := range steps {
		if slots := c.run(s.at); slots != s.slots || c.next() != s.next {
			c.Fatalf("at %s: refreshed for %q, next %q; want %q and %q", s.at, slots, c.next(), s.slots, s.next)
		}
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]schedule.Settings{
		"every": {Every: ptr(10 * time.Minute)},
		"cron":  {Cron: ptr("*/10 * * * *")},
	} {
		t.Run(name+"_does_not_drift_and_catches_up_once", func(t *testing.T) {
			setupCourse(t, settings).goes(
				step{"12:00", "12:00:00", "12:10:00"},
				step{"12:09:59", "", "12:10:00"},
				step{"12:10:07", "12:10:00", "12:20:00"},
				step{"12:57", "12:20:00", "13:00:00"},
				step{"13:00", "13:00:00", "13:10:00"},
			)
		})
	}

	t.Run("after_counts_from_the_end_also_of_a_failure", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{After: ptr(10 * time.Minute)})
		for _, ending := range []schedule.Status{schedule.Succeeded, schedule.Failed, schedule.TimedOut} {
			c.now = time.Now()
			c.change("v", "next_run_at = now() - interval '1 second'")
			c.tend()
			claim := c.claim(1)[0]
			c.tend()
			if next := c.next(); next != "" {
				t.Errorf("next %s while it runs", next)
			}
			if ending == schedule.Succeeded {
				c.succeed(claim)
			} else {
				c.end(claim, schedule.Ending{Status: ending})
			}
			c.tend()
			c.Check("00:10:00", `select s.next_run_at - e.ended_at from mvsched.materialized_view_refresh_schedule s,
				mvsched.materialized_view_refresh_schedule_execution e where e.id = $1`, claim.ExecutionID)
		}
	})

	t.Run("after_does_not_count_a_refresh_by_hand_before_it_is_planned", func(t *testing.T) {
		b := setup(t)
		b.view("v", "")
		b.add("v", schedule.Settings{After: ptr(10 * time.Minute)})
		b.tend()
		b.succeed(b.claim(1)[0])
		b.succeed(*b.claimView("v"))
		b.tend()
		b.Check("schedule", `select e.trigger from mvsched.materialized_view_refresh_schedule s
			join mvsched.materialized_view_refresh_schedule_execution e on e.ended_at + interval '10 minutes' = s.next_run_at`)
	})

	t.Run("cron_is_planned_while_the_view_is_refreshed", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Cron: ptr("30 2 * * *"), Timezone: ptr("Europe/Berlin")})
		c.tend()
		c.claim(1)
		if next := c.next(); next != "" {
			t.Errorf("next %s with the claim", next)
		}
		c.tend()
		if next := c.next(); next != "2026-03-03 01:30:00" {
			t.Errorf("next %s", next)
		}
	})

	t.Run("a_changed_cron_counts_anew", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Cron: ptr("0 0 1 1 *")})
		c.run("12:00")
		c.set("v", schedule.Settings{Cron: ptr("0 0 29 2 *")})
		if next := c.next(); next != "" {
			t.Errorf("next %s before it is planned", next)
		}
		c.tend()
		cron, err := schedule.ParseCron("0 0 29 2 *", "UTC")
		if err != nil {
			t.Fatal(err)
		}
		changed := time.Now() // the column is set by the server's clock
		if next := c.next(); next != clockOf(cron.Next(changed)) {
			t.Errorf("next %s", next)
		}
	})

	t.Run("a_cron_that_cannot_be_read_is_suspended", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Cron: ptr("0 0 1 1 *")})
		c.run("12:00")
		c.change("v", "cron = '99 * * * *'")
		outlook := c.tend()
		if len(outlook.Suspended) != 1 || outlook.Suspended[0].View != "public.v" || !strings.Contains(outlook.Suspended[0].Reason, "minute") {
			t.Errorf("%+v", outlook.Suspended)
		}
		c.Check("true", `select suspended_at is not null and suspended_reason like '%minute%' from mvsched.materialized_view_refresh_schedule`)
		if outlook := c.tend(); len(outlook.Suspended) != 0 {
			t.Errorf("and again: %+v", outlook.Suspended)
		}
	})

	t.Run("a_hand_written_time_that_is_sooner_stays", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Cron: ptr("0 * * * *")})
		c.run("12:00")
		c.change("v", "next_run_at = '2026-03-02 12:20Z'")
		c.goes(step{"12:21", "12:20:00", "13:00:00"})
	})
}

// What somebody writes into next_run_at alone is a slot of its own, whatever had moved the one before.
func TestDueByHand(t *testing.T) {
	t.Parallel()
	const dueAt = "next_run_at = '2026-03-02 %sZ'"
	for name, test := range map[string]struct {
		settings schedule.Settings
		next     string
	}{
		"cron":  {schedule.Settings{Cron: ptr("0 6 * * *")}, "2026-03-03 06:00:00"},
		"every": {schedule.Settings{Every: ptr(2 * time.Hour)}, "14:00:00"},
	} {
		t.Run("a_request_that_waits_leaves_the_clock_of_"+name, func(t *testing.T) {
			c := setupCourse(t, test.settings)
			c.run("12:00")
			c.request("12:20")
			c.now = when(t, "12:20")
			c.tend()
			c.change("v", fmt.Sprintf(dueAt, "12:40"))
			c.goes(step{"12:40", "12:40:00", test.next})
		})
	}
	t.Run("a_slot_that_jitter_has_brought_on", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Cron: ptr("0 * * * *"), Jitter: ptr(50 * time.Minute)})
		c.run("12:00")
		c.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = '2026-03-02 12:40Z', next_run_offset = '-20 minutes'`)
		c.change("v", fmt.Sprintf(dueAt, "12:30"))
		if slot := c.run("12:30"); slot != "12:30:00" {
			t.Errorf("refreshed for %s", slot)
		}
		c.Check("13:00:00", `select (next_run_at - next_run_offset) at time zone 'UTC' - date '2026-03-02' from mvsched.materialized_view_refresh_schedule`)
	})
	t.Run("one_that_is_to_be_tried_again", func(t *testing.T) {
		c := setupRetries(t, schedule.Settings{})
		c.fail(c.trying(), "deadlock_detected")
		c.now = c.now.Add(time.Minute).Truncate(time.Microsecond)
		c.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = $1`, c.now)
		if again := c.trying(); again.Attempt != 1 || !again.ScheduledAt.Equal(c.now) {
			t.Errorf("%+v", again)
		}
		c.Check("01:00:00", `select next_run_at - $1::timestamptz from mvsched.materialized_view_refresh_schedule`, c.now)
	})
	t.Run("and_null_is_to_be_planned", func(t *testing.T) {
		c := setupRetries(t, schedule.Settings{})
		c.succeed(c.trying())
		c.set("v", schedule.Settings{MaxLag: ptr(time.Minute)})
		c.tend()
		c.now = c.now.Add(time.Hour)
		c.fail(c.trying(), "deadlock_detected")
		c.change("v", "next_run_at = null")
		c.tend()
		c.Check("true", `select next_run_at is not null and next_run_reason is null from mvsched.materialized_view_refresh_schedule`)
	})
}

func TestJitter(t *testing.T) {
	t.Parallel()
	t.Run("is_stable_centred_and_within_its_bounds", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Every: ptr(time.Hour), Jitter: ptr(10 * time.Minute)})
		c.view("w", "1 hour")
		c.change("w", "jitter = '10 minutes'")
		const offsets = `with o as (
			select s.materialized_view_name as view, slot, extract(epoch from (mvsched.planned(s, slot)).next_run_offset)::float8 as seconds
			  from mvsched.materialized_view_refresh_schedule s,
			       generate_series(timestamptz '2026-01-01 00:00Z', '2026-03-01 00:00Z', '1 hour') slot) `
		c.Check("t t t", offsets+`select concat_ws(' ', bool_and(abs(seconds) <= 300), max(seconds) > 280 and min(seconds) < -280,
			abs(avg(seconds)) < 15) from o where view = 'public.v'`)
		c.Check("0", offsets+`, again as (select s.id, slot, extract(epoch from (mvsched.planned(s, slot)).next_run_offset)::float8 as seconds
			from mvsched.materialized_view_refresh_schedule s, o where s.materialized_view_name = o.view)
			select count(*) from again where seconds not in (select seconds from o)`)
		c.Check("true", offsets+`select count(distinct seconds) > 2700 from o`) // each view and each slot has its own
	})

	t.Run("makes_nothing_older_than_its_target", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{MaxLag: ptr(time.Hour), Jitter: ptr(10 * time.Minute)})
		c.Check("t t", `select concat_ws(' ', bool_and(o <= interval '0'), min(o) < interval '-4 minutes')
			from mvsched.materialized_view_refresh_schedule s,
			     generate_series(timestamptz '2026-01-01 00:00Z', '2026-01-03 00:00Z', '1 hour') slot,
			     lateral (select (mvsched.planned(s, slot)).next_run_offset) p (o)`)
	})

	t.Run("leaves_the_slots_where_they_are", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Every: ptr(10 * time.Minute), Jitter: ptr(10 * time.Minute)})
		c.run("12:00")
		last := begins
		for slot := begins.Add(10 * time.Minute); slot.Before(begins.Add(3 * time.Hour)); slot = slot.Add(10 * time.Minute) {
			at := when(t, c.next())
			if at.Before(last) || at.Before(slot.Add(-5*time.Minute)) || at.After(slot.Add(5*time.Minute)) {
				t.Fatalf("slot %v at %v, after the run at %v", slot, at, last)
			}
			// The clock of the test is as fine as the column.
			if got := c.run(at.Format("15:04:05.999999")); got != clockOf(slot) {
				t.Fatalf("at %v for %s, want %v", at, got, slot)
			}
			last = at
		}
	})

	t.Run("does_not_bring_a_slot_close_behind_the_late_run_of_the_one_before", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Every: ptr(time.Hour), Jitter: ptr(time.Hour)})
		c.run("12:00")
		for late := begins.Add(114 * time.Minute); late.Before(begins.Add(10 * time.Hour)); late = late.Add(time.Hour) {
			slot := c.run(late.Format("15:04"))
			next, halfway := when(t, c.next()), late.Add(3*time.Minute)
			if slot != late.Format("15:00:00") || next.Before(halfway) {
				t.Fatalf("%s at %v, the next at %v", slot, late, next)
			}
		}
	})

	t.Run("longer_than_the_way_from_slot_to_slot_brings_on_no_runs_one_behind_the_other", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Cron: ptr("* * * * *"), Jitter: ptr(5 * time.Minute)})
		for at := begins; at.Before(begins.Add(time.Hour)); at = at.Add(time.Minute) {
			first := c.run(at.Format("15:04"))
			if second := c.run(at.Format("15:04")); second != "" {
				t.Fatalf("at %v for %s and for %s", at, first, second)
			}
		}
	})
}

func TestWindow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, test := range []struct{ at, window, zone, want string }{
		{"2026-03-02 07:59Z", "08:00-12:00", "UTC", "2026-03-02 08:00Z"},
		{"2026-03-02 08:00Z", "08:00-12:00", "UTC", ""},
		{"2026-03-02 11:59:59Z", "08:00-12:00", "UTC", ""},
		{"2026-03-02 12:00Z", "08:00-12:00", "UTC", "2026-03-03 08:00Z"},
		{"2026-03-02 21:59Z", "22:00-06:00", "UTC", "2026-03-02 22:00Z"},
		{"2026-03-02 23:00Z", "22:00-06:00", "UTC", ""},
		{"2026-03-02 05:59Z", "22:00-06:00", "UTC", ""},
		{"2026-03-02 06:00Z", "22:00-06:00", "UTC", "2026-03-02 22:00Z"},
		{"2026-03-02 12:00Z", "00:00-06:00", "Asia/Tokyo", "2026-03-02 15:00Z"},
		{"2026-03-02 12:00Z", "18:00-00:00", "UTC", "2026-03-02 18:00Z"},
		// Clocks are put forward from 02:00 to 03:00: the window opens with the rest of it, or not on that day.
		{"2026-03-29 00:59Z", "02:30-03:30", "Europe/Berlin", "2026-03-29 01:00Z"},
		{"2026-03-29 00:59Z", "02:15-02:45", "Europe/Berlin", "2026-03-30 00:15Z"},
		{"2026-03-28 23:30Z", "01:00-05:00", "Europe/Berlin", "2026-03-29 00:00Z"},
		// And back from 03:00 to 02:00: the hour counts both times, and a window that opens in it opens the second time.
		{"2026-10-25 00:15Z", "02:10-02:50", "Europe/Berlin", ""},
		{"2026-10-25 01:15Z", "02:10-02:50", "Europe/Berlin", ""},
		{"2026-10-25 00:55Z", "02:10-02:50", "Europe/Berlin", "2026-10-26 01:10Z"},
		{"2026-10-25 00:05Z", "02:10-02:50", "Europe/Berlin", "2026-10-25 01:10Z"},
		// A day that a zone left out.
		{"2011-12-30 06:00Z", "22:00-23:00", "Pacific/Apia", "2011-12-30 08:00Z"},
		{"2011-12-30 09:30Z", "12:00-13:00", "Pacific/Apia", "2011-12-30 22:00Z"},
	} {
		start, end, _ := strings.Cut(test.window, "-")
		want := test.want
		if want == "" {
			want = test.at
		}
		b.Check(b.Value(`select $1::text::timestamptz`, want), `select mvsched.in_window($1::text::timestamptz, $2::text::time, $3::text::time, $4)`,
			test.at, start, end, test.zone)
	}

	night, err := schedule.ParseWindow("22:00-06:00")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("every_keeps_its_grid_through_the_closed_hours", func(t *testing.T) {
		setupCourse(t, schedule.Settings{Every: ptr(3 * time.Hour), Window: &night}).goes(
			step{"12:00", "", "22:00:00"}, // a new one waits for the window too
			step{"22:00:10", "22:00:00", "2026-03-03 01:00:00"},
			step{"2026-03-03 01:00", "2026-03-03 01:00:00", "2026-03-03 04:00:00"},
			step{"2026-03-03 04:00", "2026-03-03 04:00:00", "2026-03-03 22:00:00"},
		)
	})
	t.Run("nor_is_a_window_left_out_that_no_slot_falls_into", func(t *testing.T) {
		hour, err := schedule.ParseWindow("22:00-23:00")
		if err != nil {
			t.Fatal(err)
		}
		setupCourse(t, schedule.Settings{Every: ptr(36 * time.Hour), Window: &hour}).goes(
			step{"22:00", "22:00:00", "2026-03-04 22:00:00"}, // 10:00 is closed, and the slot behind it a day later
		)
	})
	t.Run("a_catch_up_waits_for_the_window", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Every: ptr(time.Hour), Window: &night})
		c.change("v", "next_run_at = '2026-03-02 22:30Z'")
		c.goes(
			step{"22:30", "22:30:00", "23:30:00"},
			step{"2026-03-03 09:00", "", "2026-03-03 22:30:00"}, // there was nobody in the night
			step{"2026-03-03 22:29", "", "2026-03-03 22:30:00"},
			step{"2026-03-03 22:30", "2026-03-03 22:30:00", "2026-03-03 23:30:00"},
		)
	})
	t.Run("is_not_late_while_it_is_closed", func(t *testing.T) {
		b := setup(t)
		b.view("v", "1 minute")
		b.run()
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() + interval '1 hour',
			window_start = (now() at time zone 'UTC' + interval '1 hour')::time, window_end = (now() at time zone 'UTC' + interval '2 hours')::time`)
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
			(materialized_view_refresh_schedule_id, view_name, view_oid, status, started_at, ended_at, method, data_as_of)
			select id, materialized_view_name, view_oid, 'succeeded', now() - interval '9 hours', now() - interval '9 hours', 'plain',
			       now() - interval '9 hours' from mvsched.materialized_view_refresh_schedule`)
		b.Check("fresh", `select state from mvsched.status`)
		if due, err := b.store.Due(t.Context(), nil, 0); err != nil || len(due) > 0 {
			t.Errorf("%+v, %v", due, err)
		}
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
		b.Check("late", `select state from mvsched.status`)
		if due, err := b.store.Due(t.Context(), nil, 0); err != nil || len(due) > 0 {
			t.Errorf("due, but not now: %+v, %v", due, err)
		}
	})
	for name, next := range map[string]string{"leaves_the_grid": "2026-03-03 22:30:00", "does_not_bring_on_what_somebody_has_put_off": "2026-03-05 22:30:00"} {
		t.Run("a_request_that_the_window_closes_on_"+name, func(t *testing.T) {
			c := setupCourse(t, schedule.Settings{Every: ptr(time.Hour), Window: &night})
			c.change("v", "next_run_at = '2026-03-02 22:30Z'")
			c.run("2026-03-03 05:30")
			c.change("v", "next_run_at = '"+next+"Z'")
			c.request("2026-03-03 05:50")
			c.now = when(t, "2026-03-03 05:59:59")
			c.tend()
			c.goes(
				step{"2026-03-03 06:00", "", next},
				step{"2026-03-03 22:00:01", "2026-03-03 22:00:01", next},
			)
		})
	}
	t.Run("cron_and_a_window", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Cron: ptr("0 */4 * * *"), Window: &night})
		c.goes(
			step{"12:00", "", "22:00:00"},
			step{"22:00", "22:00:00", "2026-03-03 00:00:00"},
			step{"2026-03-03 00:00", "2026-03-03 00:00:00", "2026-03-03 04:00:00"},
			step{"2026-03-03 04:00", "2026-03-03 04:00:00", "2026-03-03 22:00:00"}, // once for 08:00, 12:00, 16:00 and 20:00
			step{"2026-03-03 22:00", "2026-03-03 22:00:00", "2026-03-04 00:00:00"},
		)
	})
	t.Run("a_request_waits_for_the_window", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Cron: ptr("0 4 * * *"), Window: &night})
		c.change("v", "next_run_at = '2026-03-02 22:00Z'")
		c.run("22:00")
		c.now = when(t, "2026-03-03 09:00")
		c.request("2026-03-03 08:00")
		c.tend()
		claims := c.claimAll() // the slot of the morning waits for the window too
		if outlook := c.tend(); len(claims) != 0 || outlook.Due != 0 || !slices.Equal(outlook.Next, []time.Duration{13 * time.Hour}) {
			t.Errorf("claimed %v; %+v", views(claims), outlook)
		}
		c.goes(step{"2026-03-03 22:00", "2026-03-03 22:00:00", "2026-03-04 04:00:00"})
	})
}

// As after a restore, which loads schedules before triggers, or an update of the server's time zones.
func TestATimeZoneThatIsGone(t *testing.T) {
	t.Parallel()
	t.Run("where_there_is_no_slot_but_a_request", func(t *testing.T) {
		b := setup(t)
		b.view("v", "1 hour")
		b.set("v", schedule.Settings{OnChange: ptr(true)})
		b.run()
		b.Exec(`alter table mvsched.materialized_view_refresh_schedule disable trigger check_schedule`)
		b.change("v", "window_start = '00:00', window_end = '24:00', timezone = 'US/Gone'")
		b.Exec(`alter table mvsched.materialized_view_refresh_schedule enable trigger check_schedule`)
		b.Exec(`select mvsched.request_refresh('public.v')`)
		b.tend()
		if claims := b.claim(1); len(claims) != 0 {
			t.Errorf("claimed %v", views(claims))
		}
		b.Check("there is no time zone US/Gone", `select suspended_reason from mvsched.materialized_view_refresh_schedule`)
	})
	for name, group := range map[string]string{"alone": "", "in_a_group": "refresh_group = 'g', "} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.view("v", "1 hour")
			b.view("w", "1 hour")
			b.Exec(`update mvsched.materialized_view_refresh_schedule set ` + group + `window_start = '00:00', window_end = '24:00'`)
			b.Exec(`alter table mvsched.materialized_view_refresh_schedule disable trigger check_schedule`)
			b.change("v", "timezone = 'US/Gone'")
			b.Exec(`alter table mvsched.materialized_view_refresh_schedule enable trigger check_schedule`)
			b.tend()
			if _, err := b.store.Status(t.Context(), nil); err != nil {
				t.Error(err)
			}
			b.found(schedule.Finding{Check: "timezone_unknown", View: "public.v", Severity: "error", Message: "mvsched set public.v --timezone ZONE"}, "")
			claims := append(b.claim(2), b.claim(2)...)
			if !slices.Equal(views(claims), []string{"public.w"}) {
				t.Errorf("claimed %v", views(claims))
			}
			b.Check("there is no time zone US/Gone", `select suspended_reason from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.v'`)
			b.succeed(claims[0])
			b.set("v", schedule.Settings{Timezone: ptr("America/New_York")})
			b.Exec(`update mvsched.materialized_view_refresh_schedule set suspended_at = null, suspended_reason = null`)
			b.tend()
			if claims := b.claim(1); len(claims) == 0 {
				t.Error("nothing is claimed in another zone")
			}
		})
	}
}

// Between the look at what is to be planned and the lock on it somebody may have set it anew, who then has the last word.
func TestASpecIsChangedWhileItIsPlanned(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.chain("a", "child")
	b.view("v", "1 hour")
	b.tend()
	b.set("child", schedule.Settings{AfterParents: ptr(true)})
	b.set("v", schedule.Settings{Every: ptr(3650 * 24 * time.Hour)})
	b.Exec(`update mvsched.materialized_view_refresh_schedule set last_attempted_at = now(),
		next_run_at = case materialized_view_name when 'public.a' then next_run_at end`)
	release := b.Hold(`lock table mvsched.materialized_view_graph in access exclusive mode`)
	planned := make(chan schedule.Outlook, 1)
	go func() { planned <- b.tend() }()
	b.Await("1", `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
	b.set("v", schedule.Settings{Every: ptr(time.Minute)})
	release()
	<-planned
	b.tend()
	b.Check("true", `select next_run_at < now() + interval '1 minute' from mvsched.materialized_view_refresh_schedule
		where materialized_view_name = 'public.v'`)
}
