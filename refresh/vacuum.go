package refresh

import (
	"context"
	"errors"
	"log/slog"
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

// Where one refresh follows another, so long lies between two looks at what they left: one look does for many.
const bloatInterval = 250 * time.Millisecond

// chore is what a view needs, as was found after its refresh.
type chore struct {
	view    schedule.Refreshed
	bloat   schedule.Bloat
	command string
	found   time.Time
}

// janitor vacuums views behind their refreshes, one at a time, on one more connection, which it has only as long as there
// is something to do. No refresh waits for it: autovacuum would do the same, but it gives way to every refresh, and a
// view that is refreshed often enough never gets its turn.
type janitor struct {
	pool   *pgxpool.Pool
	store  *schedule.Store
	log    *slog.Logger
	worker string
	late   context.Context // see run

	// roomy says that the pool has a connection to spare; otherwise all waits for the end of the run.
	roomy bool

	hurry  chan struct{} // closed when nothing more is going to be refreshed
	looked time.Time     // only for who works

	mu      sync.Mutex
	queue   []schedule.Refreshed // to be looked at
	chores  []chore
	working bool
	current uint32 // OID
	cancel  context.CancelCauseFunc
	bug     error
	done    sync.WaitGroup
}

func newJanitor(late context.Context, w *Worker, log *slog.Logger) *janitor {
	return &janitor{
		pool: w.Pool, store: w.Store, log: log, worker: w.Name, late: late, roomy: int(w.Pool.Config().MaxConns) >= max(w.Jobs, 1)+2,
		hurry: make(chan struct{}),
	}
}

// hand takes a view over whose refresh has succeeded, and returns at once.
func (j *janitor) hand(ctx context.Context, claim schedule.Claim, execution schedule.Execution) {
	if execution.Status != schedule.Succeeded || execution.Method == nil {
		return
	}
	view := schedule.Refreshed{OID: claim.OID, ScheduleID: claim.ScheduleID, Plain: *execution.Method == schedule.MethodPlain}
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
	j.queue = slices.DeleteFunc(j.queue, func(v schedule.Refreshed) bool { return v.OID == oid })
	j.chores = slices.DeleteFunc(j.chores, func(c chore) bool { return c.view.OID == oid })
	if j.cancel != nil && j.current == oid {
		j.cancel(errRefreshAgain)
	}
}

// finish waits until everything is done; when ctx has ended, only for the cancelled vacuum and its record. It is called
// once, when nothing more is handed over.
func (j *janitor) finish(ctx context.Context) error {
	close(j.hurry)
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
			j.bug = schedule.Bug(bug)
			j.working = false
		}
	}()
	for j.look(ctx) {
		for {
			chore, own, more := j.next(ctx)
			if !more {
				break
			}
			j.clean(ctx, own, chore)
			j.mu.Lock()
			j.cancel(nil)
			j.cancel = nil
			j.mu.Unlock()
		}
	}
}

// look finds out what is to be done for the views that were handed over. It reports whether the work goes on.
func (j *janitor) look(ctx context.Context) bool {
	select {
	case <-ctx.Done():
	case <-j.hurry:
	case <-time.After(time.Until(j.looked.Add(bloatInterval))):
	}
	j.mu.Lock()
	views := slices.Clone(j.queue)
	if len(views) == 0 || ctx.Err() != nil {
		j.queue, j.working = nil, false
		j.mu.Unlock()
		return false
	}
	j.mu.Unlock()

	bloats, err := j.store.Bloats(ctx, views)
	j.looked = time.Now()
	if err != nil && ctx.Err() == nil {
		j.log.Warn("views are left unvacuumed", "error", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, view := range views {
		at := slices.Index(j.queue, view)
		if at < 0 {
			continue // it is being refreshed again
		}
		j.queue = slices.Delete(j.queue, at, at+1)
		bloat, there := bloats[view.OID]
		if command := vacuumCommand(bloat, view.Plain); there && command != "" {
			j.chores = append(j.chores, chore{view: view, bloat: bloat, command: command, found: j.looked})
		}
	}
	return true
}

// next takes a chore, with a context of its own.
func (j *janitor) next(ctx context.Context) (chore, context.Context, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.chores) == 0 || ctx.Err() != nil {
		j.chores = nil
		return chore{}, nil, false
	}
	next := j.chores[0]
	j.chores = j.chores[1:]
	ctx, j.cancel = context.WithCancelCause(ctx)
	j.current = next.view.OID
	return next, ctx, true
}

// clean does for one view what is to be done. Its own context ends also when the view gets in the way; ctx is the run's.
func (j *janitor) clean(ctx, own context.Context, chore chore) {
	log := j.log.With("view", chore.bloat.View)
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

	record := j.vacuum(ctx, own, conn.Conn(), chore)
	record.ScheduleID, record.OID = chore.view.ScheduleID, chore.view.OID
	switch record.Status {
	case schedule.VacuumSucceeded:
	case schedule.VacuumFailed:
		log.Warn(chore.command+" failed", "error", record.ErrorMessage)
	default: // the next refresh gives another chance
		log.Info(chore.command+" "+string(record.Status), "reason", record.ErrorMessage)
	}
	store := j.store
	if !conn.Conn().IsClosed() {
		store = store.On(conn)
	}
	ctx, cancel := outlast(ctx, j.late, recordTimeout)
	defer cancel()
	if err := store.RecordVacuum(ctx, record); err != nil {
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

// vacuumTime is how long the vacuum may take, so long after it was found necessary.
func vacuumTime(b schedule.Bloat, after time.Duration) time.Duration {
	if b.NextRunIn == nil {
		return maxVacuumTime
	}
	return min(max(*b.NextRunIn-after, minVacuumTime), maxVacuumTime)
}

// vacuum runs the command on the simple protocol, outside any transaction, and says how that ended.
func (j *janitor) vacuum(ctx, own context.Context, conn *pgx.Conn, chore chore) schedule.Vacuum {
	b, waited := chore.bloat, time.Since(chore.found)
	record := schedule.Vacuum{
		View: b.View, Command: chore.command, DeadRows: b.Dead, StartedAt: b.At.Add(waited), Status: schedule.VacuumSucceeded,
		Worker: j.worker,
	}
	limit, cancel := context.WithTimeoutCause(own, vacuumTime(b, waited), errVacuumTime)
	defer cancel()
	forgetNotices(conn.PgConn())
	err := conn.PgConn().Exec(limit, vacuumSQL(chore.command, schedule.ViewName{Schema: b.Schema, Name: b.Name})).Close()
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
