package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// A timeline's unit is a minute; it ends now, with a margin for what still runs.
const (
	timelineMinutes = 24 * 60
	timelineMargin  = 20
	timelineWidth   = timelineMinutes + timelineMargin

	narrowest = 3 // a mark that could not be seen would be a lie
)

// timeline is a day of runs, a line for every view that had one.
type timeline struct {
	Hours  []hour
	Grid   string // the path of the hours' lines
	Rows   []timelineRow
	More   int  // lines that are not shown
	Idle   int  // scheduled views without a run
	Merged bool // some marks stand for several runs
	Width  int
	Now    int
}

type hour struct {
	Percent string // from the left
	Text    string
}

type timelineRow struct {
	View                  string
	Name                  viewName
	Runs, Failed, Skipped cell
	Summary               string
	Groups                []markGroup
}

// markGroup is the marks of one colour.
type markGroup struct {
	Tone  tone
	Marks []mark
}

type mark struct {
	Path  string
	Title string
	Many  bool
}

func newTimeline(snap schedule.Snapshot, thrift thrift) timeline {
	t := timeline{Width: timelineWidth, Now: timelineMinutes}
	from := snap.At.Add(-timelineMinutes * time.Minute)
	t.axis(from)

	runs := map[string][]schedule.Execution{}
	for _, e := range snap.Runs {
		runs[e.View] = append(runs[e.View], e)
	}
	step := markStep(from, runs, thrift.marks)
	line := func(view string) {
		if len(runs[view]) > 0 {
			t.Rows = append(t.Rows, newTimelineRow(view, runs[view], from, snap.At, step))
		}
		delete(runs, view)
	}
	for _, s := range snap.Standings {
		if len(runs[s.View]) == 0 {
			t.Idle++
		}
		line(s.View)
	}
	var others []string // without a schedule
	for view := range runs {
		others = append(others, view)
	}
	slices.Sort(others)
	for _, view := range others {
		line(view)
	}
	all := len(t.Rows)
	t.Rows = foremost(t.Rows, thrift.lines, func(row timelineRow) bool { return row.Failed.Value != "0" })
	t.More = all - len(t.Rows)
	for _, row := range t.Rows {
		for _, group := range row.Groups {
			t.Merged = t.Merged || slices.ContainsFunc(group.Marks, func(m mark) bool { return m.Many })
		}
	}
	return t
}

// axis marks every sixth hour of the reader's clock.
func (t *timeline) axis(from time.Time) {
	var grid strings.Builder
	for h := from.Local().Truncate(time.Minute).Add(time.Minute); ; h = h.Add(time.Minute) {
		minutes := minutesSince(from, h)
		if minutes > timelineMinutes {
			break
		}
		if h.Minute() != 0 || h.Hour()%3 != 0 {
			continue
		}
		fmt.Fprintf(&grid, "M%d 0v16", int(minutes))
		if h.Hour()%6 == 0 {
			t.Hours = append(t.Hours, hour{fmt.Sprintf("%.1f%%", 100*minutes/timelineWidth), h.Format("15:04")})
		}
	}
	t.Grid = grid.String()
}

func minutesSince(from, t time.Time) float64 { return t.Sub(from).Minutes() }

// bucket is where a run's mark may become one with others of its colour.
type bucket struct {
	tone tone
	at   int
}

func bucketOf(e schedule.Execution, from time.Time, step int) bucket {
	return bucket{runTone(e.Status), int(max(minutesSince(from, e.StartedAt), 0)) / step}
}

func runTone(status schedule.Status) tone {
	switch {
	case status == schedule.Running:
		return toneRunning
	case status == schedule.Skipped:
		return toneIdle
	case status.Bad():
		return toneBad
	default:
		return toneOK
	}
}

// markStep is how many minutes become one mark, the fewest for which the page does not get too large.
func markStep(from time.Time, runs map[string][]schedule.Execution, most int) int {
	steps := []int{narrowest, 5, 10, 15, 30, 60, 120, 180, 240, 360}
	for _, step := range steps {
		marks := 0
		for _, of := range runs {
			seen := map[bucket]bool{}
			for _, e := range of {
				seen[bucketOf(e, from, step)] = true
			}
			if marks += len(seen); marks > most {
				break
			}
		}
		if marks <= most {
			return step
		}
	}
	return steps[len(steps)-1]
}

func newTimelineRow(view string, runs []schedule.Execution, from, at time.Time, step int) timelineRow {
	var failed, skipped int
	buckets := map[bucket][]schedule.Execution{}
	var order []bucket
	for _, e := range runs {
		switch {
		case e.Status == schedule.Skipped:
			skipped++
		case e.Status.Bad():
			failed++
		}
		b := bucketOf(e, from, step)
		if buckets[b] == nil {
			order = append(order, b)
		}
		buckets[b] = append(buckets[b], e)
	}
	row := timelineRow{
		View: exact(view), Name: viewName(label(view)), Runs: integerCell("runs", len(runs), grouped(int64(len(runs)))),
		Failed: integerCell("failed", failed, grouped(int64(failed))), Skipped: integerCell("skipped", skipped, grouped(int64(skipped))),
	}
	for _, tone := range []tone{toneIdle, toneOK, toneBad, toneRunning} { // the later ones cover the earlier ones
		group := markGroup{Tone: tone}
		for _, b := range order {
			if b.tone == tone {
				group.Marks = append(group.Marks, newMark(tone, buckets[b], from, at))
			}
		}
		if len(group.Marks) > 0 {
			row.Groups = append(row.Groups, group)
		}
	}
	return row
}

func newMark(tone tone, runs []schedule.Execution, from, at time.Time) mark {
	first, last := runs[0], runs[0]
	var total time.Duration
	for _, e := range runs {
		if e.StartedAt.Before(first.StartedAt) {
			first = e
		}
		if e.EndedAt != nil && (last.EndedAt == nil || e.EndedAt.After(*last.EndedAt)) {
			last = e
		}
		total += e.Duration()
	}
	start := int(max(minutesSince(from, first.StartedAt), 0))
	if tone == toneRunning { // an arrow beyond now: nobody knows its end
		start = min(start, timelineMinutes-narrowest)
		return mark{
			Path:  fmt.Sprintf("M%d 2H%dL%d 8L%d 14H%dz", start, timelineMinutes, timelineWidth, timelineMinutes, start),
			Title: outcome(first, at),
		}
	}
	end := timelineMinutes
	if last.EndedAt != nil {
		end = int(minutesSince(from, *last.EndedAt))
	}
	width := max(end-start, narrowest)
	start = min(start, timelineMinutes-width)
	top, height := 2, 12
	if tone == toneIdle {
		top, height = 5, 6 // next to nothing was done
	}
	m := mark{Path: fmt.Sprintf("M%d %dh%dv%dh-%dz", start, top, width, height, width), Title: outcome(first, at)}
	if len(runs) > 1 {
		m.Many = true
		m.Title = fmt.Sprintf("%s to %s %d %s, %s in all", first.StartedAt.Local().Format("15:04"), last.StartedAt.Local().Format("15:04"),
			len(runs), runWord(tone), schedule.FormatSpan(total))
	}
	return m
}

// runWord is what the runs of one colour have in common.
func runWord(tone tone) string {
	switch tone {
	case toneIdle:
		return "skipped"
	case toneBad:
		return "failed"
	default:
		return "succeeded"
	}
}
