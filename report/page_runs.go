package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// costs are where the time of a day went.
type costs struct {
	Slowest  []cost
	Wasteful []cost // with refreshes that changed no row
	More     int    // wasteful views that are not shown
}

// cost is what the refreshes of a view took, those that were skipped left out.
type cost struct {
	View, Name string
	Runs       cell
	Total      cell
	Mean       string
	Longest    cell
	Unchanged  cell
	Wasted     cell

	longest, wasted time.Duration
}

func newCosts(runs []schedule.Execution) costs {
	type sum struct {
		runs, unchanged        int
		total, longest, wasted time.Duration
	}
	sums := map[string]*sum{}
	for _, e := range runs {
		if e.EndedAt == nil || e.Status == schedule.Skipped {
			continue
		}
		s := sums[e.View]
		if s == nil {
			s = &sum{}
			sums[e.View] = s
		}
		took := e.Duration()
		s.runs++
		s.total += took
		s.longest = max(s.longest, took)
		if e.Status == schedule.Succeeded && e.RowsInserted != nil && e.RowsDeleted != nil && *e.RowsInserted == 0 && *e.RowsDeleted == 0 {
			s.unchanged++
			s.wasted += took
		}
	}
	var c costs
	for view, s := range sums {
		one := cost{
			View: exact(view), Name: label(view),
			Runs: integerCell("runs", s.runs, grouped(int64(s.runs))), Total: secondsCell("total_seconds", &s.total, span(s.total)),
			Mean: span(s.total / time.Duration(s.runs)), Longest: secondsCell("longest_seconds", &s.longest, span(s.longest)),
			Unchanged: integerCell("unchanged_runs", s.unchanged, grouped(int64(s.unchanged))),
			Wasted:    secondsCell("unchanged_seconds", &s.wasted, span(s.wasted)),
			longest:   s.longest, wasted: s.wasted,
		}
		c.Slowest = append(c.Slowest, one)
		if s.unchanged > 0 {
			c.Wasteful = append(c.Wasteful, one)
		}
	}
	rank := func(costs []cost, by func(cost) time.Duration) []cost {
		slices.SortFunc(costs, func(a, b cost) int { return cmp.Or(-cmp.Compare(by(a), by(b)), cmp.Compare(a.View, b.View)) })
		return costs[:min(len(costs), maxCosts)]
	}
	c.More = max(len(c.Wasteful)-maxCosts, 0)
	c.Slowest = rank(c.Slowest, func(c cost) time.Duration { return c.longest })
	c.Wasteful = rank(c.Wasteful, func(c cost) time.Duration { return c.wasted })
	return c
}

// failures are the runs of a day that ended badly, the latest first.
type failures struct {
	Rows []failure
	More int
}

type failure struct {
	ID         int64
	View, Name string
	Status     schedule.Status
	Ended      cell
	Took       cell
	What       string // reason and name of the error
	Message    string // may have several lines
}

func newFailures(runs []schedule.Execution) failures {
	var f failures
	for _, e := range slices.Backward(runs) {
		if !e.Status.Bad() {
			continue
		}
		if len(f.Rows) == maxFailures {
			f.More++
			continue
		}
		took := e.Duration()
		row := failure{
			ID: e.ID, View: exact(e.View), Name: label(e.View), Status: e.Status, Ended: nothing,
			Took: secondsCell("duration_seconds", &took, span(took)),
		}
		if e.EndedAt != nil {
			row.Ended = instantCell("ended_at", e.EndedAt, clockTime(*e.EndedAt))
		}
		var what []string
		for _, word := range []*string{e.Reason, e.ErrorName} {
			if word != nil {
				what = append(what, label(*word))
			}
		}
		row.What = strings.Join(what, ", ")
		if e.ErrorMessage != nil {
			row.Message = clean(strings.ReplaceAll(*e.ErrorMessage, "\r\n", "\n"))
		}
		f.Rows = append(f.Rows, row)
	}
	return f
}

// outcome says in a few words how a run went, for whoever hovers over it.
func outcome(e schedule.Execution, at time.Time) string {
	text := e.StartedAt.Local().Format("15:04:05") + " "
	if e.EndedAt == nil {
		for_ := max(at.Sub(e.StartedAt), 0)
		return text + "running for " + age(&for_)
	}
	text += fmt.Sprintf("%s in %s", e.Status, span(e.Duration()))
	if e.Status == schedule.Succeeded && e.RowsInserted != nil && e.RowsDeleted != nil {
		return text + fmt.Sprintf(", +%d −%d", *e.RowsInserted, *e.RowsDeleted)
	}
	if why := briefDetail(e); e.Status != schedule.Succeeded && why != "" {
		text += ", " + label(why)
	}
	return text
}
