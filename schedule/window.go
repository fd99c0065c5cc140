package schedule

import (
	"fmt"
	"strings"
	"time"
)

// Window is the part of every day in which refreshes may begin, in the time zone of the schedule. It includes its start
// and not its end, which may be on the next day. The zero value is no window.
type Window struct {
	Start, End TimeOfDay
}

// TimeOfDay is the time that has passed since midnight, on a day of 24 hours.
type TimeOfDay time.Duration

// String writes 22:00, or 22:00:30 where there are seconds.
func (t TimeOfDay) String() string {
	layout := "15:04"
	if time.Duration(t)%time.Minute != 0 {
		layout = "15:04:05"
	}
	return time.Time{}.Add(time.Duration(t)).Format(layout)
}

// String writes the window as ParseWindow reads it.
func (w Window) String() string { return w.Start.String() + "-" + w.End.String() }

// ParseWindow reads a window as HH:MM-HH:MM, such as 22:00-06:00. What is none is an *InvalidError.
func ParseWindow(s string) (Window, error) {
	refuse := func(problem string) (Window, error) {
		return Window{}, &InvalidError{
			What: "window", Value: s, Problem: problem, Hint: "write from-to in 24 hours: 22:00-06:00, 08:30-12:00",
		}
	}
	from, to, ok := strings.Cut(strings.TrimSpace(s), "-")
	if !ok {
		return refuse("it has no start and end")
	}
	var w Window
	for _, side := range []struct {
		text string
		time *TimeOfDay
	}{{from, &w.Start}, {to, &w.End}} {
		text := strings.TrimSpace(side.text)
		if text == "24:00" {
			text = "00:00"
		}
		t, err := time.Parse("15:04", text)
		if err != nil {
			return refuse(fmt.Sprintf("%q is no time of the day", text))
		}
		*side.time = TimeOfDay(t.Sub(t.Truncate(Day)))
	}
	if w.Start == w.End {
		return refuse("it begins when it ends")
	}
	return w, nil
}

// from is mvsched.in_window in Go: the instant itself when it lies in the window, else when the window opens next.
func (w Window) from(at time.Time, location *time.Location) time.Time {
	for {
		wall := wallClock(at.In(location))
		day := wall.Truncate(Day)
		clock := TimeOfDay(wall.Sub(day))
		if w.Start < w.End && clock >= w.Start && clock < w.End || w.Start > w.End && (clock >= w.Start || clock < w.End) {
			return at
		}
		opens := day.Add(time.Duration(w.Start))
		if !opens.After(wall) {
			opens = opens.Add(Day)
		}
		// A time that the clocks skip comes at the end of the gap; the window may be over by then.
		for !wallClock(shownAt(opens, location).In(location)).Equal(opens) {
			opens = opens.Add(time.Minute)
		}
		at = shownAt(opens, location)
	}
}

// shownAt is the instant at which the clock of a location shows a wall-clock time, as PostgreSQL has it: one that the
// clock skips is counted by the offset before, of one that it shows twice the second is meant.
func shownAt(wall time.Time, location *time.Location) time.Time {
	before, after := offset(wall.Add(-Day).In(location)), offset(wall.Add(Day).In(location))
	if at := wall.Add(-after); offset(at.In(location)) == after {
		return at
	}
	return wall.Add(-before)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
