package schedule

import (
	"slices"
	"time"
)

// Later is how standings look a moment after they were read, as far as their clocks go: it spares the database being asked
// for what goes by itself.
func Later(standings []Standing, d time.Duration) []Standing {
	later := slices.Clone(standings)
	moved := func(t *time.Duration, by time.Duration) *time.Duration {
		if t == nil {
			return nil
		}
		sum := *t + by
		return &sum
	}
	for i := range later {
		s := &later[i]
		s.Age, s.RunningFor, s.NextRunIn = moved(s.Age, d), moved(s.RunningFor, d), moved(s.NextRunIn, -d)
	}
	return later
}
