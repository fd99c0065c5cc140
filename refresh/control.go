package refresh

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// next is what a control loop does after a look at the schedules.
type next struct {
	claims int           // so many can begin now
	slots  []time.Time   // then one more can, each time, without another look
	look   time.Duration // after that time it looks again; 0: nothing is left but what is running
	grace  time.Time     // of a claim that has not begun: then it is to be given up; zero: there is none
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
		if ctx.Err() != nil || !r.endless {
			r.giveUpLeftOver(ctx)
		}
		r.conn.release()
	}()

	// One connection is the control loop's own. A slot that finds none free leaves the work to those that have one.
	maxSlots := min(max(r.Jobs, 1), int(r.Pool.Config().MaxConns)-1)
	full := maxSlots
	var arranged, limited time.Time
	var next next
	for ctx.Err() == nil {
		r.looked.store(time.Now())
		r.expected.store(time.Now().Add(stuckAfter))
		if r.endless && time.Since(limited) > connectionPatience {
			maxSlots = full
		}
		r.places.Store(int64(maxSlots))
		outlook, err := r.lookAround(ctx, &next, &slots, maxSlots)
		if err == nil && outlook.Held && (arranged.IsZero() || time.Since(arranged) > arrangeInterval) {
			// The order matters: the longest chain first, by what the last runs took.
			err = r.arrange(ctx)
			arranged = time.Now()
		}
		if err != nil && slots == 0 {
			return err
		}
		r.logLook(err)
		if r.endless {
			r.keepUpBehind(ctx)
		}
		next = r.source.ready(outlook)
		if r.shared.hasLeftOver() {
			next.claims = max(next.claims, 1)
		}
		if outlook.Unbegun != nil {
			next.grace = time.Now().Add(max(*outlook.Unbegun+wakeInterval, wakeInterval))
		}
		if r.endless && r.passedOver { // what it has not seen is nothing that it can sleep until
			next.look = min(next.look, max(r.floor.Left(), wakeInterval))
		}
		switch {
		case next.claims > 0 && maxSlots == 0:
			end := r.slotOverControl(ctx)
			if end.err != nil {
				return end.err
			}
			if end.claims == 0 {
				pause(ctx, unbegunInterval)
			}
			continue
		case next.claims == 0 && slots == 0 && next.look == 0 && r.passedOver:
			r.floor.Drop() // nothing is left only when nothing was passed over
			continue
		case next.claims == 0 && slots == 0 && next.look == 0:
			return nil
		}
		r.openSlots(ctx, min(next.claims, maxSlots-slots), &slots)

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

// aloneFor is longer than any refreshes take.
const aloneFor = 10 * 365 * 24 * time.Hour

// slotOverControl claims and refreshes over the control connection, the only one that is left.
func (r *run) slotOverControl(ctx context.Context) slotEnd {
	conn, giveBack, err := r.conn.connect(ctx, r.Pool)
	if err != nil {
		return slotEnd{err: err}
	}
	defer giveBack()
	r.expected.store(time.Now().Add(aloneFor)) // a refresh has its own time limit, and the next turn comes behind it
	return r.slot(ctx, conn, turn{})
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
	if *slots > 0 && !next.grace.IsZero() {
		// A grace is as long as the time between two such looks, at least: so each ends under somebody's eyes.
		look = earlier(look, next.grace)
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
			r.openNext(ctx, next, slots, maxSlots)
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

// openNext opens slots for what is known to become due, and is.
func (r *run) openNext(ctx context.Context, next *next, slots *int, maxSlots int) {
	due := 1
	for due < min(len(next.slots), maxSlots-*slots) && !next.slots[due].After(time.Now()) {
		due++
	}
	next.slots = next.slots[due:]
	r.openSlots(ctx, due, slots)
}

// openSlots opens so many slots, which are going to claim together.
func (r *run) openSlots(ctx context.Context, n int, slots *int) {
	r.shared.expect(max(n, 0))
	for range n {
		*slots++
		go r.openSlot(ctx)
	}
}

// forgetPast forgets what became due while all slots were at it: those have claimed it.
func (n *next) forgetPast() {
	n.slots = slices.DeleteFunc(n.slots, func(at time.Time) bool { return time.Since(at) > wakeInterval })
}

// logLook tells once that a look went wrong while refreshes go on, which are not ended for it.
func (r *run) logLook(err error) {
	switch {
	case err != nil && r.blind:
		r.refresher.log.Debug("the schedules still cannot be looked after", "because", err)
	case err != nil:
		r.refresher.log.Warn("cannot look after the schedules; what runs goes on", "because", err)
	}
	r.blind = err != nil
}

// lookAround tends the schedules. Nobody has to wait for that: it may take a while where many schedules wait for changes,
// and meanwhile slots open for what becomes due, as far as the look before has seen it coming.
func (r *run) lookAround(ctx context.Context, next *next, slots *int, maxSlots int) (outlook schedule.Outlook, err error) {
	r.madeDue.Store(false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = schedule.Guarded(func() (err error) {
			outlook, err = r.tend(ctx)
			return err
		})
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
			r.openNext(ctx, next, slots, maxSlots)
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
	looked := r.looked.load()
	if r.holds() || r.madeDue.Load() {
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

// lookMayPass is what a look may pass; less in a test.
var lookMayPass int64 = schedule.LookMayPass

// tend looks after the schedules on the control connection. When that is lost, it tries once more on another one.
func (r *run) tend(ctx context.Context) (outlook schedule.Outlook, err error) {
	lost := true
	for tries := 0; tries < 2 && lost; tries++ {
		outlook, lost, err = r.look(ctx)
	}
	if err != nil {
		return schedule.Outlook{}, err
	}
	r.mu.Lock()
	r.held = outlook.Held
	r.mu.Unlock()
	r.upkeep = upkeep{prune: outlook.PruneDue, compact: outlook.Scattered}
	for _, e := range outlook.Abandoned {
		r.refresher.log.Warn("found a run whose worker is gone", "view", e.View, "execution", e.ID, "reason", *e.Reason)
	}
	for _, s := range outlook.Suspended {
		r.refresher.log.Warn("is suspended: it cannot be planned", "view", s.View, "reason", s.Reason)
	}
	for _, m := range outlook.Moved {
		if m.Found { // otherwise its run says so
			r.refresher.log.Warn(movedMessage(m), "view", m.View)
		}
	}
	return outlook, nil
}

// look looks once, and reports whether the connection was lost with that.
func (r *run) look(ctx context.Context) (outlook schedule.Outlook, lost bool, err error) {
	conn, giveBack, err := r.conn.connect(ctx, r.Pool)
	if err != nil {
		return outlook, false, err
	}
	defer giveBack()
	options := r.source.look()
	options.Since = r.floor.Begin(lookMayPass)
	r.passedOver, r.upkeep = options.Since != nil, upkeep{}
	outlook, err = r.Store.On(conn).Tend(ctx, options)
	if err != nil {
		return outlook, conn.IsClosed(), err
	}
	r.floor.Seen(options.Since, outlook.FirstDue, outlook.Passed)
	if outlook.MadeDue != nil {
		r.floor.Lower(*outlook.MadeDue)
	}
	return outlook, false, nil
}

// arrange works out the order of what is due.
func (r *run) arrange(ctx context.Context) error {
	conn, giveBack, err := r.conn.connect(ctx, r.Pool)
	if err != nil {
		return err
	}
	defer giveBack()
	return r.Store.On(conn).Arrange(ctx)
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
	r.expected.store(until.Add(stuckAfter))
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
