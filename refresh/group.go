package refresh

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/schedule"
)

// outcome is how a refresh has ended: its record, or why that could not be had.
type outcome struct {
	execution schedule.Execution
	err       error
}

// refreshAll refreshes one claimed view, or a group of them, on conn, and reports whether that has been settled into
// their schedules.
func (r *refresher) refreshAll(ctx context.Context, conn *pgx.Conn, claims []schedule.Claim) (outcomes []outcome, settled bool) {
	if len(claims) > 1 {
		return r.refreshGroup(ctx, conn, claims)
	}
	execution, settled, err := r.refresh(ctx, conn, claims[0])
	return []outcome{{execution, err}}, settled
}

// groupSent is how far the pipeline of a group got.
type groupSent struct {
	savepoint bool
	ends      []*time.Time // by the server's clock, of the members in their order; nil: it did not come to that
	committed bool
	madeDue   *time.Time // the earliest instant that its settling has made another view due at
}

// refreshed is how many members were, and when the last of them was; nil: none was.
func (s groupSent) refreshed() (n int, last *time.Time) {
	for n < len(s.ends) && s.ends[n] != nil {
		last = s.ends[n]
		n++
	}
	return n, last
}

// refreshGroup refreshes the members of a group in their order and in one transaction, from one snapshot: all or none.
//
// A member that somebody refreshes by hand after the snapshot cannot always be refreshed from it. Then all of it is done
// once more, at once, from a new one.
func (r *refresher) refreshGroup(ctx context.Context, conn *pgx.Conn, claims []schedule.Claim) (outcomes []outcome, settled bool) {
	limit := backstopDelay
	for i, claim := range claims {
		if impossible := impossible(claim); impossible != nil {
			return r.endGroupDetached(ctx, conn, claims, endingsOf(claims, i, *impossible)), false
		}
		limit += claim.Timeout
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	sent, err := sendGroup(bounded, conn, claims, nil)
	if err != nil && overtaken(err) && !conn.IsClosed() && conn.PgConn().TxStatus() == 'E' && bounded.Err() == nil {
		r.log.Debug("somebody refreshed a member of the group meanwhile", "group", claims[0].Group, "error", err)
		sent, err = sendGroup(bounded, conn, claims, &sent)
	}
	if !sent.committed {
		return r.groupFailed(ctx, conn, claims, sent, err), false
	}
	if err != nil { // whoever looks at the schedules next settles it
		r.leaveUsable(ctx, conn)
		r.log.Debug("the end of a refresh was not settled", "group", claims[0].Group, "error", err)
	}
	if sent.madeDue != nil {
		r.madeDue(*sent.madeDue)
	}
	detached, done := outlast(ctx, r.late, recordTimeout)
	defer done()
	for _, claim := range claims {
		execution, readErr := r.store.On(conn).Execution(detached, claim.ExecutionID)
		if readErr != nil && conn.IsClosed() {
			execution, readErr = r.awaitOutcome(ctx, claim, claim.Choice().Method, readErr, outcomeAfterTimeLimit)
		}
		outcomes = append(outcomes, outcome{execution, readErr})
	}
	return outcomes, err == nil
}

// overtaken reports whether somebody else's refresh of a member may have come between the snapshot and its turn: rows that
// are to be deleted are gone, or rows that are to be inserted, and that the snapshot does not show, are there.
func overtaken(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) &&
		(pgErr.Code == pgerrcode.SerializationFailure || pgErr.Code == pgerrcode.UniqueViolation)
}

// lockGroupSQL begins every execution of a group: fences and locks first, then the savepoint. What else it sets is set
// again for each member in its turn.
const lockGroupSQL = `
select mvsched.begin_refresh(m.execution, m.view, 'concurrently', $4, $4, m.claimed_at)
  from unnest($1::bigint[], $2::oid[], $3::timestamptz[]) m (execution, view, claimed_at)`

// leaveAloneSQL: between two attempts nobody holds the locks on the executions, as between two batches of columns. So, as
// there, they are left alone for a while, and nobody takes the run for dead.
const leaveAloneSQL = `
update mvsched.materialized_view_refresh_schedule_execution set batch_at = clock_timestamp() where id = any ($1::bigint[]) and ended_at is null`

const beginMemberSQL = `select mvsched.begin_refresh($1, $2, $3, $4, $5, $6)`

const memberSucceededSQL = `select e.ended_at from mvsched.refresh_succeeded($1, $2, $3, $4, $5, $6) e`

// sendGroup sends the whole transaction like sendRefresh; before it the end of one that has failed, if there is one. A member
// takes 0.7 kB of it, more with settings: the ten or so of a usual group are in one network buffer of the server. Of a larger
// one a dead worker's connection may lose the end; then nothing of it was committed.
//
// The first statement that calls a function takes the snapshot, and the executions are running by then: no other refresh
// of mvsched's can come between it and the members' turns. The views themselves cannot be locked before it: LOCK TABLE
// takes no materialized view.
func sendGroup(ctx context.Context, conn *pgx.Conn, claims []schedule.Claim, failed *groupSent) (done groupSent, err error) {
	var p pipeline
	done.ends = make([]*time.Time, len(claims))
	var executions, oids, claimed []string
	for _, claim := range claims {
		executions = append(executions, executionOf(claim))
		oids = append(oids, oidOf(claim))
		claimed = append(claimed, claim.ClaimedAt.UTC().Format(time.RFC3339Nano))
	}
	switch {
	case failed != nil && failed.savepoint:
		p.queue(pass, `rollback to savepoint `+savepoint)
		p.queue(pass, leaveAloneSQL, array(executions))
		p.queue(pass, `commit`)
	case failed != nil:
		p.queue(pass, `rollback`)
	}
	p.queue(pass, `begin isolation level repeatable read`)
	p.queue(pass, lockGroupSQL, array(executions), array(oids), array(claimed), interval(lockGroupTimeout))
	p.queue(reach(&done.savepoint), `savepoint `+savepoint)
	for i, claim := range claims {
		chosen := claim.Choice()
		// Again, for its own limits, and for what its parents are as of by now; the lock is held already.
		p.queue(pass, beginMemberSQL, executions[i], oids[i], string(chosen.Method), interval(claim.Timeout),
			interval(lockTimeout(claim, chosen.Method)), claimed[i])
		if i > 0 {
			p.queue(pass, `set local search_path to default`) // the one of the session
		}
		configure(&p, claim)
		materialize(&p, claim, chosen.Method)
		p.queue(one(conn, &done.ends[i], pgx.RowTo[*time.Time]), memberSucceededSQL, executions[i], oids[i], claim.Schema, claim.Name, string(chosen.Method), chosen.Because)
	}
	commit(&p, conn, claims, &done.committed, &done.madeDue)
	err = p.send(ctx, conn)
	return done, err
}

// lockGroupTimeout bounds the wait for the locks on a group's executions, which nobody holds for longer than a moment.
const lockGroupTimeout = 10 * time.Second

// array is an array of numbers or timestamps as the server reads it.
func array(elements []string) string { return "{" + strings.Join(elements, ",") + "}" }

// groupFailed records the end of a group that did not commit, as far as that is known, because of err.
func (r *refresher) groupFailed(ctx context.Context, conn *pgx.Conn, claims []schedule.Claim, sent groupSent, err error) (
	outcomes []outcome,
) {
	if conn.IsClosed() {
		patience := outcomeAfterTimeLimit
		for _, claim := range claims {
			patience += claim.Timeout
		}
		return r.awaitOutcomes(ctx, claims, err, patience)
	}
	refreshed, last := sent.refreshed()
	at := min(refreshed, len(claims)-1)
	method := claims[at].Choice().Method
	ending := r.ending(ctx, err, claims[at], method)
	ending.MethodReason, ending.Since = claims[at].Choice().Because, last
	if conn.PgConn().TxStatus() == 'E' && sent.savepoint {
		endings := endingsOf(claims, at, ending)
		if ending.Status == schedule.Cancelled && ctx.Err() != nil { // all of it was to end
			for i := range endings {
				if i != at {
					endings[i], endings[i].TimeLimit = ending, 0 // whose time it was not
				}
				endings[i].Method, endings[i].MethodReason = claims[i].Choice().Method, claims[i].Choice().Because
			}
		}
		records, recordErr := r.endAllUnderLock(ctx, conn, claims, endings)
		if recordErr == nil {
			for _, record := range records {
				outcomes = append(outcomes, outcome{record, nil})
			}
			return outcomes
		}
		r.log.Warn("recording the end of a refresh", "group", claims[at].Group, "error", recordErr)
		r.leaveUsable(ctx, conn) // as for a single one (failed)
		if conn.IsClosed() || ending.Status == schedule.Cancelled {
			return r.awaitOutcomes(ctx, claims, err, outcomeAfterTimeLimit)
		}
		return r.endGroupDetached(ctx, conn, claims, endings)
	}
	// No member's doing. The locks are gone with the transaction, so a rescuer may be quicker; then its records stand.
	ending.TimeLimit = 0
	return r.endGroupDetached(ctx, conn, claims, endingsOf(claims, at, ending))
}

// endingsOf is how the members of a group end of which one has ended so.
func endingsOf(claims []schedule.Claim, at int, ending schedule.Ending) []schedule.Ending {
	endings := make([]schedule.Ending, len(claims))
	for i := range claims {
		endings[i] = schedule.Ending{
			Status: schedule.Skipped, Reason: schedule.ReasonGroupFailed, ErrorMessage: claims[at].View + " could not be refreshed",
		}
	}
	endings[at] = ending
	return endings
}

func (r *refresher) endGroupDetached(ctx context.Context, conn *pgx.Conn, claims []schedule.Claim, endings []schedule.Ending) (
	outcomes []outcome,
) {
	for i, claim := range claims {
		record, err := r.endDetached(ctx, conn, claim, endings[i])
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			record, err = r.awaitOutcome(ctx, claim, "", err, outcomeAfterTimeLimit)
		}
		outcomes = append(outcomes, outcome{record, err})
	}
	return outcomes
}

func (r *refresher) awaitOutcomes(ctx context.Context, claims []schedule.Claim, cause error, patience time.Duration) (outcomes []outcome) {
	for _, claim := range claims {
		record, err := r.awaitOutcome(ctx, claim, claim.Choice().Method, cause, patience)
		outcomes = append(outcomes, outcome{record, err})
	}
	return outcomes
}
