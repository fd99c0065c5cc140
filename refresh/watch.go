package refresh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// lookAfterActive looks, while refreshes are under way, which of them are to be cancelled, and who stands in the way of
// those that may be waiting for a lock: after the wait there is nothing to see.
func (r *run) lookAfterActive(ctx context.Context) {
	r.mu.Lock()
	var active, waiting []int64
	for id, a := range r.active {
		active = append(active, id)
		// Of a group it is not known when the turn of each comes.
		if a.claim.Group != "" || time.Since(a.since) < lockTimeout(a.claim, a.claim.Choice().Method)+time.Second {
			waiting = append(waiting, id)
		}
	}
	r.mu.Unlock()
	if len(active) == 0 {
		return
	}
	conn, giveBack, left := r.conn.take(ctx)
	if left {
		r.refresher.log.Debug("the control loop leaves its connection to a claim that takes long")
		r.wake() // the next look takes another one
	}
	if conn == nil {
		return
	}
	defer giveBack()
	store := r.Store.On(conn)
	requests, blockers, err := store.Watch(ctx, active, waiting)
	if err != nil {
		r.refresher.log.Debug("watching refreshes", "error", err)
		return
	}
	r.noteBlockers(blockers)
	r.cancelRequested(ctx, store, requests)
}

func (r *run) noteBlockers(blockers []schedule.Blocker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range blockers {
		if a := r.active[b.ExecutionID]; a != nil {
			a.blocker = fmt.Sprintf("held by pid %d (user %s)", b.PID, cmp.Or(b.User, "unknown"))
			if b.Query != "" {
				a.blocker += ": " + withoutLiterals(b.Query)
			}
			if b.PID == 0 {
				a.blocker = "held by a prepared transaction (see pg_prepared_xacts)"
			}
		}
	}
}

// requestedError is the cause of a refresh's context that somebody asked to end.
type requestedError struct{ message string }

func (e *requestedError) Error() string { return e.message }

// cancelRequested cancels the refreshes that somebody asked to end, each by its own context.
func (r *run) cancelRequested(ctx context.Context, store *schedule.Store, requests []schedule.CancelRequest) {
	if len(requests) == 0 {
		return
	}
	var taken []int64
	r.mu.Lock()
	for _, request := range requests {
		if a := r.active[request.ExecutionID]; a != nil {
			a.cancel(&requestedError{request.Message})
			taken = append(taken, request.ExecutionID)
		}
	}
	r.mu.Unlock()
	if err := store.AcknowledgeCancel(ctx, taken); err != nil {
		r.refresher.log.Warn("cancels a refresh, and cannot say so to who asked", "error", err)
	}
}

// stopped says how a refresh is recorded whose context has ended: somebody asked, or the worker was told to stop.
func stopped(ctx context.Context, ending schedule.Ending) schedule.Ending {
	ending.Status, ending.Reason = schedule.Cancelled, schedule.ReasonShutdown
	var requested *requestedError
	if errors.As(context.Cause(ctx), &requested) {
		ending.Reason, ending.ErrorMessage = schedule.ReasonRequested, requested.message
	}
	return ending
}

// How much of the history a run may trim behind its work: its exit must not wait for more.
const (
	pruneBatches = 3
	pruneTime    = time.Second
)

// compactInterval is how often a server tries to compact the schedules: where it cannot, an open transaction is mostly in the
// way, and then the next VACUUM has to come first.
const compactInterval = 5 * time.Minute

// upkeep is what mvsched's own tables need, as the last look has found.
type upkeep struct {
	prune, compact bool
}

// keepUpBehind does what is to be done for a server's own tables, beside everything else; it trims at most once in an hour: where
// a right is missing, that goes on being due.
func (r *run) keepUpBehind(ctx context.Context) {
	now := upkeep{
		prune:   r.upkeep.prune && time.Since(r.pruned) >= time.Hour,
		compact: r.upkeep.compact && time.Since(r.compacted) >= compactInterval,
	}
	if now.prune {
		r.pruned = time.Now()
	}
	if now.compact {
		r.compacted = time.Now()
	}
	if now.prune || now.compact {
		r.janitor.done.Go(func() { r.keepUp(ctx, now) })
	}
}

// keepUp does it. Whatever goes wrong is left to the next run.
func (r *run) keepUp(ctx context.Context, now upkeep) {
	if now.prune {
		r.prune(ctx)
	}
	if now.compact {
		if err := r.Store.Compact(ctx); err != nil && ctx.Err() == nil {
			r.refresher.log.Warn("the schedules' table is left as long as it is", "error", err)
		}
	}
}

// prune trims the history when that is due. Whatever goes wrong is left to the next run.
func (r *run) prune(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pruneTime)
	defer cancel()
	deleted, err := r.Store.Prune(ctx, pruneBatches)
	switch {
	case err != nil && ctx.Err() == nil:
		r.refresher.log.Warn("the history is not trimmed", "error", err)
	default:
		r.refresher.log.Debug("trimmed the history", "rows", deleted)
	}
}
