package refresh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/schedule"
)

// The server ends a refresh at its time limit. Only if it does not, this much later, the client asks for it.
const backstopDelay = 5 * time.Second

// recordTimeout bounds the record of a failure. It runs on a context of its own: what ends the refresh must not keep
// its end from being recorded.
const recordTimeout = 10 * time.Second

// latePatience is how long after the end of the refreshes, when the process has been told to stop, all that is still to be
// recorded and asked may take together. A statement that is not answered then takes cancelPatience more.
const latePatience = 2500 * time.Millisecond

// outlast returns a context for what has to be done behind a refresh, whatever has ended that: it ends after its patience, and with
// late, the run's.
func outlast(ctx, late context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	stop := context.AfterFunc(late, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// savepoint lies between the lock on the execution row and everything that is the view's doing.
const savepoint = "mvsched_refresh"

// refresher refreshes claimed views.
type refresher struct {
	store *schedule.Store
	log   *slog.Logger
	late  context.Context // see run

	// blocker tells who was seen in the way of an execution, "" when nobody was.
	blocker func(execution int64) string

	madeDue  func(time.Time)                         // told when the end of a refresh has made others due
	progress func(schedule.Claim, schedule.Progress) // of a drain
}

// refresh refreshes the claimed view on conn. It returns the record of how that ended, and whether that has been settled
// into its schedule. The error is not the refresh's, which is in the record: it means that the record could not be had.
//
// When ctx ends, the server is asked to cancel, and the execution is recorded as cancelled.
func (r *refresher) refresh(ctx context.Context, conn *pgx.Conn, claim schedule.Claim) (
	record schedule.Execution, settled bool, err error,
) {
	chosen := claim.Choice()
	if impossible := impossible(claim); impossible != nil {
		record, err = r.endDetached(ctx, conn, claim, *impossible)
		return record, false, err
	}

	limit, cancel := context.WithTimeout(ctx, claim.Timeout+backstopDelay)
	defer cancel()
	if claim.Materialization == schedule.MaterializedColumns {
		if sent, limit, err := r.drain(limit, conn, claim); err != nil {
			claim.Timeout = limit // of the batch that has failed: what is left of the drain's
			record, err = r.failed(ctx, conn, claim, chosen, sent, err)
			return record, false, err
		}
	}
	sent, err := sendRefresh(limit, conn, claim, chosen)
	if sent.committed && err != nil {
		r.leaveUsable(ctx, conn)
	}
	switch {
	case !sent.committed:
		record, err = r.failed(ctx, conn, claim, chosen, sent, err)
		return record, false, err
	case sent.record.Status == "": // it could not be read
		return schedule.Execution{}, err == nil, err
	case err != nil: // whoever looks at the schedules next settles it
		r.log.Debug("the end of a refresh was not settled", "view", claim.View, "execution", claim.ExecutionID, "error", err)
	}
	if sent.madeDue != nil {
		r.madeDue(*sent.madeDue)
	}
	return sent.record, err == nil, nil
}

// impossible is how a refresh ends that need not be tried, nil for any other.
func impossible(claim schedule.Claim) *schedule.Ending {
	if claim.OID != 0 {
		return claim.Choice().Impossible
	}
	return &schedule.Ending{
		Status: schedule.Failed, Reason: schedule.ReasonMissing, ErrorName: "undefined_table",
		ErrorMessage: fmt.Sprintf("materialized view %s does not exist", claim.View),
	}
}

// failed records the end of a refresh that did not commit, as far as that is known, because of err.
func (r *refresher) failed(ctx context.Context, conn *pgx.Conn, claim schedule.Claim, chosen schedule.Choice, sent sent, err error) (
	schedule.Execution, error,
) {
	method := chosen.Method
	if conn.IsClosed() {
		return r.awaitOutcome(ctx, claim, method, err, claim.Timeout+outcomeAfterTimeLimit)
	}
	ending := r.ending(ctx, err, claim, method)
	ending.MethodReason = chosen.Because
	if conn.PgConn().TxStatus() == 'E' && sent.savepoint {
		record, recordErr := r.endUnderLock(ctx, conn, claim, ending)
		if recordErr == nil {
			return record, nil
		}
		r.log.Warn("recording the end of a refresh", "view", claim.View, "execution", claim.ExecutionID, "error", recordErr)
		r.leaveUsable(ctx, conn)                                    // while its transaction stays open, nobody else can record the end either
		if conn.IsClosed() || ending.Status == schedule.Cancelled { // only by that transaction's age it may be a time limit
			return r.awaitOutcome(ctx, claim, method, err, claim.Timeout+outcomeAfterTimeLimit)
		}
	} else { // not the view's doing: the claim was lost, the limits could not be set, or the commit failed
		ending.TimeLimit = 0
	}
	// The lock goes with the transaction, so a rescuer may be quicker; then its record stands.
	record, recordErr := r.endDetached(ctx, conn, claim, ending)
	if recordErr == nil || errors.Is(recordErr, pgx.ErrNoRows) {
		return record, recordErr
	}
	return r.awaitOutcome(ctx, claim, method, err, outcomeAfterTimeLimit)
}

// sent is how far the pipeline of a refresh got.
type sent struct {
	savepoint bool // a failure from here on can be recorded under the lock
	record    schedule.Execution
	committed bool
	madeDue   *time.Time // the earliest instant that its settling has made another view due at
}

// The schedule's settings are for the refresh alone. What follows makes plans that the session keeps: with settings such as
// enable_indexscan = off those would be bad ones, for every view after this one. (Null is the session's own value.)
const (
	parametersSQL = `select pg_catalog.set_config(s.key, s.value, true) from pg_catalog.jsonb_each_text($1) s`

	noParametersSQL = `select pg_catalog.set_config(s.key, null, true) from pg_catalog.jsonb_object_keys($1) s (key)`
)

// sendRefresh sends the whole transaction, begin to commit, in one write, and behind it what its end means for its
// schedule. Once it is sent, the server completes it without us: a worker that dies here leaves a refreshed view and
// the record of it. It must stay within one network buffer of the server (8 kB), or a dead worker's connection may cut
// it in the middle. An error of what follows the commit leaves committed true.
func sendRefresh(ctx context.Context, conn *pgx.Conn, claim schedule.Claim, chosen schedule.Choice) (done sent, err error) {
	method := chosen.Method
	var p pipeline
	begin(&p, claim, method, claim.Timeout, &done)
	materialize(&p, claim, method)
	succeed(&p, conn, claim, chosen, &done)
	err = p.send(ctx, conn)
	return done, err
}

// begin queues what comes first in every transaction of a refresh: its limits, the lock on the execution, the savepoint.
func begin(p *pipeline, claim schedule.Claim, method schedule.Method, limit time.Duration, done *sent) {
	// Read committed always: under repeatable read a refresh can succeed and store old data.
	p.queue(pass, `begin isolation level read committed`)
	p.queue(pass, `select mvsched.begin_refresh($1, $2, $3, $4, $5, $6)`,
		executionOf(claim), oidOf(claim), string(method), interval(limit), interval(lockTimeout(claim, method)),
		claim.ClaimedAt.UTC().Format(time.RFC3339Nano))
	p.queue(reach(&done.savepoint), `savepoint `+savepoint)
	configure(p, claim)
}

// materialize queues the materialization's own statement, and takes back what was set for it.
func materialize(p *pipeline, claim schedule.Claim, method schedule.Method) {
	statement, args := refreshStatement(claim, method)
	p.queue(pass, statement, args...)
	if claim.Parameters != nil {
		p.queue(pass, noParametersSQL, *claim.Parameters)
	}
	// REFRESH runs as the view's owner. What follows runs as us, and must not see the owner's path.
	p.queue(pass, `set local search_path = pg_catalog, pg_temp`)
}

// configure queues what is set for the materialization's own statement alone.
func configure(p *pipeline, claim schedule.Claim) {
	if claim.SearchPath != nil {
		p.queue(pass, `select pg_catalog.set_config('search_path', $1, true)`, *claim.SearchPath)
	}
	if claim.Parameters != nil {
		p.queue(pass, parametersSQL, *claim.Parameters)
	}
}

// succeed queues the record of success, the commit, and what it means for the schedule.
func succeed(p *pipeline, conn *pgx.Conn, claim schedule.Claim, chosen schedule.Choice, done *sent) {
	p.queue(one(conn, &done.record, schedule.ScanExecution), `select `+schedule.ExecutionColumns+`
		  from mvsched.refresh_succeeded($1, $2, $3, $4, $5, $6) e`,
		executionOf(claim), oidOf(claim), claim.Schema, claim.Name, string(chosen.Method), chosen.Because)
	commit(p, conn, []schedule.Claim{claim}, &done.committed, &done.madeDue)
}

// commit queues the commit, and what the ends mean for the schedules.
func commit(p *pipeline, conn *pgx.Conn, claims []schedule.Claim, committed *bool, madeDue **time.Time) {
	p.queue(reach(committed), `commit`)
	var schedules []int64
	for _, claim := range claims {
		if claim.ScheduleID != nil {
			schedules = append(schedules, *claim.ScheduleID)
		}
	}
	if len(schedules) == 0 {
		return
	}
	before, settle, after := schedule.SettleStatements(schedules...)
	for _, sql := range before {
		p.queue(pass, sql)
	}
	p.queue(one(conn, madeDue, pgx.RowTo[*time.Time]), settle)
	p.queue(pass, after)
}

func executionOf(claim schedule.Claim) string { return strconv.FormatInt(claim.ExecutionID, 10) }

func oidOf(claim schedule.Claim) string { return strconv.FormatUint(uint64(claim.OID), 10) }

// refreshStatement is what stands between the savepoint and the record: the one thing in which the kinds of
// materializations differ.
func refreshStatement(claim schedule.Claim, method schedule.Method) (sql string, args []string) {
	view := schedule.ViewName{Schema: claim.Schema, Name: claim.Name}.Identifier().Sanitize()
	switch method {
	case schedule.MethodMerge:
		return `select mvsched.merge($1, $2)`,
			[]string{oidOf(claim), strconv.FormatBool(claim.Whole)}
	case schedule.MethodColumns: // what has come since the drain's last look
		return materializeSQL, append(batchArgs(claim, maxBatchRows, true, ""), "")
	case schedule.MethodConcurrently:
		return "refresh materialized view concurrently " + view, nil
	default:
		return "refresh materialized view " + view, nil
	}
}

// interval is a duration as the server reads it in any IntervalStyle. (Up to PostgreSQL 14 it reads the count of
// microseconds as 32 bits: 35 minutes.)
func interval(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', 6, 64) + " seconds"
}

// ending says how a refresh that the server or we ended is to be recorded.
func (r *refresher) ending(ctx context.Context, err error, claim schedule.Claim, method schedule.Method) schedule.Ending {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		switch {
		case ctx.Err() != nil: // nothing was sent, or nothing more is known
			return stopped(ctx, schedule.Ending{Method: method})
		case errors.Is(err, errDrainTime):
			return schedule.Ending{Status: schedule.TimedOut, Reason: schedule.ReasonTimeLimit, Method: method, ErrorMessage: err.Error()}
		}
		return schedule.Ending{Status: schedule.Failed, Method: method, ErrorMessage: err.Error()}
	}
	ending := classify(pgErr, claim, method)
	if ending.Status == schedule.Cancelled && ctx.Err() != nil {
		ending = stopped(ctx, ending)
	}
	if ending.Reason == schedule.ReasonLockBusy {
		if blocker := r.blocker(claim.ExecutionID); blocker != "" {
			ending.ErrorMessage += "; " + blocker
		}
	}
	return ending
}

// endUnderLock records a failure in the refresh's own transaction, which still holds the lock on its execution: nobody
// can take it for dead in between.
func (r *refresher) endUnderLock(ctx context.Context, conn *pgx.Conn, claim schedule.Claim, ending schedule.Ending) (
	schedule.Execution, error,
) {
	records, err := r.endAllUnderLock(ctx, conn, []schedule.Claim{claim}, []schedule.Ending{ending})
	if err != nil {
		return schedule.Execution{}, err
	}
	return records[0], nil
}

// endAllUnderLock does that for all that were refreshed in the transaction. It tries twice: whoever gives up the lock leaves a moment in
// which these runs are taken for dead.
func (r *refresher) endAllUnderLock(ctx context.Context, conn *pgx.Conn, claims []schedule.Claim, endings []schedule.Ending) (
	records []schedule.Execution, err error,
) {
	ctx, cancel := outlast(ctx, r.late, recordTimeout)
	defer cancel()
	for range 2 {
		records, err = r.tryToEndUnderLock(ctx, conn, claims, endings)
		if err == nil || ctx.Err() != nil || conn.IsClosed() || conn.PgConn().TxStatus() != 'E' {
			break
		}
		r.log.Debug("the end of a refresh could not be recorded", "view", claims[0].View, "execution", claims[0].ExecutionID, "error", err)
	}
	return records, err
}

func (r *refresher) tryToEndUnderLock(ctx context.Context, conn *pgx.Conn, claims []schedule.Claim, endings []schedule.Ending) (
	[]schedule.Execution, error,
) {
	var back pipeline
	back.queue(pass, `rollback to savepoint `+savepoint)
	// What is left of the refresh's own time is not for this: of a drain's last batch it may be a millisecond.
	back.queue(pass, fmt.Sprintf(`set local statement_timeout = %d`, recordTimeout.Milliseconds()))
	if err := back.send(ctx, conn); err != nil {
		return nil, err
	}
	var records []schedule.Execution
	for i, claim := range claims {
		if endings[i].Reason == schedule.ReasonMissing {
			var name *string
			if err := conn.QueryRow(ctx, `select mvsched.view_name($1)`, claim.OID).Scan(&name); err != nil {
				return nil, err
			}
			if name != nil { // renamed while the refresh waited for its lock
				endings[i].Reason = schedule.ReasonViewReplaced
			}
		}
		record, err := r.store.On(conn).EndUnderLock(ctx, claim, endings[i])
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	if _, err := conn.Exec(ctx, `commit`); err != nil {
		return nil, err
	}
	return records, nil
}

// endDetached records an end in a transaction of its own.
func (r *refresher) endDetached(ctx context.Context, conn *pgx.Conn, claim schedule.Claim, ending schedule.Ending) (
	schedule.Execution, error,
) {
	ctx, cancel := outlast(ctx, r.late, recordTimeout)
	defer cancel()
	if err := rollBack(ctx, conn); err != nil {
		return schedule.Execution{}, err
	}
	return r.store.On(conn).End(ctx, claim, ending)
}

func rollBack(ctx context.Context, conn *pgx.Conn) error {
	if conn.IsClosed() || conn.PgConn().TxStatus() == 'I' {
		return nil
	}
	if _, err := conn.Exec(ctx, `rollback`); err != nil {
		return fmt.Errorf("rolling back: %w", err)
	}
	return nil
}

// leaveUsable ends what has failed behind a commit, or where the record of a failure was refused, since the next claim comes
// over the same connection.
func (r *refresher) leaveUsable(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := outlast(ctx, r.late, recordTimeout)
	defer cancel()
	if rollBack(ctx, conn) != nil {
		_ = conn.Close(ctx) // it is of no use to anybody
	}
}

// How long to go on asking for the outcome of a refresh whose connection was lost, and how often. A transaction that
// still holds its row has its time limit; a server that does not answer gets as long as a restart may take.
const (
	outcomeSoon           = 10 * time.Millisecond // a backend says goodbye before it lets go; doubled from look to look
	outcomeInterval       = 200 * time.Millisecond
	outcomeAfterTimeLimit = 15 * time.Second
	outcomeNoAnswer       = 10 * time.Second
)

// awaitOutcome asks the execution row, over other connections, how a refresh ended whose connection was lost.
func (r *refresher) awaitOutcome(ctx context.Context, claim schedule.Claim, method schedule.Method, cause error,
	patience time.Duration,
) (schedule.Execution, error) {
	lost := schedule.Ending{Status: schedule.Abandoned, Reason: schedule.ReasonWorkerLost, Method: method}
	var pgErr *pgconn.PgError
	if errors.As(cause, &pgErr) {
		lost.ErrorName, lost.ErrorMessage = conditionName(pgErr.Code), pgErr.Message
	}
	r.log.Debug("lost the connection of a refresh, and asks how it ended", "view", claim.View, "execution", claim.ExecutionID, "error", cause)
	wait, cancel := outlast(ctx, r.late, patience)
	defer cancel()
	answered := time.Now()
	for interval := outcomeSoon; ; interval = min(2*interval, outcomeInterval) {
		execution, err := r.store.Outcome(wait, claim, lost)
		switch {
		case err == nil && execution.Status != schedule.Running:
			return execution, nil
		case err == nil:
			answered = time.Now()
		case errors.Is(err, pgx.ErrNoRows):
			return schedule.Execution{}, err
		case time.Since(answered) > outcomeNoAnswer || !mayPass(err):
			return schedule.Execution{}, fmt.Errorf("lost the refresh of %s (execution %d), whose outcome is not known: %w",
				claim.View, claim.ExecutionID, err)
		}
		select {
		case <-wait.Done():
			return schedule.Execution{}, fmt.Errorf("%w: %w", errHeld, errors.Join(cause, err))
		case <-time.After(interval):
		}
	}
}

// errHeld means that somebody else's transaction holds the execution row for longer than the refresh can take.
var errHeld = errors.New("its record is held by another transaction")

// mayPass reports whether what keeps the database from answering can be over soon: all but what the server says for
// good, such as that there is no such database, role, or table any more.
func mayPass(err error) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return true
	}
	return pgerrcode.IsConnectionException(pgErr.Code) || pgerrcode.IsOperatorIntervention(pgErr.Code) ||
		pgerrcode.IsInsufficientResources(pgErr.Code) || pgerrcode.IsTransactionRollback(pgErr.Code)
}
