package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// Executions writes refreshes with the time at which they started. When one view was asked for, its name stands above
// every line already. On a terminal the durations of each view are drawn above the table.
func (p Printer) Executions(executions []schedule.Execution, oneView bool) error {
	started := column[schedule.Execution]{
		head: "STARTED", cell: func(e schedule.Execution) string { return clockTime(e.StartedAt) },
	}
	columns := append([]column[schedule.Execution]{started}, executionColumns(detail)...)
	if oneView {
		columns = slices.Delete(columns, 1, 2)
	}
	if p.Format == Table && p.room() > 0 {
		if err := p.trends(executions); err != nil {
			return err
		}
	}
	return list(p, executions, toExecutionJSON, columns)
}

const (
	trendRuns  = 40 // the most that a trend shows, and
	trendViews = 10 // for so many views
	leastTrend = 3  // fewer runs are none
)

// trend is how long a view's refreshes took, oldest first; 0 is one that did not succeed.
type trend struct {
	view    string
	took    []time.Duration
	longest time.Duration
}

// trends draws how long refreshes took, for the views with most of them, in the order in which they come.
func (p Printer) trends(executions []schedule.Execution) error {
	var views []*trend
	for _, e := range executions { // newest first
		if e.EndedAt == nil || e.Status == schedule.Skipped {
			continue
		}
		i := slices.IndexFunc(views, func(t *trend) bool { return t.view == e.View })
		if i < 0 {
			i = len(views)
			views = append(views, &trend{view: e.View})
		}
		if t := views[i]; len(t.took) < trendRuns {
			var took time.Duration
			if e.Status == schedule.Succeeded {
				took = max(e.Duration(), 1)
			}
			t.took, t.longest = append(t.took, took), max(t.longest, took)
		}
	}
	views = slices.DeleteFunc(views, func(t *trend) bool { return len(t.took) < leastTrend || t.longest == 0 })
	if len(views) == 0 {
		return nil
	}
	more := max(len(views)-trendViews, 0)
	views = views[:len(views)-more]
	for _, t := range views {
		slices.Reverse(t.took)
	}
	err := writeTable(p, []column[*trend]{
		{head: "VIEW", cell: func(t *trend) string { return t.view }, name: true, least: 20},
		{head: "USUALLY", cell: func(t *trend) string { return schedule.FormatSpan(t.usual()) }, right: true},
		{head: "AT MOST", cell: func(t *trend) string { return schedule.FormatSpan(t.longest) }, right: true},
		{head: "TREND", cell: p.sparkline},
	}, views)
	if err == nil && more > 0 {
		err = p.line("%s %d more", p.ellipsis(), more)
	}
	if err == nil {
		_, err = fmt.Fprintln(p.W)
	}
	return err
}

// usual is the median of those that succeeded.
func (t *trend) usual() time.Duration {
	took := slices.DeleteFunc(slices.Clone(t.took), func(d time.Duration) bool { return d == 0 })
	slices.Sort(took)
	return took[len(took)/2]
}

func (p Printer) sparkline(t *trend) string {
	failed := '×'
	if p.ASCII {
		failed = 'x'
	}
	var b strings.Builder
	for _, d := range t.took {
		if d == 0 {
			b.WriteRune(failed)
		} else {
			b.WriteRune(p.block(d, t.longest))
		}
	}
	return b.String()
}
