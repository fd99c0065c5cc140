package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

// at is an instant of a history that begins at 0.
func at(seconds float64) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(math.Round(seconds*1000)) * time.Millisecond)
}

// ran is an execution of a schedule that began 10 ms after its slot and took a second.
func ran(schedule int, slot float64) execution {
	ended := at(slot + 1.01)
	return execution{schedule: schedule, status: "succeeded", attempt: 1, slot: at(slot), started: at(slot + 0.01), ended: &ended}
}

// TestJudge is about a schedule with a slot each 10 s from 5 s on, and one of changes.
func TestJudge(t *testing.T) {
	schedules := []mixedSchedule{{kind: every, clock: clock{first: at(5), gap: 10 * time.Second}}, {kind: changed}}
	times := mixedTimes{from: at(20), killed: at(40), restored: at(45), until: at(60)}
	history := func() []execution { // the slots before 20 do not count, nor does that at 65
		return []execution{ran(0, 5), ran(0, 25), ran(0, 35), ran(0, 45), ran(0, 55), ran(1, 31), ran(1, 52)}
	}
	for _, c := range []struct {
		name                     string
		change                   func(e []execution) []execution
		doubled, missed, running int
	}{
		{"takes a history as it has to be", func(e []execution) []execution { return e }, 0, 0, 0},
		{"finds a slot with two successes", func(e []execution) []execution { return append(e, ran(0, 35)) }, 1, 0, 0},
		{"counts a slot with three successes once", func(e []execution) []execution { return append(e, ran(1, 31), ran(1, 31)) }, 1, 0, 0},
		{"finds a slot with two successes in the warm-up", func(e []execution) []execution { return append(e, ran(0, 5)) }, 1, 0, 0},
		{"takes a success behind a lost worker", func(e []execution) []execution {
			lost := ran(0, 35)
			lost.status = "abandoned"
			e[2].attempt = 2
			return append(e, lost)
		}, 0, 0, 0},
		{"finds a gap", func(e []execution) []execution { return slices.Delete(e, 2, 4) }, 0, 2, 0},
		{"finds the first slot missed", func(e []execution) []execution { return slices.Delete(e, 1, 2) }, 0, 1, 0},
		{"finds the last slot missed", func(e []execution) []execution { return slices.Delete(e, 4, 5) }, 0, 1, 0},
		{"finds a slot that was claimed and given up", func(e []execution) []execution {
			e[2].status = "abandoned"
			return e
		}, 0, 1, 0},
		{"finds slots that have moved", func(e []execution) []execution {
			for i := range e[:5] {
				e[i].slot = e[i].slot.Add(time.Millisecond)
			}
			return e
		}, 0, 4, 0},
		{"finds one left running", func(e []execution) []execution {
			e[6].status, e[6].ended = "running", nil
			return e
		}, 0, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judge(schedules, c.change(history()), times, 8)
			if v.doubled != c.doubled || v.missed != c.missed || v.running != c.running {
				t.Errorf("%d doubled, %d missed, %d running; not %d, %d, %d", v.doubled, v.missed, v.running, c.doubled, c.missed, c.running)
			}
			if failed := v.err() != nil; failed != (c.doubled+c.missed+c.running > 0) {
				t.Errorf("error: %v", v.err())
			}
		})
	}
}

// TestJudgeDelays is about which start delays count.
func TestJudgeDelays(t *testing.T) {
	schedules := []mixedSchedule{{kind: changed}, {kind: jittered}, {kind: parents}, {kind: changed}, {kind: changed}}
	times := mixedTimes{from: at(20), killed: at(40), restored: at(45), until: at(60)}
	again := ran(0, 30)
	again.attempt = 2
	unsuccessful := ran(0, 34)
	unsuccessful.status = "failed"
	running := ran(3, 50)
	running.status, running.ended = "running", nil
	late := ran(0, 53)
	lateEnd := at(56.5)
	late.started, late.ended = at(56), &lateEnd
	v := judge(schedules, []execution{
		ran(0, 10),             // in the warm-up
		again,                  // not due at its slot
		ran(1, 31), ran(2, 32), // nor these
		unsuccessful,                                      // began, all the same
		ran(0, 39.995),                                    // began after the kill
		ran(0, 45),                                        // the last instant of one server
		running, ran(0, 50.5), ran(4, 50.995), ran(0, 59), // the third while two others run, the fourth beside one
		late, ran(3, 53.5), ran(4, 54.6), // of which the last two were due later, and overtook it
	}, times, 2)
	if v.executions != 13 || v.unsuccessful != 2 {
		t.Errorf("%d executions, %d no success", v.executions, v.unsuccessful)
	}
	if len(v.all) != 10 || len(v.free) != 7 || v.alone != 2 {
		t.Errorf("%d delays, %d with free workers, %d with one server alone", len(v.all), len(v.free), v.alone)
	}
	if len(v.kinds[jittered].delays)+len(v.kinds[parents].delays) != 0 || v.kinds[jittered].executions != 1 || v.kinds[parents].executions != 1 {
		t.Errorf("with jitter: %+v; after parents: %+v", v.kinds[jittered], v.kinds[parents])
	}
	slices.Sort(v.free)
	if want := []float64{10, 10, 10, 10, 10, 10, 3000}; !slices.Equal(v.free, want) {
		t.Errorf("delays %v, want %v", v.free, want)
	}
}

func TestClockSlots(t *testing.T) {
	for _, c := range []struct{ first, from, until, least, greatest float64 }{
		{5, 0, 30, 5, 25}, {5, 5, 25, 5, 15}, {5, 5.5, 25.5, 15, 25}, {5, 15, 16, 15, 15},
	} {
		var slots []time.Time
		clock{at(c.first), 10 * time.Second}.slots(at(c.from), at(c.until), func(slot time.Time) { slots = append(slots, slot) })
		if !slots[0].Equal(at(c.least)) || !slots[len(slots)-1].Equal(at(c.greatest)) {
			t.Errorf("%+v: %v", c, slots)
		}
	}
}

func TestMixedSchedules(t *testing.T) {
	counts := map[kind]int{}
	for _, s := range mixedSchedules(200, at(0), 1) {
		counts[s.kind]++
		if s.kind == every && (s.clock.gap < 20*time.Second || s.clock.gap > 90*time.Second || s.clock.first.Sub(at(0)) >= s.clock.gap) {
			t.Errorf("%+v", s)
		}
	}
	for k, want := range map[kind]int{every: 70, jittered: 20, after: 30, cron: 20, parents: 20, changed: 20, lag: 20} {
		if counts[k] != want {
			t.Errorf("%d schedules of %s, not %d", counts[k], kindNames[k], want)
		}
	}
}
