package refresh

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

	// Progressed, when given, is told after every batch of a drain, from several goroutines.
	Progressed func(schedule.Progress)
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
	if err == nil {
		r.keepUp(ctx, r.upkeep)
	}
	return r.result(ctx, err)
}

// Options are what a refresh by hand may differ in from a schedule's.
type Options struct {
	Settings  schedule.Settings // override those of the views' schedules
	Ancestors bool              // first refresh what the views read
	Whole     bool              // all rows of a merge table, not only those in its window
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
	groups, err := w.joinGroups(ctx, ordered, above)
	if err != nil {
		return nil, err
	}
	r := w.newRun(ctx, &namedViews{
		worker: w, settings: options.Settings, force: options.Force, whole: options.Whole,
		views: ordered, above: above, groups: groups, busy: map[string]bool{}, taken: map[int64]string{}, ended: map[string]bool{}, failed: map[string]string{},
	})
	return r.result(ctx, r.once(ctx))
}

// joinGroups finds the groups of the views. What one of a group waits for, all of it do; for one another they do not wait, nor for
// what itself waits for one of them.
func (w *Worker) joinGroups(ctx context.Context, views []string, above map[string][]string) (map[string]string, error) {
	groups, alone := map[string]string{}, maps.Clone(above)
	for _, view := range views {
		name, err := schedule.ParseViewName(view)
		if err != nil {
			return nil, err
		}
		group, members, err := w.Store.Group(ctx, name)
		if err != nil {
			return nil, err
		}
		if len(members) < 2 {
			continue
		}
		groups[view] = group
		within := func(v string) bool { return slices.Contains(members, v) }
		above[view] = nil
		for _, member := range members {
			above[view] = append(above[view], alone[member]...)
		}
		above[view] = slices.DeleteFunc(above[view], func(ancestor string) bool {
			return within(ancestor) || slices.ContainsFunc(alone[ancestor], within)
		})
	}
	return groups, nil
}

// source is where the claims come from.
type source interface {
	// ready says after a look at the schedules what to do next.
	ready(outlook schedule.Outlook) next

	// look says what the source wants to know of the schedules.
	look() schedule.TendOptions

	// shares reports whether a slot may get what another one has claimed for it.
	shares() bool

	// claim takes the next view, or a group of views, and where slots share, one for each; none when there is none, or,
	// without patience, none that nobody else is at.
	claim(ctx context.Context, store *schedule.Store, turn turn) ([]schedule.Claim, error)

	// over is told that a claimed execution has ended, and how; nil: its record could not be had. It reports whether
	// that may have made others ready.
	over(id int64, execution *schedule.Execution) (progress bool)
}

// run is one call of a worker: a control loop on a connection of its own, and up to Jobs slots that each refresh on theirs;
// those that claim at the same time do so together, over the control loop's while that is free. So neither claim nor rescue
// nor record waits behind a refresh.
type run struct {
	*Worker
	work       context.Context // of the refreshes; ends after the one of the claims where there is a grace
	late       context.Context // of what is to be done behind them, whatever has ended them; ends a little after work
	close      func()
	source     source
	shared     *sharedClaims
	floor      schedule.Floor // of its looks and claims
	places     atomic.Int64   // so many slots there may be
	refresher  refresher
	janitor    *janitor
	endless    bool // it is a server's: it goes on until it is told to stop, for better and for worse
	conn       controlConn
	watch      *time.Ticker
	upkeep     upkeep
	passedOver bool      // the last look began at a floor
	blind      bool      // it was said that the last look went wrong
	pruned     time.Time // when the history was trimmed behind this run
	compacted  time.Time // when it was tried to compact the schedules, the same way
	ended      chan slotEnd
	failed     []slotEnd     // those that came during a look at the schedules; they count as open until they are seen to
	progress   chan struct{} // a refresh has ended that other views may have waited for, or something else calls for a look
	requests   chan struct{} // somebody may want a refresh cancelled
	looked     moment        // when the control loop last looked at the schedules
	madeDue    atomic.Bool   // since then, the end of a refresh has made others due, of which its slot takes one
	expected   moment        // when it is stuck should it not have taken another turn

	mu         sync.Mutex
	held       bool // something due waits for other views
	lost       int  // connections lost while claiming
	executions []schedule.Execution
	active     map[int64]*activeRefresh
}

type activeRefresh struct {
	claim   schedule.Claim
	since   time.Time
	blocker string
	cancel  context.CancelCauseFunc
}

// moment is a time that several goroutines share. It keeps what a number of nanoseconds would lose: how far away it is does not change
// when somebody sets the machine's clock.
type moment struct{ atomic.Value }

func (m *moment) store(at time.Time) { m.Store(at) }

func (m *moment) load() time.Time {
	at, _ := m.Load().(time.Time)
	return at
}

// once runs to the end of what there is to do.
func (r *run) once(ctx context.Context) error {
	defer r.close()
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
	late, cancel := afterGrace(work, latePatience)
	r := &run{
		Worker: w, work: work, late: late, source: source, shared: newSharedClaims(), ended: make(chan slotEnd), progress: make(chan struct{}, 1),
		requests: make(chan struct{}, 1), active: map[int64]*activeRefresh{},
		janitor: newJanitor(late, w, log), watch: time.NewTicker(watchInterval),
	}
	r.close = func() {
		r.watch.Stop()
		cancel()
	}
	r.refresher = refresher{
		store: w.Store, log: log, late: late, blocker: r.blocker, madeDue: r.othersAreDue,
		progress: r.progressed,
	}
	return r
}
