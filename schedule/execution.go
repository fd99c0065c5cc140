package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// ExecutionColumns are the columns of e, a row of the execution table, that ScanExecution reads.
const ExecutionColumns = `
       e.id, e.materialized_view_refresh_schedule_id, e.view_name, e.status, e.reason, e.trigger, e.scheduled_at,
       e.attempt, e.started_at, e.ended_at, e.terminated_at, e.method, e.method_reason, e.rows_inserted, e.rows_deleted, e.rows_kept, e.data_as_of,
       e.error_name, e.error_message, e.worker`

// ScanExecution reads ExecutionColumns.
func ScanExecution(row pgx.CollectableRow) (e Execution, err error) {
	err = row.Scan(&e.ID, &e.ScheduleID, &e.View, &e.Status, &e.Reason, &e.Trigger, &e.ScheduledAt,
		&e.Attempt, &e.StartedAt, &e.EndedAt, &e.TerminatedAt, &e.Method, &e.MethodReason, &e.RowsInserted, &e.RowsDeleted, &e.RowsKept, &e.DataAsOf,
		&e.ErrorName, &e.ErrorMessage, &e.Worker)
	return e, err
}

const executionSQL = `
select ` + ExecutionColumns + `
  from mvsched.materialized_view_refresh_schedule_execution e
 where e.id = $1`

const claimedExecutionSQL = executionSQL + ` and e.started_at = $2`

// Execution returns one execution; the error is pgx.ErrNoRows when there is none.
func (s *Store) Execution(ctx context.Context, id int64) (Execution, error) {
	ctx, cancel := withDeadline(ctx, "reading an execution")
	defer cancel()
	found, err := read(ctx, s, "reading an execution", ScanExecution, executionSQL, id)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("reading an execution: %w", pgx.ErrNoRows)
	}
	if err != nil {
		return Execution{}, err
	}
	return found[0], nil
}

func one(ctx context.Context, db querier, what, sql string, args ...any) (Execution, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return Execution{}, fmt.Errorf("%s: %w", what, err)
	}
	execution, err := pgx.CollectExactlyOneRow(rows, ScanExecution)
	if err != nil {
		return Execution{}, fmt.Errorf("%s: %w", what, err)
	}
	return execution, nil
}

// rescueSQL records as abandoned the runs that are gone. Alive is who holds the lock on the execution row, and only the
// refresh transaction takes it, for as long as it lives: so whoever gets the lock, and finds the row still running, knows.
// There is one time rule, by the database's clock: a claim that no transaction ever locked (xmax 0), or one that is between
// two batches (each leaves its lock in xmax), is left alone until its grace is over, or it is to be cancelled. The lock is
// taken before the row is read again and changed, so a run that ends meanwhile, or commits a batch, is not touched: there
// xmax is not asked again, since by then it is of our own lock. One that was to be cancelled is gone for that: it is not tried again.
const rescueSQL = `
with silent as materialized (
  select e.id, e.batch_at, e.xmax::text <> '0' as began
    from mvsched.materialized_view_refresh_schedule_execution e
   where e.status = 'running'
     and (e.xmax::text <> '0' and e.batch_at is null or coalesce(e.batch_at, e.started_at) + e.start_grace < clock_timestamp()
          or exists (select from mvsched.materialized_view_refresh_cancel c where c.execution_id = e.id))
), gone as materialized (
  select e.id, silent.began
    from silent
    join mvsched.materialized_view_refresh_schedule_execution e using (id)
   where e.ended_at is null and e.batch_at is not distinct from silent.batch_at
     for no key update of e skip locked
), verdict as (
  select gone.id, '` + cancelledFor + `' || c.requested_by as cancelled,
         case when gone.began then 'worker_lost' else 'never_started' end as reason
    from gone
    left join mvsched.materialized_view_refresh_cancel c on c.execution_id = gone.id
)
update mvsched.materialized_view_refresh_schedule_execution e
   set status = case when verdict.cancelled is null then 'abandoned' else 'cancelled' end,
       reason = case when verdict.cancelled is null then verdict.reason else 'requested' end,
       error_name = case when verdict.cancelled is not null then 'query_canceled' end,
       error_message = verdict.cancelled,
       ended_at = greatest(e.started_at, clock_timestamp()),
       terminated_at = greatest(e.started_at, clock_timestamp())
  from verdict
 where e.id = verdict.id and e.ended_at is null
returning ` + ExecutionColumns

// Ending is how a refresh that did not succeed is recorded.
type Ending struct {
	Status       Status
	Reason       string // "" for none
	Method       Method // "" when it did not come to one
	MethodReason string
	ErrorName    string // "" for none
	ErrorMessage string

	// TimeLimit, when not 0, turns Cancelled into TimedOut if the transaction is that old by the server's clock.
	// statement_timeout and a cancel by somebody else have the same SQLSTATE, and messages are localised.
	TimeLimit time.Duration

	// Since is when what had the limit began, by the server's clock; nil: with the transaction.
	Since *time.Time
}

// maxErrorMessage bounds what a record keeps of an error's message, in bytes.
const maxErrorMessage = 4000

// endSQL ends one running execution; what has ended already is left alone and yields no row. It is found by its id, never by
// the index on what is running (see mvsched.begin_refresh in schema.sql). What a drain has materialized by then stays.
const endSQL = `
update mvsched.materialized_view_refresh_schedule_execution e
   set status = verdict.status,
       reason = case when verdict.timed_out then 'time_limit' else nullif($3::text, '') end,
       ended_at = greatest(e.started_at, clock_timestamp()),
       terminated_at = case when verdict.status in ('timed_out', 'cancelled', 'abandoned')
                            then greatest(e.started_at, clock_timestamp()) end,
       method = nullif($4::text, ''),
       method_reason = nullif($8::text, ''),
       error_name = nullif($5::text, ''),
       error_message = nullif($6::text, ''),
       rows_inserted = e.rows_done,
       rows_deleted = e.rows_done
  from (select t.timed_out, case when t.timed_out then 'timed_out' else $2::text end as status
          from (select $2::text = 'cancelled' and coalesce(clock_timestamp() - coalesce($10::timestamptz, now()) >= make_interval(secs => $7::float8), false)
                       as timed_out) t) verdict
 where e.id = $1 and e.started_at = $9::timestamptz and e.ended_at is null
returning ` + ExecutionColumns

// End records the end of a claim's execution that is still running, and returns the record: this one, or the one that was
// there already. The error is pgx.ErrNoRows when there is none, or none of that claim: a crash of the server can take a
// claim back and give its id to another.
func (s *Store) End(ctx context.Context, claim Claim, ending Ending) (Execution, error) {
	ctx, cancel := withDeadline(ctx, "recording the end of a refresh")
	defer cancel()
	var execution Execution
	err := s.transaction(ctx, func(tx pgx.Tx) (err error) {
		execution, err = end(ctx, tx, claim, ending)
		return err
	})
	return execution, err
}

// EndUnderLock is End for a connection whose transaction holds the lock on the execution, and goes on holding it.
func (s *Store) EndUnderLock(ctx context.Context, claim Claim, ending Ending) (Execution, error) {
	ctx, cancel := withDeadline(ctx, "recording the end of a refresh")
	defer cancel()
	if _, err := s.db.Exec(ctx, quickSQL); err != nil {
		return Execution{}, fmt.Errorf("recording the end of a refresh: %w", err)
	}
	return end(ctx, s.db, claim, ending)
}

// cut bounds a message before it travels: a view's query may raise 100 MB.
func cut(message string) string {
	if len(message) <= maxErrorMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxErrorMessage], "") + "..." // no "…", which many an encoding of databases lacks
}

func end(ctx context.Context, db querier, claim Claim, ending Ending) (Execution, error) {
	var limit *time.Duration
	if ending.TimeLimit > 0 {
		limit = &ending.TimeLimit
	}
	execution, err := one(ctx, db, "recording the end of a refresh", endSQL, claim.ExecutionID, ending.Status, ending.Reason, ending.Method,
		ending.ErrorName, cut(ending.ErrorMessage), seconds(limit), ending.MethodReason, claim.ClaimedAt, ending.Since)
	if errors.Is(err, pgx.ErrNoRows) {
		return one(ctx, db, "reading the end of a refresh", claimedExecutionSQL, claim.ExecutionID, claim.ClaimedAt)
	}
	return execution, err
}

const abandonSQL = `
select '` + cancelledFor + `' || c.requested_by
  from mvsched.materialized_view_refresh_schedule_execution e
  left join mvsched.materialized_view_refresh_cancel c on c.execution_id = e.id
 where e.id = $1 and e.started_at = $2 and e.ended_at is null
   for no key update of e skip locked`

// Outcome finds out how a claim's execution stands whose connection was lost: nobody guesses, the row tells. It returns the
// execution as it is: terminal; or running, when its transaction still holds the row. When that transaction is gone
// without a record, the execution is ended as given, or, where somebody asked for its end, as cancelled.
func (s *Store) Outcome(ctx context.Context, claim Claim, lost Ending) (execution Execution, err error) {
	ctx, cancel := withDeadline(ctx, "reading the outcome of a refresh")
	defer cancel()
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		var requested *string
		err := tx.QueryRow(ctx, abandonSQL, claim.ExecutionID, claim.ClaimedAt).Scan(&requested)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			execution, err = one(ctx, tx, "reading the outcome of a refresh", claimedExecutionSQL, claim.ExecutionID, claim.ClaimedAt)
		case err == nil:
			if requested != nil {
				lost.Status, lost.Reason, lost.ErrorMessage = Cancelled, ReasonRequested, *requested
			}
			execution, err = end(ctx, tx, claim, lost)
		}
		return err
	})
	if err != nil {
		return Execution{}, fmt.Errorf("reading the outcome of a refresh: %w", err)
	}
	return execution, nil
}

// Blocker is who held a lock that a running refresh was waiting for.
type Blocker struct {
	ExecutionID int64
	View        string // the canonical name of what is being refreshed
	PID         int    // 0: a prepared transaction
	User        string // "" when the server does not say
	Query       string // its last one, with literals; "" when the server does not show it
}

// Holders names who holds the lock that a refresh waits for.
func Holders(blockers []Blocker) string {
	var names []string
	for _, b := range blockers {
		if b.PID == 0 {
			names = append(names, "a prepared transaction")
		} else {
			names = append(names, fmt.Sprintf("%s (pid %d)", cmp.Or(b.User, "unknown"), b.PID))
		}
	}
	return strings.Join(names, ", ")
}

// blockersSQL looks while the wait lasts; after it there is nothing to see. Null means all that is running.
const blockersSQL = `
select ` + blockerColumns + `
  from mvsched.materialized_view_refresh_blocker b
 where $1::bigint[] is null or b.execution_id = any ($1::bigint[])
 order by b.execution_id, b.pid`

const blockerColumns = `b.execution_id, b.view_name, b.pid, coalesce(b.user_name, ''), coalesce(b.query, '')`

func scanBlocker(row pgx.CollectableRow) (b Blocker, err error) {
	err = row.Scan(&b.ExecutionID, &b.View, &b.PID, &b.User, &b.Query)
	return b, err
}
