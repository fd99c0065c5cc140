package schedule

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// settleSQL: what the end of an execution means for its schedule is told beside mvsched.settle in schema.sql.
const settleSQL = `select mvsched.settle()`

// Settle carries the end of executions into their schedules. Tend and Claim do it too: this is for when neither follows.
func (s *Store) Settle(ctx context.Context) error {
	ctx, cancel := withDeadline(ctx, "settling")
	defer cancel()
	if err := s.send(ctx, func(batch *pgx.Batch) { batch.Queue(asyncCommitSQL); batch.Queue(settleSQL) }); err != nil {
		return fmt.Errorf("settling: %w", err)
	}
	return nil
}
