package report_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// Whatever thousands of views are called, and however they fail, their page is one that a browser opens. What is left out is
// counted, and it is not what is in trouble.
func TestPageIsNeverTooLarge(t *testing.T) {
	const views = 2000
	message := strings.Repeat("<&\x1b and so on ", 1000)
	number := func(name string) func(int) string {
		return func(i int) string { return fmt.Sprintf("%s_%04d", name, i) }
	}
	quoted := func(part string, n int) func(int) string {
		name := strings.Repeat(part, n)
		return func(i int) string { return fmt.Sprintf(`"%s"."%s_%04d"`, name, name, i) }
	}
	for name, c := range map[string]struct {
		called  func(i int) string
		failing bool
		whole   bool // every view is in the status
	}{
		"long names of many words": {number(strings.Repeat("s_", 31) + "." + strings.Repeat("v_", 29)), false, true},
		"all fail":                 {number(strings.Repeat("s", 63) + "." + strings.Repeat("v", 58)), true, true},
		"names of quotes":          {quoted(`""`, 58), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			snap := aDay(views, 4*time.Hour)
			called := map[string]string{}
			urgent := 0
			for i := range snap.Standings {
				s := &snap.Standings[i]
				called[s.View], s.View = c.called(i), c.called(i)
				if c.failing {
					s.State, s.ConsecutiveFailures, s.Queue = schedule.StateFailing, 100, strings.Repeat("q", 63)
					last := *s.Last
					last.Status, last.ErrorName, last.ErrorMessage = schedule.Failed, ptr("raise_exception"), &message
					s.Last = &last
				}
				if s.State == schedule.StateFailing || s.State == schedule.StateLate {
					urgent++
				}
			}
			for i := range snap.Runs {
				e := &snap.Runs[i]
				if e.View = called[e.View]; c.failing {
					e.Status, e.ErrorName, e.ErrorMessage = schedule.Failed, ptr("raise_exception"), &message
				}
			}
			for i := range snap.Graph.Views {
				snap.Graph.Views[i] = called[snap.Graph.Views[i]]
			}
			for i := range snap.Graph.Edges {
				e := &snap.Graph.Edges[i]
				e.Parent, e.Child = called[e.Parent], called[e.Child]
			}

			page := pageOf(t, snap, report.PageOptions{})
			if len(page) > 5_000_000 {
				t.Fatalf("%d bytes", len(page))
			}
			rows, troubled := 0, 0
			for _, one := range tags(t, page) {
				if one.name == "tr" && one.table == "status" && one.row >= 0 {
					rows++
					if state := schedule.State(one.attr["data-state"]); state == schedule.StateFailing || state == schedule.StateLate {
						troubled++
					}
				}
			}
			if c.whole && rows != views {
				t.Errorf("%d rows", rows)
			}
			if troubled < min(urgent, rows) {
				t.Errorf("%d rows, %d of %d that are in trouble", rows, troubled, urgent)
			}
			if more := fmt.Sprintf("… %d more: <code>mvsched status", views-rows); strings.Contains(page, more) != (rows < views) {
				t.Errorf("%d rows, and not %q", rows, more)
			}
			t.Logf("%d bytes, %d rows", len(page), rows)
		})
	}
}
