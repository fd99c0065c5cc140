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

	dataAsOf *time.Time // nil: it has never been refreshed
	begins   *time.Time // its next refresh, as it is planned; nil: not known

	// Worked out from these.
	place   int            // in an order in which parents come first; those of a cycle have the same
	way     time.Duration  // what the refreshes on the longest way take that ends with the view, itself included
	longest time.Duration  // the longest refresh of any such way
	clocked bool           // it reads, over however many others, a view that is not refreshed for its sake
	latest  *time.Duration // see newLags; nil: no view that has a target is concerned
}

// prediction is what a slot was planned with; nil: nothing is known.
type prediction struct {
	duration *time.Duration // how long the refresh is going to take
	lag      *time.Duration // the shortest lag that could be kept
}

// lags knows how late each view can begin.
type lags map[int64]*lagView

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

// newLags works out how late each view can begin: latest is how long after the instant that its data is as of. The data
// of no view that has a target may get older than that; so it is each target less the refreshes on the longest way to it,
// and the least of them. A way goes on through a child that follows what it reads, not through one that has a clock of its
// own. Within a cycle there is no way.
func newLags(views []lagView) lags {
	l := lags{}
	var oids []int64
	for i := range views {
		l[views[i].oid] = &views[i]
		oids = append(oids, views[i].oid)
	}
	parents := func(oid int64) []int64 {
		return slices.DeleteFunc(slices.Clone(l[oid].parents), func(p int64) bool { return l[p] == nil })
	}
	groups := components(oids, parents) // parents come before children
	for place, group := range groups {
		var way, longest time.Duration
		clocked := false
		for _, oid := range group {
			for _, parent := range parents(oid) {
				p := l[parent]
				clocked = clocked || parent != oid && !p.follows || p.clocked
				if !slices.Contains(group, parent) && p.scheduled && p.follows {
					way, longest = max(way, p.way), max(longest, p.longest)
				}
			}
		}
		for _, oid := range group {
			v := l[oid]
			v.place, v.clocked = place, clocked
			v.way, v.longest = way+v.predicted(), max(longest, v.predicted())
		}
	}
	for _, group := range slices.Backward(groups) {
		for _, oid := range group { // their children have told them by now
			v := l[oid]
			if v.maxLag != nil {
				v.within(*v.maxLag - lagMargin - *v.maxLag/lagMarginFraction - v.predicted())
			}
		}
		for _, oid := range group {
			v := l[oid]
			for _, parent := range parents(oid) {
				if p := l[parent]; v.follows && v.latest != nil && !slices.Contains(group, parent) {
					p.within(*v.latest - p.predicted())
				}
			}
		}
	}
	return l
}

// within takes a bound on how late the view can begin.
func (v *lagView) within(d time.Duration) {
	if v.latest == nil || d < *v.latest {
		v.latest = &d
	}
}

// renewal is when the last of the views begins to be refreshed that the view has the age of its data from: before that its
// own refresh would change nothing, and in that slot it waits for them. nil: there is none, or it is not known.
func (l lags) renewal(v *lagView, dataAsOf time.Time) (last *time.Time) {
	for _, oid := range v.parents {
		p := l[oid]
		if p == nil || p == v || p.begins == nil || p.dataAsOf == nil || p.dataAsOf.After(dataAsOf) {
			continue
		}
		if last == nil || p.begins.After(*last) {
			last = p.begins
		}
	}
	return last
}

// place is where a view comes in an order in which parents come first.
func (l lags) place(oid int64) int {
	if v := l[oid]; v != nil {
		return v.place
	}
	return 0
}

// planned notes when a view's next refresh is going to begin: a slot is only ever moved forward.
func (l lags) planned(oid int64, slot time.Time) {
	if v := l[oid]; v != nil && (v.begins == nil || slot.Before(*v.begins)) {
		v.begins = &slot
	}
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
		// Since the next way cannot begin before the last refresh of this one has ended.
		lag := v.way + v.longest + lagMargin + *v.maxLag/lagMarginFraction
		known = prediction{duration: &duration, lag: &lag}
	}
	latest := *v.latest
	pause := max(latest, time.Second)
	switch {
	case u.FailedAt != nil: // also where its target cannot be kept, and it would always be late
		return u.FailedAt.Add(max(pause, *v.maxLag/2)), known
	case u.DataAsOf == nil || v.clocked:
		return u.Since.Add(pause), known
	}
	slot := u.DataAsOf.Add(latest)
	renewed := l.renewal(v, *u.DataAsOf)
	switch {
	case renewed != nil && renewed.After(slot):
		return *renewed, known
	case !slot.Before(u.Since):
		if u.Ended != nil && slot.Before(*u.Ended) { // it cannot be kept: a second between its runs
			slot = u.Ended.Add(time.Second)
		}
		return slot, known
	case u.Refreshed != nil && u.DataAsOf.Before(*u.Refreshed):
		return u.Since.Add(pause), known // what it reads is late, and its own refresh cannot help that
	default:
		if u.Ended != nil { // late already: at once, but for that second
			return later(u.Since, u.Ended.Add(time.Second)), known
		}
		return u.Since, known
	}
}
