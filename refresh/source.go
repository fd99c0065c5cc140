package refresh

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// dueViews claims what was due at its first look, up to the worker's limit.
type dueViews struct {
	worker *Worker

	mu      sync.Mutex
	began   *time.Time // by the database's clock
	claimed int
	vain    vain
	waiting time.Time // since when there is nothing to do but wait for other views
	held    time.Time // when it was last decided to try once more what was in other hands
	planned patience  // with what other workers plan, who may not serve the queue
	begun   patience  // with what they have claimed and not begun, which is to be given up
}

// vainLooks is how many looks in a row may find something due of which nobody can claim anything, before what is left is
// taken to be in somebody else's hands. A single one says little: a claim passes over what another slot, or the control loop, is
// settling that moment.
const vainLooks = 4

// vain counts such looks. It does not count claims: several slots claim at once, and are answered at once.
type vain struct {
	looks int
	empty bool // so was a claim since the last look
}

func (v *vain) claimed(claims int) {
	if claims > 0 {
		*v = vain{}
		return
	}
	v.empty = true
}

// looked reports whether it is worthwhile to claim what a look has found due.
func (v *vain) looked(outlook schedule.Outlook) bool {
	switch {
	case outlook.Due == 0 || len(outlook.Abandoned) > 0: // the last claim before there was nothing left is no sign of anything
		*v = vain{}
	case v.empty:
		v.looks++
		v.empty = false
	}
	return outlook.Due > 0 && v.looks < vainLooks
}

// onceMore has the next look claim, and only that one.
func (v *vain) onceMore() { v.looks = vainLooks - 1 }

// How long to wait between two looks at what waits for other views, which may be in other workers' hands: a twentieth of
// the time it has been waiting, within these.
const (
	waitAtLeast = 20 * time.Millisecond
	waitAtMost  = time.Second
)

// waitForOthers bounds how long a run without anything to do of its own waits for refreshes of other workers. Whoever
// runs them goes on with what has waited for them; and a crontab that starts a run every minute must not pile them up
// behind a refresh of an hour.
const waitForOthers = time.Minute

func (d *dueViews) ready(outlook schedule.Outlook) (next next) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.began == nil && !outlook.Now.IsZero() {
		d.began = &outlook.Now
	}
	claimable := d.vain.looked(outlook)
	if d.spent() {
		return next
	}
	planned, begun := d.planned.with(outlook.Unplanned, 0), d.begun.with(outlook.Unbegun != nil, value(outlook.Unbegun))
	if claimable {
		next.claims, next.look = outlook.Due, unbegunInterval
		return next
	}
	if outlook.Due > 0 && time.Since(d.held) >= rescueInterval { // should something run until there is another look
		d.held = time.Now()
		d.vain.onceMore()
	}
	switch {
	case planned:
		next.look = waitAtLeast
	case begun:
		next.look = unbegunInterval
	}
	if outlook.Waiting || outlook.LookAgain != nil {
		if d.waiting.IsZero() {
			d.waiting = time.Now()
		}
		if outlook.LookAgain == nil && time.Since(d.waiting) > waitForOthers {
			return next
		}
		next.look = min(max(time.Since(d.waiting)/20, waitAtLeast), waitAtMost)
		d.vain = vain{} // what is being waited for may become claimable
	}
	if !outlook.Waiting && outlook.LookAgain != nil {
		next.look = min(max(*outlook.LookAgain, waitAtLeast), waitAtMost)
	}
	return next
}

// patience is until when a run waits for something of other workers; zero while there is no such thing. Behind one that is at it
// for hours, runs must not pile up.
type patience struct{ until time.Time }

// aLook is how long a look at the schedules takes.
const aLook = time.Second

// with reports whether it is still waited for what a look has seen, or not seen, and which should be over then.
func (p *patience) with(seen bool, over time.Duration) bool {
	switch {
	case !seen:
		p.until = time.Time{}
	case p.until.IsZero():
		p.until = time.Now().Add(over + aLook)
	}
	return time.Now().Before(p.until)
}

func value(d *time.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return *d
}

func (d *dueViews) look() schedule.TendOptions {
	d.mu.Lock()
	defer d.mu.Unlock()
	return schedule.TendOptions{Round: d.began, Queues: d.worker.Queues, Limit: max(d.worker.Jobs, 1), Look: d.began == nil}
}

func (d *dueViews) spent() bool { return d.worker.Limit > 0 && d.claimed >= d.worker.Limit }

func (d *dueViews) shares() bool { return true }

func (d *dueViews) claim(ctx context.Context, store *schedule.Store, turn turn) ([]schedule.Claim, error) {
	// Counted before it is known to succeed: slots that claim at the same time must not pass the limit together.
	d.mu.Lock()
	if d.spent() {
		d.mu.Unlock()
		return nil, nil
	}
	if d.worker.Limit > 0 {
		turn.slots = min(turn.slots, d.worker.Limit-d.claimed)
	}
	d.claimed += turn.slots
	options := schedule.ClaimOptions{
		Worker: d.worker.Name, Limit: turn.slots, Queues: d.worker.Queues, Round: d.began, Usual: d.worker.Usual, Settled: turn.settled, Since: turn.since,
	}
	d.mu.Unlock()

	claims, err := store.Claim(ctx, options)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.claimed += len(claims) - turn.slots
	if err != nil {
		return nil, err // which tells nothing of what is due
	}
	d.vain.claimed(len(claims))
	if len(claims) > 0 {
		d.waiting = time.Time{}
	}
	return claims, nil
}

// over has nothing to tell: the database knows what an end is good for.
func (d *dueViews) over(int64, *schedule.Execution) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = time.Time{} // until now there was something to do
	return false
}

// namedViews claims the given views, each once, and each after those among them that it reads.
type namedViews struct {
	worker   *Worker
	settings schedule.Settings
	force    bool
	whole    bool
	above    map[string][]string // of each view, its ancestors among them

	mu     sync.Mutex
	views  []string          // not taken yet, each after its ancestors
	groups map[string]string // those that are refreshed with others
	busy   map[string]bool   // groups that a slot is claiming
	taken  map[int64]string  // by execution; a view may be renamed meanwhile
	ended  map[string]bool   // have ended
	failed map[string]string // have failed, or been skipped for one that has: which one that was
}

func (n *namedViews) ready(schedule.Outlook) (next next) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, view := range n.views {
		if n.free(view) {
			next.claims++
		}
	}
	return next
}

func (n *namedViews) look() schedule.TendOptions { return schedule.TendOptions{} }

// free reports whether a view waits for no other one, and no slot is claiming its group.
func (n *namedViews) free(view string) bool {
	return !n.busy[n.groups[view]] && !slices.ContainsFunc(n.above[view], func(ancestor string) bool { return !n.ended[ancestor] })
}

// take returns the next view that waits for no other one, and which of its ancestors has failed; "" for none. Who takes one of a group
// is claiming all of it.
func (n *namedViews) take() (view, group, failed string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.views, n.free)
	if i < 0 {
		return "", "", ""
	}
	view = n.views[i]
	n.views = slices.Delete(n.views, i, i+1)
	for _, ancestor := range n.above[view] {
		if n.failed[ancestor] != "" {
			failed = n.failed[ancestor]
		}
	}
	if group = n.groups[view]; group != "" {
		n.busy[group] = true
	}
	return view, group, failed
}

// left is told that a group is not being claimed any more.
func (n *namedViews) left(group string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.busy, group)
}

// shares: who waits for a view holds nobody else up.
func (n *namedViews) shares() bool { return false }

func (n *namedViews) claim(ctx context.Context, store *schedule.Store, turn turn) ([]schedule.Claim, error) {
	view, group, failed := n.take()
	if view == "" {
		return nil, nil
	}
	defer n.left(group)
	name, err := schedule.ParseViewName(view)
	if err != nil {
		return nil, err
	}
	options := schedule.ClaimOptions{Worker: n.worker.Name, Usual: n.worker.Usual, Force: n.force, Whole: n.whole}
	if failed != "" {
		execution, err := store.SkipView(ctx, name, failed, options)
		if err != nil {
			n.putBack(view)
			return nil, err
		}
		n.took(execution.ID, view)
		return []schedule.Claim{{ExecutionID: execution.ID, View: view, Skipped: *execution.Reason}}, nil
	}
	for {
		claims, err := n.claimNow(ctx, store, name, group, options)
		if err != nil {
			n.putBack(view)
			return nil, err
		}
		if len(claims) == 1 {
			n.took(claims[0].ExecutionID, view)
		} else if len(claims) > 1 {
			n.tookGroup(claims)
		}
		if len(claims) > 0 {
			return claims, nil
		}
		// Somebody else refreshes it. The control loop meanwhile finds out should that one be dead.
		if !turn.patient {
			n.putBack(view)
			return nil, nil // nothing that nobody is at
		}
		pause(ctx, busyInterval)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if group != "" { // it may not be one any more
			if group, err = groupOf(ctx, store, name); err != nil {
				n.putBack(view)
				return nil, err
			}
		}
	}
}

// groupOf is the group that a view is refreshed with; "": it is refreshed by itself.
func groupOf(ctx context.Context, store *schedule.Store, view schedule.ViewName) (string, error) {
	group, members, err := store.Group(ctx, view)
	if len(members) < 2 {
		group = ""
	}
	return group, err
}

// claimNow claims a view, with its group if it has one; none when somebody is at it.
func (n *namedViews) claimNow(ctx context.Context, store *schedule.Store, view schedule.ViewName, group string, options schedule.ClaimOptions) (
	[]schedule.Claim, error,
) {
	if group != "" {
		return store.ClaimGroup(ctx, group, n.settings, options)
	}
	claim, err := store.ClaimView(ctx, view, n.settings, options)
	if claim == nil {
		return nil, err
	}
	return []schedule.Claim{*claim}, err
}

// tookGroup notes that views have been claimed together, those that were to come later too.
func (n *namedViews) tookGroup(claims []schedule.Claim) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, claim := range claims {
		n.taken[claim.ExecutionID] = claim.View
		n.views = slices.DeleteFunc(n.views, func(view string) bool { return view == claim.View })
	}
}

// putBack leaves a view for later.
func (n *namedViews) putBack(view string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.views = append(n.views, view)
}

func (n *namedViews) took(execution int64, view string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken[execution] = view
}

// over notes how a view ended; others may have waited for it.
func (n *namedViews) over(id int64, execution *schedule.Execution) (progress bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	claimed := n.taken[id]
	n.ended[claimed] = true
	switch {
	case execution == nil:
	case execution.Status.Bad():
		n.failed[claimed] = execution.View
	case execution.Reason != nil && *execution.Reason == schedule.ReasonGroupFailed:
		n.failed[claimed] = execution.View
	case execution.Reason != nil && *execution.Reason == schedule.ReasonUpstreamFailed:
		for _, ancestor := range n.above[claimed] {
			if n.failed[ancestor] != "" {
				n.failed[claimed] = n.failed[ancestor]
			}
		}
	}
	return true
}
