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
	if len(active) == 0 || r.conn == nil || r.conn.Conn().IsClosed() {
		return
	}
	requests, blockers, err := r.Store.On(r.conn).Watch(ctx, active, waiting)
	if err != nil {
		r.refresher.log.Debug("watching refreshes", "error", err)
		return
	}
	r.noteBlockers(blockers)
	r.cancelRequested(ctx, requests)
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
func (r *run) cancelRequested(ctx context.Context, requests []schedule.CancelRequest) {
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
	if err := r.Store.On(r.conn).AcknowledgeCancel(ctx, taken); err != nil {
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

// pruneBehind trims the history of a server, beside everything else, and at most once in an hour: where a right is
// missing, it goes on being due.
func (r *run) pruneBehind(ctx context.Context) {
	if time.Since(r.pruned) < time.Hour {
		return
	}
	r.pruned = time.Now()
	r.janitor.done.Go(func() { r.prune(ctx) })
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
