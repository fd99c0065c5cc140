// Package report is how things look: schedules, executions and their status for people, as tables on a terminal and in
// Markdown, and for programs, as JSON, JSON lines and CSV. It is the only package that lays out tables, and the place
// where control characters are taken out of everything that leaves the program (NewCleanWriter).
package report

import (
	"fmt"
	"io"

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
	Width  int  // of the terminal, which tables are made to fit; 0: there is none, and nothing is shortened
	Color  bool // words for states are coloured as well
	ASCII  bool // the terminal may not know other characters: what is drawn has none

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

// Run writes what a run has done. A table only names errors: whoever runs it is told them in full on stderr, which a page of
// Markdown does not have.
func (p Printer) Run(executions []schedule.Execution) error {
	how := briefDetail
	if p.Format == Markdown {
		how = detail
	}
	return list(p, executions, toExecutionJSON, executionColumns(how))
}

func executionColumns(detail func(schedule.Execution) string) []column[schedule.Execution] {
	return []column[schedule.Execution]{
		{head: "VIEW", cell: func(e schedule.Execution) string { return e.View }, name: true},
		{head: "STATUS", cell: func(e schedule.Execution) string { return string(e.Status) }, word: true},
		{head: "TOOK", cell: took, right: true},
		{head: "DETAIL", cell: detail, gives: true, least: 22},
	}
}

// Due writes what a run would do.
func (p Printer) Due(due []schedule.Due) error {
	return list(p, due, toDueJSON, []column[schedule.Due]{
		{head: "VIEW", cell: func(d schedule.Due) string { return d.View }, name: true},
		{head: "DUE SINCE", cell: dueSince},
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
		return writeTable(p, columns, rows)
	}
}
