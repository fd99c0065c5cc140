package schedule_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

func TestJudge(t *testing.T) {
	minutes := func(n int) *time.Duration { d := time.Duration(n) * time.Minute; return &d }
	lockBusy, upstream, shutdown := schedule.ReasonLockBusy, schedule.ReasonUpstreamFailed, schedule.ReasonShutdown
	for name, test := range map[string]struct {
		standing schedule.Standing
		maxLag   *time.Duration
		state    schedule.State
		health   schedule.Health
	}{
		"missing":   {schedule.Standing{State: schedule.StateMissing}, nil, schedule.StateMissing, schedule.Critical},
		"suspended": {schedule.Standing{State: schedule.StateSuspended}, minutes(1), schedule.StateSuspended, schedule.Critical},
		"fresh":     {schedule.Standing{State: schedule.StateFresh, Age: minutes(3)}, nil, schedule.StateFresh, schedule.Healthy},
		"due":       {schedule.Standing{State: schedule.StateDue, Age: minutes(3)}, nil, schedule.StateDue, schedule.Healthy},
		"never":     {schedule.Standing{State: schedule.StateNever}, minutes(1), schedule.StateNever, schedule.Warning},
		"late":      {schedule.Standing{State: schedule.StateLate, Age: minutes(3)}, nil, schedule.StateLate, schedule.Critical},

		"a paused view is healthy however old": {
			schedule.Standing{State: schedule.StatePaused, Age: minutes(30), MaxLag: minutes(1)}, minutes(1), schedule.StatePaused, schedule.Healthy,
		},
		"a failing view without a target": {
			schedule.Standing{State: schedule.StateFailing, Age: minutes(3)}, nil, schedule.StateFailing, schedule.Critical,
		},
		"a failing view whose data is young enough": {
			schedule.Standing{State: schedule.StateFailing, Age: minutes(3), MaxLag: minutes(3)}, nil, schedule.StateFailing, schedule.Warning,
		},
		"a failing view whose data is too old": {
			schedule.Standing{State: schedule.StateFailing, Age: minutes(4), MaxLag: minutes(3)}, nil, schedule.StateFailing, schedule.Critical,
		},
		"a failing view without data": {
			schedule.Standing{State: schedule.StateFailing, MaxLag: minutes(3)}, nil, schedule.StateFailing, schedule.Critical,
		},
		"running does not hide that data is too old": {
			schedule.Standing{State: schedule.StateRunning, Age: minutes(4), MaxLag: minutes(3)}, nil, schedule.StateLate, schedule.Critical,
		},
		"running does not hide that the last run failed": {
			schedule.Standing{State: schedule.StateRunning, Last: &schedule.Execution{Status: schedule.TimedOut}}, nil, schedule.StateFailing, schedule.Critical,
		},
		"it runs after a failure, and its data is young enough": {
			schedule.Standing{State: schedule.StateRunning, Age: minutes(3), MaxLag: minutes(3), Last: &schedule.Execution{Status: schedule.Failed}},
			nil, schedule.StateFailing, schedule.Warning,
		},
		"it runs again after a shutdown": {
			schedule.Standing{State: schedule.StateRunning, Last: &schedule.Execution{Status: schedule.Cancelled, Reason: &shutdown}},
			nil, schedule.StateRunning, schedule.Healthy,
		},
		"it runs again after failures and a shutdown": {
			schedule.Standing{State: schedule.StateRunning, Last: &schedule.Execution{Status: schedule.Cancelled, Reason: &shutdown}, ConsecutiveFailures: 1},
			nil, schedule.StateFailing, schedule.Critical,
		},
		"it tries again to get its lock": {
			schedule.Standing{State: schedule.StateRunning, Last: &schedule.Execution{Status: schedule.Skipped, Reason: &lockBusy}},
			nil, schedule.StateBlocked, schedule.Warning,
		},
		"a paused view is refreshed by hand after a failure": {
			schedule.Standing{State: schedule.StateRunning, Held: schedule.StatePaused, Last: &schedule.Execution{Status: schedule.Failed}},
			nil, schedule.StatePaused, schedule.Healthy,
		},
		"a suspended view is refreshed by hand": {
			schedule.Standing{State: schedule.StateRunning, Held: schedule.StateSuspended}, nil, schedule.StateSuspended, schedule.Critical,
		},
		"it runs after a failure, and the last success was long ago": {
			schedule.Standing{State: schedule.StateRunning, Held: schedule.StateLate, Last: &schedule.Execution{Status: schedule.Failed}},
			nil, schedule.StateFailing, schedule.Critical,
		},
		"running does not hide that it has not run for long": {
			schedule.Standing{State: schedule.StateRunning, Held: schedule.StateLate}, nil, schedule.StateLate, schedule.Critical,
		},
		"a drain goes on that had no more time": {
			schedule.Standing{
				State: schedule.StateRunning, Materialization: schedule.MaterializedColumns, ConsecutiveFailures: 2,
				Last: &schedule.Execution{Status: schedule.TimedOut, RowsInserted: new(int64(5))},
			},
			nil, schedule.StateRunning, schedule.Healthy,
		},
		"a drain that got nothing done": {
			schedule.Standing{
				State: schedule.StateRunning, Materialization: schedule.MaterializedColumns,
				Last: &schedule.Execution{Status: schedule.TimedOut, RowsInserted: new(int64(0))},
			},
			nil, schedule.StateFailing, schedule.Critical,
		},
		"its first run": {
			schedule.Standing{State: schedule.StateRunning, MaxLag: minutes(3)}, nil, schedule.StateRunning, schedule.Healthy,
		},
		"a target for all is longer than its own": {
			schedule.Standing{State: schedule.StateLate, Age: minutes(4), MaxLag: minutes(3)}, minutes(5), schedule.StateFresh, schedule.Healthy,
		},
		"a target for all is shorter than its own": {
			schedule.Standing{State: schedule.StateFresh, Age: minutes(2), MaxLag: minutes(3)}, minutes(1), schedule.StateLate, schedule.Critical,
		},
		"blocked by a lock": {
			schedule.Standing{State: schedule.StateBlocked, Last: &schedule.Execution{Reason: &lockBusy}}, nil, schedule.StateBlocked, schedule.Warning,
		},
		"it waits for what it reads": {
			schedule.Standing{State: schedule.StateBlocked, Last: &schedule.Execution{Reason: &upstream}}, nil, schedule.StateBlocked, schedule.Healthy,
		},
		"it waits for too long": {
			schedule.Standing{State: schedule.StateBlocked, Age: minutes(4), MaxLag: minutes(3)}, nil, schedule.StateLate, schedule.Critical,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if state, health := test.standing.Judge(test.maxLag); state != test.state || health != test.health {
				t.Errorf("%s %d, want %s %d", state, health, test.state, test.health)
			}
		})
	}
}

// Under a refresh it is still known that the last one was long ago.
func TestLateWhileItRuns(t *testing.T) {
	for took, held := range map[time.Duration]schedule.State{57 * time.Minute: schedule.StateLate, 59 * time.Minute: ""} {
		t.Run(took.String(), func(t *testing.T) {
			b := setup(t)
			b.view("a", "1 minute")
			b.tend()
			b.succeeded(1, time.Hour, took)
			b.claim(1)
			if s := b.follow("running", nil).Standings[0]; s.State != schedule.StateRunning || s.Held != held {
				t.Errorf("%s, %s, want %s", s.State, s.Held, held)
			}
		})
	}
}

// Under a refresh by hand it is still known what a person, or mvsched, has decided about the schedule.
func TestHeldWhileItRuns(t *testing.T) {
	for change, held := range map[string]schedule.State{
		"paused_at = now()": schedule.StatePaused, "suspended_at = now()": schedule.StateSuspended, "queue = 'heavy'": "",
	} {
		t.Run(change, func(t *testing.T) {
			b := setup(t)
			b.view("a", "1 hour")
			b.run()
			b.change("a", change)
			if s := b.follow("at rest", nil).Standings[0]; s.Held != "" {
				t.Errorf("at rest: %s, %s", s.State, s.Held)
			}
			if _, err := b.store.ClaimView(t.Context(), schedule.ViewName{Schema: "public", Name: "a"}, schedule.Settings{}, schedule.ClaimOptions{}); err != nil {
				t.Fatal(err)
			}
			if s := b.follow("by hand", nil).Standings[0]; s.State != schedule.StateRunning || s.Held != held {
				t.Errorf("by hand: %s, %s, want %s", s.State, s.Held, held)
			}
		})
	}
}

func TestSummarize(t *testing.T) {
	hours := func(n int) *time.Duration { d := time.Duration(n) * time.Hour; return &d }
	s := schedule.Summarize([]schedule.Standing{
		{View: "a", State: schedule.StateFresh, Age: hours(2)},
		{View: "b", State: schedule.StatePaused, Age: hours(9)},
		{View: "c", State: schedule.StateFresh, Age: hours(1)},
		{View: "d", State: schedule.StateNever},
	}, nil)
	if s.Views != 4 || s.Health != schedule.Warning || s.Oldest == nil || *s.Oldest != 2*time.Hour || !slices.Equal(s.Names[schedule.StateFresh], []string{"a", "c"}) {
		t.Errorf("%+v", s)
	}
	s = schedule.Summarize(nil, nil)
	s.AddUnscheduled(nil)
	if s.Health != schedule.Healthy {
		t.Errorf("%+v", s)
	}
	s.AddUnscheduled([]string{"public.v"})
	if s.Health != schedule.Warning || len(s.Names[schedule.StateUnscheduled]) != 1 {
		t.Errorf("%+v", s)
	}
}
