package refresh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/schedule"
)

// When a vacuum or an analyze is worth its while. A tenth of the view changing at every refresh passes all of them; the
// odd row does not. Below vacuumPages an empty visibility map costs index-only scans next to nothing.
const (
	vacuumDeadRows     = 1000
	vacuumDeadShare    = 0.05
	vacuumPages        = 128
	analyzeChangedRows = 50
	analyzeShare       = 0.1
)

// A vacuum ends before the view's next refresh, which it would hold up: unlike autovacuum, VACUUM does not give way. A
// view that is refreshed all the time gets the minimum, and the next refresh waits for no longer than that
// (lock_timeout permitting).
const (
	minVacuumTime = 5 * time.Second
	maxVacuumTime = time.Hour
)

var (
	errVacuumTime    = errors.New("the view's next refresh is due, or it took an hour")
	errRefreshAgain  = errors.New("the view is being refreshed again")
	errVacuumStopped = errors.New("mvsched was told to stop")
	errVacuumSkipped = errors.New("the server passed the view over: somebody holds a lock on it")
)

// refreshed is a view to look at after its refresh.
type refreshed struct {
	schedule.Refreshed
	view string
}

// janitor vacuums views behind their refreshes, one at a time, on one more connection, which it has only as long as there
// is something to do. No refresh waits for it: autovacuum would do the same, but it gives way to every refresh, and a
// view that is refreshed often enough never gets its turn.
type janitor struct {
	pool   *pgxpool.Pool
	store  *schedule.Store
	log    *slog.Logger
	worker string

	// roomy says that the pool has a connection to spare; otherwise all waits for the end of the run.
	roomy bool

	mu      sync.Mutex
	queue   []refreshed
	working bool
	current uint32 // OID
	cancel  context.CancelCauseFunc
	bug     error
	done    sync.WaitGroup
}

func newJanitor(w *Worker, log *slog.Logger) *janitor {
	return &janitor{
		pool: w.Pool, store: w.Store, log: log, worker: w.Name, roomy: int(w.Pool.Config().MaxConns) >= max(w.Jobs, 1)+2,
	}
}

// hand takes a view over whose refresh has succeeded, and returns at once.
func (j *janitor) hand(ctx context.Context, claim schedule.Claim, execution schedule.Execution) {
	if execution.Status != schedule.Succeeded || execution.Method == nil {
		return
	}
	view := refreshed{view: claim.View, Refreshed: schedule.Refreshed{
		OID: claim.OID, ScheduleID: claim.ScheduleID, Plain: *execution.Method == schedule.MethodPlain,
	}}
	if execution.RowsInserted != nil && execution.RowsDeleted != nil {
		view.Inserted, view.Deleted = *execution.RowsInserted, *execution.RowsDeleted
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue = append(j.queue, view)
	if j.roomy {
		j.start(ctx)
	}
}

// giveWay is told of a view that is about to be refreshed (again): its vacuum would be in the way.
func (j *janitor) giveWay(oid uint32) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue = slices.DeleteFunc(j.queue, func(v refreshed) bool { return v.OID == oid })
	if j.cancel != nil && j.current == oid {
		j.cancel(errRefreshAgain)
	}
}

// finish waits until everything is done; when ctx has ended, only for the cancelled vacuum and its record.
func (j *janitor) finish(ctx context.Context) error {
	j.mu.Lock()
	j.start(ctx)
	j.mu.Unlock()
	j.done.Wait()
	return j.bug
}

// start is called under the lock.
func (j *janitor) start(ctx context.Context) {
	if j.working || len(j.queue) == 0 || j.bug != nil {
		return
	}
	j.working = true
	j.done.Go(func() { j.work(ctx) })
}

func (j *janitor) work(ctx context.Context) {
	defer func() {
		if bug := recover(); bug != nil {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.bug = fmt.Errorf("%w: %v\n%s", ErrBug, bug, debug.Stack())
			j.working = false
		}
	}()
	for {
		view, own, more := j.next(ctx)
		if !more {
			return
		}
		j.clean(ctx, own, view)
		j.mu.Lock()
		j.cancel(nil)
		j.cancel = nil
		j.mu.Unlock()
	}
}

// next takes a view out of the queue, with a context of its own.
func (j *janitor) next(ctx context.Context) (refreshed, context.Context, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) == 0 || ctx.Err() != nil {
		j.queue, j.working = nil, false
		return refreshed{}, nil, false
	}
	view := j.queue[0]
	j.queue = j.queue[1:]
	ctx, j.cancel = context.WithCancelCause(ctx)
	j.current = view.OID
	return view, ctx, true
}

// clean does for one view what is to be done. Its own context ends also when the view gets in the way; ctx is the run's.
func (j *janitor) clean(ctx, own context.Context, view refreshed) {
	log := j.log.With("view", view.view)
	conn, err := j.pool.Acquire(own)
	switch {
	case own.Err() != nil:
		if err == nil {
			conn.Release()
		}
		return
	case err != nil:
		log.Warn("is left unvacuumed: there is no connection for it", "error", err)
		return
	}
	defer conn.Release()

	bloat, err := j.store.On(conn).Bloat(own, view.Refreshed)
	switch {
	case own.Err() != nil:
		return
	case err != nil:
		log.Warn("is left unvacuumed", "error", err)
		return
	case bloat == nil:
		return // it is gone
	}
	command := vacuumCommand(*bloat, view.Plain)
	if command == "" {
		return
	}
	record := j.vacuum(ctx, own, conn.Conn(), *bloat, command)
	record.ScheduleID, record.OID = view.ScheduleID, view.OID
	switch record.Status {
	case schedule.VacuumSucceeded:
	case schedule.VacuumFailed:
		log.Warn(command+" failed", "error", record.ErrorMessage)
	default: // the next refresh gives another chance
		log.Info(command+" "+string(record.Status), "reason", record.ErrorMessage)
	}
	store := j.store
	if !conn.Conn().IsClosed() {
		store = store.On(conn)
	}
	if err := store.RecordVacuum(context.WithoutCancel(ctx), record); err != nil {
		log.Warn("was vacuumed, or not, without a record", "error", err)
	}
}

// vacuumCommand says what the view needs; "" for nothing.
func vacuumCommand(b schedule.Bloat, plain bool) string {
	changed := float64(b.Modified) >= analyzeChangedRows+analyzeShare*float64(b.Live)
	dead := b.Dead >= vacuumDeadRows && float64(b.Dead) >= vacuumDeadShare*float64(b.Live)
	// A plain refresh writes the view anew, with an empty visibility map: index-only scans read the table then.
	unmapped := plain && b.Pages >= vacuumPages && b.VisiblePages == 0
	vacuum, analyze := dead || unmapped, b.NeverAnalyzed || changed
	switch {
	case b.Mode == schedule.VacuumNever:
		return ""
	case b.Mode == schedule.VacuumAlways, vacuum && analyze:
		return "vacuum analyze"
	case vacuum:
		return "vacuum"
	case analyze:
		return "analyze"
	default:
		return ""
	}
}

// vacuumTime is how long the vacuum may take.
func vacuumTime(b schedule.Bloat) time.Duration {
	if b.NextRunIn == nil {
		return maxVacuumTime
	}
	return min(max(*b.NextRunIn, minVacuumTime), maxVacuumTime)
}

// vacuum runs the command on the simple protocol, outside any transaction, and says how that ended.
func (j *janitor) vacuum(ctx, own context.Context, conn *pgx.Conn, b schedule.Bloat, command string) schedule.Vacuum {
	record := schedule.Vacuum{
		View: b.View, Command: command, DeadRows: b.Dead, StartedAt: b.At, Status: schedule.VacuumSucceeded, Worker: j.worker,
	}
	limit, cancel := context.WithTimeoutCause(own, vacuumTime(b), errVacuumTime)
	defer cancel()
	forgetNotices(conn.PgConn())
	err := conn.PgConn().Exec(limit, vacuumSQL(command, schedule.ViewName{Schema: b.Schema, Name: b.Name})).Close()
	done, busy := noticed(conn.PgConn())

	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		record.ErrorName = conditionName(pgErr.Code)
	}
	switch {
	case err == nil && busy != nil:
		record.Status, record.ErrorName, record.ErrorMessage = schedule.VacuumSkipped, conditionName(busy.Code), busy.Message
	case err == nil && !done: // client_min_messages hides the server's reason
		record.Status, record.ErrorMessage = schedule.VacuumSkipped, errVacuumSkipped.Error()
	case err == nil:
		return record
	case ctx.Err() != nil:
		record.Status, record.ErrorMessage = schedule.VacuumCancelled, errVacuumStopped.Error()
	case limit.Err() != nil:
		record.Status, record.ErrorMessage = schedule.VacuumCancelled, context.Cause(limit).Error()
	case pgErr == nil:
		record.Status, record.ErrorMessage = schedule.VacuumFailed, err.Error()
	case pgErr.Code == pgerrcode.QueryCanceled: // by somebody else, or a statement_timeout of the role
		record.Status, record.ErrorMessage = schedule.VacuumCancelled, pgErr.Message
	default:
		record.Status, record.ErrorMessage = schedule.VacuumFailed, pgErr.Message
	}
	return record
}

// vacuumSQL skips a view that somebody holds a lock on: to wait for it would be to stand in the queue before the next
// refresh. It is verbose for the sake of what it does not say: see noteVacuum.
func vacuumSQL(command string, view schedule.ViewName) string {
	options := map[string]string{
		"vacuum":         "vacuum (skip_locked, verbose) ",
		"vacuum analyze": "vacuum (skip_locked, verbose, analyze) ",
		"analyze":        "analyze (skip_locked, verbose) ",
	}
	return options[command] + view.Identifier().Sanitize()
}

// Where a connection keeps what it has been told about a vacuum.
const (
	busyNotice = "mvsched.busy" // the view was skipped
	doneNotice = "mvsched.done" // it was not
)

// noteVacuum keeps the server's word on whether it has skipped a vacuum: the command succeeds either way. It says so with a
// warning, which the client_min_messages of a role or a database may hide, and set local, the only way to change them that
// is safe behind a pooler, does nothing outside a transaction. What a verbose vacuum reports is sent whatever they are.
func noteVacuum(conn *pgconn.PgConn, notice *pgconn.Notice) {
	switch {
	case notice.Code == pgerrcode.LockNotAvailable:
		conn.CustomData()[busyNotice] = notice
	case notice.SeverityUnlocalized == "INFO":
		conn.CustomData()[doneNotice] = true
	}
}

func forgetNotices(conn *pgconn.PgConn) {
	delete(conn.CustomData(), busyNotice)
	delete(conn.CustomData(), doneNotice)
}

func noticed(conn *pgconn.PgConn) (done bool, busy *pgconn.Notice) {
	busy, _ = conn.CustomData()[busyNotice].(*pgconn.Notice)
	return conn.CustomData()[doneNotice] != nil, busy
}
