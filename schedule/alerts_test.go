package schedule_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// alerts is a target of alerts, in a database with one view that is refreshed every hour.
type alerts struct {
	*bundle
	*clock
	teller *schedule.Store // whose clock is set by the test; what is refreshed goes by the database's
	target schedule.AlertTarget
}

func setupAlerts(t *testing.T) *alerts {
	t.Helper()
	a := &alerts{setup(t), &clock{time.Now()}, nil, schedule.AlertTarget{ID: strings.Repeat("ab", 32), Host: "hooks.example"}}
	a.teller = schedule.NewStore(a.Pool)
	a.teller.Now = a.Now
	if err := a.teller.AddAlertTarget(t.Context(), a.target); err != nil {
		t.Fatal(err)
	}
	a.view("v", "1 hour")
	a.refresh()
	return a
}

// set writes a column of the view's schedule.
func (a *alerts) set(columns string) {
	a.Helper()
	a.Exec(`update mvsched.materialized_view_refresh_schedule set ` + columns)
}

// refresh refreshes the view that is due.
func (a *alerts) refresh() {
	a.Helper()
	a.tend()
	a.succeed(a.claim(1)[0])
	a.tend()
}

// fail has the view's refresh fail, and that counted.
func (a *alerts) fail() {
	a.Helper()
	a.set(`next_run_at = now()`)
	a.end(a.claim(1)[0], schedule.Ending{Status: schedule.Failed, ErrorName: "division_by_zero", ErrorMessage: "division by zero"})
	a.tend()
}

func (a *alerts) look() map[string]bool {
	a.Helper()
	found, err := a.teller.LookForAlerts(a.Context(), schedule.AlertLook{
		Target: a.target, Describe: func(s schedule.Standing, state schedule.State) string { return string(state) + " " + s.View },
	})
	if err != nil || !found.Looked {
		a.Fatalf("%+v, %v", found, err)
	}
	if pending := a.Value(`select exists (select from mvsched.alert where next_attempt_at is not null)`) == "true"; pending && !found.Pending {
		a.Error("something is pending, and it does not say so")
	}
	return found.Troubled
}

// told claims everything that is due, has it told, and returns what it was, as "before>state severity", with ! for a repetition.
func (a *alerts) told() (told []string) {
	a.Helper()
	for {
		alert, err := a.teller.ClaimAlert(a.Context(), a.target)
		if errors.Is(err, schedule.ErrNoAlert) {
			return told
		}
		if err != nil {
			a.Fatal(err)
		}
		text := string(alert.PreviousState) + ">" + string(alert.State) + " " + alert.Severity
		if alert.Repeated {
			text += "!"
		}
		told = append(told, text)
		if err := a.teller.AlertTold(a.Context(), a.target, alert); err != nil {
			a.Fatal(err)
		}
	}
}

// take claims what is to be told first.
func (a *alerts) take() schedule.Alert {
	a.Helper()
	alert, err := a.teller.ClaimAlert(a.Context(), a.target)
	if err != nil {
		a.Fatal(err)
	}
	return alert
}

// tells looks and compares what is told.
func (a *alerts) tells(want ...string) {
	a.Helper()
	a.look()
	if got := a.told(); strings.Join(got, ", ") != strings.Join(want, ", ") {
		a.Errorf("told %q, want %q", got, want)
	}
}

const alertRows = `select count(*) from mvsched.alert`

func TestAlerts(t *testing.T) {
	t.Run("one_for_each_change_and_none_among_healthy_states", func(t *testing.T) {
		a := setupAlerts(t)
		a.tells()
		a.set(`paused_at = now()`)
		a.tells()
		a.set(`paused_at = null, suspend_after = 2`)
		a.tells()
		a.fail()
		a.tells("fresh>failing critical")
		a.tells()
		a.fail()
		a.tells("failing>suspended critical")
		a.tells()
		if troubled := a.look(); !troubled["public.v"] {
			t.Error("it does not say which view is in trouble")
		}
		a.set(`suspended_at = null, suspended_reason = null, next_run_at = now()`)
		a.refresh()
		a.tells("suspended>fresh ok")
		a.tells()
		a.Check("0", alertRows)
	})

	t.Run("a_refresh_under_way_changes_nothing", func(t *testing.T) {
		a := setupAlerts(t)
		a.fail()
		a.tells("fresh>failing critical")
		a.set(`next_run_at = now()`)
		claim := a.claim(1)[0]
		a.Check("running", `select state from mvsched.status`)
		a.tells()
		a.succeed(claim)
		a.tells("failing>fresh ok")
	})

	t.Run("data_that_gets_too_old", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`refresh_interval = null, refresh_delay = '1 hour', next_run_at = now() - interval '2 minutes'`)
		a.tells("fresh>late critical")
		a.refresh()
		a.tells("late>fresh ok")
	})

	t.Run("a_target_that_cannot_be_kept_is_told_of_and_does_not_flap", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`refresh_interval = null, max_lag = '1 hour'`)
		a.set(`next_run_at = now() + interval '1 hour', reachable_lag = '2 hours'`)
		a.tells("fresh>unreachable warning")
		a.set(`max_lag = '1 s'`)
		a.set(`next_run_at = now() + interval '1 hour'`)
		a.Await("late", `select state from mvsched.status`)
		a.tells("unreachable>late critical")
		a.set(`max_lag = '1 hour'`)
		a.set(`next_run_at = now() + interval '1 hour'`)
		a.Check("fresh", `select state from mvsched.status`)
		a.tells() // it will be late again soon
		a.set(`reachable_lag = '1 minute'`)
		a.tells("late>fresh ok")
	})

	t.Run("what_passes_before_it_was_tried_to_tell_it_is_not_told", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`suspended_at = now()`)
		a.look()
		a.Check("1", alertRows)
		a.set(`suspended_at = null`)
		a.tells()
		a.Check("0", alertRows)
	})

	t.Run("what_may_have_been_heard_is_taken_back", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`suspended_at = now()`)
		a.look()
		alert := a.take()
		if _, err := a.teller.AlertFailed(t.Context(), a.target, alert, "no answer", time.Second); err != nil {
			t.Fatal(err)
		}
		a.set(`suspended_at = null`)
		a.now = a.now.Add(time.Second)
		a.tells("suspended>fresh ok")
		a.Check("0", alertRows)
	})

	t.Run("the_same_alert_again_when_nobody_has_reported", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`suspended_at = now()`)
		a.look()
		first := a.take()
		a.look()
		if got := a.told(); got != nil {
			t.Errorf("told %q while somebody else was at it", got)
		}
		a.now = a.now.Add(time.Minute)
		second, err := a.teller.ClaimAlert(t.Context(), a.target)
		if err != nil || second.ID != first.ID || second.Attempt != 2 || !second.Since.Equal(first.Since) || second.Message != "suspended public.v" {
			t.Errorf("%+v, %v, and first %+v", second, err, first)
		}
	})

	t.Run("what_changes_while_it_is_told_is_told_after_it", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`suspended_at = now()`)
		a.look()
		alert := a.take()
		a.set(`suspended_at = null`)
		a.tells() // or it could arrive first
		if err := a.teller.AlertTold(t.Context(), a.target, alert); err != nil {
			t.Fatal(err)
		}
		a.tells("suspended>fresh ok")
	})

	t.Run("again_after_a_day_and_not_before", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`suspended_at = now()`)
		a.tells("fresh>suspended critical")
		since := a.Value(`select since from mvsched.alert`)
		a.now = a.now.Add(23 * time.Hour)
		a.tells()
		a.now = a.now.Add(time.Hour)
		a.look()
		id := a.Value(`select id from mvsched.alert`)
		a.look()
		a.Check(id, `select id from mvsched.alert`)
		a.tells("fresh>suspended critical!")
		a.Check(since, `select since from mvsched.alert`)
		a.tells()
	})

	t.Run("given_up_after_three_days", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`suspended_at = now()`)
		a.look()
		for day, want := range []bool{false, false, false, true} {
			alert := a.take()
			givenUp, err := a.teller.AlertFailed(t.Context(), a.target, alert, "no answer", time.Hour)
			if err != nil || givenUp != want {
				t.Errorf("day %d: given up %t, %v", day, givenUp, err)
			}
			a.look()
			a.now = a.now.Add(24*time.Hour + time.Minute)
		}
		a.tells("fresh>suspended critical!") // another day
	})

	t.Run("a_new_schedule_has_its_patience", func(t *testing.T) {
		a := setupAlerts(t)
		a.view("w", "1 hour")
		a.tells()
		a.now = a.now.Add(5 * time.Minute)
		a.tells("fresh>never warning")
		a.view("x", "1 hour")
		a.tells()
		a.Exec(`update mvsched.materialized_view_refresh_schedule set suspended_at = now() where materialized_view_name = 'public.x'`)
		a.tells("fresh>suspended critical") // nobody heard that it was never refreshed
		a.Exec(`delete from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.x'`)
		a.tells("suspended>unscheduled ok")
		a.refresh()
		a.tells("never>fresh ok")
	})

	t.Run("a_schedule_that_was_removed", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`suspended_at = now()`)
		a.tells("fresh>suspended critical")
		a.Exec(`delete from mvsched.materialized_view_refresh_schedule`)
		a.tells("suspended>unscheduled ok")
		a.Check("0", alertRows)
	})

	t.Run("one_of_many_claims_it", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`suspended_at = now()`)
		a.look()
		var mu sync.Mutex
		var wg sync.WaitGroup
		claimed := 0
		for range 8 {
			wg.Go(func() {
				if _, err := a.teller.ClaimAlert(t.Context(), a.target); err == nil {
					mu.Lock()
					defer mu.Unlock()
					claimed++
				} else if !errors.Is(err, schedule.ErrNoAlert) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if claimed != 1 {
			t.Errorf("%d have claimed it", claimed)
		}
		a.now = a.now.Add(time.Minute)
		a.Hold(`select from mvsched.alert for no key update`)
		if _, err := a.teller.ClaimAlert(t.Context(), a.target); !errors.Is(err, schedule.ErrNoAlert) {
			t.Errorf("claimed what another one is about to claim: %v", err)
		}
	})

	t.Run("one_look_is_as_good_as_another", func(t *testing.T) {
		a := setupAlerts(t)
		a.look()
		look := schedule.AlertLook{Target: a.target, Within: time.Minute}
		if found, err := a.teller.LookForAlerts(t.Context(), look); found.Looked || err != nil {
			t.Errorf("%+v, %v", found, err)
		}
		a.now = a.now.Add(time.Minute)
		if found, err := a.teller.LookForAlerts(t.Context(), look); !found.Looked || err != nil {
			t.Errorf("%+v, %v", found, err)
		}
		release := a.Hold(`select from mvsched.alert_target for update`)
		if found, err := a.teller.LookForAlerts(t.Context(), schedule.AlertLook{Target: a.target}); found.Looked || err != nil {
			t.Errorf("%+v, %v", found, err)
		}
		release()
	})

	t.Run("two_schedules_of_one_view_are_one", func(t *testing.T) {
		a := setupAlerts(t)
		a.view("w", "1 hour")
		a.Exec(`drop materialized view public.w`)
		a.Exec(`alter materialized view public.v rename to w`)
		a.set(`suspended_at = now()`)
		a.Check("{public.w,public.w}", `select array_agg(view_name) from mvsched.status`)
		a.tells("fresh>suspended critical")
		a.Exec(`update mvsched.materialized_view_refresh_schedule set suspended_at = null where materialized_view_name = 'public.w'`)
		a.tells()
	})

	t.Run("who_fails_when_another_has_told_it_takes_nothing_back", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`suspended_at = now()`)
		a.look()
		slow := a.take()
		a.now = a.now.Add(2 * time.Minute)
		if told := a.told(); len(told) != 1 {
			t.Fatal(told)
		}
		if givenUp, err := a.teller.AlertFailed(t.Context(), a.target, slow, "too late", time.Minute); givenUp || err != nil {
			t.Errorf("%v, %v", givenUp, err)
		}
		a.tells()
		a.Check("suspended", `select told_state from mvsched.alert`)
	})

	t.Run("targets_are_forgotten", func(t *testing.T) {
		a := setupAlerts(t)
		a.set(`suspended_at = now()`)
		a.tells("fresh>suspended critical")
		a.now = a.now.Add(31 * 24 * time.Hour)
		other := schedule.AlertTarget{ID: strings.Repeat("cd", 32), Host: "other.example"}
		if err := a.teller.AddAlertTarget(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		a.Check("other.example", `select string_agg(host, ' ') from mvsched.alert_target`)
		a.Check("0", alertRows)
		a.target = other // to whom all trouble is new
		a.tells("fresh>suspended critical")
	})
}

func TestVerdictAfterAResume(t *testing.T) {
	suspended := schedule.Verdict{State: schedule.StateSuspended, Health: schedule.Critical}
	failing := schedule.Standing{State: schedule.StateFailing}
	if got := failing.Verdict(suspended); got != suspended {
		t.Errorf("resumed, and not run since: %v", got)
	}
	failing.ConsecutiveFailures = 1
	if got := failing.Verdict(suspended); got.State != schedule.StateFailing {
		t.Errorf("it has failed again: %v", got)
	}
	if got := (schedule.Standing{State: schedule.StateDue}).Verdict(suspended); got != suspended {
		t.Errorf("it waits for a worker: %v", got)
	}
	if got := (schedule.Standing{State: schedule.StateFresh}).Verdict(suspended); got.Health != schedule.Healthy {
		t.Errorf("it is well: %v", got)
	}
}
