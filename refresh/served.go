package refresh

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// How often a server looks at the schedules when nothing tells it to.
const (
	// It sleeps until the next slot, but not for longer than this. An idle server sends its handful of statements so
	// seldom that nobody notices, and a database whose clock was set is late by this at the most.
	idleInterval = 10 * time.Minute

	// Where it cannot listen, what others change is seen this late at most.
	pollInterval = 2 * time.Second

	// How often it looks for changes where schedules wait for them. The server's counters are up to 10 s late; the two
	// together keep below the 15 s that are promised.
	changesInterval = 3 * time.Second

	// However much happens, this much lies between two looks: so that the work is not about the looks. Where views wait
	// for one another it is less, since only a look tells who need not wait any more.
	paceInterval = 250 * time.Millisecond
	wakeInterval = 20 * time.Millisecond
)

// servedViews claims what is due, for ever.
type servedViews struct {
	worker   *Worker
	ear      *listener
	database *database

	mu      sync.Mutex
	vain    vain
	waiting time.Time // since when there is nothing to do but wait for others
	looked  time.Time // when it last looked for changes
}

func (v *servedViews) look() schedule.TendOptions {
	v.mu.Lock()
	defer v.mu.Unlock()
	look, first := time.Since(v.looked) >= changesInterval, v.looked.IsZero()
	if look {
		v.looked = time.Now()
	}
	if first { // servers that were started together need not all look at the same moment
		v.looked = v.looked.Add(-rand.N(changesInterval)) //nolint:gosec // jitter
	}
	return schedule.TendOptions{Queues: v.worker.Queues, Limit: max(v.worker.Jobs, 1), Look: look, Again: true}
}

func (v *servedViews) ready(outlook schedule.Outlook) (next next) {
	if outlook.Now.IsZero() { // the look failed; what runs goes on
		next.look = time.Second
		return next
	}
	v.database.isThere()
	v.mu.Lock()
	defer v.mu.Unlock()
	claimable := v.vain.looked(outlook)
	next.look = idleInterval
	sooner := func(d time.Duration) { next.look = max(min(next.look, d), wakeInterval) }
	if !v.ear.hears.Load() {
		sooner(pollInterval)
	}
	if outlook.Changed > 0 { // the look was before that
		sooner(paceInterval)
	}
	if outlook.Watching {
		sooner(changesInterval - time.Since(v.looked))
	}
	if outlook.Ripe != nil && *outlook.Ripe > 0 {
		sooner(*outlook.Ripe)
	} else if outlook.Ripe != nil {
		sooner(waitAtMost) // it could be due, but somebody holds its row
	}
	if outlook.Open {
		sooner(rescueInterval)
	}
	if outlook.Unplanned {
		sooner(waitAtMost)
	}
	if outlook.Unbegun != nil {
		sooner(unbegunInterval)
	}
	for _, slot := range outlook.Next {
		next.slots = append(next.slots, time.Now().Add(slot))
	}

	if claimable {
		next.claims = outlook.Due
		return next
	}
	if outlook.Due == 0 && !outlook.Waiting {
		v.waiting = time.Time{}
	} else {
		// In other hands, or behind them. Who listens hears when they are done; but not of a lock that is let go.
		if v.waiting.IsZero() {
			v.waiting = time.Now()
		}
		sooner(min(max(time.Since(v.waiting)/20, waitAtLeast), waitAtMost))
		v.vain.onceMore()
	}
	return next
}

func (v *servedViews) shares() bool { return true }

func (v *servedViews) claim(ctx context.Context, store *schedule.Store, turn turn) ([]schedule.Claim, error) {
	claims, err := store.Claim(ctx, schedule.ClaimOptions{
		Worker: v.worker.Name, Limit: turn.slots, Queues: v.worker.Queues, Usual: v.worker.Usual, Settled: turn.settled, Since: turn.since,
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	v.vain.claimed(len(claims))
	if len(claims) > 0 {
		v.waiting = time.Time{}
	}
	return claims, err
}

func (v *servedViews) over(int64, *schedule.Execution) bool { return false }
