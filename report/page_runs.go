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
	View      string
	Name      viewName
	Runs      cell
	Total     cell
	Mean      string
	Longest   cell
	Unchanged cell
	Wasted    cell

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
			View: exact(view), Name: viewName(label(view)),
			Runs: integerCell("runs", s.runs, grouped(int64(s.runs))), Total: secondsCell("total_seconds", &s.total, schedule.FormatSpan(s.total)),
			Mean: schedule.FormatSpan(s.total / time.Duration(s.runs)), Longest: secondsCell("longest_seconds", &s.longest, schedule.FormatSpan(s.longest)),
			Unchanged: integerCell("unchanged_runs", s.unchanged, grouped(int64(s.unchanged))),
			Wasted:    secondsCell("unchanged_seconds", &s.wasted, schedule.FormatSpan(s.wasted)),
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

// failures are the runs of a day that ended badly, the latest first. Those of a view that ended alike are one.
type failures struct {
	Rows []failure
	More int // that are not shown
}

type failure struct {
	View    string
	Name    viewName
	Status  schedule.Status
	Times   cell
	Ended   cell   // the last of them
	What    string // reason and name of the error
	Message string // may have several lines
}

func newFailures(runs []schedule.Execution) failures {
	type kind struct{ view, status, reason, name, message string }
	times := map[kind]int{}
	var kinds []kind
	last := map[kind]schedule.Execution{}
	for _, e := range slices.Backward(runs) {
		if !e.Status.Bad() {
			continue
		}
		k := kind{e.View, string(e.Status), value(e.Reason), value(e.ErrorName), value(e.ErrorMessage)}
		if times[k]++; times[k] == 1 {
			kinds, last[k] = append(kinds, k), e
		}
	}
	var f failures
	for _, k := range kinds[:min(len(kinds), maxFailures)] {
		e := last[k]
		what := slices.DeleteFunc([]string{label(k.reason), label(k.name)}, func(s string) bool { return s == "" })
		row := failure{
			View: exact(k.view), Name: viewName(label(k.view)), Status: e.Status, Times: integerCell("times", times[k], grouped(int64(times[k]))),
			Ended: nothing, What: strings.Join(what, ", "), Message: clean(cut(strings.ReplaceAll(k.message, "\r\n", "\n"), maxMessage)),
		}
		if e.EndedAt != nil {
			row.Ended = instantCell("ended_at", e.EndedAt, clockTime(*e.EndedAt))
		}
		f.Rows = append(f.Rows, row)
	}
	f.More = len(kinds) - len(f.Rows)
	return f
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// outcome says in a few words how a run went, for whoever hovers over it.
func outcome(e schedule.Execution, at time.Time) string {
	text := e.StartedAt.Local().Format("15:04:05") + " "
	if e.EndedAt == nil {
		elapsed := max(at.Sub(e.StartedAt), 0)
		return text + "running for " + age(&elapsed)
	}
	text += fmt.Sprintf("%s in %s", e.Status, schedule.FormatSpan(e.Duration()))
	if e.Status == schedule.Succeeded && e.RowsInserted != nil && e.RowsDeleted != nil {
		return text + fmt.Sprintf(", +%d −%d", *e.RowsInserted, *e.RowsDeleted)
	}
	if why := briefDetail(e); e.Status != schedule.Succeeded && why != "" {
		text += ", " + label(why)
	}
	return text
}
