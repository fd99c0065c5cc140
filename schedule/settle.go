package schedule

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// settleSQL: what the end of an execution means for its schedule is told beside mvsched.settle in schema.sql.
const settleSQL = `select mvsched.settle()`

// SettleStatements carry the end of an execution into its schedule, in a transaction of its own, without parameters: it
// rides in the pipeline of a refresh, behind its commit. It need not reach the disk before the next one does: what a crash
// of the server takes back of it is settled again. The refresh before it may take hours, and this may not: it has a deadline
// of its own, and the server's, since what is sent with it has one for both.
//
// The statement after before returns the earliest instant at which that has made a schedule due, or null.
func SettleStatements(schedule int64) (before []string, settle, after string) {
	limit := fmt.Sprintf(`set local statement_timeout = %d`, controlTimeout.Milliseconds())
	return []string{beginSQL, asyncCommitSQL, limit}, `select mvsched.settle(` + strconv.FormatInt(schedule, 10) + `)`, `commit`
}

// Settle does the same where a refresh has ended otherwise. Tend does it too.
func (s *Store) Settle(ctx context.Context) error {
	ctx, cancel := withDeadline(ctx, "settling")
	defer cancel()
	if err := s.send(ctx, func(batch *pgx.Batch) { batch.Queue(asyncCommitSQL); batch.Queue(settleSQL) }); err != nil {
		return fmt.Errorf("settling: %w", err)
	}
	return nil
}
