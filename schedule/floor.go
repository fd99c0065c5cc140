package schedule

import (
	"sync"
	"time"
)

// Floor is where a worker looks for what is due, while a look from the beginning takes long: what was due before that
// place has been claimed, and leads nowhere. That is where somebody holds a transaction open for long; see mvsched.claim in
// schema.sql. Nobody tells it what others make due before it, so it holds for a while only: ten times as long as it took to
// find it.
type Floor struct {
	mu    sync.Mutex
	at    *Position
	until time.Time
	long  bool // the last look from the beginning took long
}

// What is quicker than this needs no floor, by the worker's clock. A look does other things too.
const (
	QuickClaim = 5 * time.Millisecond
	QuickLook  = 50 * time.Millisecond
)

// longestFloor bounds how long something may be passed over that others have made due before the floor.
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
	if f.long {
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

// Seen is told which place came first when it was begun since there, and how long that took.
func (f *Floor) Seen(since, first *Position, took, quick time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case first == nil:
	case since == nil:
		f.at, f.until = first, time.Time{}
		if f.long = took > quick || f.long && took > QuickClaim; f.long {
			f.until = time.Now().Add(min(10*took, longestFloor))
		}
	case f.at == since && before(since, first): // not where it has been lowered meanwhile
		f.at = first
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
