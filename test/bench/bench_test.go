package main

import (
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestQuick runs a small round of everything. What it measures means nothing, but all contenders have to come to their end,
// and those with records of their own to have one for every view.
func TestQuick(t *testing.T) {
	var out strings.Builder
	dir := t.TempDir()
	o := options{rounds: 1, views: 16, bigMB: 2, columns: 1000, figures: "burst,nothing,serve,big,columns", plots: dir, quick: true}
	if err := run(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"8 at a time", "Nothing is due", "start delay", "refreshed concurrently", "a backlog of 1000 rows", "| River |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "NaN") {
		t.Errorf("a figure is missing:\n%s", out.String())
	}
	if _, run, _ := strings.Cut(out.String(), "| mvsched `run` | "); !regexp.MustCompile(`^[^\n]*\| 1 \| 3 \| \d+ \|\n`).MatchString(run) {
		t.Errorf("with nothing due there are others than 1 connection and 3 round trips:\n%s", run)
	}
}

// TestScaleQuick runs a small version of what is measured at scale: each due view is claimed once, and no plan has a
// sequential scan.
func TestScaleQuick(t *testing.T) {
	var out strings.Builder
	o := options{rounds: 1, views: 2, bigMB: 2, figures: "scale", quick: true}
	o.quickly()
	if err := run(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"held open since before 400 claims", "| sequential scans of the schedules meanwhile | 0 |", "| of the executions | 0 |", "| due views that were claimed once | 60 |",
		"The graph of 60 views", "tables after 120 refreshes",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "NaN") {
		t.Errorf("a figure is missing:\n%s", out.String())
	}
}

// TestMixedQuick serves schedules of all kinds for some seconds: each slot has its success although a server is killed, or
// the figure is an error.
func TestMixedQuick(t *testing.T) {
	var out strings.Builder
	o := options{rounds: 1, views: 2, bigMB: 2, figures: "mixed", quick: true}
	o.quickly()
	if err := run(t.Context(), o, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"2 `serve -j 4`, 30 schedules of all kinds, 20s, one killed", "start delay, ms: p50", "| with free workers |",
		"| slots with two successes | 0 |", "| missed slots | 0 |", "| left running | 0 |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in:\n%s", want, out.String())
		}
	}
	for _, never := range []string{"NaN", "| executions | 0 |", "| with free workers | 0 |"} {
		if strings.Contains(out.String(), never) {
			t.Errorf("there is %q in:\n%s", never, out.String())
		}
	}
}

// TestFreshQuick looks for some seconds at how old data is.
func TestFreshQuick(t *testing.T) {
	var out strings.Builder
	o := options{rounds: 1, views: 2, bigMB: 2, figures: "fresh", quick: true}
	o.quickly()
	if err := run(t.Context(), o, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"| age of chain3, at looks from outside | ", "| refreshes of advised3 | ", "`--on-change` has it", "| start delay of 100 quick views | "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in:\n%s", want, out.String())
		}
	}
	for _, never := range []string{"NaN", "| refreshes of chain3 | 0 |", "| refreshes of advised3 | 0 |"} {
		if strings.Contains(out.String(), never) {
			t.Errorf("there is %q in:\n%s", never, out.String())
		}
	}
}

// TestFewest: what is left of the target when the refreshes of the chain are over is how far apart they may begin.
func TestFewest(t *testing.T) {
	from := time.Unix(0, 0)
	f := &freshness{shorter: 1, from: from, until: from.Add(10 * time.Minute)}
	// Three views of 2 to 5 s leave 45 to 54 of the 60 seconds for one chain.
	if n := f.fewest(); n < 600.0/54 || n > 600.0/45 {
		t.Errorf("%.1f refreshes in 10 minutes", n)
	}
}

func TestLoggedClaims(t *testing.T) {
	times, err := loggedClaims(`2026 [1] LOG:  duration: 0.250 ms  execute <unnamed>: select *
		from mvsched.claim($1)
2026 [1] LOG:  duration: 7 ms  bind <unnamed>: select * from mvsched.claim($1)
2026 [1] LOG:  duration: 9.5 ms  execute <unnamed>: commit
2026 [1] LOG:  duration: 1.750 ms  execute <unnamed>: select * from mvsched.claim($1)`)
	if err != nil || len(times) != 2 || times[0] != 0.25 || times[1] != 1.75 {
		t.Errorf("%v, %v", times, err)
	}
}

func TestRefreshTime(t *testing.T) {
	took, err := refreshTime(`2026 [1] LOG:  duration: 0.250 ms  execute <unnamed>: commit
2026 [1] LOG:  duration: 700.5 ms  execute <unnamed>: refresh materialized view concurrently "public"."big"
2026 [2] LOG:  duration: 9 ms  execute <unnamed>: commit
2026 [1] LOG:  duration: 0.500 ms  execute <unnamed>: commit
2026 [1] LOG:  duration: 5 ms  execute <unnamed>: commit`)
	if err != nil || took != 701*time.Millisecond {
		t.Errorf("%v, %v", took, err)
	}
	if took, err = refreshTime(`2026 [1] LOG:  duration: 700.5 ms  statement: refresh materialized view concurrently public.big`); err != nil || took != 700500*time.Microsecond {
		t.Errorf("%v, %v", took, err)
	}
	if _, err = refreshTime(""); err == nil {
		t.Error("nothing was refreshed, and it took a time")
	}
}

func TestPercentile(t *testing.T) {
	values := []float64{4, 1, 3, 2}
	for percent, want := range map[float64]float64{50: 2.5, 99: 4, 25: 1} {
		if got := percentile(values, percent); got != want {
			t.Errorf("percentile(%v, %v) = %v, not %v", values, percent, got, want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing = %v", got)
	}
}
