package schedule_test

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

func TestCyclesAndRoots(t *testing.T) {
	for name, test := range map[string]struct {
		edges  []string // parent and child, one letter each
		cycles [][]string
		roots  []string
	}{
		"none":                      {nil, nil, []string{"a", "b", "c", "d", "e"}},
		"a diamond":                 {[]string{"ab", "ac", "bd", "cd", "de"}, nil, []string{"a"}},
		"a cycle below a root":      {[]string{"ab", "bc", "cd", "db", "de"}, [][]string{{"b", "c", "d"}}, []string{"a"}},
		"two cycles, one above":     {[]string{"ab", "ba", "bc", "cd", "dc", "de"}, [][]string{{"a", "b"}, {"c", "d"}}, []string{"a"}},
		"two cycles with one view":  {[]string{"ab", "ba", "bc", "cb", "de"}, [][]string{{"a", "b", "c"}}, []string{"a", "d"}},
		"one that reads itself":     {[]string{"ab", "bb", "bc", "bd", "be"}, [][]string{{"b"}}, []string{"a"}},
		"a cycle found from inside": {[]string{"ea", "ab", "be", "bc", "bd"}, [][]string{{"a", "b", "e"}}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := schedule.Graph{Views: []string{"a", "b", "c", "d", "e"}}
			for _, e := range test.edges {
				g.Edges = append(g.Edges, schedule.Edge{Parent: e[:1], Child: e[1:]})
			}
			if got := g.Cycles(); !reflect.DeepEqual(got, test.cycles) {
				t.Errorf("cycles %v, want %v", got, test.cycles)
			}
			if got := g.Roots(); !reflect.DeepEqual(got, test.roots) {
				t.Errorf("roots %v, want %v", got, test.roots)
			}
		})
	}
}

// A chain of many views is drawn, and added, within one call's deadline.
func TestManyViews(t *testing.T) {
	b := setup(t)
	b.Exec(`create materialized view public.v0 as select 1 as id`)
	b.Exec(`do $$ begin for i in 1..1500 loop
		execute format('create materialized view public.v%s as select id from public.v%s', i, i - 1); end loop; end $$`)
	g, err := b.store.Graph(b.Context())
	if err != nil || len(g.Views) != 1501 || len(g.Edges) != 1500 || fmt.Sprint(g.Roots()) != "[public.v0]" {
		t.Errorf("%d views, %d edges, roots %v: %v", len(g.Views), len(g.Edges), g.Roots(), err)
	}
	b.Schedule("public.v0", "1 hour")
	if added, err := b.store.AddAll(b.Context(), nil, schedule.Settings{AfterParents: ptr(true)}); err != nil || added != 1500 {
		t.Errorf("%d added: %v", added, err)
	}
	standings, err := b.store.Status(b.Context(), nil)
	if err != nil || len(standings) != 1501 || fmt.Sprint(standings[1].Parents) != "[public.v0]" {
		t.Errorf("%d standings: %v", len(standings), err)
	}
}
