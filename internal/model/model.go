package model

import (
	"cmp"
	"slices"
)

// Model is mvsched, or a mutant of it, within bounds: so many workers and views, claims in all, slots of each view, faults
// at any time, and refreshes asked for by hand.
type Model struct {
	Workers, Views, Claims, Slots int
	Faults, ByHand                uint8

	Failover bool // a standby that lags can take over: any commit can be lost, not only an asynchronous one
	Pooler   bool // a connection to a pooler outlives the server behind it

	Design design
}

type invariant uint8

const (
	holds invariant = iota
	i1
	i2
	i3
	i4
	i5
	i10
)

func (i invariant) String() string { return [...]string{"", "I1", "I2", "I3", "I4", "I5", "I10"}[i] }

// breaks notes the first invariant that a step has broken.
func (s *state) breaks(i invariant) {
	if s.Broken == holds {
		s.Broken = i
	}
}

// Init is everything idle, and every view due.
func (m *Model) Init() state {
	s := state{Faults: m.Faults, ByHand: m.ByHand}
	for w := m.Workers; w < maxWorkers; w++ {
		s.Workers[w] = workerIn(exited)
	}
	for v := m.Views; v < maxViews; v++ {
		s.DB.Schedules[v].Slot = 255
	}
	s.Kept = s.DB
	return s
}

// Next yields every action that can happen.
func (m *Model) Next(s state, yield func(Step, state)) {
	for _, a := range actions {
		if a.kind == fault && s.Faults == 0 {
			continue
		}
		workers, views := 1, 1
		switch a.over {
		case "worker":
			workers = m.Workers
		case "view":
			views = m.Views
		case "worker, view":
			workers, views = m.Workers, m.Views
		}
		for w := range workers {
			for v := range views {
				next := s
				if !a.do(m, &next, w, v) {
					continue
				}
				if a.kind == fault {
					next.Faults--
				}
				yield(Step{Says: a.says, Worker: w, View: v, Fair: a.kind == fair}, next)
			}
		}
	}
}

// Canon puts the workers in order, which differ in nothing but what they are at, makes the view that was claimed first the
// first, and forgets what cannot matter any more.
func (m *Model) Canon(s state) state {
	if s.Faults == 0 {
		s.Kept, s.Told = database{}, 0
	}
	if first := slices.IndexFunc(s.DB.Executions[:], func(e execution) bool { return e.Status != none }); m.Views == 2 &&
		first >= 0 && s.DB.Executions[first].View == 1 {
		s.DB.swapViews()
		s.Kept.swapViews()
		for i := range s.Workers {
			if w := &s.Workers[i]; w.Phase != idle && w.Phase != dead && w.Phase != exited || w.Tx != noTx {
				w.View = 1 - w.View
			}
		}
	}
	slices.SortFunc(s.Workers[:], func(a, b worker) int { return cmp.Compare(a.key(), b.key()) })
	return s
}

// swapViews renames the first view the second, and the other way round.
func (db *database) swapViews() {
	db.Schedules[0], db.Schedules[1] = db.Schedules[1], db.Schedules[0]
	db.Contents[0], db.Contents[1] = db.Contents[1], db.Contents[0]
	for i := range db.Executions {
		if e := &db.Executions[i]; e.Status != none {
			e.View = 1 - e.View
		}
	}
}

func (w worker) key() (key uint64) {
	for _, field := range [...]uint8{uint8(w.Phase), uint8(w.Tx), w.View, w.ID, w.Slot, w.Claim} {
		key = key<<8 | uint64(field)
	}
	for _, field := range [...]bool{w.Frozen, w.Stopping, w.Cut, w.Manual} {
		key <<= 1
		if field {
			key++
		}
	}
	return key
}

// Violated looks at what a step has broken, and at what can be seen in any state.
func (m *Model) Violated(s state) string {
	if s.Broken != holds {
		return s.Broken.String()
	}
	var recorded [maxViews]uint8
	var slots [maxViews]uint16 // with a success, as bits
	for _, e := range s.DB.Executions {
		if e.Status != succeeded {
			continue
		}
		recorded[e.View] |= 1 << e.Claim
		if !e.Manual {
			if slots[e.View]&(1<<e.Slot) != 0 {
				return i10.String()
			}
			slots[e.View] |= 1 << e.Slot
		}
	}
	if recorded != s.DB.Contents {
		return i3.String()
	}
	return ""
}

// Rests reports whether every slot that has come has been answered: nothing is due, running, or still to be settled. A
// state in which nobody is left to do anything, or in which the bound of claims is reached, is let pass.
func (m *Model) Rests(s state) bool {
	if !s.someoneTends() || int(s.Claims) >= m.Claims {
		return true
	}
	for v := range m.Views {
		sched := s.DB.Schedules[v]
		last := s.DB.last(v, func(uint8) bool { return true })
		if s.isDue(uint8(v)) || sched.Open != 0 || s.DB.isRunning(uint8(v)) || last != 0 && s.DB.dueAgain(last) {
			return false
		}
		for slot := range sched.Slot { // each that the schedule has left behind was claimed by somebody
			if !slices.ContainsFunc(s.DB.Executions[:], func(e execution) bool {
				return e.Status != none && int(e.View) == v && !e.Manual && e.Slot <= slot && slot < e.Next
			}) {
				return false
			}
		}
	}
	return true
}

// Describe shows the database.
func (m *Model) Describe(s state) string { return s.describe(m.Views) }
