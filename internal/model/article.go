package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Article is the design that mvsched's tables come from, within bounds: the claim sets last_attempted_at, in a transaction
// of its own, of a view whose interval is over and which has no unended execution (for update skip locked); the program
// then inserts the execution, refreshes in its session, and writes ended_at. The claim is one step here, which is kinder
// than PostgreSQL is to it. There are no faults but processes that are killed or stopped for a while.
type Article struct {
	Workers, Views, Claims, Ticks int
	Faults                        uint8
	Asserts                       string // the invariant that is looked at: I1, I2, I3 or L1
}

type articleState struct {
	Now     uint8
	Last    [maxViews]uint8 // last_attempted_at, plus 1; 0 for null
	Rows    [maxClaims]articleRow
	Claims  uint8
	Workers [maxWorkers]articleWorker
	Faults  uint8
	Broken  [i10 + 1]bool
}

// articleRow is a row of the execution table, by its id, from 1.
type articleRow struct {
	View  uint8
	Begun bool // started_at: there is such a row
	Ended bool // ended_at
}

type articleWorker struct {
	Phase  articlePhase
	Frozen bool
	View   uint8
	ID     uint8
}

type articlePhase uint8

const (
	articleIdle articlePhase = iota
	articleClaimed
	articleInserted
	articleRefreshing
	articleRefreshed
	articleOrphan // killed, and the server goes on with the refresh
	articleDead
)

// Init is everything idle, and every view due.
func (a *Article) Init() articleState {
	s := articleState{Faults: a.Faults}
	for w := a.Workers; w < maxWorkers; w++ {
		s.Workers[w].Phase = articleDead
	}
	return s
}

// open reports whether a view has an unended execution.
func (s *articleState) open(view int) bool {
	return slices.ContainsFunc(s.Rows[:], func(r articleRow) bool { return r.Begun && !r.Ended && int(r.View) == view })
}

// Next yields every step.
func (a *Article) Next(s articleState, yield func(Step, articleState)) {
	step := func(says string, w, v int, fair bool, change func(*articleState, *articleWorker)) {
		next := s
		change(&next, &next.Workers[w])
		yield(Step{Says: says, Worker: w, View: v, Fair: fair}, next)
	}
	for w := range a.Workers {
		worker := s.Workers[w]
		if worker.Frozen {
			step("%w goes on", w, 0, true, func(_ *articleState, it *articleWorker) { it.Frozen = false })
		}
		if worker.Phase == articleRefreshing || worker.Phase == articleOrphan { // the server's doing, whoever waits for it
			step("%w's refresh commits", w, 0, true, func(next *articleState, it *articleWorker) {
				if it.Phase == articleOrphan { // committed, and nobody is left to say so
					next.Broken[i3] = true
					*it = articleWorker{Phase: articleDead}
					return
				}
				it.Phase = articleRefreshed
			})
		}
		if worker.Frozen || worker.Phase == articleDead || worker.Phase == articleOrphan {
			continue
		}
		switch worker.Phase {
		case articleIdle:
			for v := range a.Views {
				if s.Last[v] > s.Now || s.open(v) || int(s.Claims) >= a.Claims {
					continue
				}
				step("%w claims %v: sets last_attempted_at", w, v, true, func(next *articleState, it *articleWorker) {
					next.Last[v] = next.Now + 1
					next.Claims++
					*it = articleWorker{Phase: articleClaimed, View: uint8(v), ID: next.Claims} //nolint:gosec // below maxViews
				})
			}
		case articleClaimed:
			step("%w inserts the execution", w, 0, true, func(next *articleState, it *articleWorker) {
				next.Rows[it.ID-1] = articleRow{View: it.View, Begun: true}
				it.Phase = articleInserted
			})
		case articleInserted:
			step("%w refreshes", w, 0, true, func(next *articleState, it *articleWorker) {
				for i, other := range next.Workers {
					if i != w && other.View == it.View && (other.Phase == articleRefreshing || other.Phase == articleOrphan) {
						next.Broken[i1] = true
					}
				}
				it.Phase = articleRefreshing
			})
		case articleRefreshed:
			step("%w sets ended_at", w, 0, true, func(next *articleState, it *articleWorker) {
				next.Rows[it.ID-1].Ended = true
				*it = articleWorker{}
			})
		default:
		}
		if s.Faults == 0 {
			continue
		}
		step("%w is frozen", w, 0, false, func(next *articleState, it *articleWorker) {
			next.Faults--
			it.Frozen = true
		})
		step("%w is killed", w, 0, false, func(next *articleState, it *articleWorker) {
			next.Faults--
			switch it.Phase {
			case articleClaimed: // the claim was committed, and no record of it will ever be
				next.Broken[i2] = true
			case articleRefreshed:
				next.Broken[i3] = true
			case articleRefreshing:
				it.Phase = articleOrphan
				return
			default:
			}
			*it = articleWorker{Phase: articleDead}
		})
	}
	if int(s.Now)+1 < a.Ticks {
		step("an interval passes", 0, 0, true, func(next *articleState, _ *articleWorker) { next.Now++ })
	}
}

// Canon puts the workers in order.
func (a *Article) Canon(s articleState) articleState {
	slices.SortFunc(s.Workers[:], func(a, b articleWorker) int {
		return cmp.Or(cmp.Compare(a.Phase, b.Phase), cmp.Compare(a.ID, b.ID), cmp.Compare(a.View, b.View),
			cmp.Compare(fmt.Sprint(a.Frozen), fmt.Sprint(b.Frozen)))
	})
	return s
}

// Violated looks at the one invariant only.
func (a *Article) Violated(s articleState) string {
	for i, broken := range s.Broken {
		if broken && invariant(i).String() == a.Asserts {
			return a.Asserts
		}
	}
	return ""
}

// Rests reports whether every view can be claimed again one day: it has no unended execution.
func (a *Article) Rests(s articleState) bool {
	if a.Asserts != Liveness || int(s.Claims) >= a.Claims ||
		!slices.ContainsFunc(s.Workers[:], func(w articleWorker) bool { return w.Phase < articleOrphan }) {
		return true
	}
	for v := range a.Views {
		if s.open(v) {
			return false
		}
	}
	return true
}

// Describe shows the two tables.
func (a *Article) Describe(s articleState) string {
	var parts []string
	for v := range a.Views {
		text := fmt.Sprintf("v%d", v+1)
		if s.Last[v] == 0 {
			text += ": never attempted"
		} else {
			text += fmt.Sprintf(": attempted at %d, now %d", s.Last[v]-1, s.Now)
		}
		parts = append(parts, text)
	}
	for i, r := range s.Rows {
		switch {
		case r.Ended:
			parts = append(parts, fmt.Sprintf("#%d v%d ended", i+1, r.View+1))
		case r.Begun:
			parts = append(parts, fmt.Sprintf("#%d v%d unended", i+1, r.View+1))
		}
	}
	return strings.Join(parts, ", ")
}
