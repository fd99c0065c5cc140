package schedule

import (
	"math/bits"
	"time"
)

// endOfTime is the last slot that there is.
var endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// planned is mvsched.planned in Go: the slot, moved into the schedule's window, and when it is due, which is beside it
// where there is a jitter.
func (s Schedule) planned(slot time.Time, location *time.Location) (moved, due time.Time) {
	if slot.After(endOfTime) {
		slot = endOfTime
	}
	inWindow := func(at time.Time) time.Time {
		if s.Window == nil {
			return at
		}
		return s.Window.from(at, location)
	}
	if opens := inWindow(slot); opens.After(slot) {
		if s.Every != nil {
			slot = slot.Add((opens.Sub(slot) + *s.Every - 1) / *s.Every * *s.Every)
		}
		closed := Window{Start: s.Window.End, End: s.Window.Start}
		if s.Every == nil || inWindow(slot).After(slot) || !closed.from(opens, location).After(slot) {
			slot = opens
		}
	}
	if s.Jitter == nil {
		return slot, slot
	}
	due = slot.Add(time.Duration(jitterOf(s.ID, slot) * float64(*s.Jitter)).Round(time.Microsecond))
	if inWindow(due).After(due) {
		due = slot
	}
	return slot, due
}

// jitterOf is how much of its jitter a slot has, from -0.5 to 0.5.
func jitterOf(id int64, slot time.Time) float64 {
	seed := slot.Add(500 * time.Millisecond).Unix() // rounded, as a cast is
	return float64(hashInt8(id, seed)&(1<<20-1))/(1<<20-1) - 0.5
}

// hashInt8 is PostgreSQL's hashint8extended. Tables that are partitioned by hash are stored by it, so it stays.
// It is the mixing of Bob Jenkins' lookup3 (2006, public domain) for one word.
func hashInt8(value, seed int64) uint64 {
	low, high := uint32(value), uint32(value>>32) //nolint:gosec // the two halves
	if value < 0 {
		high = ^high
	}
	const begin = 0x9e3779b9 + 4 + 3923095
	a, b, c := uint32(begin), uint32(begin), uint32(begin)
	if seed != 0 {
		a += uint32(seed >> 32) //nolint:gosec // the two halves
		b += uint32(seed)       //nolint:gosec // the two halves
		for _, turn := range [2][3]int{{4, 6, 8}, {16, 19, 4}} {
			a, c = (a-c)^bits.RotateLeft32(c, turn[0]), c+b
			b, a = (b-a)^bits.RotateLeft32(a, turn[1]), a+c
			c, b = (c-b)^bits.RotateLeft32(b, turn[2]), b+a
		}
	}
	a += low ^ high
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	c = (c ^ b) - bits.RotateLeft32(b, 24)
	return uint64(b)<<32 | uint64(c)
}
