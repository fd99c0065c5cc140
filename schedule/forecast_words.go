package schedule

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Codes of what a forecast finds wrong with a view, the worst first.
const (
	ForecastMissing     = "missing"     // the view is gone
	ForecastUnplannable = "unplannable" // its cron expression or time zone cannot be read
	ForecastSuspended   = "suspended"   // mvsched has given up on it
	ForecastNoWorker    = "no_worker"   // nobody serves its queue
	ForecastUnreachable = "unreachable" // its max_lag cannot be kept
	ForecastTarget      = "target"      // its max_lag is not kept
	ForecastStarved     = "starved"     // due at the end, and no worker has come
	ForecastOverlaps    = "overlaps"    // slots come while the run before is under way
	ForecastLate        = "late"        // runs wait for a worker
)

// Codes of what a forecast does not know.
const (
	ForecastNoHistory = "no_history" // a refresh was taken to last a second
	ForecastOnChange  = "on_change"  // changes and requests cannot be foreseen
	ForecastUnchanged = "unchanged"  // skips cannot be foreseen
	ForecastFailing   = "failing"    // the last run failed; these are taken to succeed
	ForecastPaused    = "paused"     // it is not refreshed until somebody resumes it
	ForecastGroup     = "group"      // these are refreshed in one transaction
	ForecastCut       = "cut"        // too many runs
)

// problems says what does not fit.
func (m *simulation) problems(v *simulated, f ViewForecast) (problems []Remark) {
	add := func(code, format string, args ...any) {
		problems = append(problems, Remark{Code: code, Message: fmt.Sprintf(format, args...)})
	}
	switch {
	case v.missing:
		add(ForecastMissing, "there is no such view any more: its runs fail until there is one")
		return problems
	case v.broken != "":
		add(ForecastUnplannable, "nobody can plan it: %s", v.broken)
		return problems
	case v.SuspendedAt != nil:
		reason := "after failures"
		if v.SuspendedReason != nil {
			reason = *v.SuspendedReason
		}
		add(ForecastSuspended, "it is suspended (%s) until `mvsched resume %s`", reason, ShellWord(v.View))
	case v.PausedAt != nil:
	case m.pool(v) == nil:
		add(ForecastNoWorker, "nobody serves its queue, %s", v.Queue)
	}
	unreachable := f.ReachableLag != nil && *f.ReachableLag > *v.MaxLag
	if unreachable {
		add(ForecastUnreachable, "%s cannot be kept: %s is the least, by how long refreshes take", FormatDuration(*v.MaxLag), FormatBeyond(*f.ReachableLag))
	}
	if v.MaxLag != nil && f.MaxAge != nil && *f.MaxAge > *v.MaxLag && !unreachable {
		add(ForecastTarget, "its data gets %s old, and its target is %s", FormatBeyond(*f.MaxAge), FormatDuration(*v.MaxLag))
	}
	if t := v.tally.waits; v.serviceable() && t >= v.lateFrom() {
		add(ForecastStarved, "at the end it has waited for a worker for %s", roughly(t))
	}
	if v.tally.overlaps > 0 && (v.Kind == KindEvery || v.Kind == KindCron) {
		add(ForecastOverlaps, "runs past their next slot: %d; each takes %s%s", v.tally.overlaps, roughly(v.takes()), v.missedSlots())
	}
	if v.tally.late > 0 {
		add(ForecastLate, "late: %d of %d runs, by up to %s, since %s%s%s", f.LateRuns, f.Runs, roughly(f.LongestWait), m.scarce(v),
			v.mostlyBehind(), v.missedSlots())
	}
	return problems
}

// scarce says what there is too little of.
func (m *simulation) scarce(v *simulated) string {
	switch {
	case v.tally.capped*2 > v.tally.late:
		return fmt.Sprintf("%d refreshes may run at a time (max_concurrent_refreshes)", *m.most)
	case m.pools[""] != nil:
		return fmt.Sprintf("all workers are busy (%d)", m.workers[""])
	default:
		return fmt.Sprintf("all workers of queue %s are busy (%d)", v.Queue, m.workers[v.Queue])
	}
}

// mostlyBehind names the view whose end is waited for most often.
func (v *simulated) mostlyBehind() string {
	var behind string
	for _, view := range slices.Sorted(maps.Keys(v.tally.behind)) {
		if v.tally.behind[view] > v.tally.behind[behind] {
			behind = view
		}
	}
	if behind == "" {
		return ""
	}
	return ", mostly with " + behind
}

func (v *simulated) missedSlots() string {
	if v.tally.missed == 0 {
		return ""
	}
	return fmt.Sprintf("; slots missed: %d", v.tally.missed)
}

// notes says what the forecast does not know.
func (m *simulation) notes() (notes []Remark) {
	note := func(code, message string, is func(*simulated) bool) {
		var views []string
		for _, v := range m.views {
			if v.scheduled && is(v) {
				views = append(views, v.View)
			}
		}
		if len(views) > 0 {
			notes = append(notes, Remark{Code: code, Message: message, Views: views})
		}
	}
	note(ForecastPaused, "not refreshed until somebody resumes them", func(v *simulated) bool { return v.PausedAt != nil })
	note(ForecastNoHistory, "never refreshed yet: taken to last "+FormatDuration(unknownDuration),
		func(v *simulated) bool { return v.usual == nil && v.serviceable() })
	note(ForecastOnChange, "changes and requests cannot be foreseen: here they run by max_staleness alone",
		func(v *simulated) bool { return v.Kind == KindOnChange && v.serviceable() })
	note(ForecastUnchanged, "taken to find something changed in every slot",
		func(v *simulated) bool { return v.SkipUnchanged && v.serviceable() })
	note(ForecastFailing, "the last slots failed: the next ones are taken to succeed",
		func(v *simulated) bool { return v.ConsecutiveFailures > 0 && v.serviceable() })
	notes = append(notes, m.noteGroups()...)
	if m.cut {
		notes = append(notes, Remark{
			Code: ForecastCut, Message: fmt.Sprintf("it ends early, after %d runs: ask for less time", len(m.runs)),
		})
	}
	return notes
}

// roughly is a duration to two digits or so.
func roughly(d time.Duration) string {
	if d < time.Second {
		return FormatSpan(d)
	}
	return FormatDuration(d.Round(spanUnit(d)))
}
