package schedule

import (
	"slices"
	"time"
)

// begin claims a view: its run begins, and its slot moves on.
func (m *simulation) begin(v *simulated, pool *simulatedPool, at time.Time) {
	run := PredictedRun{ScheduledAt: v.slot, StartsAt: at, EndsAt: at.Add(v.takes()), Trigger: "schedule"}
	switch {
	case v.retry:
		run.Trigger = "retry"
	case v.Kind == KindOnChange, !v.kept.IsZero() && !v.along:
		run.Trigger = "change"
	case v.Kind == KindAfterParents:
		run.Trigger = "parent"
	}
	run.ForItself, run.ForViews, run.ForWorker = m.waited(v, at)
	if run.ForWorker > 0 && pool.at.Equal(at) {
		run.Behind = pool.ended
	}
	m.count(v, run)

	v.running = true
	m.occupy(v, run, -1)
	m.record(v, run)
	v.asOf = v.dataNow(at)
	v.lastSlot, v.attempted, v.capped = v.slot, at, false

	slot, kept := v.slot, v.kept
	if !kept.IsZero() {
		slot = kept
	}
	v.due, v.slot, v.retry, v.kept = time.Time{}, time.Time{}, false, time.Time{}
	switch {
	case kept.After(at) && (v.Kind == KindEvery || v.Kind == KindCron):
		m.slot(v, at, kept)
	case v.Kind == KindEvery:
		next := slot.Add(*v.Every * max(1, at.Sub(slot) / *v.Every + 1))
		v.tally.missed += int((next.Sub(later(slot, m.from)) - 1) / *v.Every)
		m.slot(v, at, next)
	case v.Kind == KindCron:
		for missed := v.cron.Next(later(slot, m.from)); !missed.After(at); missed = v.cron.Next(missed) {
			v.tally.missed++
		}
		m.plan(v, at)
	}
	if !v.due.IsZero() {
		m.wake(v, v.due)
	}
}

// waited is what a due view has waited for by now: for the end of its own last run, then for what it reads, then for a
// worker.
func (m *simulation) waited(v *simulated, at time.Time) (itself, views, worker time.Duration) {
	ready := later(later(v.due, v.plannedAt), m.from)
	if v.lastEnd.After(ready) {
		itself, ready = v.lastEnd.Sub(ready), v.lastEnd
	}
	begin := ready
	for _, a := range v.ancestors {
		if a.scheduled && !a.lastSlot.After(v.slot) {
			ready = later(ready, a.lastEnd)
		}
	}
	if !v.looksAt.After(at) {
		ready = later(ready, v.looksAt)
	}
	return itself, ready.Sub(begin), at.Sub(ready)
}

func (m *simulation) count(v *simulated, run PredictedRun) {
	if run.ForItself > 0 {
		v.tally.overlaps++
	}
	if run.ForWorker < v.lateFrom() {
		return
	}
	v.tally.late++
	v.tally.longest = max(v.tally.longest, run.ForWorker)
	if v.capped {
		v.tally.capped++
	}
	if run.Behind != "" {
		if v.tally.behind == nil {
			v.tally.behind = map[string]int{}
		}
		v.tally.behind[run.Behind]++
	}
}

// occupy takes a worker for a run, or, with 1, gives it back. A refresh by hand has none of theirs, but counts.
func (m *simulation) occupy(v *simulated, run PredictedRun, workers int) {
	m.running -= workers
	if pool := m.pool(v); pool != nil && run.Trigger != "manual" && !v.along {
		pool.free += workers
		m.free += workers
	}
}

func (m *simulation) record(v *simulated, run PredictedRun) {
	run.View = v.View
	v.run = len(m.runs)
	m.runs = append(m.runs, run)
	if v.tally.runs == 0 {
		v.tally.first = run.StartsAt
	}
	v.tally.runs++
	m.wake(v, run.EndsAt)
}

// dataNow is as of when the view's data is if a refresh begins now: not newer than the oldest that it reads.
func (v *simulated) dataNow(at time.Time) time.Time {
	for _, p := range v.parents {
		asOf := p.dataAsOf
		if slices.Contains(v.members, p) {
			asOf = p.asOf // it has just begun
		}
		if p != v && !asOf.IsZero() && asOf.Before(at) {
			at = asOf
		}
	}
	return at
}

// end settles a run, and makes those due that wait for the new data.
func (m *simulation) end(v *simulated, at time.Time) {
	run := m.runs[v.run]
	m.occupy(v, run, 1)
	if pool := m.pool(v); pool != nil {
		pool.ended, pool.at = v.View, at
	}
	v.running, v.along = false, false
	if !v.overdue {
		m.age(v, at)
	}
	v.overdue = false
	v.tally.busy += at.Sub(later(run.StartsAt, m.from)) / time.Duration(len(v.together())) // its part of a group's
	v.dataAsOf, v.refreshed, v.lastEnd, v.failedAt = v.asOf, run.StartsAt, at, time.Time{}
	if v.serviceable() {
		if v.due.IsZero() {
			v.newer = false // what came meanwhile has made it due
			m.plan(v, at)
		}
		if !v.due.IsZero() {
			m.wake(v, later(v.due, at))
		}
	}
	for _, c := range v.children {
		if c.Kind != KindAfterParents || !c.serviceable() || !c.due.IsZero() || !slices.Contains(c.ancestors, v) || slices.Contains(v.members, c) {
			continue
		}
		slot := run.ScheduledAt
		if slot.IsZero() {
			slot = at
		}
		if !c.lastSlot.IsZero() {
			slot = later(slot, c.lastSlot.Add(time.Microsecond))
		}
		m.slot(c, at, slot)
		m.wake(c, later(c.due, at))
	}
}

// age notes how old the view's data is.
func (m *simulation) age(v *simulated, at time.Time) {
	if v.dataAsOf.IsZero() {
		return
	}
	if age := at.Sub(v.dataAsOf); v.tally.oldest == nil || age > *v.tally.oldest {
		v.tally.oldest = &age
	}
}

// finish counts what is under way at the end.
func (m *simulation) finish() {
	for _, v := range m.views {
		m.age(v, m.until)
		if v.running {
			v.tally.busy += max(0, m.until.Sub(later(m.runs[v.run].StartsAt, m.from))) / time.Duration(len(v.together()))
		}
	}
	for _, v := range m.due {
		if m.awaited(v, m.until).IsZero() {
			_, _, v.tally.waits = m.waited(v, m.until)
		}
	}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
