package refresh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/schedule"
)

const (
	rescueInterval  = 3 * time.Second        // how often dead runs are looked for while refreshes are under way
	watchInterval   = 500 * time.Millisecond // how often it is looked for who is to be cancelled, and who stands in the way
	unbegunInterval = 200 * time.Millisecond // how often a claim that has not begun is looked at, when nothing else is left
	busyInterval    = 200 * time.Millisecond // how often a view that somebody else refreshes is asked for
)

// Worker refreshes views: those that are due (RunDue) or those that it is told to (Refresh). Any number of workers may
// be at it at the same time, in any number of processes.
type Worker struct {
	Pool  *pgxpool.Pool // see ConfigurePool
	Store *schedule.Store
	Jobs  int // how many refreshes at a time; 0: 1
	Limit int // how many views RunDue claims at the most; 0: no limit
	// Queues are those that RunDue refreshes views of; nil: all.
	Queues []string
	Name   string       // for people: host and process
	Log    *slog.Logger // nil: nothing is logged

	// Started and Ended, when given, are told of every refresh, from several goroutines. Usual makes the claim carry
	// how long the view usually takes.
	Started func(schedule.Claim)
	Ended   func(schedule.Execution)
	Usual   bool
}

// RunDue refreshes everything that is due when it is called, each view once, and returns the executions by id. It
// also waits, for seconds at the most, for claims of workers that died before their refresh began, and takes those
// views over.
//
// When ctx ends, it claims no more, has the server cancel what is running, records that, and returns the context's
// cause beside the executions. Any other error says why it could not go on.
func (w *Worker) RunDue(ctx context.Context) ([]schedule.Execution, error) {
	r := w.newRun(ctx, &dueViews{worker: w})
	err := r.once(ctx)
	if err == nil && r.pruneDue {
		r.prune(ctx)
	}
	return r.result(ctx, err)
}

// Options are what a refresh by hand may differ in from a schedule's.
type Options struct {
	Settings  schedule.Settings // override those of the views' schedules
	Ancestors bool              // first refresh what the views read
	Force     bool              // also views whose schedule says to skip them when nothing has changed
}

// Refresh refreshes the given views now, whether they are due or not, each after those among them that it reads; where
// one of these fails, it is skipped. A view that is being refreshed already is waited for, then refreshed. When one of the
// views is none, nothing is refreshed. Otherwise it is as RunDue.
func (w *Worker) Refresh(ctx context.Context, views []schedule.ViewName, options Options) ([]schedule.Execution, error) {
	names, err := w.Store.Resolve(ctx, views)
	if err != nil {
		return nil, err
	}
	graph := schedule.Graph{Views: names}
	if options.Ancestors || len(names) > 1 {
		if graph, err = w.Store.Graph(ctx); err != nil {
			return nil, err
		}
	}
	ordered, above := graph.Order(names, options.Ancestors)
	r := w.newRun(ctx, &namedViews{
		worker: w, settings: options.Settings, force: options.Force,
		views: ordered, above: above, taken: map[int64]string{}, ended: map[string]bool{}, failed: map[string]string{},
	})
	return r.result(ctx, r.once(ctx))
}

// source is where the claims come from.
type source interface {
	// ready says after a look at the schedules what to do next.
	ready(outlook schedule.Outlook) next

	// look says what the source wants to know of the schedules.
	look() schedule.TendOptions

	// claim takes the next view; nil when there is none, or, without patience, none that nobody else is at.
	claim(ctx context.Context, store *schedule.Store, turn turn) (*schedule.Claim, error)

	// over is told that a claimed execution has ended, and how; nil: its record could not be had. It reports whether
	// that may have made others ready.
	over(id int64, execution *schedule.Execution) (progress bool)
}

// turn is how a slot claims.
type turn struct {
	patient bool // it waits for a view that somebody else refreshes
	settled bool // what it has refreshed before is settled
}

// next is what a control loop does after a look at the schedules.
type next struct {
	claims int           // so many can begin now
	slots  []time.Time   // then one more can, each time, without another look
	look   time.Duration // after that time it looks again; 0: nothing is left but what is running
}

// run is one call of a worker: a control loop on a connection of its own, and up to Jobs slots that each claim and
// refresh on theirs. So neither claim nor rescue nor record waits behind a refresh.
type run struct {
	*Worker
	work      context.Context // of the refreshes; ends after the one of the claims where there is a grace
	source    source
	refresher refresher
	janitor   *janitor
	endless   bool          // it is a server's: it goes on until it is told to stop, for better and for worse
	conn      *pgxpool.Conn // the control loop's
	watch     *time.Ticker
	pruneDue  bool
	pruned    time.Time // when the history was trimmed behind this run
	ended     chan slotEnd
	failed    []slotEnd     // those that came during a look at the schedules; they count as open until they are seen to
	progress  chan struct{} // a refresh has ended that other views may have waited for, or something else calls for a look
	requests  chan struct{} // somebody may want a refresh cancelled
	looked    atomic.Int64  // when the control loop last looked at the schedules, as nanoseconds since 1970
	expected  atomic.Int64  // when it is stuck should it not have taken another turn, the same way

	mu         sync.Mutex
	held       bool // something due waits for other views
	lost       int  // connections lost while claiming
	executions []schedule.Execution
	active     map[int64]*activeRefresh
}

// maxLost is how many connections a run may lose while it claims before it is taken to be the server.
const maxLost = 10

type activeRefresh struct {
	claim   schedule.Claim
	since   time.Time
	blocker string
	cancel  context.CancelCauseFunc
}

// slotEnd is how a slot ended: it found nothing more to claim, or it could not go on.
type slotEnd struct {
	claims int
	err    error
}

// once runs to the end of what there is to do.
func (r *run) once(ctx context.Context) error {
	defer r.watch.Stop()
	err := r.control(ctx)
	return cmp.Or(err, r.janitor.finish(ctx)) // nothing of ours runs on after this
}

// result is what a caller gets of a run that has ended with err.
func (r *run) result(ctx context.Context, err error) ([]schedule.Execution, error) {
	slices.SortFunc(r.executions, func(a, b schedule.Execution) int { return cmp.Compare(a.ID, b.ID) })
	if ctx.Err() != nil {
		return r.executions, context.Cause(ctx)
	}
	return r.executions, err
}

// newRun prepares a run whose refreshes are cancelled when work ends.
func (w *Worker) newRun(work context.Context, source source) *run {
	log := cmp.Or(w.Log, slog.New(slog.DiscardHandler))
	r := &run{
		Worker: w, work: work, source: source, ended: make(chan slotEnd), progress: make(chan struct{}, 1),
		requests: make(chan struct{}, 1), active: map[int64]*activeRefresh{},
		janitor: newJanitor(w, log), watch: time.NewTicker(watchInterval),
	}
	r.refresher = refresher{store: w.Store, log: log, blocker: r.blocker}
	return r
}

// control tends the schedules, opens slots for what can begin, and looks after what runs, until nothing is left. It
// returns when every slot has ended. When ctx ends, it claims no more.
func (r *run) control(ctx context.Context) (err error) {
	slots := 0
	defer func() {
		for slots > 0 {
			end, event := r.await(context.WithoutCancel(ctx), time.Now().Add(rescueInterval))
			if event != slotEnded {
				continue
			}
			slots--
			if err != nil && end.err != nil { // one is enough to tell
				r.refresher.log.Debug("another slot ended", "error", end.err)
			}
			err = cmp.Or(err, end.err)
		}
		r.release()
	}()

	// One connection is the control loop's own. A slot that finds none free leaves the work to those that have one.
	maxSlots := min(max(r.Jobs, 1), int(r.Pool.Config().MaxConns)-1)
	full := maxSlots
	var arranged, limited time.Time
	var next next
	for ctx.Err() == nil {
		r.looked.Store(time.Now().UnixNano())
		r.expected.Store(time.Now().Add(stuckAfter).UnixNano())
		if r.endless && time.Since(limited) > connectionPatience {
			maxSlots = full
		}
		outlook, err := r.lookAround(ctx, &next, &slots, maxSlots)
		if err != nil && slots == 0 {
			return err
		}
		if err == nil && outlook.Held && (arranged.IsZero() || time.Since(arranged) > arrangeInterval) {
			// The order matters: the longest chain first, by what the last runs took.
			if err := r.Store.On(r.conn).Arrange(ctx); err != nil && slots == 0 {
				return err
			}
			arranged = time.Now()
		}
		if r.pruneDue && r.endless {
			r.pruneBehind(ctx)
		}
		next = r.source.ready(outlook)
		switch {
		case next.claims > 0 && maxSlots == 0:
			end := r.slot(ctx, r.conn.Conn(), false)
			if end.err != nil {
				return end.err
			}
			if end.claims == 0 {
				pause(ctx, unbegunInterval)
			}
			continue
		case next.claims == 0 && slots == 0 && next.look == 0:
			return nil
		}
		for ; next.claims > 0 && slots < maxSlots; next.claims-- {
			slots++
			go r.openSlot(ctx)
		}

		end, ok := r.awaitTurn(ctx, &next, &slots, maxSlots)
		if !ok {
			continue
		}
		slots--
		switch {
		case errors.Is(end.err, ErrTooManyConnections):
			maxSlots, limited = slots, time.Now()
		case end.err != nil && r.endless && slots > 0 && !isLasting(end.err):
			// What the others are at may take hours; meanwhile the schedules have to be looked after.
			r.refresher.log.Warn("a refresh or a claim went wrong, and is left to the next look", "because", end.err)
			pause(ctx, reconnectPause)
		case end.err != nil:
			return end.err
		case end.claims == 0:
			pause(ctx, rand.N(20*time.Millisecond)) //nolint:gosec // jitter
		}
	}
	return nil
}

// awaitTurn waits for a slot to end, or until it is time for the next look. Meanwhile it opens slots for what becomes due,
// as far as the last look has seen it coming. A server, of which there is no end, paces its looks: for a slot that has
// found nothing more to claim there is mostly nothing to be seen either.
func (r *run) awaitTurn(ctx context.Context, next *next, slots *int, maxSlots int) (slotEnd, bool) {
	look := time.Now().Add(cmp.Or(next.look, rescueInterval))
	if *slots > 0 {
		look = earlier(look, time.Now().Add(rescueInterval))
	}
	if *slots == maxSlots && maxSlots > 0 {
		look = time.Now().Add(rescueInterval) // those who are at it claim what is due
	}
	for {
		until := look
		opens := len(next.slots) > 0 && *slots < maxSlots && next.slots[0].Before(look)
		if opens {
			until = next.slots[0]
		}
		end, event := r.await(ctx, until)
		switch {
		case event == timeIsUp && opens:
			r.openNext(ctx, next, slots)
		case event == slotEnded && r.endless && end.err == nil:
			*slots--
			look = earlier(look, r.paced())
			next.forgetPast()
		case event == toldToLook && r.endless && ctx.Err() == nil:
			look = earlier(look, r.paced())
		default:
			return end, event == slotEnded
		}
	}
}

// openNext opens a slot for the first of what is known to become due.
func (r *run) openNext(ctx context.Context, next *next, slots *int) {
	next.slots = next.slots[1:]
	*slots++
	go r.openSlot(ctx)
}

// forgetPast forgets what became due while all slots were at it: those have claimed it.
func (n *next) forgetPast() {
	n.slots = slices.DeleteFunc(n.slots, func(at time.Time) bool { return time.Since(at) > wakeInterval })
}

// lookAround tends the schedules. Nobody has to wait for that: it may take a while where many schedules wait for changes,
// and meanwhile slots open for what becomes due, as far as the look before has seen it coming.
func (r *run) lookAround(ctx context.Context, next *next, slots *int, maxSlots int) (outlook schedule.Outlook, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if bug := recover(); bug != nil {
				err = fmt.Errorf("%w: %v\n%s", ErrBug, bug, debug.Stack())
			}
		}()
		outlook, err = r.tend(ctx)
	}()
	for {
		var due <-chan time.Time
		if len(next.slots) > 0 && *slots < maxSlots {
			due = time.After(time.Until(next.slots[0]))
		}
		var ended <-chan slotEnd
		if r.endless && len(next.slots) > 0 {
			ended = r.ended
		}
		select {
		case <-done:
			return outlook, err
		case <-due:
			r.openNext(ctx, next, slots)
		case end := <-ended:
			if end.err != nil {
				r.failed = append(r.failed, end)
				continue
			}
			*slots--
			next.forgetPast()
		}
	}
}

// paced is when a server may look again.
func (r *run) paced() time.Time {
	looked := time.Unix(0, r.looked.Load())
	if r.holds() {
		return looked.Add(wakeInterval)
	}
	return looked.Add(paceInterval)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// connect makes sure of the control connection: the first time, and when it was lost.
func (r *run) connect(ctx context.Context) (err error) {
	if r.conn != nil {
		if !r.conn.Conn().IsClosed() {
			return nil
		}
		r.release() // the slots leave one connection of the pool free, so the next one is for us
	}
	r.conn, err = acquireFirst(ctx, r.Pool)
	return err
}

func (r *run) release() {
	if r.conn != nil {
		r.conn.Release()
		r.conn = nil
	}
}

// tend looks after the schedules on the control connection. When that is lost, it tries once more on another one.
func (r *run) tend(ctx context.Context) (outlook schedule.Outlook, err error) {
	for range 2 {
		if err := r.connect(ctx); err != nil {
			return schedule.Outlook{}, err
		}
		outlook, err = r.Store.On(r.conn).Tend(ctx, r.source.look())
		if err == nil || !r.conn.Conn().IsClosed() {
			break
		}
	}
	if err != nil {
		return schedule.Outlook{}, err
	}
	r.mu.Lock()
	r.held = outlook.Held
	r.mu.Unlock()
	r.pruneDue = outlook.PruneDue
	for _, e := range outlook.Abandoned {
		r.refresher.log.Warn("found a run whose worker is gone", "view", e.View, "execution", e.ID, "reason", *e.Reason)
	}
	for _, m := range outlook.Moved {
		if m.Found { // otherwise its run says so
			r.refresher.log.Warn(movedMessage(m), "view", m.View)
		}
	}
	return outlook, nil
}

func movedMessage(m schedule.Moved) string {
	if m.Restored {
		return "found by its name in this database, which is not the one it was scheduled in"
	}
	return "was dropped and created again, and is found by its name"
}

// event is what a control loop was woken by.
type event int

const (
	slotEnded event = iota
	timeIsUp
	toldToLook
)

// await waits for a slot to end, until it is told to look, or until that time.
func (r *run) await(ctx context.Context, until time.Time) (slotEnd, event) {
	r.expected.Store(until.Add(stuckAfter).UnixNano())
	if len(r.failed) > 0 {
		end := r.failed[0]
		r.failed = r.failed[1:]
		return end, slotEnded
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case end := <-r.ended:
			return end, slotEnded
		case <-timer.C:
			return slotEnd{}, timeIsUp
		case <-r.progress:
			return slotEnd{}, toldToLook
		case <-r.requests:
			r.lookAfterActive(ctx)
		case <-ctx.Done():
			return slotEnd{}, toldToLook
		case <-r.watch.C:
			r.lookAfterActive(ctx)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// openSlot opens a connection and runs a slot on it.
func (r *run) openSlot(ctx context.Context) {
	var conn *pgxpool.Conn
	defer func() {
		if bug := recover(); bug != nil {
			if conn != nil {
				conn.Release()
			}
			r.ended <- slotEnd{err: fmt.Errorf("%w: %v\n%s", ErrBug, bug, debug.Stack())}
		}
	}()
	conn, err := r.Pool.Acquire(ctx)
	if err != nil {
		if isTooManyConnections(err) {
			err = errors.Join(ErrTooManyConnections, err)
		}
		r.ended <- slotEnd{err: err}
		return
	}
	end := r.slot(ctx, conn.Conn(), true)
	conn.Release()
	r.ended <- end
}

// slot claims and refreshes, one view after the other, until there is nothing to claim.
func (r *run) slot(ctx context.Context, conn *pgx.Conn, patient bool) (end slotEnd) {
	store := r.Store.On(conn)
	turn := turn{patient: patient, settled: true}
	for ctx.Err() == nil && !conn.IsClosed() {
		claim, err := r.source.claim(r.work, store, turn) //nolint:contextcheck // what has begun goes on when ctx ends, for the grace
		if end.claims > 0 {
			// Not before: the control loop would be settling what has just ended while this claim wants to see it settled,
			// and would pass over the views that have waited for it.
			r.wakeForHeld()
			r.wakeToPlan()
		}
		if err != nil && conn.IsClosed() && r.mayLose() {
			r.refresher.log.Debug("lost a connection while claiming", "error", err)
			break // the control loop looks again, and says so when the server is gone
		}
		if err != nil || claim == nil {
			end.err = err
			break
		}
		end.claims++
		if claim.Skipped != "" {
			if end.err = r.skipped(r.work, store, *claim); end.err != nil { //nolint:contextcheck // as above
				break
			}
			continue
		}
		if turn.settled, end.err = r.refresh(r.work, conn, *claim); end.err != nil { //nolint:contextcheck // as above
			break
		}
	}
	if r.work.Err() != nil {
		end.err = nil // the caller knows why it stopped
	}
	if !turn.settled && !conn.IsClosed() {
		// The next claim would have settled the last refresh.
		end.err = errors.Join(end.err, store.Settle(context.WithoutCancel(ctx)))
	}
	return end
}

// mayLose counts a lost connection.
func (r *run) mayLose() bool {
	if r.endless {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost++
	return r.lost <= maxLost
}

// skipped tells of an execution that ended with its claim.
func (r *run) skipped(ctx context.Context, store *schedule.Store, claim schedule.Claim) error {
	execution, err := store.Execution(ctx, claim.ExecutionID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil // deleted meanwhile
	case err != nil:
		return err
	}
	r.keep(execution)
	r.tellOver(claim.ExecutionID, &execution)
	if r.Ended != nil {
		r.Ended(execution)
	}
	return nil
}

// keep remembers what the caller is told in the end; who serves has no end.
func (r *run) keep(execution schedule.Execution) {
	if r.endless {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.executions = append(r.executions, execution)
}

// wakeForHeld wakes the control loop where due views wait for other ones: there may be work for more slots.
func (r *run) wakeForHeld() {
	if r.holds() {
		r.wake()
	}
}

func (r *run) holds() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}

// wakeToPlan wakes a server's control loop: what the end of a refresh is to be followed by may have to be planned.
func (r *run) wakeToPlan() {
	if r.endless {
		r.wake()
	}
}

// tellOver tells the source how an execution has ended.
func (r *run) tellOver(id int64, execution *schedule.Execution) {
	if r.source.over(id, execution) {
		r.wake()
	}
}

func (r *run) wake() {
	select {
	case r.progress <- struct{}{}:
	default: // it will look anyway
	}
}

// refresh refreshes one claimed view and tells who wants to know. It reports whether its end has been settled.
func (r *run) refresh(ctx context.Context, conn *pgx.Conn, claim schedule.Claim) (settled bool, err error) {
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.mu.Lock()
	r.active[claim.ExecutionID] = &activeRefresh{claim: claim, since: time.Now(), cancel: cancel}
	r.mu.Unlock()
	if r.Started != nil {
		r.Started(claim)
	}
	r.janitor.giveWay(claim.OID)

	execution, settled, err := r.refresher.refresh(own, conn, claim)

	r.mu.Lock()
	delete(r.active, claim.ExecutionID)
	r.mu.Unlock()
	if err == nil {
		r.keep(execution)
		r.tellOver(claim.ExecutionID, &execution)
	} else {
		r.tellOver(claim.ExecutionID, nil)
	}
	log := r.refresher.log.With("view", claim.View, "execution", claim.ExecutionID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		log.Warn("was refreshed, or not, but its record has been deleted meanwhile")
		return settled, nil
	case errors.Is(err, errHeld):
		log.Warn("is left to the next run", "error", err)
		return settled, nil
	case err != nil:
		return settled, err
	}
	if r.Ended != nil {
		r.Ended(execution)
	}
	r.janitor.hand(ctx, claim, execution)
	if claim.Renamed && claim.ScheduleID != nil && !conn.IsClosed() {
		if err := r.Store.On(conn).FollowRename(context.WithoutCancel(ctx), *claim.ScheduleID); err != nil {
			log.Warn("was renamed, and its schedule still bears the old name", "error", err)
		}
	}
	return settled, nil
}

func (r *run) blocker(execution int64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.active[execution]; a != nil {
		return a.blocker
	}
	return ""
}
