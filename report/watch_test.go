package report_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// A page of the watch fits the terminal; where not all views do, those that are well give way.
func TestWatchFits(t *testing.T) {
	var standings []schedule.Standing
	for i := range 50 {
		standings = append(standings, standing(fmt.Sprintf("public.fresh%d", i)))
	}
	late, running := standing("public.late"), standing("public.running")
	late.State, running.State, running.RunningFor = schedule.StateLate, schedule.StateRunning, ptr(hostileStandings()[0].Last.Duration())
	standings = append(standings, running, late)
	page := func(columns, lines int, trouble string) []string {
		var out strings.Builder
		if err := (report.Printer{W: &out, Format: report.Table, Width: columns, Color: true}).Watch(standings, trouble, lines); err != nil {
			t.Fatal(err)
		}
		return strings.Split(sgr.ReplaceAllString(out.String(), ""), "\n")
	}
	got := page(80, 10, "")
	if len(got) != 10 || got[0] != "views: 52, 1 late, 1 running, 50 fresh" || !strings.HasPrefix(got[3], "public.late ") ||
		!strings.HasPrefix(got[4], "public.running ") || got[9] != "…" {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	for _, columns := range []int{1, 5, 20, 40, 80} {
		for _, lines := range []int{1, 4, 24} {
			for _, line := range page(columns, lines, "error: "+hostile[4]+strings.Repeat("x", 100)) {
				if len([]rune(line)) > columns {
					t.Errorf("%d times %d: %q", columns, lines, line)
				}
			}
		}
	}
	if got := page(0, 0, ""); len(got) != 55 || !strings.Contains(got[54], "public.late") {
		t.Errorf("a terminal that does not tell its size: %d lines", len(got))
	}
}
