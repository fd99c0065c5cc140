package schedule

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Edge says that the query of Child reads Parent, directly or through plain views. Both are canonical names.
type Edge struct {
	Parent string
	Child  string
}

// Graph is what reads what: all materialized views of the database, scheduled or not, and the edges between them,
// both in order of names.
type Graph struct {
	Views []string
	Edges []Edge
}

// Materialized, the dependencies are worked out once; else a planner that expects few views does it for each of them.
const graphSQL = `
with reads as materialized (
  select d.child, array_agg(mvsched.view_name(d.parent)) as parents
    from mvsched.materialized_view_dependency d
   group by d.child
)
select mvsched.view_name(c.oid), reads.parents
  from pg_catalog.pg_class c
  left join reads on reads.child = c.oid
 where c.relkind = 'm'`

// Graph reads the catalog as it is now, not what workers have last worked out from it.
func (s *Store) Graph(ctx context.Context) (Graph, error) {
	ctx, cancel := withDeadline(ctx, "reading the dependencies")
	defer cancel()
	type node struct {
		name    string
		parents []string
	}
	nodes, err := read(ctx, s, "reading the dependencies", func(row pgx.CollectableRow) (n node, err error) {
		err = row.Scan(&n.name, &n.parents)
		return n, err
	}, graphSQL)
	if err != nil {
		return Graph{}, err
	}
	var g Graph
	for _, n := range nodes {
		g.Views = append(g.Views, n.name)
		for _, parent := range n.parents {
			g.Edges = append(g.Edges, Edge{Parent: parent, Child: n.name})
		}
	}
	slices.Sort(g.Views)
	slices.SortFunc(g.Edges, func(a, b Edge) int {
		if c := strings.Compare(a.Parent, b.Parent); c != 0 {
			return c
		}
		return strings.Compare(a.Child, b.Child)
	})
	return g, nil
}

// Children returns for each view that is read the views that read it, in the order of Edges.
func (g Graph) Children() map[string][]string {
	children := map[string][]string{}
	for _, e := range g.Edges {
		children[e.Parent] = append(children[e.Parent], e.Child)
	}
	return children
}

// Cycles returns the views that read each other in a circle, which a replaced plain view can make, each group and the
// groups in order of names. A view that reads itself is a group of one.
func (g Graph) Cycles() [][]string {
	var cycles [][]string
	for _, component := range g.components() {
		if len(component) > 1 || slices.Contains(g.Edges, Edge{component[0], component[0]}) {
			cycles = append(cycles, component)
		}
	}
	slices.SortFunc(cycles, slices.Compare)
	return cycles
}

// Roots returns views from which following the edges leads to every view: those that read no other one, and of a cycle
// that reads nothing outside of it, the first one.
func (g Graph) Roots() []string {
	components := g.components()
	home := map[string]int{}
	for i, component := range components {
		for _, view := range component {
			home[view] = i
		}
	}
	entered := make([]bool, len(components))
	for _, e := range g.Edges {
		if home[e.Parent] != home[e.Child] {
			entered[home[e.Child]] = true
		}
	}
	var roots []string
	for i, component := range components {
		if !entered[i] {
			roots = append(roots, component[0])
		}
	}
	slices.Sort(roots)
	return roots
}

// components returns the strongly connected components, each in order of names: Tarjan's algorithm.
func (g Graph) components() [][]string {
	var (
		children   = g.Children()
		index      = map[string]int{} // from 1, in the order of visits
		low        = map[string]int{} // the lowest index on the stack that can be reached
		onStack    = map[string]bool{}
		stack      []string
		components [][]string
		visit      func(view string)
	)
	visit = func(view string) {
		index[view] = len(index) + 1
		low[view] = index[view]
		stack, onStack[view] = append(stack, view), true
		for _, child := range children[view] {
			if index[child] == 0 {
				visit(child)
				low[view] = min(low[view], low[child])
			} else if onStack[child] {
				low[view] = min(low[view], index[child])
			}
		}
		if low[view] != index[view] {
			return
		}
		at := slices.Index(stack, view)
		component := slices.Sorted(slices.Values(stack[at:]))
		stack = stack[:at]
		for _, member := range component {
			onStack[member] = false
		}
		components = append(components, component)
	}
	for _, view := range g.Views {
		if index[view] == 0 {
			visit(view)
		}
	}
	return components
}
