package schedule

import (
	"sync"
	"time"
)

// Floor is where a worker looks for what is due, while much has to be passed before that place that leads nowhere: what
// has been claimed, while somebody holds a transaction open for long; see mvsched.claim in schema.sql. Nobody tells it what
// others make due before it, so it holds for a while only.
type Floor struct {
	mu     sync.Mutex
	at     *Position
	passed int64      // entries that led nowhere, when somebody came from the beginning last
	since  time.Time  // when that was, or when somebody went there who has not come back
	lower  *time.Time // what has been made due meanwhile
}

// So many entries a claim may pass, and a look, of which there are few. They are counted, by the server, and not timed: either may take
// long for other reasons, and to leave out something for those would be no gain.
const (
	ClaimMayPass = 2500    // a third of a millisecond, as much as a fourth of a claim
	LookMayPass  = 100_000 // some 15 ms
)

// longestFloor bounds how long something may be left out that others have made due before the floor. So of the claims that
// one worker makes, one in hundreds takes the long way.
const longestFloor = 3 * time.Second

// Begin is where to begin for who may pass so many entries; nil: at the beginning. Where there are more, one goes there at a
// time, and the others go on by the old floor meanwhile.
func (f *Floor) Begin(mayPass int64) *Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.passed <= mayPass {
		return nil
	}
	if time.Since(f.since) <= longestFloor {
		return f.at
	}
	f.since = time.Now()
	return nil
}

// Left is how long the floor holds yet.
func (f *Floor) Left() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Until(f.since.Add(longestFloor))
}

// Seen is told which place came first when somebody began at since, and how many entries were passed that led nowhere.
func (f *Floor) Seen(since, first *Position, passed int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case first == nil:
	case since == nil:
		f.at, f.passed, f.since = first, passed, time.Now()
		if f.lower != nil { // perhaps when the way from the beginning was half behind
			f.lowerTo(*f.lower)
			f.lower = nil
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
	if f.lower == nil || due.Before(*f.lower) {
		f.lower = &due
	}
	f.lowerTo(due)
}

func (f *Floor) lowerTo(due time.Time) {
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
