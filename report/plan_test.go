package report_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func TestForecast(t *testing.T) {
	from := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return from.Add(d) }
	first, usual, old, lag := at(0), 90*time.Second, 3*time.Hour, time.Hour
	forecast := schedule.Forecast{
		From: from, Until: at(2 * time.Hour), Workers: 2,
		Views: []schedule.ViewForecast{
			{View: "public.a", Runs: 2, FirstRunAt: &first, Usual: &usual, Busy: time.Hour, MaxAge: &old, MaxLag: &lag, Problems: []schedule.Remark{{Code: "target", Message: "too old"}}},
			{View: "public.b"},
		},
		Runs: []schedule.PredictedRun{
			{View: "public.a", StartsAt: at(-time.Minute), EndsAt: at(30 * time.Minute), Trigger: "manual"},
			{
				View: "public.a", ScheduledAt: at(80 * time.Minute), StartsAt: at(90 * time.Minute), EndsAt: at(150 * time.Minute), Trigger: "schedule",
				ForItself: 2 * time.Minute, ForViews: 3 * time.Second, ForWorker: 5 * time.Minute, Behind: "public.b",
			},
			{View: "public.by_hand", StartsAt: at(0), EndsAt: at(time.Minute), Trigger: "manual"},
		},
	}
	written := func(width int, format report.Format, runs bool) string {
		t.Helper()
		var out strings.Builder
		if err := (report.Printer{W: &out, Width: width, Format: format}).Forecast(forecast, runs); err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(out.String(), "\n") // the first line has times of the reader's zone
		return rest
	}
	for _, c := range []struct {
		name  string
		width int
		runs  bool
		want  string
	}{
		{"without_a_terminal", 0, false, `VIEW      RUNS  FIRST  USUAL  BUSY  MAX AGE  TARGET  PROBLEM
public.a     2    now  1m30s   50%       3h      1h  target
public.b     0      -      -    0%        -       -  -

VIEW      PROBLEM
public.a  too old
`},
		{"a_bar_where_there_is_room", 60 + 2 + 16, false, `VIEW      RUNS  FIRST  USUAL  BUSY  MAX AGE  TARGET  PROBLEM  TIMELINE
public.a     2    now  1m30s   50%       3h      1h  target   ████········████
public.b     0      -      -    0%        -       -  -        ················

VIEW      PROBLEM
public.a  too old
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := written(c.width, report.Table, c.runs); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
	t.Run("what_is_less_than_a_second", func(t *testing.T) {
		defer func(views []schedule.ViewForecast) { forecast.Views = views }(forecast.Views)
		quick, over, within, lag := 406*time.Millisecond, 2*time.Second+time.Millisecond, 800*time.Millisecond, 2*time.Second
		forecast.Views = []schedule.ViewForecast{
			{View: "public.a", Usual: &quick, Busy: 2 * time.Hour, MaxAge: &within},
			{View: "public.b", Usual: &quick, MaxAge: &over, MaxLag: &lag, Problems: []schedule.Remark{{Code: "target"}}},
		}
		const want = `VIEW      RUNS  FIRST  USUAL  BUSY  MAX AGE  TARGET  PROBLEM
public.a     0      -  406ms  100%    800ms       -  -
public.b     0      -  406ms    0%     2.1s      2s  target
`
		if got := written(0, report.Table, false); !strings.HasPrefix(got, want) {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	})
	t.Run("what_a_run_waits_for", func(t *testing.T) {
		got := written(0, report.Table, true)
		if want := "public.a          1h  2m for its last run, 3.0s for what it reads, 5m for a worker behind public.b\n"; !strings.Contains(got, want) {
			t.Errorf("%s", got)
		}
	})
	t.Run("a_refresh_by_hand_has_no_slot", func(t *testing.T) {
		got := written(0, report.JSON, false)
		if !strings.Contains(got, `"scheduled_at": null`) || !strings.Contains(got, `"scheduled_at": "2026-03-01T13:20:00Z"`) {
			t.Errorf("%s", got)
		}
	})
}
