package schedule

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// settleSQL: what the end of an execution means for its schedule is told beside mvsched.settle in schema.sql.
const settleSQL = `select mvsched.settle()`

// SettleStatements carry the ends of executions into their schedules, in a transaction of its own, without parameters: it
// rides in the pipeline of a refresh, behind its commit. It need not reach the disk before the next one does: what a crash
// of the server takes back of it is settled again. The refresh before it may take hours, and this may not: it has a deadline
// of its own, and the server's, since what is sent with it has one for both.
//
// The statement after before returns the earliest instant at which that has made a schedule due, or null.
func SettleStatements(schedules ...int64) (before []string, settle, after string) {
	limit := fmt.Sprintf(`set local statement_timeout = %d`, controlTimeout.Milliseconds())
	// Of those of a group one after the other: to settle all there are would be to read what is running everywhere.
	calls := make([]string, len(schedules))
	for i, schedule := range schedules {
		calls[i] = `mvsched.settle(` + strconv.FormatInt(schedule, 10) + `)`
	}
	return []string{beginSQL, asyncCommitSQL, limit}, `select least(` + strings.Join(calls, `, `) + `)`, `commit`
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
