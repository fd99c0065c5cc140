package schedule

import (
	"fmt"
	"strings"
	"time"
)

// explain puts the answer first and its grounds after it.
func (c circumstances) explain(last *Execution, awaited []awaitedView, parents []parentView) []Reason {
	reasons := c.answer(last, awaited, parents)
	add := func(r Reason) { reasons = append(reasons, r) }
	answered := reasons[0].Code

	if c.RunningSince != nil && c.ScheduleID == nil {
		add(unscheduled)
	}
	if answered != WhyPaused && c.Paused != nil {
		add(c.paused())
	}
	if answered != WhySuspended && c.Suspended != nil {
		add(c.suspended())
	}
	if !c.Exists {
		add(Reason{Code: WhyMissing, Message: "there is no such view any more: its runs fail until there is one"})
	}
	if answered != WhyRequested && (c.AskedSince != nil || c.NextRunReason == "request") {
		add(Reason{Code: WhyRequested, Message: requested, Since: c.AskedSince})
	}
	if last != nil {
		add(lastRun(*last))
	}
	if c.MaxLag != nil && c.Predicted != nil && c.ReachableLag != nil {
		add(c.lag())
	}
	if c.FailedAncestor != nil {
		add(Reason{
			Code: WhyUpstreamFailed, Views: []string{*c.FailedAncestor},
			Message: fmt.Sprintf("as it stands, its next run is skipped: %s, which it depends on, has failed", *c.FailedAncestor),
		})
	}
	for _, p := range parents {
		message := fmt.Sprintf("it reads %s, whose data is as of then", p.View)
		if p.DataAsOf == nil {
			message = fmt.Sprintf("it reads %s, which mvsched has not refreshed yet", p.View)
		}
		add(Reason{Code: WhyParentData, Message: message, Since: p.DataAsOf, Views: []string{p.View}})
	}
	if c.Exists {
		switch {
		case c.OnChange && len(c.Obstacles) > 0:
			add(Reason{
				Code: WhyCannotSee, Until: c.staleAt(),
				Message: "changes of what it reads cannot be seen, so it waits for requests only, and for its maximum staleness: " +
					strings.Join(c.Obstacles, ", "),
			})
		case c.SkipUnchanged:
			add(c.skipUnchanged())
		}
		add(c.method())
	}
	if answered != WhyNotDue && c.NextRunReason == "" && c.Paused == nil && c.Suspended == nil && c.NextRunAt != nil && c.NextRunAt.After(c.Now) {
		add(Reason{Code: WhyNextSlot, Message: "its next slot is still to come", Until: c.NextRunAt})
	}
	return reasons
}

var unscheduled = Reason{Code: WhyUnscheduled, Message: "it has no schedule: it is refreshed by hand only"}

// answer asks in the order in which a claim does (mvsched.claim), but for the cap, which holds for all.
func (c circumstances) answer(last *Execution, awaited []awaitedView, parents []parentView) []Reason {
	switch {
	case c.RunningSince != nil:
		return []Reason{c.running()}
	case c.ScheduleID == nil:
		return []Reason{unscheduled}
	case c.Paused != nil:
		return []Reason{c.paused()}
	case c.Suspended != nil:
		return []Reason{c.suspended()}
	case c.Unsettled:
		r := Reason{Code: WhyEnded, Message: "its last run has ended; the next worker that looks settles what that means for its schedule"}
		if last != nil {
			r.Since = last.EndedAt
		}
		return []Reason{r}
	case c.AskedSince != nil && c.NextRunReason != "retry" && (c.NextRunAt == nil || c.NextRunAt.After(*c.AskedOpens)):
		return []Reason{c.requested()}
	case c.NextRunAt == nil:
		return []Reason{c.unplanned(parents)}
	case c.NextRunReason == "retry" && c.NextRunAt.After(c.Now):
		return []Reason{c.retry(last)}
	case c.NextRunReason == "second_look" && c.NextRunAt.After(c.Now):
		return []Reason{{
			Code: WhyLookAgain, Since: c.Slot, Until: c.NextRunAt,
			Message: "it is due, but nothing that it reads seems to have changed: it waits for a second look",
		}}
	case c.NextRunAt.After(c.Now):
		return []Reason{{Code: WhyNotDue, Message: "it is not due yet", Until: c.NextRunAt}}
	case c.Moved && c.Exists:
		return []Reason{{
			Code: WhyMoved, Since: c.NextRunAt,
			Message: "it is due; the next worker that looks finds its view again, which is not where it was",
		}}
	case len(awaited) > 0:
		var reasons []Reason
		for _, a := range awaited {
			reasons = append(reasons, a.reason())
		}
		return reasons
	case c.WindowOpens != nil:
		return []Reason{{Code: WhyWindowClosed, Message: "it is due, but waits until its window opens", Since: c.NextRunAt, Until: c.WindowOpens}}
	case c.Cap != nil:
		return []Reason{{
			Code: WhyCapped, Since: c.NextRunAt,
			Message: fmt.Sprintf("it is due, but as many refreshes run as may (max_concurrent_refreshes is %d)", *c.Cap),
		}}
	default:
		return []Reason{{Code: WhyDue, Message: "it is due: the next worker that looks claims it", Since: c.NextRunAt}}
	}
}

func (c circumstances) running() Reason {
	message := "it is being refreshed"
	if c.RunningUnbegun != nil && *c.RunningUnbegun {
		message = "it is claimed, and its refresh has not begun"
	}
	if c.RunningTrigger != nil && *c.RunningTrigger == "manual" {
		message += ", as somebody asked by hand"
	}
	if c.RunningWorker != nil {
		message += ", by worker " + *c.RunningWorker
	}
	if len(c.Blockers) > 0 {
		message += "; it waits for a lock held by " + Holders(c.Blockers)
	}
	if c.RunningUntil != nil && c.RunningUntil.Before(c.Now) {
		message += "; that is overdue, and the next worker that looks sees whether it is still alive"
	}
	return Reason{Code: WhyRunning, Message: message, Since: c.RunningSince, Until: c.RunningUntil}
}

func (c circumstances) paused() Reason {
	message := "somebody has paused it"
	if c.PausedReason != nil {
		message += ": " + *c.PausedReason
	}
	return Reason{Code: WhyPaused, Message: message, Since: c.Paused}
}

func (c circumstances) suspended() Reason {
	message := "mvsched has suspended it"
	if c.SuspendedReason != nil {
		message += ": " + *c.SuspendedReason
	}
	message += " (mvsched resume ends that, as does a refresh by hand that succeeds)"
	return Reason{Code: WhySuspended, Message: message, Since: c.Suspended}
}

const requested = "somebody has asked for it (mvsched.request_refresh)"

// requested is when a request will be answered: requestsSQL knows.
func (c circumstances) requested() Reason {
	r := Reason{Code: WhyRequested, Since: c.AskedSince, Until: c.AskedOpens}
	switch {
	case !c.AskedOpens.After(c.Now):
		r.Message, r.Until = requested+": the next worker that looks sees to it", nil
	case c.AskedOpens.After(*c.AskedRipe):
		r.Message = requested + ": it waits for its window to open"
	default:
		r.Message = requested + ": it waits for a pause between requests and since its last refresh"
	}
	return r
}

// unplanned is why there is no slot: planSQL knows when one is given.
func (c circumstances) unplanned(parents []parentView) Reason {
	var names []string
	newer := !c.AfterParents && !c.OnChange || c.LastAttemptedAt == nil
	for _, p := range parents {
		names = append(names, p.View)
		newer = newer || p.Newer
	}
	switch {
	case newer:
		return Reason{Code: WhyUnplanned, Message: "its slot is still to be planned, by the next worker that looks"}
	case c.OnChange && c.FillQueued != nil:
		return Reason{
			Code: WhyUnplanned, Since: c.FillQueued,
			Message: "some of its columns are to be computed again: its slot is planned by the next worker that looks",
		}
	case c.OnChange:
		return Reason{
			Code: WhyAwaitsChange, Since: c.LastAttemptedAt,
			Message: "it waits for a change in what it reads, or for a request",
		}
	case len(names) == 0:
		return Reason{Code: WhyAwaitsParents, Message: "it waits for new data in what it reads, but reads no materialized view"}
	default:
		return Reason{
			Code: WhyAwaitsParents, Since: c.LastAttemptedAt, Views: names,
			Message: "it waits for new data in " + strings.Join(names, ", "),
		}
	}
}

func (c circumstances) retry(last *Execution) Reason {
	r := Reason{Code: WhyRetry, Message: "it waits for another try", Since: c.Slot, Until: c.NextRunAt}
	if last != nil && last.Reason != nil && *last.Reason == ReasonLockBusy {
		r.Code = WhyLockBusy
		r.Message = fmt.Sprintf("it waits for try %d of %d, since a lock was not to be had", last.Attempt+1, c.Retries+1)
	} else if last != nil {
		r.Message = fmt.Sprintf("it waits for try %d of %d, since its error may pass", last.Attempt+1, c.Retries+1)
	}
	if last != nil && last.ErrorMessage != nil {
		r.Message += ": " + *last.ErrorMessage
	}
	return r
}

func (a awaitedView) reason() Reason {
	stands := map[string]string{"due": "is due", "running": "is being refreshed", "ended": "has just ended"}[a.Because]
	return Reason{
		Code: WhyAwaited, Message: fmt.Sprintf("it waits for %s, which %s", a.View, stands),
		Since: a.Since, Until: a.Until, Views: []string{a.View},
	}
}

// lastRun tells how the last run ended, which is where Since points.
func lastRun(e Execution) Reason {
	var message strings.Builder
	fmt.Fprintf(&message, "its last run ended: %s", e.Status)
	if e.Method != nil {
		fmt.Fprintf(&message, " (%s)", *e.Method)
	}
	switch {
	case e.Reason == nil:
	case *e.Reason == ReasonUnchanged:
		message.WriteString(", since nothing that it reads had changed")
	case *e.Reason == ReasonUpstreamFailed:
		message.WriteString(", since a view that it depends on had failed")
	default:
		message.WriteString(", " + *e.Reason)
	}
	if e.ErrorMessage != nil {
		message.WriteString(": " + *e.ErrorMessage)
	}
	return Reason{Code: WhyLastRun, Message: message.String(), Since: e.EndedAt}
}

func (c circumstances) skipUnchanged() Reason {
	if len(c.Obstacles) > 0 {
		return Reason{
			Code:    WhyCannotSee,
			Message: "every slot refreshes it, since changes of what it reads cannot be seen: " + strings.Join(c.Obstacles, ", "),
		}
	}
	return Reason{Code: WhySkipUnchanged, Message: "a slot skips it while nothing that it reads has changed", Until: c.staleAt()}
}

// staleAt is when it is refreshed even if nothing seems to have changed; nil: that is over, or not known.
func (c circumstances) staleAt() *time.Time {
	if c.StaleAt == nil || !c.StaleAt.After(c.Now) {
		return nil
	}
	return c.StaleAt
}

// lag is what its slot was planned with.
func (c circumstances) lag() Reason {
	maxLag, reachable, predicted := duration(*c.MaxLag), duration(*c.ReachableLag), duration(*c.Predicted)
	if reachable > maxLag {
		return Reason{
			Code: WhyOutOfReach,
			Message: fmt.Sprintf("its data gets up to %s old, not %s as it is to: its refresh and those of what it reads take so long",
				FormatBeyond(reachable), FormatDuration(maxLag)),
		}
	}
	return Reason{
		Code: WhyMaxLag,
		Message: fmt.Sprintf("its data is to be no older than %s; its refresh is assumed to take up to %s",
			FormatDuration(maxLag), FormatSpan(predicted)),
	}
}

// method is how the next refresh will be done, by the catalog as it is now.
func (c circumstances) method() Reason {
	chosen := choose(c.Materialization, c.Whole, c.Strategy, c.Populated, c.UniqueIndex, c.OwnerTemp)
	because := map[string]string{
		BecauseUniqueIndex:   "it has a unique index",
		BecauseNoUniqueIndex: "it has no unique index on columns, without WHERE",
		BecauseNoTemp:        "its owner may not create temporary tables",
		BecauseFirstFill:     "it has no contents yet",
		BecauseRequested:     "its strategy is " + string(c.Strategy),
		BecauseWhole:         "of all rows",
		BecauseWindow:        "of the rows in its window",
	}[chosen.Because]
	if chosen.Method == MethodColumns {
		because = "rows whose materialized_at is null, and columns that are asked for again, in batches"
	}
	if chosen.Impossible != nil {
		because += ", and will fail: " + chosen.Impossible.ErrorMessage
	}
	with := ""
	if len(c.Parameters) > 0 {
		with = ", with " + c.Parameters.String()
	}
	return Reason{Code: WhyMethod, Message: fmt.Sprintf("the next refresh is %s%s: %s", chosen.Method, with, because)}
}

// Insert puts a reason behind the first one of that code.
func (e *Explanation) Insert(after string, r Reason) {
	for i := range e.Reasons {
		if e.Reasons[i].Code == after {
			e.Reasons = append(e.Reasons[:i+1:i+1], append([]Reason{r}, e.Reasons[i+1:]...)...)
			return
		}
	}
}
