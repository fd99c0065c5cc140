package web

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

const (
	// While somebody looks: how often without being told of a change, so that what only time changes, and what begins, is
	// seen; and how often where one is never told.
	idleInterval = 5 * time.Second
	pollInterval = time.Second

	// Between the end of one look and the begin of the next, whoever wants what: so in no T seconds are there more than T+1.
	paceInterval = time.Second

	freshFor     = time.Second     // how old an edition may be that answers a request
	patience     = 2 * time.Second // how long a request waits for one
	lookDeadline = 5 * time.Second
)

// feeder asks the database for everybody.
type feeder struct {
	look   func(ctx context.Context, before *schedule.Snapshot) (schedule.Snapshot, error)
	render func(*edition)
	log    *slog.Logger
	wake   chan struct{}
	flashy chan struct{} // an ending is to be told of

	mu       sync.Mutex
	current  *edition      // nil: none yet
	flash    *frame        // what has ended behind it; nil: nothing
	next     chan struct{} // closed when another one of either takes its place
	watchers int
	asked    bool      // somebody waits for an edition
	told     bool      // something has changed
	hears    bool      // if more happens, it will be told
	looked   time.Time // when the last look ended
	endings  map[string]schedule.End
}

func newFeeder(log *slog.Logger) *feeder {
	return &feeder{
		log: log, wake: make(chan struct{}, 1), flashy: make(chan struct{}, 1), next: make(chan struct{}),
		endings: map[string]schedule.End{},
	}
}

// run looks until ctx ends. The first look reads a whole day, and is not left to the first who comes.
func (f *feeder) run(ctx context.Context) {
	f.ask()
	for {
		timer := time.NewTimer(f.untilNext())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-f.wake:
		case <-timer.C:
		}
		timer.Stop()
		if f.untilNext() > 0 {
			continue
		}
		ed := f.lookOnce(ctx)
		if ctx.Err() != nil {
			return // whatever broke, broke because of it
		}
		f.publish(ed)
	}
}

// untilNext is how long from now the next look is due.
func (f *feeder) untilNext() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	interval := pollInterval
	switch {
	case f.asked || f.watchers > 0 && (f.told || f.current == nil):
		interval = paceInterval
	case f.watchers == 0:
		return time.Hour // nobody looks
	case f.hears && f.current.err == nil:
		interval = idleInterval
	}
	return time.Until(f.looked.Add(interval))
}

func (f *feeder) lookOnce(ctx context.Context) *edition {
	f.mu.Lock()
	f.asked, f.told = false, false
	last := f.current
	f.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, lookDeadline)
	defer cancel()
	ed := &edition{}
	var before *schedule.Snapshot
	if last != nil && last.err == nil { // behind an error there may be another server
		before = last.snap
	}
	snap, err := f.look(ctx, before)
	switch {
	case err == nil:
		ed.snap = &snap
	case last != nil:
		ed.snap = last.snap
	}
	ed.err, ed.taken = err, time.Now()
	f.render(ed)
	return ed
}

func (f *feeder) logChange(last, ed *edition) {
	failed := last != nil && last.err != nil
	switch {
	case ed.err != nil && failed:
		f.log.Debug("the status page still cannot be brought up to date", "because", ed.err)
	case ed.err != nil:
		f.log.Warn("the status page cannot be brought up to date", "because", ed.err)
	case failed:
		f.log.Debug("the status page is up to date again")
	}
}

func (f *feeder) publish(ed *edition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logChange(f.current, ed)
	f.current, f.looked = ed, time.Now()
	f.forgetSeen()
	f.turnOver()
}

// turnOver has everybody who waits look again.
func (f *feeder) turnOver() {
	close(f.next)
	f.next = make(chan struct{})
}

// now returns the newest edition, what has ended behind it (either may be nil), and what is closed when there is something
// newer.
func (f *feeder) now() (*edition, *frame, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current, f.flash, f.next
}

// fresh returns an edition of this second, and waits a little for it. It returns nil when none came.
func (f *feeder) fresh(ctx context.Context) *edition {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		ed, _, next := f.now()
		if ed != nil && time.Since(ed.taken) < freshFor {
			return ed
		}
		f.ask()
		select {
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
}

// recent returns the last edition where it is good and as old as somebody who follows may see it. Where it is not of this
// second it asks for the next one. It returns nil for no such edition.
func (f *feeder) recent() *edition {
	ed, _, _ := f.now()
	if ed == nil || ed.err != nil || time.Since(ed.taken) > idleInterval {
		return nil
	}
	if time.Since(ed.taken) >= freshFor {
		f.ask()
	}
	return ed
}

// ask has the feeder look as soon as it may.
func (f *feeder) ask() {
	f.mu.Lock()
	f.asked = true
	f.mu.Unlock()
	f.nudge()
}

// outdated is an edition in place of one that did not come in time.
func (f *feeder) outdated() *edition {
	ed := &edition{taken: time.Now(), err: errNotNow}
	if last, _, _ := f.now(); last != nil {
		ed.snap = last.snap
	}
	return ed
}

// tell is told that something has changed, perhaps which execution has ended, and whether more would be told.
func (f *feeder) tell(hears bool, ended *schedule.End) {
	f.mu.Lock()
	f.told, f.hears = true, hears
	f.mu.Unlock()
	f.nudge()
	if ended != nil {
		f.note(*ended)
	}
}

// watch makes the feeder look by itself as long as there are watchers; false: there are enough of them.
func (f *feeder) watch() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers >= maxWatchers {
		return false
	}
	f.watchers++
	f.nudge()
	return true
}

func (f *feeder) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watchers--
}

func (f *feeder) nudge() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}
