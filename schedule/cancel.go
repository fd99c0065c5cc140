package schedule

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
)

// A refresh is cancelled by its worker, which looks for requests; so what it records is its own. Only where no worker
// takes note in time, since it is gone and the server finishes alone what it was sent (or since it has one connection,
// and that is refreshing), the server itself is asked, and the run is recorded as cancelled by whoever finds it ended.

// cancelledFor is how a record tells that somebody asked; the name of the role follows.
const cancelledFor = "cancelled on request of "

const requestCancelSQL = `
with running as materialized (
  select e.id, e.view_oid, e.refresh_group, e.started_at
    from mvsched.materialized_view_refresh_schedule_execution e
   where e.status = 'running' and e.view_oid = any ($1::bigint[]::oid[])
), request as (
  insert into mvsched.materialized_view_refresh_cancel (execution_id)
  select running.id from running
   union
  select e.id -- a group ends as a whole
    from running
    join mvsched.materialized_view_refresh_schedule_execution e
      on e.status = 'running' and e.refresh_group = running.refresh_group and e.started_at = running.started_at
      on conflict do nothing
)
select running.id, running.view_oid::bigint from running`

// cancelStateSQL shows how the executions stand, which transaction locked them last, and which of them no worker is
// ending: nobody took note within 3 s, or who did has not come to an end within 10 s.
const cancelStateSQL = `
select ` + ExecutionColumns + `, e.xmax::text,
       coalesce(clock_timestamp() > coalesce(c.acknowledged_at + interval '10 seconds', c.requested_at + interval '3 seconds'), true)
  from mvsched.materialized_view_refresh_schedule_execution e
  left join mvsched.materialized_view_refresh_cancel c on c.execution_id = e.id
 where e.id = any ($1::bigint[])
 order by e.id`

// signalSQL cancels the statement of the backend that refreshes, as long as it is in the same transaction.
const signalSQL = `
select pg_catalog.pg_cancel_backend(backend.pid)
  from unnest($1::bigint[], $2::text[]) as held (id, xid)
  join mvsched.materialized_view_refresh_backend backend on backend.execution_id = held.id and backend.transaction_id::text = held.xid`

const (
	cancelInterval = 100 * time.Millisecond // how often the executions are looked at
	signalInterval = 500 * time.Millisecond // how often the server is asked again
	cancelPatience = 45 * time.Second       // a worker's 10 s, and 15 s that the server leaves an idle transaction, and some

	// Whoever records a dead run holds its row too, for milliseconds; who has held it this long is the refresh.
	refreshHoldsFor = time.Second
)

// NotEndedError says that a refresh goes on although it was asked to end.
type NotEndedError struct {
	View string
	Err  error // why the server could not be asked; nil: it was, and the refresh does not heed it
}

func (e *NotEndedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s is still being refreshed, and its worker does not answer: %v", e.View, e.Err)
	}
	return fmt.Sprintf("%s is still being refreshed %s after it was asked to end", e.View, cancelPatience)
}

func (e *NotEndedError) Unwrap() error { return e.Err }

// Cancel asks for the end of the refreshes of these views that are running, scheduled or not, wherever their workers are,
// and waits for it. It returns how they ended (one may have succeeded meanwhile), and which of the views are not being
// refreshed. ErrNoView or ErrNotAView in a *ViewError say that one of the views is none, and nothing was asked for; a
// *NotEndedError, that one goes on. What was asked for stands when ctx ends.
func (s *Store) Cancel(ctx context.Context, views []ViewName) (ended []Execution, idle []string, err error) {
	running, idle, err := s.requestCancel(ctx, views)
	if err != nil || len(running) == 0 {
		return nil, idle, err
	}
	wait, cancel := context.WithTimeout(ctx, cancelPatience)
	defer cancel()
	waiting := cancelling{store: s, holders: map[int64]holder{}}
	for {
		executions, err := waiting.look(ctx, running)
		if err != nil {
			return nil, idle, err
		}
		i := slices.IndexFunc(executions, func(e Execution) bool { return e.Status == Running })
		if i < 0 {
			return executions, idle, nil
		}
		if err := waiting.endOverdue(ctx); err != nil {
			if mayNot(err) {
				err = &NotEndedError{View: executions[i].View, Err: err}
			}
			return nil, idle, err
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return nil, idle, context.Cause(ctx)
			}
			return nil, idle, &NotEndedError{View: executions[i].View, Err: waiting.refused}
		case <-time.After(cancelInterval):
		}
	}
}

// requestCancel asks for the end of what is running of these views.
func (s *Store) requestCancel(ctx context.Context, views []ViewName) (running []int64, idle []string, err error) {
	ctx, cancel := withDeadline(ctx, "asking for a cancel")
	defer cancel()
	names := map[int64]string{}
	var oids []int64
	for _, view := range views {
		found, err := s.describe(ctx, view)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("cancelling %s: %w", view, err)
		case found.problem != nil:
			return nil, nil, found.problem
		}
		if _, twice := names[*found.oid]; !twice {
			names[*found.oid] = *found.name
			oids = append(oids, *found.oid)
		}
	}
	type request struct{ execution, view int64 }
	requests, err := read(ctx, s, "asking for a cancel", func(row pgx.CollectableRow) (r request, err error) {
		err = row.Scan(&r.execution, &r.view)
		return r, err
	}, requestCancelSQL, oids)
	if err != nil {
		return nil, nil, err
	}
	for _, oid := range oids {
		if i := slices.IndexFunc(requests, func(r request) bool { return r.view == oid }); i >= 0 {
			running = append(running, requests[i].execution)
		} else {
			idle = append(idle, names[oid])
		}
	}
	return running, idle, nil
}

// cancelling waits for executions to end.
type cancelling struct {
	store   *Store
	holders map[int64]holder
	overdue []int64   // running, and no worker is ending them
	asked   time.Time // when the server was last asked
	refused error     // the last time, it would not let the end be recorded
}

// holder is the transaction that locked an execution last.
type holder struct {
	xid   string
	since time.Time
}

// look returns how the executions stand, without those that somebody has deleted.
func (c *cancelling) look(ctx context.Context, ids []int64) ([]Execution, error) {
	ctx, cancel := withDeadline(ctx, "waiting for a cancel")
	defer cancel()
	c.overdue = nil
	return read(ctx, c.store, "waiting for a cancel", func(row pgx.CollectableRow) (e Execution, err error) {
		var xid string
		var overdue bool
		if e, err = ScanExecution(longerRow{row, []any{&xid, &overdue}}); err != nil {
			return e, err
		}
		if c.holders[e.ID].xid != xid {
			c.holders[e.ID] = holder{xid, time.Now()}
		}
		if overdue && e.Status == Running {
			c.overdue = append(c.overdue, e.ID)
		}
		return e, nil
	}, cancelStateSQL, ids)
}

// longerRow is a row with more columns at its end.
type longerRow struct {
	pgx.CollectableRow
	more []any
}

func (r longerRow) Scan(dest ...any) error { return r.CollectableRow.Scan(append(dest, r.more...)...) }

// endOverdue ends runs without a worker: those whose transaction is gone, or has not begun, are recorded; the others are
// cancelled, so that they will be gone. Whoever may cancel but not record leaves that to the next worker.
func (c *cancelling) endOverdue(ctx context.Context) error {
	if len(c.overdue) == 0 || time.Since(c.asked) < signalInterval {
		return nil
	}
	c.asked = time.Now()
	var held []int64
	var xids []string
	for _, id := range c.overdue {
		if h := c.holders[id]; time.Since(h.since) > refreshHoldsFor {
			held, xids = append(held, id), append(xids, h.xid)
		}
	}
	ctx, cancel := withDeadline(ctx, "cancelling a refresh without a worker")
	defer cancel()
	c.refused = c.store.send(ctx, func(batch *pgx.Batch) { batch.Queue(rescueSQL) })
	if c.refused != nil && !mayNot(c.refused) {
		return c.refused
	}
	return c.store.send(ctx, func(batch *pgx.Batch) { batch.Queue(signalSQL, held, xids) })
}

// mayNot reports whether the server refused for want of a right.
func mayNot(err error) bool { return sqlState(err) == pgerrcode.InsufficientPrivilege }

// CancelRequest asks a worker to cancel one of its refreshes.
type CancelRequest struct {
	ExecutionID int64
	Message     string // for the record: who asked
}

const cancelRequestsSQL = `
select c.execution_id, '` + cancelledFor + `' || c.requested_by
  from mvsched.materialized_view_refresh_cancel c
 where c.execution_id = any ($1::bigint[]) and c.acknowledged_at is null`

// Watch looks after running refreshes, in one round trip: which of the active ones are to be cancelled, and who stands in
// the way of those that may be waiting for a lock.
func (s *Store) Watch(ctx context.Context, active, waiting []int64) (requests []CancelRequest, blockers []Blocker, err error) {
	ctx, cancel := withDeadline(ctx, "watching refreshes")
	defer cancel()
	err = s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(cancelRequestsSQL, active).Query(collect(&requests, pgx.RowToStructByPos[CancelRequest]))
		if len(waiting) > 0 {
			batch.Queue(blockersSQL, waiting).Query(collect(&blockers, scanBlocker))
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("watching refreshes: %w", err)
	}
	return requests, blockers, nil
}

// The request stays, marked: should the worker die before its refresh has ended, the record still tells why it did. A row
// that somebody holds is not waited for.
const acknowledgeCancelSQL = `
update mvsched.materialized_view_refresh_cancel c
   set acknowledged_at = clock_timestamp()
 where c.execution_id in (select x.execution_id
                            from mvsched.materialized_view_refresh_cancel x
                           where x.execution_id = any ($1::bigint[]) and x.acknowledged_at is null
                             for no key update skip locked)`

// AcknowledgeCancel tells whoever asked that the worker is at it.
func (s *Store) AcknowledgeCancel(ctx context.Context, executions []int64) error {
	ctx, cancel := withDeadline(ctx, "acknowledging a cancel")
	defer cancel()
	err := s.send(ctx, func(batch *pgx.Batch) { batch.Queue(acknowledgeCancelSQL, executions) })
	if err != nil {
		return fmt.Errorf("acknowledging a cancel: %w", err)
	}
	return nil
}
