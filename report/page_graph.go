package report

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/mvsched/mvsched/schedule"
)

// maxNodes is how many views the page draws, and no more than can be taken in.
const maxNodes = 120

// The measures of the drawing, in pixels at its natural size.
const (
	nodeHeight, nodeGap   = 40, 12
	layerGap              = 44
	letterWidth, nodePad  = 7, 34
	shortestName, maxName = 12, 34
	drawingWidth          = 1080 // what small parts share, side by side
)

// drawing is the graph in layers: what a view reads stands to its left.
type drawing struct {
	Width, Height int
	Nodes         []node
	Edges         []edge
	Reads         []reads // the same in words
	Alone         int     // views that read no other, nor are read by one
	More          int     // views that are not drawn
	Cycles        bool
	Fits          bool // made a little smaller, it has room on a large screen
}

type node struct {
	X, Y, Width int
	Inner       int // the width of its box without the line around it
	Name, Short string
	State       schedule.State
	Tone        tone
}

type edge struct {
	Path string
	Back bool // of a cycle
}

type reads struct {
	View string
	Of   []string
	More int
}

func newDrawing(g schedule.Graph, standings []schedule.Standing) drawing {
	states := map[string]schedule.State{}
	for _, s := range standings {
		states[s.View] = s.State
	}
	parts, alone := parts(g)
	d := drawing{Alone: alone}
	parts, d.More = choose(parts, g, states)

	// Parts stand side by side as long as there is room, and below each other.
	x, y, tallest := 0, 0, 0
	for _, part := range parts {
		l := newLayout(part, g)
		width, height := l.place()
		if x > 0 && x+width > drawingWidth {
			x, y, tallest = 0, y+tallest+2*nodeGap, 0
		}
		l.draw(&d, x, y, states)
		x += width + layerGap
		tallest = max(tallest, height)
		d.Width, d.Height = max(d.Width, x-layerGap), max(d.Height, y+tallest)
	}
	d.Width, d.Height = d.Width+2, d.Height+2 // lines are half outside
	d.Fits = d.Width <= drawingWidth*4/3
	return d
}

// parts returns the views that are connected, each part in order of names, and how many views are connected to none.
func parts(g schedule.Graph) (parts [][]string, alone int) {
	near := map[string][]string{}
	for _, e := range g.Edges {
		if e.Parent != e.Child {
			near[e.Parent] = append(near[e.Parent], e.Child)
			near[e.Child] = append(near[e.Child], e.Parent)
		}
	}
	seen := map[string]bool{}
	for _, view := range g.Views {
		if len(near[view]) == 0 {
			alone++
			continue
		}
		if seen[view] {
			continue
		}
		part := reach([]string{view}, near, len(g.Views))
		for _, v := range part {
			seen[v] = true
		}
		slices.Sort(part)
		parts = append(parts, part)
	}
	return parts, alone
}

// reach returns the first views, and those that are the nearest to them, at most so many.
func reach(first []string, near map[string][]string, most int) []string {
	found := slices.Clone(first[:min(len(first), most)])
	seen := map[string]bool{}
	for _, v := range found {
		seen[v] = true
	}
	for i := 0; i < len(found); i++ {
		for _, v := range near[found[i]] {
			if !seen[v] && len(found) < most {
				seen[v] = true
				found = append(found, v)
			}
		}
	}
	return found
}

// choose leaves out what would make the drawing too large: parts with trouble come first, then large ones. Of a part that
// is too large by itself there is what is in trouble, and what is near.
func choose(parts [][]string, g schedule.Graph, states map[string]schedule.State) (chosen [][]string, more int) {
	inTrouble := func(view string) bool { return toneOf(states[view]) == toneBad }
	rank := func(part []string) int {
		if slices.ContainsFunc(part, inTrouble) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(parts, func(a, b []string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(len(b), len(a)))
	})
	room := maxNodes
	for _, part := range parts {
		switch {
		case len(part) <= room:
			chosen = append(chosen, part)
			room -= len(part)
		case room == maxNodes:
			near := map[string][]string{}
			for _, e := range g.Edges {
				near[e.Parent] = append(near[e.Parent], e.Child)
				near[e.Child] = append(near[e.Child], e.Parent)
			}
			first := slices.DeleteFunc(slices.Clone(part), func(v string) bool { return !inTrouble(v) })
			if len(first) == 0 {
				first = part[:1]
			}
			cut := reach(first, near, maxNodes)
			slices.Sort(cut)
			chosen = append(chosen, cut)
			more += len(part) - len(cut)
			room = 0
		default:
			more += len(part)
		}
	}
	return chosen, more
}

// draw adds the part to a drawing, with its upper left corner at x, y.
func (l *layout) draw(d *drawing, x, y int, states map[string]schedule.State) {
	reading := map[string][]string{}
	for _, c := range l.chains {
		from, to := c.spots[0], c.spots[len(c.spots)-1]
		reading[to.view] = append(reading[to.view], label(from.view))
		d.Cycles = d.Cycles || c.back
		px, py := x+l.columns[from.layer]+l.widths[from.layer], y+int(from.y)
		path := fmt.Sprintf("M%d %d", px, py)
		if c.back { // around, from the right side of the one to the left side of the other
			tx, ty := x+l.columns[to.layer], y+int(to.y)
			path += fmt.Sprintf("C%d %d %d %d %d %d", px+layerGap, py+nodeHeight, tx-layerGap, ty+nodeHeight, tx, ty)
			d.Edges = append(d.Edges, edge{path, true})
			continue
		}
		for _, s := range c.spots[1:] {
			left, sy := x+l.columns[s.layer], y+int(s.y)
			middle := (px + left) / 2
			path += fmt.Sprintf("C%d %d %d %d %d %d", middle, py, middle, sy, left, sy)
			px, py = left, sy
			if s.view == "" {
				px += l.widths[s.layer]
				path += fmt.Sprintf("H%d", px)
			}
		}
		d.Edges = append(d.Edges, edge{path, false})
	}
	for _, view := range l.views {
		s := l.at[view]
		state, scheduled := states[view]
		if !scheduled {
			state = schedule.StateUnscheduled
		}
		d.Nodes = append(d.Nodes, node{
			X: x + l.columns[s.layer], Y: y + int(s.y) - nodeHeight/2, Width: l.widths[s.layer], Inner: l.widths[s.layer] - 1,
			Name: label(view), Short: fit(label(view), maxName, "…"), State: state, Tone: toneOf(state),
		})
		if of := reading[view]; of != nil {
			d.Reads = append(d.Reads, reads{label(view), of[:min(len(of), maxReads)], max(len(of)-maxReads, 0)})
		}
	}
}
