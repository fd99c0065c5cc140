package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A group is one block: all of its members that are refreshed at all begin with the first that is due, end together, and
// take one worker (mvsched.claim_group).

// longGroup is how long a group may take before its locks, and the snapshot that VACUUM goes by, are worth a word.
const longGroup = 5 * time.Minute

// gather tells the views who is in a group with them, in the order in which they are refreshed.
func (m *simulation) gather() {
	groups := map[string][]*simulated{}
	for _, v := range m.views {
		if v.Group != nil && v.serviceable() {
			groups[*v.Group] = append(groups[*v.Group], v)
		}
	}
	for _, members := range groups {
		within := func(v *simulated) (n int) {
			for _, a := range v.ancestors {
				if slices.Contains(members, a) {
					n++
				}
			}
			return n
		}
		slices.SortStableFunc(members, func(a, b *simulated) int { return cmp.Or(cmp.Compare(within(a), within(b)), cmp.Compare(a.ID, b.ID)) })
		if len(members) > 1 {
			for _, v := range members {
				v.members = members
			}
		}
	}
}

// together is whoever is refreshed with a view.
func (v *simulated) together() []*simulated {
	if v.members == nil {
		return []*simulated{v}
	}
	return v.members
}

// sideBySide reports whether a view does not wait for this ancestor of its group, since it is in it, or waits for it.
func (v *simulated) sideBySide(ancestor *simulated) bool {
	return v.members != nil && (slices.Contains(v.members, ancestor) ||
		slices.ContainsFunc(ancestor.ancestors, func(a *simulated) bool { return slices.Contains(v.members, a) }))
}

// opens is when the windows of all that are refreshed with a view are open.
func (v *simulated) opens(at time.Time) time.Time {
	opens := at
	for _, w := range v.together() {
		if w.Window != nil {
			opens = later(opens, w.Window.from(at, w.location))
		}
	}
	return opens
}

// takeAlong begins what is refreshed with a view that is due, each for its own slot if that has come.
func (m *simulation) takeAlong(v *simulated, pool *simulatedPool, slot, at time.Time) {
	for _, w := range v.together() {
		if w == v {
			continue
		}
		if w.due.After(at) && w.slot.After(at) || w.due.IsZero() {
			w.kept, w.slot, w.retry = w.slot, slot, false
		}
		w.listed, w.along = false, true
		m.begin(w, pool, at)
	}
}

// noteGroups tells of each group, and what it costs.
func (m *simulation) noteGroups() (notes []Remark) {
	for _, v := range m.views {
		if v.members == nil || v.members[0] != v {
			continue
		}
		var views []string
		for _, w := range v.members {
			views = append(views, w.View)
		}
		message := fmt.Sprintf("group %s: %d views in one transaction of about %s", *v.Group, len(views), roughly(v.takes()))
		if v.takes() >= longGroup {
			message += "; for as long it holds their locks, and keeps VACUUM from removing rows anywhere in the database"
		}
		notes = append(notes, Remark{Code: ForecastGroup, Message: message, Views: views})
	}
	return notes
}
