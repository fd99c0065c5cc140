// Package report is how things look: schedules, executions and their status for people, as tables on a terminal and in
// Markdown, and for programs, as JSON, JSON lines and CSV. It is the only package that lays out tables, and the place
// where control characters are taken out of everything that leaves the program (NewCleanWriter).
package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// Format is what -o chooses.
type Format string

// The formats of lists.
const (
	Table     Format = "table"
	JSON      Format = "json"
	JSONLines Format = "jsonl"
	CSV       Format = "csv"
	Markdown  Format = "markdown"
)

// The formats of the status besides those of lists.
const (
	JUnit      Format = "junit"      // a test case a view
	Prometheus Format = "prometheus" // its text format
	Badge      Format = "badge"      // the JSON of an endpoint of shields.io
	BadgeSVG   Format = "badge-svg"
	HTML       Format = "html" // a page, which takes more than the status: WritePage
)

// StatusFormats are the formats that the status has.
func StatusFormats() []Format { return append(ListFormats(), HTML, JUnit, Prometheus, Badge, BadgeSVG) }

// ListFormats are the formats that every list has.
func ListFormats() []Format { return []Format{Table, JSON, JSONLines, CSV, Markdown} }

// Printer writes lists in one format. An empty list is nothing where people read it, [] as JSON and a header as CSV.
type Printer struct {
	W      io.Writer
	Format Format
	Width  int // of the terminal, which tables are made to fit; 0: there is none, and nothing is shortened

	share int // how many tables of Markdown share the limit; 0: one
}

// Status writes how the scheduled views stand.
func (p Printer) Status(standings []schedule.Standing) error {
	switch p.Format {
	case JUnit:
		return writeJUnit(p.W, standings)
	case Prometheus:
		return writePrometheus(p.W, standings)
	case Badge:
		return encodeJSON(p.W, newBadge(standings))
	case BadgeSVG:
		return newBadge(standings).writeSVG(p.W)
	default:
		return p.standings(standings)
	}
}

func (p Printer) standings(standings []schedule.Standing) error {
	return list(p, standings, toStandingJSON, []column[schedule.Standing]{
		{head: "VIEW", cell: func(s schedule.Standing) string { return s.View }, gives: true},
		{head: "STATE", cell: func(s schedule.Standing) string { return string(s.State) }},
		{head: "AGE", cell: func(s schedule.Standing) string { return age(s.Age) }, right: true},
		{
			head: "TARGET", cell: func(s schedule.Standing) string { return target(s.MaxLag, s.ReachableLag, s.Unreachable()) },
			when: func(s schedule.Standing) bool { return s.MaxLag != nil },
		},
		{head: "NEXT", cell: nextRun, right: true},
		{head: "LAST RUN", cell: lastRun},
	})
}

// target is how old the data may get, and, where that cannot be kept, how old it does.
func target(maxLag, reachable *time.Duration, unreachable bool) string {
	switch {
	case maxLag == nil:
		return "-"
	case unreachable:
		return fmt.Sprintf("%s (%s at best)", schedule.FormatDuration(*maxLag), age(reachable))
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
	case s.State == schedule.StateRunning && s.RunningFor != nil:
		return "for " + age(s.RunningFor)
	case s.Last == nil:
		return "-"
	case s.Last.Status == schedule.Succeeded:
		return span(s.Last.Duration())
	default:
		return string(s.Last.Status)
	}
}

// Schedules writes what is configured.
func (p Printer) Schedules(schedules []schedule.Schedule) error {
	return list(p, schedules, toScheduleJSON, []column[schedule.Schedule]{
		{head: "VIEW", cell: func(s schedule.Schedule) string { return s.View }, gives: true},
		{head: "WHEN", cell: func(s schedule.Schedule) string { return s.When() }, gives: true},
		{
			head: "AT BEST", cell: atBest, right: true,
			when: schedule.Schedule.Unreachable,
		},
		{
			head: "BETWEEN", cell: between,
			when: func(s schedule.Schedule) bool { return s.Window != nil },
		},
		{
			head: "QUEUE", cell: func(s schedule.Schedule) string { return s.Queue },
			when: func(s schedule.Schedule) bool { return s.Queue != "" && s.Queue != "default" },
		},
		{head: "TIMEOUT", cell: func(s schedule.Schedule) string { return schedule.FormatDuration(s.Timeout) }, right: true},
		{
			head: "LOCK", cell: lockTimeout, right: true,
			when: func(s schedule.Schedule) bool { return s.LockTimeout != nil },
		},
		{head: "STRATEGY", cell: func(s schedule.Schedule) string { return string(s.Strategy) }},
		{
			head: "UNCHANGED", cell: unchanged,
			when: func(s schedule.Schedule) bool { return s.SkipUnchanged },
		},
		{
			head: "PARENT FAILED", cell: func(s schedule.Schedule) string { return string(s.OnParentFailure) },
			when: func(s schedule.Schedule) bool { return s.OnParentFailure == schedule.ParentFailureRun },
		},
		{
			head: "VACUUM", cell: func(s schedule.Schedule) string { return string(s.Vacuum) },
			when: func(s schedule.Schedule) bool { return s.Vacuum != "" && s.Vacuum != schedule.VacuumAuto },
		},
		{
			head: "PRIO", cell: func(s schedule.Schedule) string { return itoa(s.Priority) }, right: true,
			when: func(s schedule.Schedule) bool { return s.Priority != 0 },
		},
		{
			head: "SEARCH PATH", cell: func(s schedule.Schedule) string { return orDash(s.SearchPath) }, gives: true,
			when: func(s schedule.Schedule) bool { return s.SearchPath != nil },
		},
		{
			head: "PAUSED", cell: paused, gives: true,
			when: func(s schedule.Schedule) bool { return s.PausedAt != nil || s.SuspendedAt != nil },
		},
	})
}

// atBest is how old the data gets where that cannot be kept short enough.
func atBest(s schedule.Schedule) string {
	if !s.Unreachable() {
		return "-"
	}
	return age(s.ReachableLag)
}

// between is the part of the day in which a schedule's refreshes may begin, with its time zone unless it is UTC.
func between(s schedule.Schedule) string {
	switch {
	case s.Window == nil:
		return "-"
	case s.Timezone == "UTC":
		return s.Window.String()
	default:
		return s.Window.String() + " " + s.Timezone
	}
}

// unchanged is for how long a schedule skips what seems unchanged.
func unchanged(s schedule.Schedule) string {
	if !s.SkipUnchanged {
		return "-"
	}
	return "skip up to " + schedule.FormatDuration(s.MaxStaleness)
}

// Executions writes refreshes with the time at which they started. When one view was asked for, its name stands above
// every line already.
func (p Printer) Executions(executions []schedule.Execution, oneView bool) error {
	started := column[schedule.Execution]{
		head: "STARTED", cell: func(e schedule.Execution) string { return clockTime(e.StartedAt) },
	}
	columns := append([]column[schedule.Execution]{started}, executionColumns(detail)...)
	if oneView {
		columns = slices.Delete(columns, 1, 2)
	}
	return list(p, executions, toExecutionJSON, columns)
}

// Run writes what a run has done. On a terminal errors are named only: whoever runs it tells them in full.
func (p Printer) Run(executions []schedule.Execution) error {
	how := briefDetail
	if p.Format == Markdown {
		how = detail
	}
	return list(p, executions, toExecutionJSON, executionColumns(how))
}

func executionColumns(detail func(schedule.Execution) string) []column[schedule.Execution] {
	return []column[schedule.Execution]{
		{head: "VIEW", cell: func(e schedule.Execution) string { return e.View }, gives: true},
		{head: "STATUS", cell: func(e schedule.Execution) string { return string(e.Status) }},
		{head: "TOOK", cell: took, right: true},
		{head: "DETAIL", cell: detail, gives: true},
	}
}

// Due writes what a run would do.
func (p Printer) Due(due []schedule.Due) error {
	return list(p, due, toDueJSON, []column[schedule.Due]{
		{head: "VIEW", cell: func(d schedule.Due) string { return d.View }, gives: true},
		{head: "DUE SINCE", cell: dueSince},
	})
}

// Findings writes what doctor has found. Nothing gives way: a message must be readable, and a fix whole to be pasted.
func (p Printer) Findings(findings []schedule.Finding) error {
	return list(p, findings, toFindingJSON, []column[schedule.Finding]{
		{head: "SEVERITY", cell: func(f schedule.Finding) string { return string(f.Severity) }},
		{head: "CHECK", cell: func(f schedule.Finding) string { return f.Check }},
		{head: "VIEW", cell: func(f schedule.Finding) string { return cmp.Or(f.View, "-") }},
		{head: "MESSAGE", cell: func(f schedule.Finding) string { return f.Message }},
		{head: "FIX", cell: func(f schedule.Finding) string { return orDash(f.Fix) }},
	})
}

// list writes rows in the printer's format: for programs by their records, for people by columns.
func list[T, J any](p Printer, rows []T, record func(T) J, columns []column[T]) error {
	switch p.Format {
	case JSON:
		return writeJSON(p.W, rows, record)
	case JSONLines:
		return writeJSONLines(p.W, rows, record)
	case CSV:
		return writeCSV(p.W, rows, record)
	default:
		return table(p, rows, columns)
	}
}

// line writes a line of text for people, which in Markdown is a paragraph.
func (p Printer) line(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if p.Format == Markdown {
		text = markdownText(text) + "\n"
	} else {
		text = label(text)
	}
	_, err := fmt.Fprintln(p.W, text)
	return err
}

// table writes rows for people.
func table[T any](p Printer, rows []T, columns []column[T]) error {
	switch {
	case len(rows) == 0:
		return nil
	case p.Format == Markdown:
		return writeMarkdown(p.W, markdownLimit/max(p.share, 1), columns, rows)
	default:
		return writeTable(p.W, p.Width, columns, rows)
	}
}
