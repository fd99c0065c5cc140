package refresh

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/schedule"
)

const (
	// While a drain is under way, the rows that are left are counted this often; in between they are subtracted.
	countInterval = 2 * time.Second

	// A drain that has set aside so many rows has most likely met a query that fails for all of them.
	maxPoisoned = 1000
)

// drained is what one batch has done.
type drained struct {
	picked, done, poisoned, left int64
	low                          *string // the key below which the next batch may begin
}

func scanDrained(row pgx.CollectableRow) (d drained, err error) {
	err = row.Scan(&d.picked, &d.done, &d.poisoned, &d.left, &d.low)
	return d, err
}

// drain materializes the columns of a table, batch by batch, until nothing is left. Each batch is a transaction of its
// own, with the fence and the lock on the execution, like any refresh; its commit leaves the execution with the time of
// it, from which on a rescuer waits for the next. What is committed stays, however the execution ends. The success is not
// recorded here: that is one more transaction, with one more batch (sendRefresh).
//
// The error is that of a batch, whose transaction is left for the record of the failure as far as sent says; limit is the
// time that it had.
func (r *refresher) drain(ctx context.Context, conn *pgx.Conn, claim schedule.Claim) (done sent, limit time.Duration, err error) {
	end := time.Now().Add(claim.Timeout)
	rows := min(max(claim.BatchRows, 1), maxBatchRows)
	progress := schedule.Progress{ExecutionID: claim.ExecutionID}
	var counted time.Time
	below := ""         // where the next batch begins; "": with the newest row
	changed := int64(0) // rows since a batch has begun there
	for {
		if limit = time.Until(end); limit < time.Millisecond { // less would be no limit to the server
			return sent{}, limit, errDrainTime
		}
		countAgain := time.Since(counted) >= countInterval
		if countAgain {
			counted = time.Now()
		}
		if countAgain && changed > 0 {
			below, changed = "", 0
		}
		began := time.Now()
		batch, done, err := sendBatch(ctx, conn, claim, limit, batchArgs(claim, rows, countAgain, below))
		if err != nil {
			return done, limit, err
		}
		progress.Batches++
		progress.Done += batch.done
		progress.SetAside += batch.poisoned
		progress.Left = batch.left
		changed += batch.done + batch.poisoned
		r.progress(claim, progress)
		switch {
		case batch.picked == 0 && below != "" && changed > 0:
			below, changed = "", 0
			continue
		case batch.picked == 0: // or what is left is as it was, whatever is done: a trigger of the table keeps it so, say
			return sent{}, limit, nil
		case progress.SetAside >= maxPoisoned:
			return sent{}, limit, fmt.Errorf("%w: %d rows of %s", errPoisoned, progress.SetAside, claim.View)
		case batch.poisoned == 0: // looking for rows to set aside takes its time, which says nothing
			rows = nextBatchRows(rows, time.Since(began))
		}
		if below = ""; batch.low != nil {
			below = *batch.low
		}
	}
}

var (
	errDrainTime = errors.New("there are rows left to be materialized")
	errPoisoned  = errors.New("too many rows cannot be materialized, and the last one tells why (mvsched.materialization_poison)")
)

// sendBatch sends one batch, begin to commit. When it fails, it is sent again, in the same transaction, which holds the lock
// on the execution; or in another one when the commit has failed. This time the server looks for the rows that are to blame
// and sets them aside, or finds that none is.
func sendBatch(ctx context.Context, conn *pgx.Conn, claim schedule.Claim, limit time.Duration, args []string) (
	batch drained, done sent, err error,
) {
	var p pipeline
	begin(&p, claim, schedule.MethodColumns, limit, &done)
	p.queue(one(conn, &batch, scanDrained), materializeSQL, append(args, "false")...)
	p.queue(reach(&done.committed), `commit`)
	err = p.send(ctx, conn)
	var pgErr *pgconn.PgError
	if err == nil || !done.savepoint || conn.IsClosed() || ctx.Err() != nil || !errors.As(err, &pgErr) ||
		pgErr.Code == pgerrcode.QueryCanceled || pgErr.Code == pgerrcode.LockNotAvailable {
		return batch, done, err
	}
	var again pipeline
	if conn.PgConn().TxStatus() == 'I' { // it has failed at the commit
		begin(&again, claim, schedule.MethodColumns, limit, &done)
	} else {
		again.queue(pass, `rollback to savepoint `+savepoint)
		configure(&again, claim)
	}
	again.queue(one(conn, &batch, scanDrained), materializeSQL, append(args, "true")...)
	again.queue(reach(&done.committed), `commit`)
	err = again.send(ctx, conn)
	return batch, done, err
}

const materializeSQL = `
select b.picked, b.done, b.poisoned, coalesce(b.left_over, 0), b.low
  from mvsched.materialize_batch($1, $2, $3, $4, nullif($7, '')::boolean, $5, nullif($6, '')) b`

// batchArgs are those of materializeSQL but the last.
func batchArgs(claim schedule.Claim, rows int, countAgain bool, below string) []string {
	var scheduleID int64
	if claim.ScheduleID != nil {
		scheduleID = *claim.ScheduleID
	}
	return []string{
		executionOf(claim), strconv.FormatInt(scheduleID, 10), oidOf(claim), strconv.Itoa(rows), strconv.FormatBool(countAgain), below,
	}
}
