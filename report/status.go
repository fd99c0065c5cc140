package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

func (p Printer) standings(standings []schedule.Standing) error {
	columns := p.standingColumns(0)
	if p.room() > 0 {
		for _, cells := range []int{20, 10, 6} { // the longest that fits
			if wider := p.standingColumns(cells); !tooWide(p, wider, standings) {
				columns = wider
				break
			}
		}
	}
	return list(p, standings, toStandingJSON, columns)
}

// standingColumns has bars of so many cells for what is running; 0: none.
func (p Printer) standingColumns(cells int) []column[schedule.Standing] {
	return []column[schedule.Standing]{
		{head: "VIEW", cell: func(s schedule.Standing) string { return s.View }, name: true, least: 24},
		{
			head: "KIND", cell: func(s schedule.Standing) string { return kindOf(s.Materialization) }, spare: 2,
			when: func(s schedule.Standing) bool { return kindOf(s.Materialization) != string(schedule.MaterializedView) },
		},
		{head: "STATE", cell: func(s schedule.Standing) string { return string(s.State) }, word: true},
		{head: "AGE", cell: func(s schedule.Standing) string { return age(s.Age) }, right: true},
		{
			head: "TARGET", cell: func(s schedule.Standing) string { return target(s.MaxLag, s.ReachableLag, s.Unreachable()) }, wraps: true, least: 6,
			when: func(s schedule.Standing) bool { return s.MaxLag != nil },
		},
		{head: "NEXT", cell: nextRun, right: true},
		{head: "LAST RUN", cell: lastRun, word: true, spare: 1},
		{
			head: "ROWS LEFT", cell: rowsLeft, right: true, wraps: true, least: 9,
			when: func(s schedule.Standing) bool { return s.Materialization == schedule.MaterializedColumns },
		},
		{
			head: "RUNNING", cell: func(s schedule.Standing) string { return p.running(s, cells) }, wraps: true, least: 22,
			when: func(s schedule.Standing) bool { return s.RunningFor != nil },
		},
	}
}

// target is how old the data may get, and, where that cannot be kept, how old it does.
func target(maxLag, reachable *time.Duration, unreachable bool) string {
	switch {
	case maxLag == nil:
		return "-"
	case unreachable:
		return fmt.Sprintf("%s (%s at best)", schedule.FormatDuration(*maxLag), schedule.FormatBeyond(*reachable))
	default:
		return schedule.FormatDuration(*maxLag)
	}
}

func nextRun(s schedule.Standing) string {
	switch {
	case s.State == schedule.StatePaused || s.State == schedule.StateSuspended:
		return "-"
	case s.NextRunIn == nil && (s.State == schedule.StateFresh || s.State == schedule.StateRunning):
		return "-" // it waits for what it reads, or for its end
	case s.NextRunIn == nil || *s.NextRunIn <= 0:
		return "now"
	default:
		return age(s.NextRunIn)
	}
}

// lastRun is how long the last run took, or how it ended if not well.
func lastRun(s schedule.Standing) string {
	switch {
	case s.Last == nil:
		return "-"
	case s.Last.Status == schedule.Succeeded:
		return schedule.FormatSpan(s.Last.Duration())
	default:
		return string(s.Last.Status)
	}
}

// rowsLeft is how many rows of a table are to be materialized, of which columns alone besides, and how many could not be.
func rowsLeft(s schedule.Standing) string {
	text := "-"
	if s.RowsLeft != nil {
		text = strconv.FormatInt(*s.RowsLeft, 10)
	}
	if s.RowsSetAside != nil && *s.RowsSetAside > 0 {
		text += fmt.Sprintf(" (%d set aside)", *s.RowsSetAside)
	}
	if len(s.ColumnsQueued) > 0 {
		text += ", and column " + strings.Join(s.ColumnsQueued, ", ")
	}
	return text
}

// running is for how long the view has been refreshed by now, how long that usually takes, and who stands in its way.
func (p Printer) running(s schedule.Standing, cells int) string {
	if s.RunningFor == nil {
		return "-"
	}
	text := age(s.RunningFor)
	if left := s.TimeLeft(); left != nil {
		text += fmt.Sprintf(", %.0f rows/s, %s to go", *s.RowsPerSecond, age(left))
		if cells > 0 {
			text = p.progress(*s.RunningFor, *s.RunningFor+*left, cells) + " " + text
		}
	} else if s.Usual != nil {
		text += ", usually " + schedule.FormatSpan(*s.Usual)
		if cells > 0 {
			text = p.progress(*s.RunningFor, *s.Usual, cells) + " " + text
		}
	}
	if len(s.Blockers) > 0 {
		text += ", waits for " + schedule.Holders(s.Blockers)
	}
	return text
}
