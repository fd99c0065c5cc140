package refresh

import "time"

// How long a batch is to take. Longer ones hold row locks for longer, and lose more to a kill; shorter ones are mostly
// about their transactions.
const (
	batchTime    = 200 * time.Millisecond
	maxBatchRows = 10_000 // domain mvsched.batch_rows
)

// nextBatchRows is how many rows the next batch is to have, when one that was to have so many took so long. It changes by
// a factor of two at the most: the odd slow batch, behind a checkpoint or a lock, must not spoil the next hundred.
func nextBatchRows(rows int, took time.Duration) int {
	if took <= 0 {
		took = time.Microsecond
	}
	wanted := float64(rows) * float64(batchTime) / float64(took)
	wanted = min(max(wanted, float64(rows)/2), float64(rows)*2)
	return min(max(int(wanted), 1), maxBatchRows)
}
