// Package alert tells people and programs when a view is not well any more, and when it is again.
//
// What is to be told is in the database (schedule.Store.LookForAlerts): it survives a restart, and of several processes
// one tells it. What this package adds is when to look, and how to tell. It does so at its own pace, beside the refreshes
// and with a deadline for everything, so that nothing waits for a receiver that is slow or dead.
//
// A receiver gets an alert at least once: when its answer is lost, it gets it again, with the same id.
package alert

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

const (
	// DefaultInterval is how long a change that no refresh brings about, such as data that gets too old, may go unseen.
	DefaultInterval = 30 * time.Second

	// A refresh that ends badly is looked at soon, but after its end has been counted; and one look will do for many.
	settles = time.Second

	stopPatience = 3 * time.Second // to write down who tells and what was told, when the process has been told to stop
)

// Alerter looks how views stand, and tells its hooks of changes.
type Alerter struct {
	Store    *schedule.Store
	Log      *slog.Logger
	Hooks    []*Hook
	Interval time.Duration // from look to look
}

// Run tells hooks until ctx ends. The only error is a bug (schedule.ErrBug), which ends it.
func (a *Alerter) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	bugs := make(chan error, len(a.Hooks))
	for _, hook := range a.Hooks {
		running.Go(func() {
			if err := schedule.Guarded(func() error { a.serve(ctx, hook); return nil }); err != nil {
				bugs <- err
				stop(err)
			}
		})
	}
	running.Wait()
	close(bugs)
	return <-bugs
}

// Ended has it look soon, when the end of a refresh may have changed an alert state. It returns at once.
func (a *Alerter) Ended(e schedule.Execution) {
	for _, hook := range a.Hooks {
		if e.Status.Bad() || hook.isTroubled(e.View) {
			hook.wake()
		}
	}
}

func (a *Alerter) serve(ctx context.Context, hook *Hook) {
	log := a.Log.With("host", hook.Host())
	known, within := false, time.Duration(0)
	for ctx.Err() == nil {
		well, err := a.turn(ctx, hook, &known, within)
		if ctx.Err() == nil && (well || err != nil) {
			hook.say(log, err)
		}
		within = 0
		select {
		case <-ctx.Done():
		case <-hook.woken:
			pause(ctx, settles)
		case <-time.After(a.Interval):
			within = a.Interval * 9 / 10 // another process' look is as good, and it tells what it finds
		}
	}
}

// turn looks once, and tells what is to be told. All is well when nothing is left to tell; what has to wait for its next
// attempt, or is another process' turn, is neither well nor an error.
func (a *Alerter) turn(ctx context.Context, hook *Hook, known *bool, within time.Duration) (well bool, err error) {
	if !*known {
		if err := a.Store.AddAlertTarget(ctx, hook.target); err != nil {
			return false, err
		}
	}
	look := schedule.AlertLook{Target: hook.target, Within: within, Describe: report.Trouble}
	found, err := a.Store.LookForAlerts(ctx, look)
	*known = err == nil
	if err != nil || !found.Looked {
		return false, err
	}
	hook.setTroubled(found.Troubled)
	if !found.Pending {
		return true, nil
	}
	told, err := a.tell(ctx, hook)
	return told > 0, err
}

// tell tells one alert after another. After one that failed the others have to wait for the next turn, which begins with
// one that was not tried yet: one that a receiver does not want holds up no other, and a dead receiver is asked once a turn.
//
// Being told to stop cuts a request, but no statement that says whose an alert is: a claim that the server commits after
// nobody waits for it any more keeps the alert from everybody for as long as a lease.
func (a *Alerter) tell(ctx context.Context, hook *Hook) (told int, err error) {
	patient, cancel := outlasting(ctx, stopPatience)
	defer cancel()
	for ctx.Err() == nil {
		alert, err := a.Store.ClaimAlert(patient, hook.target)
		if errors.Is(err, schedule.ErrNoAlert) {
			return told, nil
		}
		if err != nil {
			return told, err
		}
		if ctx.Err() != nil {
			return told, a.Store.ReturnAlert(patient, hook.target, alert)
		}
		failed := hook.post(ctx, alert)
		if ctx.Err() != nil && failed != nil {
			return told, context.Cause(ctx) // who stopped it did not fail it: it is another's when the lease is over
		}
		err = a.record(patient, hook, alert, failed)
		if err != nil || failed != nil {
			return told, errors.Join(failed, err)
		}
		told++
	}
	return told, nil
}

func (a *Alerter) record(ctx context.Context, hook *Hook, alert schedule.Alert, failed error) error {
	if failed == nil {
		return a.Store.AlertTold(ctx, hook.target, alert)
	}
	givenUp, err := a.Store.AlertFailed(ctx, hook.target, alert, failed.Error(), backoff(alert.Attempt, failed))
	if givenUp {
		a.Log.Warn("an alert was given up, after days of attempts", "view", alert.View, "host", hook.Host())
	}
	return err
}

// The pauses between attempts at one alert: twice as long each time.
const (
	firstBackoff = 15 * time.Second
	maxBackoff   = time.Hour
)

func backoff(attempt int, failed error) time.Duration {
	wait := maxBackoff
	if doublings := attempt - 1; doublings < 10 {
		wait = min(firstBackoff<<doublings, maxBackoff)
	}
	var status *statusError
	if errors.As(failed, &status) {
		wait = min(max(wait, status.retryAfter), maxBackoff)
	}
	return wait
}

// outlasting returns a context that ends so long after ctx.
func outlasting(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(patience, cancel) })
	return patient, func() {
		stop()
		cancel()
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// targetOf names a hook for the database, which must not have its URL.
func targetOf(url, host string, format Format) schedule.AlertTarget {
	sum := sha256.Sum256([]byte(string(format) + " " + url))
	return schedule.AlertTarget{ID: hex.EncodeToString(sum[:]), Host: host}
}
