package report

import (
	"fmt"
	"strconv"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// noise is how far two medians may be apart before it is worth a word.
const noise = 1.1

// Measurements writes what refreshes of a copy of a view took. Nothing is shortened: it is to be weighed, and pasted.
func (p Printer) Measurements(measured []schedule.Measurement) error {
	columns := []column[schedule.Measurement]{
		{head: "REFRESH", cell: way},
		{head: "RUNS", cell: func(m schedule.Measurement) string { return itoa(m.Runs) }, right: true},
		{head: "TAKES", cell: takes, right: true},
		{head: "AGAINST NOW", cell: againstNow},
		{head: "INSERTED", cell: func(m schedule.Measurement) string { return countOrDash(m.RowsInserted) }, right: true},
		{head: "DELETED", cell: func(m schedule.Measurement) string { return countOrDash(m.RowsDeleted) }, right: true},
		{head: "HOW", cell: func(m schedule.Measurement) string { return orDash(m.Fix) }},
		{head: "PRICE", cell: func(m schedule.Measurement) string { return orNone(m.Price) }},
		{
			head: "PROBLEM", cell: func(m schedule.Measurement) string { return orNone(m.Problem) },
			when: func(m schedule.Measurement) bool { return m.Problem != "" },
		},
	}
	if p.Format == Table && tooWide(p, columns, measured) {
		return p.measurementBlocks(measured)
	}
	return list(p, measured, toMeasurementJSON, columns)
}

// measurementBlocks is for a terminal that is too narrow for a table.
func (p Printer) measurementBlocks(measured []schedule.Measurement) error {
	var blocks []paragraph
	for _, m := range measured {
		text := []string{againstNow(m)}
		if m.Runs > 0 {
			text[0] = fmt.Sprintf("%s, %s, runs: %d", takes(m), againstNow(m), m.Runs)
		}
		if m.RowsInserted != nil && m.RowsDeleted != nil {
			text[0] += fmt.Sprintf(", inserted: %d, deleted: %d", *m.RowsInserted, *m.RowsDeleted)
		}
		if m.Price != "" {
			text = append(text, "price: "+m.Price)
		}
		if m.Problem != "" {
			text = append(text, "problem: "+m.Problem)
		}
		blocks = append(blocks, paragraph{head: OneLine(clean(way(m))), text: text, pasted: "how", paste: m.Fix})
	}
	return p.paragraphs(blocks)
}

func way(m schedule.Measurement) string {
	said := string(m.Method)
	if m.NullColumn {
		said += ", with a column that is always NULL"
	}
	if len(m.Parameters) > 0 {
		said += ", " + m.Parameters.String()
	}
	return said
}

func takes(m schedule.Measurement) string {
	switch {
	case m.Runs == 0:
		return "-"
	case m.Median < time.Second:
		return fmt.Sprintf("%.0f ms", float64(m.Median)/float64(time.Millisecond))
	default:
		return fmt.Sprintf("%.1f s", m.Median.Seconds())
	}
}

// againstNow says what there is to gain, and does not call noise a gain.
func againstNow(m schedule.Measurement) string {
	switch {
	case m.Runs > 0 && !m.Present && m.Faster > 0 && !m.Clear:
		return "about the same"
	case m.Runs == 0:
		return "fails"
	case m.Present:
		return "as it is"
	case m.Faster == 0:
		return "-"
	case m.Faster > noise:
		return fmt.Sprintf("%.1f times as fast", m.Faster)
	case m.Faster < 1/noise:
		return fmt.Sprintf("takes %.1f times as long", 1/m.Faster)
	default:
		return "about the same"
	}
}

func countOrDash(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}

type measurementJSON struct {
	View            string              `json:"view"`
	Method          string              `json:"method"`
	Settings        schedule.Parameters `json:"settings"`
	NullColumn      bool                `json:"null_column"`
	Present         bool                `json:"present"`
	Runs            int                 `json:"runs"`
	MedianSeconds   *float64            `json:"median_seconds"`
	LeastSeconds    *float64            `json:"least_seconds"`
	GreatestSeconds *float64            `json:"greatest_seconds"`
	TimesAsFast     *float64            `json:"times_as_fast"`
	Clear           bool                `json:"clear"`
	RowsInserted    *int64              `json:"rows_inserted"`
	RowsDeleted     *int64              `json:"rows_deleted"`
	How             *string             `json:"how"`
	Price           *string             `json:"price"`
	Problem         *string             `json:"problem"`
}

func toMeasurementJSON(m schedule.Measurement) measurementJSON {
	j := measurementJSON{
		View: m.View, Method: string(m.Method), Settings: m.Parameters, NullColumn: m.NullColumn, Present: m.Present, Runs: m.Runs, Clear: m.Clear,
		RowsInserted: m.RowsInserted, RowsDeleted: m.RowsDeleted, How: m.Fix,
	}
	if m.Runs > 0 {
		j.MedianSeconds, j.LeastSeconds, j.GreatestSeconds = secondsOf(&m.Median), secondsOf(&m.Least), secondsOf(&m.Greatest)
	}
	if m.Faster > 0 {
		j.TimesAsFast = &m.Faster
	}
	if m.Price != "" {
		j.Price = &m.Price
	}
	if m.Problem != "" {
		j.Problem = &m.Problem
	}
	return j
}
