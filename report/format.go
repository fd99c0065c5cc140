package report

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

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
	return schedule.FormatSpan(*d)
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
	case e.Status == schedule.Succeeded && e.Reason != nil && *e.Reason == schedule.ReasonRowsSetAside:
		e.Reason = nil
		return detail(e) + ", rows set aside"
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
	return schedule.FormatSpan(e.Duration())
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

// orNone is text, or the dash that stands for none.
func orNone(s string) string { return cmp.Or(s, "-") }

func itoa(n int) string { return strconv.Itoa(n) }
