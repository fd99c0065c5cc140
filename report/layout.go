package report

import (
	"cmp"
	"slices"
	"unicode/utf8"

	"github.com/mvsched/mvsched/schedule"
)

// layout places one part. An edge over several layers bends around what stands there: on each of them it has a point.
type layout struct {
	views   []string
	edges   []schedule.Edge
	layers  [][]*spot
	at      map[string]*spot
	chains  []chain
	columns []int // the left side of each layer
	widths  []int
}

// spot is a view, or a point of an edge.
type spot struct {
	view        string // "": a point
	layer       int
	y           float64 // of its middle
	left, right []*spot // what it is connected to there
}

// chain is an edge by its spots.
type chain struct {
	spots []*spot
	back  bool
}

func newLayout(views []string, g schedule.Graph) *layout {
	l := &layout{views: views, at: map[string]*spot{}}
	for _, view := range views {
		l.at[view] = &spot{view: view}
	}
	parents := map[string][]string{}
	for _, e := range g.Edges {
		if l.at[e.Parent] != nil && l.at[e.Child] != nil && e.Parent != e.Child {
			l.edges = append(l.edges, e)
			parents[e.Child] = append(parents[e.Child], e.Parent)
		}
	}

	// A view's layer is one to the right of the last that it reads. What leads back into a cycle does not count.
	back := map[schedule.Edge]bool{}
	const entered, done = 1, 2
	visited := map[string]int{}
	var visit func(view string)
	visit = func(view string) {
		visited[view] = entered
		for _, parent := range parents[view] {
			switch visited[parent] {
			case entered:
				back[schedule.Edge{Parent: parent, Child: view}] = true
				continue
			case 0:
				visit(parent)
			}
			l.at[view].layer = max(l.at[view].layer, l.at[parent].layer+1)
		}
		visited[view] = done
	}
	for _, view := range views {
		if visited[view] == 0 {
			visit(view)
		}
	}
	for _, view := range views {
		l.add(l.at[view])
	}
	for _, e := range l.edges {
		l.connect(e, back[e])
	}
	return l
}

func (l *layout) add(s *spot) {
	for len(l.layers) <= s.layer {
		l.layers = append(l.layers, nil)
	}
	l.layers[s.layer] = append(l.layers[s.layer], s)
}

func (l *layout) connect(e schedule.Edge, back bool) {
	from, to := l.at[e.Parent], l.at[e.Child]
	c := chain{spots: []*spot{from}, back: back}
	if !back {
		for layer := from.layer + 1; layer < to.layer; layer++ {
			point := &spot{layer: layer}
			l.add(point)
			c.spots = append(c.spots, point)
		}
	}
	c.spots = append(c.spots, to)
	l.chains = append(l.chains, c)
	if back {
		return
	}
	for i, s := range c.spots[1:] {
		s.left = append(s.left, c.spots[i])
		c.spots[i].right = append(c.spots[i].right, s)
	}
}

// place gives every spot its place, and returns the size of it all. Each layer is sorted by where its neighbours stand (the
// barycenter heuristic), from the left and from the right, then moved towards them.
func (l *layout) place() (width, height int) {
	for _, layer := range l.layers {
		settle(layer, nil)
	}
	for round := range 8 {
		for i := range l.layers {
			if round%2 == 0 {
				l.arrange(l.layers[i], func(s *spot) []*spot { return s.left }, round < 6)
			} else {
				l.arrange(l.layers[len(l.layers)-1-i], func(s *spot) []*spot { return s.right }, round < 6)
			}
		}
	}
	top, bottom := l.layers[0][0].y, 0.0
	for _, layer := range l.layers {
		top = min(top, layer[0].y-layer[0].height()/2)
	}
	for _, layer := range l.layers {
		for _, s := range layer {
			s.y -= top
		}
		last := layer[len(layer)-1]
		bottom = max(bottom, last.y+last.height()/2)
		l.columns = append(l.columns, width)
		column := 0
		for _, s := range layer {
			column = max(column, s.width())
		}
		l.widths = append(l.widths, column)
		width += column + layerGap
	}
	return width - layerGap, int(bottom)
}

// arrange moves the spots of a layer towards the middle of their neighbours on one side.
func (l *layout) arrange(layer []*spot, neighbours func(*spot) []*spot, sorting bool) {
	wish := map[*spot]float64{}
	for _, s := range layer {
		wish[s] = s.y
		if near := neighbours(s); len(near) > 0 {
			sum := 0.0
			for _, n := range near {
				sum += n.y
			}
			wish[s] = sum / float64(len(near))
		}
	}
	if sorting {
		slices.SortStableFunc(layer, func(a, b *spot) int { return cmp.Compare(wish[a], wish[b]) })
	}
	settle(layer, wish)
}

// settle puts the spots of a layer as near as can be to where they should stand (least squares), in their order, and far
// enough from each other: those that would overlap move as a block, around its mean.
func settle(layer []*spot, wish map[*spot]float64) {
	type block struct {
		sum   float64
		spots int
	}
	mean := func(b block) float64 { return b.sum / float64(b.spots) }
	offsets := make([]float64, len(layer))
	var blocks []block
	for i, s := range layer {
		if i > 0 {
			offsets[i] = offsets[i-1] + (layer[i-1].height()+s.height())/2 + nodeGap
		}
		b := block{wish[s] - offsets[i], 1}
		for len(blocks) > 0 && mean(blocks[len(blocks)-1]) > mean(b) {
			last := blocks[len(blocks)-1]
			b = block{b.sum + last.sum, b.spots + last.spots}
			blocks = blocks[:len(blocks)-1]
		}
		blocks = append(blocks, b)
	}
	i := 0
	for _, b := range blocks {
		for range b.spots {
			layer[i].y = mean(b) + offsets[i]
			i++
		}
	}
}

func (s *spot) height() float64 {
	if s.view == "" {
		return 0
	}
	return nodeHeight
}

func (s *spot) width() int {
	if s.view == "" {
		return 0
	}
	return nodePad + letterWidth*max(utf8.RuneCountInString(fit(label(s.view), maxName)), shortestName)
}
