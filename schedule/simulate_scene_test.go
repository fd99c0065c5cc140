package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// scene is a simulation that begins on Monday, 2 March 2026, at noon.
type scene struct {
	simulation
	edges []edge
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func newScene(workers int, length time.Duration) *scene {
	return &scene{simulation: simulation{from: noon, until: noon.Add(length), workers: map[string]int{"": workers}, mostRuns: 1000}}
}

// view adds one that is due at noon and has data as of then; change alters it.
func (s *scene) view(name string, usual time.Duration, change func(*simulated)) *simulated {
	v := &simulated{
		scheduled: true, oid: int64(len(s.views) + 1), usual: &usual, attempted: noon.Add(-time.Hour), due: noon, slot: noon,
		dataAsOf: noon.Add(-time.Minute), refreshed: noon.Add(-time.Minute),
	}
	v.Schedule = Schedule{ID: v.oid, View: name, Timezone: "UTC", Timeout: 30 * time.Minute, MaxStaleness: time.Hour, Queue: "default"}
	change(v)
	v.NextRunAt = timeOrNil(v.due)
	v.configure(v.Schedule)
	s.views = append(s.views, v)
	return v
}

func (s *scene) reads(child *simulated, parents ...*simulated) {
	for _, p := range parents {
		s.edges = append(s.edges, edge{p.oid, child.oid})
	}
}

func every(d time.Duration) func(*simulated) {
	return func(v *simulated) { v.Kind, v.Every = KindEvery, &d }
}

func withMaxLag(d time.Duration) func(*simulated) {
	return func(v *simulated) { v.Kind, v.MaxLag, v.due = KindMaxLag, &d, time.Time{} }
}

func afterParents(v *simulated) { v.Kind, v.due = KindAfterParents, time.Time{} }

func all(changes ...func(*simulated)) func(*simulated) {
	return func(v *simulated) {
		for _, change := range changes {
			change(v)
		}
	}
}

// dueIn moves the slot.
func dueIn(d time.Duration) func(*simulated) {
	return func(v *simulated) { v.due, v.slot = noon.Add(d), noon.Add(d) }
}

// starts plays the scene and says when each run starts: a 0s, b 5s.
func (s *scene) starts() (Forecast, string) {
	var weights []weight
	for _, v := range s.views {
		weights = append(weights, weight{oid: v.oid, scheduled: v.scheduled, seconds: seconds(v.usual)})
	}
	slices.SortFunc(s.edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.parent, b.parent), cmp.Compare(a.child, b.child)) })
	s.connect(arrange(s.edges, weights))
	var views []lagView
	for _, v := range s.views {
		lv := lagView{oid: v.oid, maxLag: v.MaxLag, follows: v.MaxLag != nil || v.Kind == KindAfterParents, scheduled: v.scheduled, usual: v.usual, runs: 20}
		for _, p := range v.parents {
			lv.parents = append(lv.parents, p.oid)
		}
		views = append(views, lv)
	}
	s.lags = newLags(views)
	s.play()
	f := s.forecast()
	var starts []string
	for _, r := range f.Runs {
		starts = append(starts, fmt.Sprintf("%s %s", r.View, FormatDuration(r.StartsAt.Sub(noon))))
	}
	return f, strings.Join(starts, ", ")
}

func codes(remarks []Remark) string {
	var codes []string
	for _, r := range remarks {
		codes = append(codes, r.Code)
	}
	return strings.Join(codes, " ")
}
