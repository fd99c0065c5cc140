package schedule

import (
	"cmp"
	"container/heap"
	"slices"
	"time"
)

// simulation plays the schedules forward, as mvsched.claim, mvsched.settle and the planner move them, under workers that
// never sleep (serve). Every refresh succeeds, takes as long as is usual, and finds something changed. It reads no clock
// and no database.
type simulation struct {
	from, until time.Time
	views       []*simulated
	lags        lags
	workers     map[string]int // by queue, or under "" of all queues together
	most        *int           // settings.max_concurrent_refreshes
	mostRuns    int            // where to stop, for nothing goes on for ever

	pools   map[string]*simulatedPool
	free    int // workers, over all pools
	running int
	events  events
	due     []*simulated // in the order in which a claim looks at them
	runs    []PredictedRun
	cut     bool
}

// simulated is a view in a simulation. A zero time is one that there is not.
type simulated struct {
	Schedule  // of a view without one, only the name
	scheduled bool
	oid       int64
	parents   []*simulated
	ancestors []*simulated // whom it waits for
	children  []*simulated
	members   []*simulated   // of its group, itself too; nil: it is refreshed by itself
	along     bool           // it is refreshed with another one, which has the worker
	path      time.Duration  // of itself and the longest chain behind it
	usual     *time.Duration // nil: there is no history
	cron      Cron
	location  *time.Location
	missing   bool   // there is no such view
	broken    string // why nobody can plan it

	due, slot time.Time // next_run_at, and the slot that it stands for
	plannedAt time.Time // when that was set, which may be later
	retry     bool
	kept      time.Time // it is due for another reason than its clock, whose slot this is
	newer     bool      // what it reads has been refreshed since it was
	attempted time.Time
	changed   time.Time // the spec
	lastSlot  time.Time
	lastEnd   time.Time
	failedAt  time.Time
	dataAsOf  time.Time
	refreshed time.Time // the start of the refresh that its contents are from

	running      bool
	runningSince time.Time // of what runs at the beginning
	runningSlot  time.Time // as runningSince
	runningBy    string    // as runningSince: its trigger
	run          int       // index of its run
	asOf         time.Time // what dataAsOf will be

	overdue bool       // at the beginning: how old its data is then is not the schedule's doing
	listed  bool       // among those that are due
	awaits  *simulated // an ancestor
	looksAt time.Time  // when it waits for that one no longer
	capped  bool       // there was a worker, but too much was running

	tally tally
}

// tally is what is counted of a view.
type tally struct {
	runs     int
	first    time.Time
	busy     time.Duration
	oldest   *time.Duration
	late     int // runs that waited for a worker for too long
	longest  time.Duration
	capped   int
	behind   map[string]int // whose end those runs waited for
	overlaps int            // slots that came while the run before was still under way
	missed   int            // slots that passed while the view was due or running
	waits    time.Duration  // at the end: since when no worker has come
}

type simulatedPool struct {
	free  int
	ended string // the view whose run ended last, and when
	at    time.Time
}

// event is an instant at which something may be done about a view: it becomes due, ends, or waits no longer.
type event struct {
	at   time.Time
	view *simulated
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// unservedPatience is how long a view waits for one in a queue that nobody serves (mvsched.awaited).
const unservedPatience = 10 * time.Second

// lateFrom is how long a run has to wait for a worker to count as late: a tenth of what lies between two slots, within
// these bounds.
const (
	leastLate = time.Second
	mostLate  = time.Minute
)

func (v *simulated) lateFrom() time.Duration {
	var apart time.Duration
	switch v.Kind {
	case KindEvery:
		apart = *v.Every
	case KindAfter:
		apart = *v.After + v.takes()
	case KindMaxLag:
		apart = *v.MaxLag
	case KindCron:
		first := v.cron.Next(v.slot)
		apart = v.cron.Next(first).Sub(first)
	default: // without a clock
		apart = 10 * mostLate
	}
	return min(max(apart/10, leastLate), mostLate)
}

// play runs from the beginning to the end.
func (m *simulation) play() {
	m.pools = map[string]*simulatedPool{}
	for queue, workers := range m.workers {
		m.pools[queue] = &simulatedPool{free: workers}
		m.free += workers
	}
	for _, v := range m.views {
		for _, p := range v.parents {
			if p != v {
				p.children = append(p.children, v)
			}
		}
	}
	m.gather()
	for _, v := range m.views {
		m.enter(v)
	}
	for len(m.events) > 0 && m.events[0].at.Before(m.until) {
		at := m.events[0].at
		for len(m.events) > 0 && m.events[0].at.Equal(at) {
			v := heap.Pop(&m.events).(event).view
			if v.running && m.runs[v.run].EndsAt.Equal(at) {
				m.end(v, at)
			}
			if v.serviceable() && !v.running && !v.listed && !v.due.IsZero() && !v.due.After(at) && m.pool(v) != nil {
				m.list(v)
			}
		}
		m.claim(at)
		if len(m.runs) >= m.mostRuns {
			m.until, m.cut = at, true
		}
	}
	m.finish()
}

// serviceable reports whether the view is refreshed at all.
func (v *simulated) serviceable() bool {
	return v.scheduled && !v.missing && v.broken == "" && v.PausedAt == nil && v.SuspendedAt == nil
}

// takes is how long a refresh is assumed to take.
func (v *simulated) takes() time.Duration {
	var longest time.Duration
	for _, w := range v.together() { // each of a group ends behind those before it
		usual := unknownDuration
		if w.usual != nil {
			usual = max(*w.usual, time.Millisecond)
		}
		longest = max(longest, usual)
	}
	return longest
}

func (m *simulation) pool(v *simulated) *simulatedPool {
	if p := m.pools[""]; p != nil {
		return p
	}
	return m.pools[v.Queue]
}

func (m *simulation) wake(v *simulated, at time.Time) { heap.Push(&m.events, event{at, v}) }

// enter brings a view in as it stands.
func (m *simulation) enter(v *simulated) {
	if v.running {
		run := PredictedRun{
			ScheduledAt: v.runningSlot, StartsAt: v.runningSince, EndsAt: later(v.runningSince.Add(v.takes()), m.from), Trigger: v.runningBy,
		}
		v.along = v.runningBy != "manual" && len(v.members) > 0 && v.members[0] != v
		m.occupy(v, run, -1)
		m.record(v, run)
		v.asOf = v.dataNow(v.runningSince)
	}
	if !v.serviceable() {
		return
	}
	if v.due.IsZero() {
		m.plan(v, m.from)
	}
	if !v.due.IsZero() {
		v.overdue = !v.running && v.due.Before(m.from)
		m.wake(v, later(v.due, m.from))
	}
}

// plan gives a view its next slot, if that can be known: planSQL and planByClock.
func (m *simulation) plan(v *simulated, now time.Time) {
	switch {
	case v.attempted.IsZero():
		v.slot = now
		if v.Window != nil {
			v.slot = v.Window.from(now, v.location)
		}
		v.due = v.slot
	case v.Kind == KindEvery:
		m.slot(v, now, later(now, v.attempted.Add(*v.Every)))
	case v.Kind == KindCron:
		m.slot(v, now, v.cron.Next(v.since()))
	case v.running:
		// The others are planned when it has ended.
	case v.Kind == KindAfter:
		m.slot(v, now, later(now, v.lastEnd.Add(*v.After)))
	case v.Kind == KindAfterParents && v.newer:
		m.slot(v, now, now)
	case v.Kind == KindOnChange && !v.refreshed.IsZero():
		pause, debounce := 10*time.Second, time.Duration(0)
		if v.AtMostEvery != nil {
			pause = *v.AtMostEvery
		}
		if v.Debounce != nil {
			debounce = *v.Debounce
		}
		m.slot(v, now, later(later(now, v.attempted.Add(pause)), v.refreshed.Add(v.MaxStaleness)).Add(debounce))
	case v.Kind == KindMaxLag:
		slot, _ := m.lags.plan(unplanned{
			OID: v.oid, Now: now, Since: v.since(), DataAsOf: timeOrNil(v.dataAsOf), Refreshed: timeOrNil(v.refreshed), Ended: timeOrNil(v.lastEnd), FailedAt: timeOrNil(v.failedAt),
		})
		m.slot(v, now, slot)
	}
}

// since is the instant before which slots do not count.
func (v *simulated) since() time.Time { return later(later(v.attempted, v.changed), v.lastSlot) }

func (m *simulation) slot(v *simulated, now, slot time.Time) {
	v.slot, v.due = v.planned(slot, v.location)
	v.plannedAt, v.retry = now, false
}

// list puts a view in its place among those that are due.
func (m *simulation) list(v *simulated) {
	v.listed = true
	at, _ := slices.BinarySearchFunc(m.due, v, func(a, b *simulated) int {
		return cmp.Or(a.turn().Compare(b.turn()), cmp.Compare(a.ID, b.ID))
	})
	m.due = slices.Insert(m.due, at, v)
}

// turn is what mvsched.claim orders by.
func (v *simulated) turn() time.Time {
	return v.due.Add(-time.Duration(v.Priority)*time.Minute - v.path)
}

// claim begins what can begin.
func (m *simulation) claim(at time.Time) {
	if m.free <= 0 {
		return
	}
	m.due = slices.DeleteFunc(m.due, func(v *simulated) bool {
		if !v.listed { // taken along
			return true
		}
		pool := m.pool(v)
		if pool.free <= 0 || slices.ContainsFunc(v.members, func(w *simulated) bool { return w.running }) {
			return false
		}
		if m.most != nil && m.running >= *m.most {
			v.capped = true
			return false
		}
		if until := m.awaited(v, at); !until.IsZero() {
			if !until.Equal(v.looksAt) && !until.Equal(endOfTime) {
				v.looksAt = until
				m.wake(v, until)
			}
			return false
		}
		v.listed = false
		if opens := v.opens(at); opens.After(at) {
			m.slot(v, at, opens)
			m.wake(v, v.due)
			return true
		}
		slot := v.slot
		m.begin(v, pool, at)
		m.takeAlong(v, pool, slot, at)
		return true
	})
}

// awaited is until when a due view waits for one of its ancestors at the longest, as in mvsched.awaited; the zero time if
// it waits for none, and the end of time while that one is running.
func (m *simulation) awaited(v *simulated, at time.Time) time.Time {
	if v.awaits != nil { // it mostly still does
		if until := m.holds(v.awaits, v, at); !until.IsZero() {
			return until
		}
	}
	for _, w := range v.together() {
		for _, a := range w.ancestors {
			if until := m.holds(a, v, at); !until.IsZero() {
				v.awaits = a
				return until
			}
		}
	}
	v.awaits = nil
	return time.Time{}
}

// holds is until when an ancestor keeps a due view waiting.
func (m *simulation) holds(a, v *simulated, at time.Time) time.Time {
	switch {
	case v.sideBySide(a):
		return time.Time{}
	case a.running && !m.runs[a.run].ScheduledAt.After(v.slot):
		return endOfTime
	case !a.scheduled || a.PausedAt != nil || a.SuspendedAt != nil || a.retry || a.due.IsZero() || a.slot.After(v.slot):
		return time.Time{}
	}
	patience := a.Timeout
	if m.pool(a) == nil {
		patience = unservedPatience
	}
	if until := a.due.Add(patience); until.After(at) {
		return until
	}
	return time.Time{}
}
