package schedule

import (
	"context"
	"fmt"
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

	created []string // the views in the order of their creation; nil: in that of Views
}

// In the order of their creation.
const namesSQL = `
select c.oid::bigint, mvsched.view_name(c.oid, n.nspname, c.relname)
  from mvsched.materialization m
  join pg_catalog.pg_class c on c.oid = m.oid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 order by c.oid`

// namedEdges are what a Graph is made of: the names are joined to the edges here, which takes the server twice as long.
type namedEdges struct {
	views []named
	edges []edge
}

type named struct {
	oid  int64
	name string
}

func scanNamed(row pgx.CollectableRow) (n named, err error) {
	err = row.Scan(&n.oid, &n.name)
	return n, err
}

func (g *namedEdges) queue(batch *pgx.Batch) {
	batch.Queue(namesSQL).Query(collect(&g.views, scanNamed))
	batch.Queue(edgesSQL).Query(collect(&g.edges, scanEdge))
}

// graph leaves out an edge whose end was created, or dropped, between the two queries.
func (g *namedEdges) graph() Graph {
	names, parents := map[int64]string{}, map[int64][]string{}
	for _, v := range g.views {
		names[v.oid] = v.name
	}
	for _, e := range g.edges {
		if parent, ok := names[e.parent]; ok {
			parents[e.child] = append(parents[e.child], parent)
		}
	}
	readers := make([]reader, len(g.views))
	for i, v := range g.views {
		readers[i] = reader{v.name, parents[v.oid]}
	}
	return newGraph(readers)
}

// Graph reads the catalog as it is now, not what workers have last worked out from it.
func (s *Store) Graph(ctx context.Context) (Graph, error) {
	ctx, cancel := withDeadline(ctx, "reading the dependencies")
	defer cancel()
	var found namedEdges
	if err := s.send(ctx, found.queue); err != nil {
		return Graph{}, fmt.Errorf("reading the dependencies: %w", err)
	}
	return found.graph(), nil
}

const readerColumns = `r.view_name, r.parents`

// reader is a materialized view and those that it reads.
type reader struct {
	Name    string
	Parents []string
}

func scanReader(row pgx.CollectableRow) (r reader, err error) {
	err = row.Scan(&r.Name, &r.Parents)
	return r, err
}

// newGraph takes the views in the order of their creation.
func newGraph(nodes []reader) Graph {
	var g Graph
	for _, n := range nodes {
		g.created = append(g.created, n.Name)
		for _, parent := range n.Parents {
			g.Edges = append(g.Edges, Edge{Parent: parent, Child: n.Name})
		}
	}
	g.Views = slices.Sorted(slices.Values(g.created))
	slices.SortFunc(g.Edges, func(a, b Edge) int {
		if c := strings.Compare(a.Parent, b.Parent); c != 0 {
			return c
		}
		return strings.Compare(a.Child, b.Child)
	})
	return g
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

// components returns the strongly connected components, each in order of names.
func (g Graph) components() [][]string {
	children := g.Children()
	groups := components(g.Views, func(view string) []string { return children[view] })
	for _, group := range groups {
		slices.Sort(group)
	}
	return groups
}

// Order returns the views, and with ancestors also all that they read, so that each comes after those that it reads, and
// for each of them those of its ancestors that are among them. Of a cycle the order is that of creation.
func (g Graph) Order(views []string, ancestors bool) (ordered []string, above map[string][]string) {
	parents := map[string][]string{}
	for _, e := range g.Edges {
		parents[e.Child] = append(parents[e.Child], e.Parent)
	}
	created := g.created
	if created == nil {
		created = g.Views
	}
	groups, all := inOrder(created, func(view string) []string { return parents[view] })
	wanted := map[string]bool{}
	for _, view := range views {
		wanted[view] = true
		if ancestors {
			for _, ancestor := range all[view] {
				wanted[ancestor] = true
			}
		}
	}
	reach := map[string]map[string]bool{}
	for view := range wanted {
		reach[view] = map[string]bool{}
		for _, ancestor := range all[view] {
			reach[view][ancestor] = true
		}
	}
	byReading := slices.DeleteFunc(slices.Concat(groups...), func(view string) bool { return !wanted[view] })
	early := map[string]bool{}   // come before their turn
	for _, view := range views { // as given, but for those that have to be first
		if early[view] {
			continue
		}
		for _, other := range byReading {
			if reach[view][other] && !slices.Contains(ordered, other) {
				ordered, early[other] = append(ordered, other), true
			}
		}
		ordered = append(ordered, view)
	}
	above = map[string][]string{}
	for _, view := range ordered {
		for _, other := range ordered {
			if reach[view][other] {
				above[view] = append(above[view], other)
			}
		}
	}
	return ordered, above
}
