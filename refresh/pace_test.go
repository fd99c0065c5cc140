package refresh

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		took    time.Duration
		waiting bool
		want    time.Duration
	}{
		{5 * ms, false, 100 * ms},
		{5 * ms, true, 20 * ms},
		{60 * ms, false, 240 * ms},
		{60 * ms, true, 120 * ms},
		{10 * time.Second, false, time.Second}, // a lock
		{10 * time.Second, true, time.Second},
	} {
		if got := pace(c.took, c.waiting); got != c.want {
			t.Errorf("a look of %v, waiting: %t: %v, want %v", c.took, c.waiting, got, c.want)
		}
	}
}
