package schedule

import (
	"sync"
	"time"
)

// Floor is where a worker looks for what is due, while a look from the beginning takes long: what was due before that
// place has been claimed, and leads nowhere. That is where somebody holds a transaction open for long; see mvsched.claim in
// schema.sql. Nobody tells it what others make due before it, so it holds for a while only.
type Floor struct {
	mu        sync.Mutex
	at        *Position
	until     time.Time
	slow      bool // the last look from the beginning took long
	cluttered bool // the last claim from there passed much that leads nowhere
}

// A look from the beginning takes long when it takes this long, by the worker's clock; then as long as it takes the other.
const (
	slowLook  = 50 * time.Millisecond
	quickLook = 5 * time.Millisecond
)

// manyEntries are as many of the index on what is due as a claim may read: a fifth of what else it does. Counted, and not
// timed: a claim may take long for other reasons, and to pass over something for those would be no gain.
const manyEntries = 2500

// longestFloor bounds how long something may be passed over that others have made due before the floor. It is also how long
// claims go by one: so that of those that one worker makes, one in hundreds takes the long way.
const longestFloor = 3 * time.Second

// ClaimsFloorLater is how much longer a claim goes by a floor than a look does, so that the long way is mostly the look's.
const ClaimsFloorLater = time.Second

// Begin is where to begin, by a floor that has been over for so long at the most; nil: at the beginning. Where that takes
// long, one goes there at a time, and the others go on by the old floor meanwhile.
func (f *Floor) Begin(over time.Duration) *Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.until) <= over {
		return f.at
	}
	if f.slow || f.cluttered {
		f.until = time.Now().Add(longestFloor) // or until it comes back
	}
	return nil
}

// Left is how long a look goes by the floor yet.
func (f *Floor) Left() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Until(f.until)
}

// Looked is told which place came first in a look that began at since, and how long that took. A floor that is found so holds
// ten times as long.
func (f *Floor) Looked(since, first *Position, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.found(since, first) {
		f.slow = took > slowLook || f.slow && took > quickLook
		f.hold(10 * took)
	}
}

// Claimed is told which place came first when a claim began at since, and how many entries of the index it read.
func (f *Floor) Claimed(since, first *Position, entries int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.found(since, first) {
		f.cluttered = entries > manyEntries
		f.hold(longestFloor)
	}
}

// found notes a place, and reports whether it was found from the beginning.
func (f *Floor) found(since, first *Position) bool {
	switch {
	case first == nil:
		return false
	case since == nil:
		f.at = first
		return true
	case f.at == since && before(since, first): // not where it has been lowered meanwhile
		f.at = first
	}
	return false
}

// hold has the floor hold for so long, if there is to be one.
func (f *Floor) hold(d time.Duration) {
	switch {
	case f.cluttered:
		f.until = time.Now().Add(longestFloor)
	case f.slow:
		f.until = time.Now().Add(min(d, longestFloor))
	default:
		f.until = time.Time{}
	}
}

// Drop gives it up.
func (f *Floor) Drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = nil
}

// Lower is told that something has been made due for that instant.
func (f *Floor) Lower(due time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if place := (Position{DueAt: due}); f.at != nil && before(&place, f.at) {
		f.at = &place
	}
}

func before(a, b *Position) bool {
	if a.DueAt.Equal(b.DueAt) {
		return a.ScheduleID < b.ScheduleID
	}
	return a.DueAt.Before(b.DueAt)
}
