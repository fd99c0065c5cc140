package main

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// clock is when slots are that are known beforehand; of no gap: none are.
type clock struct {
	first time.Time
	gap   time.Duration
}

// slots calls back with each slot in this time.
func (c clock) slots(from, until time.Time, fn func(time.Time)) {
	if c.gap == 0 {
		return
	}
	slot := c.first
	if behind := from.Sub(c.first); behind > 0 {
		slot = slot.Add((behind + c.gap - 1) / c.gap * c.gap)
	}
	for ; slot.Before(until); slot = slot.Add(c.gap) {
		fn(slot)
	}
}

// execution is what the history says of one.
type execution struct {
	schedule int // its place among the schedules
	status   string
	attempt  int
	slot     time.Time
	started  time.Time
	ended    *time.Time // nil: it is running
}

// mixedTimes are when what happened.
type mixedTimes struct {
	from     time.Time // the end of the warm-up
	killed   time.Time
	restored time.Time // there are two servers again
	until    time.Time // slots before that have had their time
}

// kindVerdict is what is found of a kind of schedules.
type kindVerdict struct {
	executions int
	delays     []float64 // milliseconds
	free       []float64 // those of them with free workers
}

// verdict is what is found in a history.
type verdict struct {
	executions   int // due behind the warm-up, as all of these
	unsuccessful int
	kinds        [len(kindNames)]kindVerdict
	all          []float64 // the delays of all kinds, in milliseconds
	free         []float64 // those of them with free workers
	alone        int       // with free workers, had there been two servers all the time
	doubled      int
	missed       int
	running      int
}

// judge looks at a history: whether slots have one success each (I10), and how long after its slot each execution began.
//
// A start delay is from the slot to the start. Some executions have none, since they were not due at their slot, and do not
// say when they were: second attempts; those with jitter, which are due beside their slot; and those after parents, whose slot is the
// parent's, while they are due when that has ended. A worker was free for one where, at its slot, fewer executions than there
// are workers were running or were due, not later than it, and began before it. What became due later and overtook it is no
// excuse.
func judge(schedules []mixedSchedule, executions []execution, times mixedTimes, workers int) (v verdict) {
	type slotOf struct {
		schedule int
		slot     int64 // microseconds
	}
	key := func(schedule int, slot time.Time) slotOf { return slotOf{schedule, slot.UnixMicro()} }
	successes := map[slotOf]int{}
	executions = slices.Clone(executions)
	slices.SortStableFunc(executions, func(a, b execution) int { return a.started.Compare(b.started) })
	var starts, ends []time.Time
	for _, e := range executions {
		starts = append(starts, e.started)
		if e.ended != nil {
			ends = append(ends, *e.ended)
		}
		switch e.status {
		case "succeeded":
			if successes[key(e.schedule, e.slot)]++; successes[key(e.schedule, e.slot)] == 2 {
				v.doubled++
			}
		case "running":
			v.running++
		}
	}
	for i, s := range schedules {
		s.clock.slots(times.from, times.until, func(slot time.Time) {
			if successes[key(i, slot)] == 0 {
				v.missed++
			}
		})
	}

	slices.SortFunc(ends, time.Time.Compare)
	before := func(at time.Time) int {
		return sort.Search(len(starts), func(i int) bool { return !starts[i].Before(at) })
	}
	upTo := func(times []time.Time, at time.Time) int {
		return sort.Search(len(times), func(i int) bool { return times[i].After(at) })
	}
	for i, e := range executions {
		if e.slot.Before(times.from) {
			continue
		}
		k := schedules[e.schedule].kind
		v.executions++
		v.kinds[k].executions++
		if e.status != "succeeded" {
			v.unsuccessful++
		}
		if !isDueAtItsSlot(e, k) {
			continue
		}
		delay := float64(e.started.Sub(e.slot)) / float64(time.Millisecond)
		v.all, v.kinds[k].delays = append(v.all, delay), append(v.kinds[k].delays, delay)
		first := before(e.slot)
		busy := first - upTo(ends, e.slot)
		for _, other := range executions[first:max(first, i)] {
			if isDueAtItsSlot(other, schedules[other.schedule].kind) && other.status != "skipped" && !other.slot.After(e.slot) {
				busy++
			}
		}
		switch {
		case busy >= workers:
		case !e.started.Before(times.killed) && !e.slot.After(times.restored):
			v.alone++
		default:
			v.free, v.kinds[k].free = append(v.free, delay), append(v.kinds[k].free, delay)
		}
	}
	return v
}

// isDueAtItsSlot tells whether an execution says when it was due.
func isDueAtItsSlot(e execution, k kind) bool { return e.attempt == 1 && k != jittered && k != parents }

// err says what must not be; nil: nothing.
func (v *verdict) err() error {
	if v.doubled+v.missed+v.running == 0 {
		return nil
	}
	return fmt.Errorf("%d slots with two successes, %d missed, %d executions left running", v.doubled, v.missed, v.running)
}
