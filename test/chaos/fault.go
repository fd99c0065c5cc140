package main

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// kind is one way to break things.
type kind struct {
	name   string
	weight int     // how often it is drawn, beside the others
	phases []phase // where it can strike; anyTime: it is not armed, but strikes by itself

	// strike does it and reports whether the link is over. Of a fault at any time the link is nil. An error means that
	// it hit nothing.
	strike func(f *fault, l *link, held []byte) (over bool, err error)

	within time.Duration // how long the recovery from it may take, when it is alone; 0: it is only measured
}

// fault is one of them, planned.
type fault struct {
	kind    *kind
	phase   phase
	chance  float64 // what its strength follows from, 0 to 1
	victim  int     // the view or the worker that a fault at any time is for
	episode *episode
	landed  chan landing

	// Where a fault at any time has found itself, when it has looked.
	found landing
}

// landing is a fault that has hit.
type landing struct {
	kind      string
	phase     phase
	execution int64     // 0: none
	at        time.Time // by the server's clock
	within    time.Duration
}

// plan draws the faults of an episode.
func plan(rng *rand.Rand, kinds []*kind, n int) []*fault {
	var pot []*kind
	for _, k := range kinds {
		for range k.weight {
			pot = append(pot, k)
		}
	}
	faults := make([]*fault, n)
	for i := range faults {
		k := pot[rng.IntN(len(pot))]
		faults[i] = &fault{
			kind: k, phase: k.phases[rng.IntN(len(k.phases))], chance: rng.Float64(), victim: rng.IntN(1 << 16),
			landed: make(chan landing, 1),
		}
	}
	return faults
}

// between picks a duration by the fault's chance.
func (f *fault) between(least, most time.Duration) time.Duration {
	return least + time.Duration(f.chance*float64(most-least))
}

// strike lets the fault hit a link, and notes that.
func (f *fault) strike(l *link, held []byte) bool {
	at := f.phase
	if at == refreshing {
		l.hold(time.Duration(f.chance * float64(20*time.Millisecond)))
		at = f.episode.lookAt(l.pid.Load())
	}
	landed := landing{kind: f.kind.name, phase: at, execution: l.execution.Load(), at: f.episode.now(), within: f.kind.within}
	switch f.phase {
	case connecting, connected, schemaChecked, tendSent, tendAnswered, claimSent:
		landed.execution = 0 // what the connection was about before has ended
	}
	over, err := f.kind.strike(f, l, held)
	if err == nil {
		f.landed <- landed
	}
	close(f.landed)
	return over
}

// miss tells that the fault found its link gone.
func (f *fault) miss() { close(f.landed) }

// patience is how long an armed fault waits for somebody to come to its phase.
const patience = 1500 * time.Millisecond

// inject lets the fault strike, and reports whether and where it has.
func (f *fault) inject(ctx context.Context) (landing, bool) {
	if f.phase == anyTime {
		at := f.episode.now()
		_, err := f.kind.strike(f, nil, nil)
		landed := landing{kind: f.kind.name, phase: cmp.Or(f.found.phase, anyTime), execution: f.found.execution, at: at, within: f.kind.within}
		if !f.found.at.IsZero() {
			landed.at = f.found.at
		}
		return landed, err == nil
	}
	f.episode.armory.arm(f)
	select {
	case landed, ok := <-f.landed:
		return landed, ok
	case <-time.After(patience):
	case <-ctx.Done():
	}
	if f.episode.armory.disarm(f) {
		return landing{}, false
	}
	landed, ok := <-f.landed // it is at it just now
	return landed, ok
}

// armory holds the faults that wait for their phase.
type armory struct {
	mu    sync.Mutex
	armed map[phase][]*fault
}

func newArmory() *armory { return &armory{armed: map[phase][]*fault{}} }

func (a *armory) arm(f *fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.armed[f.phase] = append(a.armed[f.phase], f)
}

// take hands out the fault that has waited for longest for the first of these phases that one waits for, or nil.
func (a *armory) take(phases ...phase) *fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range phases {
		if waiting := a.armed[at]; len(waiting) > 0 {
			a.armed[at] = waiting[1:]
			return waiting[0]
		}
	}
	return nil
}

// disarm takes a fault back, and reports whether it was still there.
func (a *armory) disarm(f *fault) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.Index(a.armed[f.phase], f)
	if i < 0 {
		return false
	}
	a.armed[f.phase] = slices.Delete(a.armed[f.phase], i, i+1)
	return true
}
