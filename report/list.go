package report

import (
	"cmp"
	"strings"

	"github.com/mvsched/mvsched/schedule"
)

// Schedules writes what is configured. What is as it is by default goes without saying.
func (p Printer) Schedules(schedules []schedule.Schedule) error {
	return list(p, schedules, toScheduleJSON, []column[schedule.Schedule]{
		{head: "VIEW", cell: func(s schedule.Schedule) string { return s.View }, name: true, least: 24},
		{
			head: "KIND", cell: func(s schedule.Schedule) string { return kindOf(s.Materialization) },
			when: func(s schedule.Schedule) bool { return kindOf(s.Materialization) != string(schedule.MaterializedView) },
		},
		{head: "WHEN", cell: when, wraps: true},
		{head: "TIMEOUT", cell: func(s schedule.Schedule) string { return schedule.FormatDuration(s.Timeout) }, right: true},
		{head: "STRATEGY", cell: func(s schedule.Schedule) string { return string(s.Strategy) }},
		{
			head: "OPTIONS", cell: func(s schedule.Schedule) string { return orNone(options(s)) }, wraps: true,
			when: func(s schedule.Schedule) bool { return options(s) != "" },
		},
		{
			head: "PAUSED", cell: paused, wraps: true,
			when: func(s schedule.Schedule) bool { return s.PausedAt != nil || s.SuspendedAt != nil },
		},
	})
}

// when says when a view is refreshed, and how old its data gets at best where its target cannot be kept.
func when(s schedule.Schedule) string {
	if s.Unreachable() {
		return s.When() + " (" + schedule.FormatBeyond(*s.ReachableLag) + " at best)"
	}
	return s.When()
}

// options are the flags of `add` that were given, or might as well have been.
func options(s schedule.Schedule) string {
	var said []string
	say := func(really bool, what string) {
		if really {
			said = append(said, what)
		}
	}
	if s.MergeSource != nil {
		say(true, "from "+*s.MergeSource+" by "+strings.Join(s.MergeKey, ", "))
	}
	if s.MergeWindow != nil {
		say(true, "window "+*s.MergeWindow)
	}
	if s.FullEvery != nil {
		say(true, "full every "+schedule.FormatDuration(*s.FullEvery))
	}
	if f := s.Filling; f != nil {
		filled := strings.Join(s.Filled, ", ")
		if len(s.Filled) > 3 { // all of them are in JSON
			filled = itoa(len(s.Filled)) + " columns"
		}
		say(f.Query != nil, filled+" by a query")
		if f.Call != nil {
			say(true, "by "+*f.Call)
		}
		if f.BatchRows != nil {
			say(*f.BatchRows != schedule.DefaultBatchRows, "batch "+itoa(*f.BatchRows))
		}
		if f.Lanes != nil {
			say(*f.Lanes != schedule.DefaultLanes, "parallel "+itoa(*f.Lanes))
		}
	}
	if s.Window != nil {
		zone := ""
		if s.Timezone != "UTC" {
			zone = " " + s.Timezone
		}
		say(true, "between "+s.Window.String()+zone)
	}
	if s.Debounce != nil {
		say(true, "debounce "+schedule.FormatDuration(*s.Debounce))
	}
	if s.AtMostEvery != nil {
		say(true, "at most every "+schedule.FormatDuration(*s.AtMostEvery))
	}
	if s.Jitter != nil {
		say(true, "jitter "+schedule.FormatDuration(*s.Jitter))
	}
	staleness := schedule.FormatDuration(s.MaxStaleness)
	say(s.SkipUnchanged, "skip unchanged up to "+staleness)
	say(s.Kind == schedule.KindOnChange && !s.SkipUnchanged && s.MaxStaleness != schedule.DefaultMaxStaleness, "at least every "+staleness)
	say(s.OnParentFailure == schedule.ParentFailureRun, "run when a parent failed")
	say(s.Retries != schedule.DefaultRetries, "retries "+itoa(s.Retries))
	if s.SuspendAfter != nil {
		say(true, "suspend after "+itoa(*s.SuspendAfter))
	}
	if s.LockTimeout != nil {
		say(true, "lock timeout "+schedule.FormatDuration(*s.LockTimeout))
	}
	say(s.Vacuum != "" && s.Vacuum != schedule.VacuumAuto, "vacuum "+string(s.Vacuum))
	say(s.Queue != "" && s.Queue != schedule.DefaultQueue, "queue "+s.Queue)
	if s.Group != nil {
		say(true, "group "+*s.Group)
	}
	say(s.Priority != 0, "priority "+itoa(s.Priority))
	if s.SearchPath != nil {
		say(true, "search path "+*s.SearchPath)
	}
	say(len(s.Parameters) > 0, s.Parameters.String())
	return strings.Join(said, ", ")
}

// kindOf is what is materialized, as the schedule table has it.
func kindOf(m schedule.Materialization) string {
	return string(cmp.Or(m, schedule.MaterializedView))
}

func paused(s schedule.Schedule) string {
	switch {
	case s.PausedAt != nil && s.PausedReason != nil:
		return *s.PausedReason
	case s.PausedAt != nil:
		return shortTime(*s.PausedAt)
	case s.SuspendedAt != nil:
		return "suspended"
	default:
		return "-"
	}
}
