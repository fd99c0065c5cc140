package model

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
)

// System is what Search explores: a first state, what can happen in each, and what must hold.
type System[S comparable] interface {
	Init() S

	// Next yields every step that can happen in s, with the state after it.
	Next(s S, yield func(Step, S))

	// Canon returns the one of the states that differ from s in nothing but names that stands for them all.
	Canon(s S) S

	// Violated names the invariant that does not hold in s, "" when all do. Nothing is explored behind such a state.
	Violated(s S) string

	// Rests reports whether nothing is owed to anybody in s. From every state such a one has to be within reach by fair
	// steps alone; if not, Search reports the violation of Liveness.
	Rests(s S) bool

	// Describe is what a trace shows of s.
	Describe(s S) string
}

// Liveness is what Search calls it when no state at rest is within reach.
const Liveness = "L1"

// Step is one thing that happens. Worker and View stand for %w and %v in what it says.
type Step struct {
	Says         string
	Worker, View int
	Fair         bool // it happens by itself sooner or later: no fault, and nobody has to want it
}

func (s Step) String() string {
	says := strings.ReplaceAll(s.Says, "%w", "ABC"[s.Worker:s.Worker+1])
	return strings.ReplaceAll(says, "%v", fmt.Sprintf("v%d", s.View+1))
}

// Result is what a search has found.
type Result struct {
	States    int
	Depth     int      // how many steps the farthest state is from the first
	Violation string   // the invariant, "" when all hold
	Trace     []string // the shortest way there: one line a step
	Complete  bool     // everything within the bounds has been seen
}

// Search visits every state of sys, nearest first, so that the way to a violation that it returns is a shortest one.
// Safety is looked at in each state; liveness at the end, on the whole graph. It gives up after limit states.
func Search[S comparable](sys System[S], limit int) Result {
	x := &explored[S]{seed: maphash.MakeSeed(), slots: make([]uint32, 1<<16)}
	x.add(sys.Canon(sys.Init()), 0)
	depth, last := 0, uint32(1) // the last state of this depth
	for at := uint32(0); int(at) < len(x.states); at++ {
		if at == last {
			depth, last = depth+1, uint32(len(x.states)) //nolint:gosec // bounded by limit
		}
		x.starts = append(x.starts, uint32(len(x.edges))) //nolint:gosec // bounded by limit
		state := x.states[at]
		if violated := sys.Violated(state); violated != "" {
			return Result{States: len(x.states), Depth: depth, Violation: violated, Trace: x.trace(sys, at)}
		}
		sys.Next(state, func(step Step, next S) {
			to := x.add(sys.Canon(next), at)
			if step.Fair {
				x.edges = append(x.edges, to)
			}
		})
		if len(x.states) > limit {
			return Result{States: len(x.states), Depth: depth}
		}
	}
	result := Result{States: len(x.states), Depth: depth, Complete: true}
	if stuck, found := x.stuck(sys); found {
		result.Violation, result.Trace = Liveness, x.trace(sys, stuck)
	}
	return result
}

// explored are the states that have been seen, by number, in the order in which they were.
type explored[S comparable] struct {
	states []S
	parent []uint32 // from which state each was reached first
	starts []uint32 // where in edges the fair steps of each begin
	edges  []uint32

	seed  maphash.Seed
	slots []uint32 // hash table: numbers of states plus 1
}

// add returns the number of a state, which it may have had already.
func (x *explored[S]) add(state S, parent uint32) uint32 {
	if len(x.states)*2 >= len(x.slots) {
		x.slots = make([]uint32, 2*len(x.slots))
		for i := range x.states {
			*x.slot(x.states[i]) = uint32(i) + 1
		}
	}
	slot := x.slot(state)
	if *slot == 0 {
		x.states, x.parent = append(x.states, state), append(x.parent, parent)
		*slot = uint32(len(x.states)) //nolint:gosec // bounded by limit
	}
	return *slot - 1
}

func (x *explored[S]) slot(state S) *uint32 {
	mask := uint64(len(x.slots) - 1) //nolint:gosec // not empty
	for i := maphash.Comparable(x.seed, state) & mask; ; i = (i + 1) & mask {
		if x.slots[i] == 0 || x.states[x.slots[i]-1] == state {
			return &x.slots[i]
		}
	}
}

// stuck returns a state from which no fair steps lead to one at rest: the first that has no fair steps at all, or else the
// first of all. It walks the fair steps backwards.
func (x *explored[S]) stuck(sys System[S]) (uint32, bool) {
	count := len(x.states)
	before := make([]uint32, count+2) // where in sources the states begin from which each can be reached
	for _, to := range x.edges {
		before[to+2]++
	}
	for i := range count + 1 {
		before[i+1] += before[i]
	}
	sources := make([]uint32, len(x.edges))
	for from := range count {
		end := len(x.edges)
		if from+1 < count {
			end = int(x.starts[from+1])
		}
		for _, to := range x.edges[x.starts[from]:end] {
			sources[before[to+1]] = uint32(from)
			before[to+1]++
		}
	}
	fine := make([]bool, count)
	var waiting []uint32
	for i, state := range x.states {
		if sys.Rests(state) {
			fine[i] = true
			waiting = append(waiting, uint32(i))
		}
	}
	for len(waiting) > 0 {
		to := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		for _, from := range sources[before[to]:before[to+1]] {
			if !fine[from] {
				fine[from] = true
				waiting = append(waiting, from)
			}
		}
	}
	at := slices.Index(fine, false)
	for i := max(at, 0); at >= 0 && i+1 < count; i++ {
		if !fine[i] && x.starts[i] == x.starts[i+1] {
			at = i
			break
		}
	}
	return uint32(max(at, 0)), at >= 0 //nolint:gosec // bounded by limit
}

// trace replays the way to a state. What is stored is canonical, which changes names from step to step; the replay does
// not.
func (x *explored[S]) trace(sys System[S], at uint32) []string {
	way := []uint32{at}
	for at != 0 {
		at = x.parent[at]
		way = append(way, at)
	}
	slices.Reverse(way)
	state := sys.Init()
	var lines []string
	for _, number := range way[1:] {
		var taken Step
		var after S
		found := false
		sys.Next(state, func(step Step, next S) {
			if !found && sys.Canon(next) == x.states[number] {
				taken, after, found = step, next, true
			}
		})
		state = after
		lines = append(lines, fmt.Sprintf("%2d  %-64s %s", len(lines)+1, taken, sys.Describe(after)))
	}
	return lines
}
