package refresh

import (
	"testing"
	"time"
)

func TestNextBatchRows(t *testing.T) {
	for _, c := range []struct {
		rows int
		took time.Duration
		want int
	}{
		{100, batchTime, 100},
		{100, batchTime * 4 / 5, 125},
		{100, 0, 200}, // twice as many at the most
		{100, time.Hour, 50},
		{1, time.Hour, 1},
		{9000, 0, maxBatchRows},
	} {
		if got := nextBatchRows(c.rows, c.took); got != c.want {
			t.Errorf("after %d rows in %v: %d, want %d", c.rows, c.took, got, c.want)
		}
	}
}
