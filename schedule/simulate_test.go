package schedule

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSimulate(t *testing.T) {
	minute, second := time.Minute, time.Second
	for _, c := range []struct {
		name    string
		workers int
		length  time.Duration
		build   func(*scene)
		want    string
		check   func(*testing.T, Forecast)
	}{
		{
			"every_is_from_slot_to_slot", 1, 3 * minute,
			func(s *scene) { s.view("a", 5*second, all(every(minute), dueIn(10*second))) },
			"a 10s, a 1m10s, a 2m10s",
			func(t *testing.T, f Forecast) {
				if v := f.Views[0]; v.Busy != 15*second || !v.FirstRunAt.Equal(noon.Add(10*second)) || *v.MaxAge != 75*second || len(v.Problems) > 0 {
					t.Errorf("%+v", v)
				}
			},
		},
		{
			"one_catch_up_for_slots_long_gone", 1, 20 * minute,
			func(s *scene) {
				s.view("a", second, all(every(10*minute), dueIn(-35*minute))).dataAsOf = noon.Add(-time.Hour)
			},
			"a 0s, a 5m, a 15m",
			func(t *testing.T, f Forecast) {
				if got := *f.Views[0].MaxAge; got != 10*minute+second { // what was before is not the schedule's doing
					t.Errorf("max age %v", got)
				}
			},
		},
		{
			"a_changed_interval_counts_from_the_last_attempt", 1, 2 * time.Hour,
			func(s *scene) {
				s.view("a", second, all(every(90*minute), func(v *simulated) { v.due = time.Time{} }))
			},
			"a 30m", nil,
		},
		{
			"a_new_one_is_due_at_once", 1, minute,
			func(s *scene) {
				s.view("a", second, all(every(time.Hour), func(v *simulated) { v.due, v.attempted = time.Time{}, time.Time{} }))
			},
			"a 0s", nil,
		},
		{
			"after_counts_from_the_end", 1, 3 * minute,
			func(s *scene) {
				s.view("a", 10*second, func(v *simulated) { v.Kind, v.After = KindAfter, &minute })
			},
			"a 0s, a 1m10s, a 2m20s", nil,
		},
		{
			"cron_in_its_time_zone", 1, 24 * time.Hour,
			func(s *scene) {
				s.view("a", second, func(v *simulated) {
					expression := "0 9,18 * * *"
					v.Kind, v.Cron, v.Timezone, v.due = KindCron, &expression, "Asia/Tokyo", time.Time{}
				})
			},
			"a 12h, a 21h", nil, // Tokyo is 9 hours ahead
		},
		{
			"after_parents_follow_each_refresh_of_what_they_read", 2, 25 * minute,
			func(s *scene) {
				a := s.view("a", minute, every(10*minute))
				b := s.view("b", 2*minute, afterParents)
				s.reads(b, a)
			},
			"a 0s, b 1m, a 10m, b 11m, a 20m, b 21m",
			func(t *testing.T, f Forecast) {
				if r := f.Runs[1]; r.Trigger != "parent" || !r.ScheduledAt.Equal(noon) || r.ForViews != 0 {
					t.Errorf("%+v", r)
				}
				if got := *f.Views[1].MaxAge; got != 13*minute { // from the start of a's refresh to the end of b's next
					t.Errorf("max age %v", got)
				}
			},
		},
		{
			"max_lag_as_late_as_possible_through_what_it_reads", 2, 3 * minute,
			func(s *scene) {
				a := s.view("a", 4*second, withMaxLag(10*minute))
				b := s.view("b", 2*second, all(withMaxLag(minute), func(v *simulated) { v.dataAsOf, v.refreshed = noon, noon }))
				a.dataAsOf, a.refreshed = noon, noon
				a.attempted, b.attempted = noon, noon
				s.reads(b, a)
			},
			// b's target less margin (0.25 s and a fiftieth) and both refreshes is when a has to begin.
			"a 52.55s, b 56.55s, a 1m45.1s, b 1m49.1s, a 2m37.65s, b 2m41.65s",
			func(t *testing.T, f Forecast) {
				if v := f.Views[1]; *v.MaxAge != 58550*time.Millisecond || *v.ReachableLag != 11450*time.Millisecond || len(v.Problems) > 0 {
					t.Errorf("%v %v %v", v.MaxAge, v.ReachableLag, v.Problems)
				}
			},
		},
		{
			"a_max_lag_that_cannot_be_kept", 1, 2 * minute,
			func(s *scene) { s.view("a", 50*second, withMaxLag(minute)) },
			"a 0s, a 51s, a 1m42s",
			func(t *testing.T, f Forecast) {
				if v := f.Views[0]; codes(v.Problems) != ForecastUnreachable || *v.MaxAge < 100*second {
					t.Errorf("%+v", v)
				}
			},
		},
		{
			"a_max_lag_that_is_missed_for_want_of_a_worker", 1, 10 * minute,
			func(s *scene) {
				s.view("a", second, withMaxLag(minute))
				s.view("slow", 3*minute, every(time.Hour))
			},
			"", func(t *testing.T, f Forecast) {
				if v := f.Views[0]; codes(v.Problems) != ForecastTarget+" "+ForecastLate || !strings.Contains(v.Problems[1].Message, "mostly with slow") {
					t.Errorf("%+v", v)
				}
			},
		},
		{
			"on_change_by_its_staleness_alone", 1, 3 * time.Hour,
			func(s *scene) {
				s.view("a", second, func(v *simulated) { v.Kind, v.due = KindOnChange, time.Time{} })
			},
			"a 59m, a 1h59m, a 2h59m",
			func(t *testing.T, f Forecast) {
				if codes(f.Notes) != ForecastOnChange || f.Runs[0].Trigger != "change" {
					t.Errorf("%+v", f.Notes)
				}
			},
		},
		{
			"only_in_the_window", 1, 48 * time.Hour,
			func(s *scene) {
				s.view("a", second, all(every(4*time.Hour), func(v *simulated) {
					v.Window = &Window{Start: TimeOfDay(22 * time.Hour), End: TimeOfDay(2 * time.Hour)}
				}))
			},
			"a 10h, a 1d10h", nil, // claimed when it is closed, the grid moves to the opening
		},
		{
			"neither_paused_nor_suspended_nor_missing_ones", 1, time.Hour,
			func(s *scene) {
				s.view("p", second, all(every(minute), func(v *simulated) { v.PausedAt = &noon }))
				s.view(`"S"`, second, all(every(minute), func(v *simulated) { v.SuspendedAt = &noon }))
				s.view("m", second, all(every(minute), func(v *simulated) { v.missing = true }))
				s.view("z", second, all(every(minute), func(v *simulated) { v.Timezone = "Nowhere" }))
			},
			"", func(t *testing.T, f Forecast) {
				var got []string
				for _, v := range f.Views {
					got = append(got, codes(v.Problems))
				}
				if want := []string{"", ForecastSuspended, ForecastMissing, ForecastUnplannable}; !slices.Equal(got, want) {
					t.Errorf("%q", got)
				}
				if message := f.Views[1].Problems[0].Message; !strings.HasSuffix(message, "`mvsched resume '\"S\"'`") {
					t.Error(message)
				}
				if len(f.Runs) != 0 || codes(f.Notes) != ForecastPaused || *f.Views[0].MaxAge != 61*minute {
					t.Errorf("%+v", f)
				}
			},
		},
		{
			"a_view_is_not_refreshed_twice_at_a_time", 4, 5 * minute,
			func(s *scene) { s.view("a", 90*second, every(minute)) },
			"a 0s, a 1m30s, a 3m, a 4m30s",
			func(t *testing.T, f Forecast) {
				if v := f.Views[0]; codes(v.Problems) != ForecastOverlaps || f.Runs[1].ForItself != 30*second || v.MissedSlots != 1 {
					t.Errorf("%+v %+v", v, f.Runs[1])
				}
			},
		},
		{
			"the_order_of_a_chain_with_one_worker", 1, 10 * minute,
			func(s *scene) {
				s.view("alone", 5*second, every(time.Hour))
				c := s.view("c", 10*second, every(time.Hour))
				b := s.view("b", 20*second, every(time.Hour))
				a := s.view("a", 30*second, every(time.Hour))
				s.reads(b, a)
				s.reads(c, b)
			},
			"a 0s, b 30s, c 50s, alone 1m",
			func(t *testing.T, f Forecast) {
				if r := f.Runs[2]; r.ForViews != 50*second || r.ForWorker != 0 {
					t.Errorf("%+v", r)
				}
				if r := f.Runs[3]; r.ForWorker != minute || r.Behind != "c" {
					t.Errorf("%+v", r)
				}
			},
		},
		{
			"a_child_waits_for_its_parents_slot_but_not_for_a_later_one", 2, 2 * minute,
			func(s *scene) {
				a := s.view("a", 10*second, all(every(20*second), dueIn(5*second)))
				b := s.view("b", second, all(every(time.Hour), dueIn(7*second)))
				s.reads(b, a)
			},
			"a 5s, b 15s, a 25s, a 45s, a 1m5s, a 1m25s, a 1m45s", nil,
		},
		{
			"a_parent_that_nobody_begins_is_waited_for_no_longer_than_its_limit", 1, time.Hour,
			func(s *scene) {
				a := s.view("a", second, all(every(2*time.Hour), func(v *simulated) { v.Queue, v.Timeout = "other", 10*minute }))
				b := s.view("b", second, every(2*time.Hour))
				s.reads(b, a)
				s.workers = map[string]int{"default": 1, "other": 1}
				s.view("long", 50*minute, all(every(2*time.Hour), func(v *simulated) { v.Queue, v.Priority = "other", 5 }))
			},
			"long 0s, b 10m, a 50m",
			func(t *testing.T, f Forecast) {
				if r := f.Runs[1]; r.ForViews != 10*minute || r.ForWorker != 0 {
					t.Errorf("%+v", r)
				}
			},
		},
		{
			"a_parent_that_nobody_serves_is_hardly_waited_for", 1, minute,
			func(s *scene) {
				s.workers = map[string]int{"default": 1}
				a := s.view("a", second, all(every(2*time.Hour), func(v *simulated) { v.Queue = "nobody" }))
				b := s.view("b", second, every(2*time.Hour))
				s.reads(b, a)
			},
			"b 10s", nil,
		},
		{
			"a_parent_that_runs_in_a_later_slot_is_not_waited_for", 0, 5 * minute,
			func(s *scene) {
				s.workers = map[string]int{"default": 1, "other": 1}
				a := s.view("a", minute, all(every(time.Hour), dueIn(10*second), func(v *simulated) { v.Queue = "other" }))
				b := s.view("b", second, all(every(time.Hour), dueIn(5*second)))
				s.view("x", 30*second, every(time.Hour))
				s.reads(b, a)
			},
			"x 0s, a 10s, b 30s", nil,
		},
		{
			"a_child_of_two_runs_in_one_slot_has_two_of_its_own", 3, 5 * minute,
			func(s *scene) {
				running := func(since time.Duration) func(*simulated) {
					return func(v *simulated) {
						v.running, v.runningSince, v.runningBy = true, noon.Add(-since), "schedule"
						v.runningSlot, v.lastSlot = noon.Add(-minute), noon.Add(-minute)
					}
				}
				a := s.view("a", minute, all(every(time.Hour), dueIn(time.Hour), running(20*second)))
				b := s.view("b", 20*second, all(afterParents, running(10*second)))
				s.reads(b, a)
			},
			"a -20s, b -10s, b 40s",
			func(t *testing.T, f Forecast) {
				if got, want := f.Runs[2].ScheduledAt, noon.Add(-minute+time.Microsecond); !got.Equal(want) {
					t.Errorf("slot %v, want %v", got, want)
				}
			},
		},
		{
			"a_changed_cron_counts_from_the_change", 1, 40 * minute,
			func(s *scene) {
				s.view("a", second, func(v *simulated) {
					expression := "*/30 * * * *"
					v.Kind, v.Cron, v.due, v.changed = KindCron, &expression, time.Time{}, noon
				})
			},
			"a 30m", nil,
		},
		{
			"priority_is_worth_a_minute", 1, 20 * minute,
			func(s *scene) {
				s.view("x", 10*minute, every(time.Hour))
				s.view("a", second, all(every(time.Hour), dueIn(minute)))
				s.view("b", second, all(every(time.Hour), dueIn(150*second), func(v *simulated) { v.Priority = 2 }))
			},
			"x 0s, b 10m, a 10m1s", nil,
		},
		{
			"queues_do_not_hold_each_other_up", 0, 5 * minute,
			func(s *scene) {
				s.workers = map[string]int{"default": 1, "heavy": 1}
				heavy := func(v *simulated) { v.Queue = "heavy" }
				s.view("h1", 2*minute, all(every(4*minute), heavy))
				s.view("h2", 2*minute, all(every(4*minute), heavy))
				s.view("q", second, every(2*minute))
				s.view("n", second, all(every(minute), func(v *simulated) { v.Queue = "nobody" }))
			},
			"h1 0s, q 0s, h2 2m, q 2m, h1 4m, q 4m",
			func(t *testing.T, f Forecast) {
				h2 := f.Views[1]
				if h2.LateRuns != 1 || h2.LongestWait != 2*minute || !strings.Contains(h2.Problems[1].Message, "all workers of queue heavy are busy (1), mostly with h1") {
					t.Errorf("%+v", h2)
				}
				if codes(h2.Problems) != ForecastStarved+" "+ForecastLate { // h2 is due again at 4m
					t.Errorf("%+v", h2.Problems)
				}
				if len(f.Views[2].Problems) != 0 || codes(f.Views[3].Problems) != ForecastNoWorker || f.Workers != 2 {
					t.Errorf("%+v", f)
				}
			},
		},
		{
			"no_more_at_a_time_than_the_settings_allow", 5, 5 * minute,
			func(s *scene) {
				one := 1
				s.most = &one
				s.view("a", minute, every(10*minute))
				s.view("b", minute, every(10*minute))
			},
			"a 0s, b 1m",
			func(t *testing.T, f Forecast) {
				if p := f.Views[1].Problems; codes(p) != ForecastLate || !strings.Contains(p[0].Message, "max_concurrent_refreshes") {
					t.Errorf("%+v", p)
				}
			},
		},
		{
			"what_runs_already_goes_on", 1, 30 * minute,
			func(s *scene) {
				s.view("a", minute, all(every(10*minute), func(v *simulated) {
					v.running, v.runningSince, v.runningSlot, v.runningBy = true, noon.Add(-20*second), noon.Add(-minute), "schedule"
					v.due, v.slot = noon.Add(9*minute), noon.Add(9*minute)
				}))
				s.view("b", second, every(time.Hour))
			},
			"a -20s, b 40s, a 9m, a 19m, a 29m", nil,
		},
		{
			"a_refresh_by_hand_takes_no_worker", 1, 5 * minute,
			func(s *scene) {
				s.view("a", minute, all(every(time.Hour), func(v *simulated) { v.running, v.runningSince, v.runningBy = true, noon, "manual" }))
				s.view("b", second, every(time.Hour))
			},
			"a 0s, b 0s, a 1m", nil,
		},
		{
			"a_retry_holds_nobody", 1, 5 * minute,
			func(s *scene) {
				a := s.view("a", second, all(every(time.Hour), dueIn(minute), func(v *simulated) { v.retry, v.slot = true, noon.Add(-minute) }))
				b := s.view("b", second, every(time.Hour))
				s.reads(b, a)
			},
			"b 0s, a 1m",
			func(t *testing.T, f Forecast) {
				if f.Runs[1].Trigger != "retry" {
					t.Errorf("%+v", f.Runs[1])
				}
			},
		},
		{
			"a_request_leaves_the_clock_alone", 1, 90 * minute,
			func(s *scene) {
				s.view("a", second, all(every(time.Hour), func(v *simulated) { v.kept = noon.Add(20 * minute) }))
			},
			"a 0s, a 20m, a 1h20m",
			func(t *testing.T, f Forecast) {
				if f.Runs[0].Trigger != "change" || f.Runs[1].Trigger != "schedule" {
					t.Errorf("%+v", f.Runs)
				}
			},
		},
		{
			"nor_does_what_is_tried_again_for_one", 1, 90 * minute,
			func(s *scene) {
				s.view("a", second, all(every(time.Hour), dueIn(minute), func(v *simulated) {
					v.retry, v.slot, v.kept = true, noon.Add(-minute), noon.Add(20*minute)
				}))
			},
			"a 1m, a 20m, a 1h20m",
			func(t *testing.T, f Forecast) {
				if f.Runs[0].Trigger != "retry" || f.Runs[1].Trigger != "schedule" {
					t.Errorf("%+v", f.Runs)
				}
			},
		},
		{
			"not_even_when_it_comes_late", 1, 90 * minute,
			func(s *scene) {
				s.view("a", second, all(every(time.Hour), dueIn(30*minute), func(v *simulated) { v.kept = noon.Add(20 * minute) }))
			},
			"a 30m, a 1h20m",
			nil,
		},
		{
			"not_without_end", 1, 1000 * time.Hour,
			func(s *scene) {
				s.mostRuns = 3
				s.view("a", second, every(minute))
			},
			"a 0s, a 1m, a 2m",
			func(t *testing.T, f Forecast) {
				if !f.Cut || !f.Until.Equal(noon.Add(2*minute)) || codes(f.Notes) != ForecastCut {
					t.Errorf("%+v", f)
				}
			},
		},
		{
			"jitter_as_the_server_has_it", 1, 3 * time.Hour,
			func(s *scene) {
				jitter := 20 * minute
				s.view("a", second, all(every(time.Hour), dueIn(30*minute), func(v *simulated) { v.Jitter = &jitter }))
			},
			"", func(t *testing.T, f Forecast) {
				for i, r := range f.Runs {
					slot := noon.Add(30*minute + time.Duration(i)*time.Hour)
					beside := time.Duration(jitterOf(1, slot) * float64(20*minute)).Round(time.Microsecond)
					if i > 0 && (!r.ScheduledAt.Equal(slot) || !r.StartsAt.Equal(slot.Add(beside)) || r.ForWorker != 0) {
						t.Errorf("%v: %+v", beside, r)
					}
				}
				if len(f.Runs) != 3 {
					t.Errorf("%d runs", len(f.Runs))
				}
			},
		},
		{
			"no_history_counts_as_a_second", 1, minute,
			func(s *scene) { s.view("a", 0, all(every(time.Hour), func(v *simulated) { v.usual = nil })) },
			"a 0s",
			func(t *testing.T, f Forecast) {
				if f.Runs[0].EndsAt.Sub(noon) != second || codes(f.Notes) != ForecastNoHistory || f.Views[0].Usual != nil {
					t.Errorf("%+v", f)
				}
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(c.workers, c.length)
			c.build(s)
			f, got := s.starts()
			if c.want != "" && got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			if c.check != nil {
				c.check(t, f)
			}
		})
	}
}
