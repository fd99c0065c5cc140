package schedule

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// pruneBatch is how many rows one transaction of a pruner deletes: some milliseconds' worth, which nobody waits for.
const pruneBatch = 1000

// pruneSQL: what goes and what stays is told beside mvsched.prune in schema.sql. Nothing depends on what it deletes, so it
// need not wait for the disk.
const pruneSQL = `select mvsched.prune($1)`

// Prune trims the history as mvsched.settings says, in transactions of 1,000 rows, at most so many of them; 0: until
// nothing is left to trim. It returns how many rows it has deleted. Any number of pruners may be at it: each leaves alone
// what another one holds.
func (s *Store) Prune(ctx context.Context, maxBatches int) (deleted int64, err error) {
	for batch := 0; maxBatches == 0 || batch < maxBatches; batch++ {
		n, more, err := s.PruneBatch(ctx)
		deleted += n
		if err != nil || !more {
			return deleted, err
		}
	}
	return deleted, nil
}

// PruneBatch is one transaction of Prune; more says that there may be something left.
func (s *Store) PruneBatch(ctx context.Context) (deleted int64, more bool, err error) {
	ctx, cancel := withDeadline(ctx, "trimming the history")
	defer cancel()
	err = s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(asyncCommitSQL)
		batch.Queue(pruneSQL, pruneBatch).QueryRow(func(row pgx.Row) error { return row.Scan(&deleted) })
	})
	if err != nil {
		return 0, false, fmt.Errorf("trimming the history: %w", err)
	}
	return deleted, deleted >= pruneBatch, nil
}
