package refresh

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/schedule"
)

// turn is how a slot claims.
type turn struct {
	patient bool // it waits for a view that somebody else refreshes
	settled bool // what it has refreshed before is settled
	first   bool // of its slot
	last    bool // it is told to stop, and takes only what has been claimed already
	renews  bool // it gets another connection when its own is worn
	slots   int  // how many slots it claims for
	since   *schedule.Position
}

// maxLost is how many connections a run may lose while it claims before it is taken to be the server.
const maxLost = 10

// slotEnd is how a slot ended: it found nothing more to claim, or it could not go on.
type slotEnd struct {
	claims int
	worn   bool // its connection has had its time
	err    error
}

// openSlot opens a connection and runs a slot on it, and goes on with another one when that is worn.
func (r *run) openSlot(ctx context.Context) {
	var conn *pgxpool.Conn
	defer func() {
		if bug := recover(); bug != nil {
			if conn != nil {
				conn.Release()
			}
			r.ended <- slotEnd{err: schedule.Bug(bug)}
		}
	}()
	conn, err := r.Pool.Acquire(ctx)
	if err != nil {
		r.shared.stayAway()
		if isTooManyConnections(err) {
			err = errors.Join(ErrTooManyConnections, err)
		}
		r.ended <- slotEnd{err: err}
		return
	}
	end := r.slot(ctx, conn.Conn(), turn{patient: true, first: true, renews: true})
	for end.worn && end.err == nil && ctx.Err() == nil {
		conn = r.renew(ctx, conn)
		before := end.claims
		end = r.slot(ctx, conn.Conn(), turn{patient: true, renews: true})
		end.claims += before
	}
	conn.Release()
	r.ended <- end
}

// renewPatience is how long a slot waits for a new connection while it has one that works.
const renewPatience = time.Second

// renew gets a new connection in the place of a worn one; the same for as many refreshes again where there is none to be had. The worn
// one is closed only then: the place that it leaves with the server could be somebody else's.
func (r *run) renew(ctx context.Context, worn *pgxpool.Conn) *pgxpool.Conn {
	own, cancel := context.WithTimeout(ctx, renewPatience)
	defer cancel()
	fresh, err := r.Pool.Acquire(own)
	if err != nil {
		r.refresher.log.Debug("goes on with a connection that has had its time", "because", err)
		rest(worn.Conn())
		return worn
	}
	closing, done := outlast(ctx, r.late, recordTimeout)
	defer done()
	_ = worn.Conn().Close(closing) // whether the server hears of it or not
	worn.Release()
	return fresh
}

// slot claims and refreshes, one view after the other, until there is nothing to claim or the connection is worn.
func (r *run) slot(ctx context.Context, conn *pgx.Conn, turn turn) (end slotEnd) {
	store := r.Store.On(conn)
	turn.settled = true
	for !conn.IsClosed() && !end.worn {
		turn.last = ctx.Err() != nil
		claims, settled, err := r.claim(r.work, store, turn) //nolint:contextcheck // what has begun goes on when ctx ends, for the grace
		turn.first = false
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
		turn.settled = settled
		if err != nil || len(claims) == 0 {
			end.err = err
			break
		}
		end.claims += len(claims)
		if claims[0].Skipped != "" { // of a group, all are
			if end.err = r.skipped(r.work, store, claims); end.err != nil { //nolint:contextcheck // as above
				break
			}
			continue
		}
		settled, end.err = r.refresh(r.work, conn, claims) //nolint:contextcheck // as above
		turn.settled = turn.settled && settled             // of what was left over, that is not what was refreshed before
		if end.err != nil {
			break
		}
		end.worn = wear(conn, len(claims)) && turn.renews && ctx.Err() == nil // at a stop, what is left over comes first
	}
	if r.work.Err() != nil {
		end.err = nil // the caller knows why it stopped
	}
	if !turn.settled && !conn.IsClosed() {
		// The next claim would have settled the last refresh.
		ctx, cancel := outlast(ctx, r.late, recordTimeout)
		defer cancel()
		end.err = errors.Join(end.err, store.Settle(ctx))
	}
	if end.worn {
		r.wakeForHeld() // as behind a claim
		r.wakeToPlan()
	}
	return end
}

// claim claims for a slot, and for those that want to at the same time where it is all the same who gets what; before that
// it takes what was left over, which nobody else is going to refresh. Settled reports whether what the slot has refreshed
// before is settled now.
func (r *run) claim(ctx context.Context, store *schedule.Store, turn turn) (claims []schedule.Claim, settled bool, err error) {
	if left := r.shared.leftOver(turn.first); len(left) > 0 || turn.last {
		return left, turn.settled, nil
	}
	if r.source.shares() {
		claims, err = r.shared.claim(turn.settled, turn.first, func(slots int, settled bool) ([]schedule.Claim, error) {
			turn.slots, turn.settled = slots, settled
			turn.since = r.floor.Begin(schedule.ClaimMayPass)
			claims, err := r.claimOverControl(ctx, store, turn)
			if err == nil && len(claims) > 0 {
				r.floor.Seen(turn.since, claims[0].FirstDue, claims[0].Passed)
			}
			return claims, err
		})
		if r.shared.hasLeftOver() {
			r.wake()
		}
	} else {
		turn.slots = 1
		claims, err = r.source.claim(ctx, store, turn)
	}
	return claims, turn.settled || err == nil, err
}

// giveUpLeftOver records as cancelled what was claimed for a slot that has lost patience, and what nobody came for, since the
// connection of whoever could have was lost: nobody else knows that it is nobody's.
func (r *run) giveUpLeftOver(ctx context.Context) {
	ctx, cancel := outlast(ctx, r.late, recordTimeout)
	defer cancel()
	for left := r.shared.leftOver(false); len(left) > 0; left = r.shared.leftOver(false) {
		for _, claim := range left {
			execution, err := r.Store.End(ctx, claim, schedule.Ending{Status: schedule.Cancelled, Reason: schedule.ReasonShutdown})
			if err != nil {
				r.refresher.log.Warn("was claimed, and is left to the next run", "view", claim.View, "execution", claim.ExecutionID, "error", err)
				continue
			}
			r.keep(execution)
			r.tellOver(claim.ExecutionID, &execution)
			if r.Ended != nil {
				r.Ended(execution)
			}
		}
	}
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

// skipped tells of executions that ended with their claim.
func (r *run) skipped(ctx context.Context, store *schedule.Store, claims []schedule.Claim) error {
	for _, claim := range claims {
		execution, err := store.Execution(ctx, claim.ExecutionID)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			continue // deleted meanwhile
		case err != nil:
			return err
		}
		r.keep(execution)
		r.tellOver(claim.ExecutionID, &execution)
		if r.Ended != nil {
			r.Ended(execution)
		}
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

// wakeForHeld wakes the control loop where due views wait for other ones, or have just been made due: there may be work for more slots.
func (r *run) wakeForHeld() {
	if r.holds() || r.madeDue.Load() {
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

// othersAreDue is told that the end of a refresh has made other views due: its slot takes one of them, and for the rest it
// is looked soon.
func (r *run) othersAreDue(since time.Time) {
	r.floor.Lower(since)
	r.madeDue.Store(true)
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

// refresh refreshes one claimed view, or all of a group, and tells who wants to know. It reports whether their end has been
// settled.
func (r *run) refresh(ctx context.Context, conn *pgx.Conn, claims []schedule.Claim) (settled bool, err error) {
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, claim := range claims {
		r.mu.Lock()
		r.active[claim.ExecutionID] = &activeRefresh{claim: claim, since: time.Now(), cancel: cancel}
		r.mu.Unlock()
		if r.Started != nil {
			r.Started(claim)
		}
		r.janitor.giveWay(claim.OID)
	}

	outcomes, settled := r.refresher.refreshAll(own, conn, claims)

	for i, claim := range claims {
		r.mu.Lock()
		delete(r.active, claim.ExecutionID)
		r.mu.Unlock()
		err = cmp.Or(err, r.over(ctx, conn, claim, outcomes[i].execution, outcomes[i].err))
	}
	return settled, err
}

// over tells how the refresh of one view has ended. The error is one that the slot cannot go on with.
func (r *run) over(ctx context.Context, conn *pgx.Conn, claim schedule.Claim, execution schedule.Execution, err error) error {
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
		return nil
	case errors.Is(err, errHeld):
		log.Warn("is left to the next run", "error", err)
		return nil
	case err != nil:
		return err
	}
	if r.Ended != nil {
		r.Ended(execution)
	}
	r.janitor.hand(ctx, claim, execution)
	if claim.Renamed && claim.ScheduleID != nil && !conn.IsClosed() {
		ctx, cancel := outlast(ctx, r.late, recordTimeout)
		defer cancel()
		if err := r.Store.On(conn).FollowRename(ctx, *claim.ScheduleID); err != nil {
			log.Warn("was renamed, and its schedule still bears the old name", "error", err)
		}
	}
	return nil
}

// progressed tells how far a drain has come. From the first batch on, others may help with it.
func (r *run) progressed(claim schedule.Claim, progress schedule.Progress) {
	if r.Progressed != nil {
		r.Progressed(progress)
	}
	if claim.Lane == 0 && claim.Lanes > 1 && progress.Batches == 1 {
		r.wake()
	}
}

func (r *run) blocker(execution int64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.active[execution]; a != nil {
		return a.blocker
	}
	return ""
}
