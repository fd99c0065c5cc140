package schedule

import (
	"slices"
	"time"
)

// lagView is a view whose data has a target (max_lag), or one that such a view reads.
type lagView struct {
	oid       int64
	parents   []int64
	maxLag    *time.Duration
	follows   bool           // it is refreshed when what it reads has been, or in time for its own target
	scheduled bool           // mvsched refreshes it at all
	usual     *time.Duration // 95th percentile of its last refreshes; nil: there are none
	runs      int            // how many of them there are, up to 20

	children []*lagView
	tail     *time.Duration
	onPath   bool
}

// prediction is what a slot was planned with; nil: nothing is known.
type prediction struct {
	duration *time.Duration // how long the refresh is going to take
	lag      *time.Duration // the shortest lag that could be kept
}

// lags knows how late each view can begin.
type lags map[int64]*lagView

func newLags(views []lagView) lags {
	l := lags{}
	for i := range views {
		l[views[i].oid] = &views[i]
	}
	for i := range views {
		for _, parent := range views[i].parents {
			if p := l[parent]; p != nil && parent != views[i].oid {
				p.children = append(p.children, &views[i])
			}
		}
	}
	return l
}

const (
	// A claim comes some milliseconds after its slot, and no two refreshes take the same time.
	lagMargin         = 250 * time.Millisecond
	lagMarginFraction = 50

	// Of so few runs the 95th percentile says little, and a half or a fifth of it is added.
	veryFewRuns = 3
	fewRuns     = 10

	// How long a refresh is taken to last of which nothing is known.
	unknownDuration = time.Second
)

// predicted is how long the view's next refresh is assumed to take.
func (v *lagView) predicted() time.Duration {
	switch {
	case v.usual == nil:
		return unknownDuration
	case v.runs < veryFewRuns:
		return *v.usual * 3 / 2
	case v.runs < fewRuns:
		return *v.usual * 6 / 5
	default:
		return *v.usual
	}
}

// latest is how long after the instant that the view's data is as of its next refresh has to begin, so that the data
// of no view that has a target gets older than that: each target less the refreshes on the longest way to it, the
// least of them. nil: none is concerned.
func (v *lagView) latest() *time.Duration {
	if v.tail != nil || v.onPath {
		return v.tail
	}
	v.onPath = true // in a cycle, which ends here
	defer func() { v.onPath = false }()
	var least *time.Duration
	if v.maxLag != nil {
		own := *v.maxLag - lagMargin - *v.maxLag/lagMarginFraction
		least = &own
	}
	for _, child := range v.children {
		if !child.follows {
			continue
		}
		if below := child.latest(); below != nil && (least == nil || *below < *least) {
			least = below
		}
	}
	if least == nil {
		return nil
	}
	tail := *least - v.predicted()
	v.tail = &tail
	return v.tail
}

// way is how long the refreshes on the longest way take that ends with the view, itself included, and the longest of them:
// its data cannot stay younger than both together, since the next way cannot begin before the last refresh has ended.
func (l lags) way(v *lagView) (sum, longest time.Duration) {
	if v.onPath {
		return 0, 0
	}
	v.onPath = true
	defer func() { v.onPath = false }()
	for _, oid := range v.parents {
		if p := l[oid]; p != nil && p.scheduled && p.follows {
			above, most := l.way(p)
			sum, longest = max(sum, above), max(longest, most)
		}
	}
	own := v.predicted()
	return sum + own, max(longest, own)
}

// clocked reports whether something that the view reads is not refreshed for its sake: then its data may be as old as
// that, however often it is refreshed itself.
func (l lags) clocked(v *lagView) bool {
	return l.anyAbove(v, func(p *lagView) bool { return !p.follows })
}

func (l lags) anyAbove(v *lagView, is func(*lagView) bool) bool {
	if v.onPath {
		return false
	}
	v.onPath = true
	defer func() { v.onPath = false }()
	return slices.ContainsFunc(v.parents, func(oid int64) bool {
		p := l[oid]
		return p != nil && (is(p) || l.anyAbove(p, is))
	})
}

// plan returns the slot of a view with a target: as late as its data and that of the views that read it allow.
func (l lags) plan(u unplanned) (time.Time, prediction) {
	v := l[u.OID]
	if v == nil || v.maxLag == nil { // the view is gone, and its runs fail until it is back
		return u.Now.Add(time.Minute), prediction{}
	}
	var known prediction
	if v.usual != nil {
		duration := v.predicted()
		sum, longest := l.way(v)
		lag := sum + longest + lagMargin + *v.maxLag/lagMarginFraction
		known = prediction{duration: &duration, lag: &lag}
	}
	latest := *v.latest()
	pause := max(latest, time.Second)
	switch {
	case u.FailedAt != nil:
		return u.FailedAt.Add(pause), known
	case u.DataAsOf == nil || l.clocked(v):
		return u.Since.Add(pause), known
	}
	slot := u.DataAsOf.Add(latest)
	switch {
	case !slot.Before(u.Since):
		return slot, known
	case u.Refreshed != nil && u.DataAsOf.Before(*u.Refreshed):
		return u.Since.Add(pause), known // what it reads is late, and its own refresh cannot help that
	default:
		return u.Since, known // late already: at once
	}
}
