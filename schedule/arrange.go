package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
)

// Arrange works out from the catalog what reads what, and from the history how long each chain of views takes, and
// stores that for the claim. Tend does it when the catalog has changed; a worker that is about to refresh many views
// does it for the durations.
func (s *Store) Arrange(ctx context.Context) error {
	ctx, cancel := withDeadline(ctx, "reading what depends on what")
	defer cancel()
	_, err := s.arrange(ctx, false)
	return err
}

// A restore may have lost the row.
const catalogRowSQL = `insert into mvsched.catalog_state (sign) values ('') on conflict do nothing`

// Under this lock one worker at a time reads the catalog and writes what it found, so the newer state stays. Where the
// catalog has changed, the others wait until it has: by the state of before they would claim views before those that these
// read. But not for ever: somebody else may hold the row, and then what was found before has to do.
const (
	catalogLockSQL     = `select c.sign from mvsched.catalog_state c for no key update skip locked`
	catalogWaitSQL     = `set local lock_timeout = '1s'`
	catalogWaitLockSQL = `select c.sign from mvsched.catalog_state c for no key update`
)

// A worker that freezes in between must not hold the lock for ever.
const idleTimeoutSQL = `set local idle_in_transaction_session_timeout = '15s'`

// Where executions are many and their statistics old, the planner takes the index of all successes for one of a few, and
// scans it for every view to save the rest of that view's own. In the order of its own, there are five rows to be read.
//
// What it expects to cost so much would also be compiled first.
var edgesSettings = []string{`set local enable_bitmapscan = off`, noCompilingSQL}

const catalogSignSQL = `select mvsched.catalog_sign()`

// edgesSQL reads the edges, with the usual duration of both ends: of the last five successes, so that it is cheap. Where
// there are edges, it also gives the scheduled views that have none, as children of nobody: the claim weighs them against
// the chains.
const edgesSQL = `
with edge as materialized (
  select d.parent, d.child from mvsched.materialized_view_dependency d
), alone as (
  select s.view_oid as child
    from mvsched.materialized_view_refresh_schedule s
   where exists (select from edge)
     and s.view_oid in (select m.oid from mvsched.materialization m)
  except (select parent from edge union select child from edge)
), line as materialized (
  select parent, child from edge union all select null, child from alone
), usual as materialized (
  select v.oid, (select avg(extract(epoch from e.ended_at - e.started_at))::float8
                   from (select e.started_at, e.ended_at
                           from mvsched.materialized_view_refresh_schedule_execution e
                          where e.view_oid = v.oid and e.status = 'succeeded' and e.data_as_of is not null
                          order by e.id desc
                          limit 5) e) as seconds
    from (select parent as oid from edge union select child from line) v
)
select coalesce(line.parent, 0)::bigint, line.child::bigint, p.seconds, c.seconds
  from line
  left join usual p on p.oid = line.parent
  join usual c on c.oid = line.child
 order by line.parent, line.child`

const arrangedSQL = `
insert into mvsched.materialized_view_graph as g (view_oid, parents, ancestors, cyclic, path_seconds)
select n.view_oid::oid, n.parents::oid[], n.ancestors::oid[], n.cyclic, n.path_seconds
  from unnest($1::bigint[], $2::text[], $3::text[], $4::boolean[], $5::float8[])
         as n (view_oid, parents, ancestors, cyclic, path_seconds)
on conflict (view_oid) do update
   set parents = excluded.parents, ancestors = excluded.ancestors, cyclic = excluded.cyclic, path_seconds = excluded.path_seconds
 where (g.parents, g.ancestors, g.cyclic) is distinct from (excluded.parents, excluded.ancestors, excluded.cyclic)
    or abs(g.path_seconds - excluded.path_seconds) > 0.1 * g.path_seconds`

const goneSQL = `delete from mvsched.materialized_view_graph g where g.view_oid::bigint <> all ($1::bigint[])`

const arrangedStateSQL = `update mvsched.catalog_state c set sign = $1, read_at = now()`

// arrange reports whether it was left undone because somebody holds the row. When the catalog has changed, it waits for
// whoever is at it already.
func (s *Store) arrange(ctx context.Context, changed bool) (held bool, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		lock := catalogLockSQL
		if changed {
			if _, err := tx.Exec(ctx, catalogWaitSQL); err != nil {
				return err
			}
			lock = catalogWaitLockSQL
		}
		if _, err := tx.Exec(ctx, catalogRowSQL); err != nil {
			return err
		}
		var known string
		if err := tx.QueryRow(ctx, lock).Scan(&known); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, idleTimeoutSQL); err != nil {
			return err
		}
		// The sign before the edges: what changes in between is seen the next time.
		var sign string
		if err := tx.QueryRow(ctx, catalogSignSQL).Scan(&sign); err != nil || changed && sign == known {
			return err
		}
		for _, setting := range edgesSettings {
			if _, err := tx.Exec(ctx, setting); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, edgesSQL)
		if err != nil {
			return err
		}
		edges, err := pgx.CollectRows(rows, scanEdge)
		if err != nil {
			return err
		}
		nodes := arrange(edges)
		var oids []int64
		var parents, ancestors []string
		var cyclic []bool
		var path []float64
		for _, n := range nodes {
			oids = append(oids, n.oid)
			parents = append(parents, oidArray(n.parents))
			ancestors = append(ancestors, oidArray(n.ancestors))
			cyclic = append(cyclic, n.cyclic)
			path = append(path, n.path)
		}
		if _, err := tx.Exec(ctx, arrangedSQL, oids, parents, ancestors, cyclic, path); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, goneSQL, append([]int64{}, oids...)); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, arrangedStateSQL, sign)
		return err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows), sqlState(err) == pgerrcode.LockNotAvailable:
		return true, nil
	case err != nil:
		return false, fmt.Errorf("reading what depends on what: %w", err)
	}
	return false, nil
}

func oidArray(oids []int64) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, oid := range oids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(oid, 10))
	}
	b.WriteByte('}')
	return b.String()
}

// edge says that the query of child reads parent, or, with parent 0, that it reads no other view. The durations are nil where there is no history.
type edge struct {
	parent, child               int64
	parentSeconds, childSeconds *float64
}

func scanEdge(row pgx.CollectableRow) (e edge, err error) {
	err = row.Scan(&e.parent, &e.child, &e.parentSeconds, &e.childSeconds)
	return e, err
}

// node is a materialized view that reads or is read, or has to be weighed against those.
type node struct {
	oid       int64
	parents   []int64
	ancestors []int64 // whom it waits for; of a cycle only those with a lower OID, so that there is an order
	cyclic    bool
	path      float64 // seconds, of itself and the longest chain behind it
	children  []int64
}

// arrange works out the order: everybody's ancestors, and how long the longest chain behind everybody takes. Without any
// history a view counts as a second, so the chain with most views goes first.
func arrange(edges []edge) []*node {
	nodes := map[int64]*node{}
	usual, known := 0.0, 0
	get := func(oid int64, seconds *float64) *node {
		n := nodes[oid]
		if n == nil {
			n = &node{oid: oid, path: -1}
			if seconds != nil {
				n.path = *seconds
				usual, known = usual+*seconds, known+1
			}
			nodes[oid] = n
		}
		return n
	}
	for _, e := range edges {
		child := get(e.child, e.childSeconds)
		if e.parent == 0 {
			continue
		}
		parent := get(e.parent, e.parentSeconds)
		child.parents = append(child.parents, e.parent)
		parent.children = append(parent.children, e.child)
	}
	unknown := 1.0
	if known > 0 {
		unknown = usual / float64(known)
	}
	sorted := make([]*node, 0, len(nodes))
	for _, n := range nodes {
		if n.path < 0 {
			n.path = unknown
		}
		sorted = append(sorted, n)
	}
	slices.SortFunc(sorted, func(a, b *node) int { return int(a.oid - b.oid) })
	keys := make([]int64, len(sorted))
	for i, n := range sorted {
		keys[i] = n.oid
	}

	groups, ancestors := inOrder(keys, func(oid int64) []int64 { return nodes[oid].parents })
	for _, group := range groups {
		for _, oid := range group {
			n := nodes[oid]
			n.cyclic = len(group) > 1 || slices.Contains(n.parents, oid)
			n.ancestors = ancestors[oid]
		}
	}
	for _, group := range slices.Backward(groups) {
		longest := map[int64]float64{}
		for _, oid := range group {
			for _, child := range nodes[oid].children {
				if !slices.Contains(group, child) {
					longest[oid] = max(longest[oid], nodes[child].path)
				}
			}
		}
		for _, oid := range group {
			nodes[oid].path += longest[oid]
		}
	}
	return sorted
}
