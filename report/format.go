package report

import (
	"fmt"
	"strconv"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// span is a duration at a glance, two units at the most: 850ms, 1.2s, 45s, 4m48s, 3h02m, 5d03h.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + span(-d)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < schedule.Day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%02dh", d/schedule.Day, d%schedule.Day/time.Hour)
	}
}

// age is a span in whole seconds: it goes on while one reads it.
func age(d *time.Duration) string {
	if d == nil {
		return "-"
	}
	if *d < time.Second {
		return "0s"
	}
	if *d < time.Minute {
		return fmt.Sprintf("%ds", *d/time.Second)
	}
	return span(*d)
}

// clockTime is an instant in the reader's time zone.
func clockTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// shortTime is an instant of these days.
func shortTime(t time.Time) string { return t.Local().Format("Jan 2 15:04") }

// briefDetail is detail without the error's message.
func briefDetail(e schedule.Execution) string {
	switch {
	case e.Status == schedule.Succeeded:
		return detail(e)
	case e.Reason != nil:
		return *e.Reason
	case e.ErrorName != nil:
		return *e.ErrorName
	default:
		return ""
	}
}

// detail says in a few words what a run did, or why it did not.
func detail(e schedule.Execution) string {
	switch {
	case e.Status == schedule.Succeeded && e.RowsInserted != nil && e.RowsDeleted != nil:
		return fmt.Sprintf("%s +%d -%d", *e.Method, *e.RowsInserted, *e.RowsDeleted)
	case e.Status == schedule.Succeeded && e.Method != nil:
		return string(*e.Method)
	}
	var text string
	if e.Reason != nil {
		text = *e.Reason
	}
	if e.ErrorMessage != nil {
		if text != "" {
			text += ": "
		}
		text += *e.ErrorMessage
	}
	return text
}

func took(e schedule.Execution) string {
	if e.EndedAt == nil {
		return "-"
	}
	return span(e.Duration())
}

func lockTimeout(s schedule.Schedule) string {
	if s.LockTimeout == nil {
		return "-"
	}
	return schedule.FormatDuration(*s.LockTimeout)
}

func paused(s schedule.Schedule) string {
	switch {
	case s.PausedAt != nil && s.PausedReason != nil:
		return *s.PausedReason
	case s.PausedAt != nil:
		return "since " + shortTime(*s.PausedAt)
	case s.SuspendedAt != nil:
		return "suspended"
	default:
		return "-"
	}
}

func dueSince(d schedule.Due) string {
	if d.ScheduledAt == nil {
		return "new"
	}
	return clockTime(*d.ScheduledAt)
}

func orDash(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

func itoa(n int) string { return strconv.Itoa(n) }
