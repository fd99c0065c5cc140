package schedule

import (
	"strings"
	"testing"
	"time"
)

func inGroup(v *simulated) { group := "g"; v.Group = &group }

func TestSimulateGroup(t *testing.T) {
	t.Run("is_one_block_on_one_worker", func(t *testing.T) {
		s := newScene(1, 9*time.Minute)
		s.view("a", 10*time.Second, all(every(5*time.Minute), inGroup))
		s.view("b", 30*time.Second, all(every(7*time.Minute), dueIn(2*time.Minute), inGroup))
		s.view("c", 30*time.Second, all(every(time.Hour), dueIn(20*time.Second)))
		f, starts := s.starts()
		if want := "a 0s, b 0s, c 30s, b 2m, a 2m, a 5m, b 5m"; starts != want {
			t.Errorf("%s, want %s", starts, want)
		}
		if f.Runs[0].EndsAt.Sub(noon) != 30*time.Second || f.Views[0].Busy != 45*time.Second {
			t.Errorf("%+v", f)
		}
		if codes(f.Notes) != ForecastGroup || !strings.Contains(f.Notes[0].Message, "2 views in one transaction of about 30s") {
			t.Errorf("%+v", f.Notes)
		}
	})

	t.Run("takes_less_than_a_second", func(t *testing.T) {
		s := newScene(1, time.Minute)
		s.view("a", 15*time.Millisecond, all(every(5*time.Minute), inGroup))
		s.view("b", 45*time.Millisecond, all(every(5*time.Minute), inGroup))
		if f, _ := s.starts(); !strings.Contains(f.Notes[0].Message, "2 views in one transaction of about 45ms") {
			t.Errorf("%+v", f.Notes)
		}
	})

	t.Run("waits_for_ancestors_outside_of_it_alone", func(t *testing.T) {
		s := newScene(3, 2*time.Minute)
		base := s.view("base", 10*time.Second, every(5*time.Minute))
		a := s.view("a", time.Second, all(every(5*time.Minute), inGroup))
		between := s.view("between", time.Second, every(5*time.Minute))
		c := s.view("c", time.Second, all(every(5*time.Minute), inGroup))
		s.reads(a, base)
		s.reads(between, a)
		s.reads(c, between)
		if _, starts := s.starts(); starts != "base 0s, a 10s, c 10s, between 11s" {
			t.Error(starts)
		}
		if a.dataAsOf.IsZero() || c.dataAsOf.After(a.dataAsOf) {
			t.Errorf("a %v, c %v", a.dataAsOf, c.dataAsOf)
		}
	})

	t.Run("is_not_called_again_by_a_member", func(t *testing.T) {
		s := newScene(3, 4*time.Minute)
		a := s.view("a", time.Second, all(every(5*time.Minute), inGroup))
		b := s.view("b", 2*time.Second, all(afterParents, inGroup))
		s.reads(b, a)
		if _, starts := s.starts(); starts != "a 0s, b 0s" {
			t.Error(starts)
		}
		if !b.dataAsOf.Equal(noon) {
			t.Errorf("b %v", b.dataAsOf)
		}
	})

	t.Run("goes_on_without_who_is_paused", func(t *testing.T) {
		s := newScene(3, 4*time.Minute)
		s.view("a", time.Second, all(every(5*time.Minute), inGroup))
		s.view("b", time.Second, all(every(time.Minute), inGroup, func(v *simulated) { v.PausedAt = &noon }))
		if f, starts := s.starts(); starts != "a 0s" || codes(f.Notes) != ForecastPaused {
			t.Errorf("%s %+v", starts, f.Notes)
		}
	})

	t.Run("says_what_a_long_one_costs", func(t *testing.T) {
		s := newScene(1, time.Hour)
		s.view("a", 10*time.Minute, all(every(time.Hour), inGroup))
		s.view("b", time.Minute, all(every(time.Hour), inGroup))
		if f, _ := s.starts(); !strings.Contains(f.Notes[0].Message, "VACUUM") {
			t.Errorf("%+v", f.Notes)
		}
	})
}
