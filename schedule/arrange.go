package schedule

import (
	"context"
	"errors"
	"fmt"
	"math"
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
	_, _, err := s.arrange(ctx, false)
	return err
}

// A restore may have lost the row.
const catalogRowSQL = `insert into mvsched.catalog_state (sign) values ('') on conflict do nothing`

// And one without triggers the queues of the schedules that it has loaded.
const queuesFoundSQL = `
insert into mvsched.queue (name)
select distinct s.queue from mvsched.materialized_view_refresh_schedule s
except
select q.name from mvsched.queue q
    on conflict do nothing`

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
//
// And what has no duration is a NULL, whatever the session reads in its place.
var edgesSettings = []string{`set local enable_bitmapscan = off`, notCompiledSQL, `set local array_nulls = on`}

const catalogSignSQL = `select mvsched.catalog_sign()`

const edgesSQL = `
select d.parent::bigint, d.child::bigint
  from mvsched.dependencies() d
 order by d.parent, d.child`

// weightsSQL reads what each materialization weighs: the usual duration of its last five successes, so that it is cheap; and
// what was stored of it. Where only the catalog has changed, the duration that was stored will do: of 2,000 histories each look
// took 10 ms. Beside the edges, not joined with them: that took as long as both.
const weightsSQL = `
select m.oid::bigint,
       exists (select from mvsched.materialized_view_refresh_schedule s where s.view_oid = m.oid),
       coalesce(case when $1 then g.seconds end,
         (select avg(extract(epoch from e.ended_at - e.started_at))::float8
            from (select e.started_at, e.ended_at
                    from mvsched.materialized_view_refresh_schedule_execution e
                   where e.view_oid = m.oid and e.status = 'succeeded' and e.data_as_of is not null
                   order by e.id desc
                   limit 5) e)),
       g.parents::text, g.ancestors::text, g.cyclic, g.path_seconds, g.seconds
  from mvsched.materialization m
  left join mvsched.materialized_view_graph g on g.view_oid = m.oid`

const arrangedSQL = `
insert into mvsched.materialized_view_graph (view_oid, parents, ancestors, cyclic, path_seconds, seconds)
select u.view_oid::oid, u.parents::oid[], u.ancestors::oid[], u.cyclic, u.path_seconds, u.seconds
  from unnest($1::bigint[], $2::text[], $3::text[], $4::boolean[], $5::float8[], $6::float8[])
         as u (view_oid, parents, ancestors, cyclic, path_seconds, seconds)
    on conflict (view_oid) do update
   set parents = excluded.parents, ancestors = excluded.ancestors, cyclic = excluded.cyclic, path_seconds = excluded.path_seconds,
       seconds = excluded.seconds`

const goneSQL = `delete from mvsched.materialized_view_graph g where g.view_oid::bigint <> all ($1::bigint[])`

const arrangedStateSQL = `update mvsched.catalog_state c set sign = $1, read_at = now()`

// arrange reports whether it was left undone because somebody holds the row, or that of a view to be found. When the catalog has changed, it waits for
// whoever is at it already, and finds what has moved.
func (s *Store) arrange(ctx context.Context, changed bool) (moved []Moved, held bool, err error) {
	var lost bool
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
		if changed {
			if _, err := tx.Exec(ctx, queuesFoundSQL); err != nil {
				return err
			}
		}
		// The sign before the edges: what changes in between is seen the next time.
		var sign string
		if err := tx.QueryRow(ctx, catalogSignSQL).Scan(&sign); err != nil || changed && sign == known {
			return err
		}
		if changed {
			if moved, lost, err = locateIdle(ctx, tx); err != nil {
				return err
			}
			if lost {
				sign = known // so that the next look tries again
			}
		}
		for _, setting := range edgesSettings {
			if _, err := tx.Exec(ctx, setting); err != nil {
				return err
			}
		}
		nodes, err := readNodes(ctx, tx, changed)
		if err != nil {
			return err
		}
		if err := storeNodes(ctx, tx, nodes); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, arrangedStateSQL, sign)
		return err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows), sqlState(err) == pgerrcode.LockNotAvailable:
		return nil, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("reading what depends on what: %w", err)
	}
	return moved, lost, nil
}

// locateIdle reports whether some are still lost.
func locateIdle(ctx context.Context, tx pgx.Tx) (moved []Moved, lost bool, err error) {
	for range 100 { // a restore may have all of them, and each statement finds 10,000
		found, err := rowsOf(ctx, tx, scanMoved, locateIdleSQL)
		if err != nil {
			return nil, false, err
		}
		if len(found) == 0 {
			break
		}
		moved = append(moved, found...)
	}
	err = tx.QueryRow(ctx, idleLostSQL).Scan(&lost)
	return moved, lost, err
}

// storeNodes writes what differs from what is stored.
func storeNodes(ctx context.Context, tx pgx.Tx, nodes []*node) error {
	all := []int64{}
	var oids []int64
	var parents, ancestors []string
	var cyclic []bool
	var path []float64
	var own []*float64
	for _, n := range nodes {
		all = append(all, n.oid)
		is := stored{oidArray(n.parents), oidArray(n.ancestors), n.cyclic, n.path, n.own}
		if n.stored != nil && n.stored.stillHolds(is) {
			continue
		}
		oids = append(oids, n.oid)
		parents = append(parents, is.parents)
		ancestors = append(ancestors, is.ancestors)
		cyclic = append(cyclic, is.cyclic)
		path = append(path, is.path)
		own = append(own, is.seconds)
	}
	if len(oids) > 0 {
		if _, err := tx.Exec(ctx, arrangedSQL, oids, parents, ancestors, cyclic, path, own); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, goneSQL, all)
	return err
}

// oidArray is an array as the server writes it.
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

// stored is a row of materialized_view_graph.
type stored struct {
	parents, ancestors string
	cyclic             bool
	path               float64
	seconds            *float64
}

// stillHolds reports whether there is no need to write what is now: durations may be a tenth off.
func (s *stored) stillHolds(is stored) bool {
	near := func(a, b float64) bool { return math.Abs(a-b) <= 0.1*a }
	return s.parents == is.parents && s.ancestors == is.ancestors && s.cyclic == is.cyclic && near(s.path, is.path) &&
		(s.seconds == nil) == (is.seconds == nil) && (s.seconds == nil || near(*s.seconds, *is.seconds))
}

// edge says that the query of child reads parent.
type edge struct{ parent, child int64 }

func scanEdge(row pgx.CollectableRow) (e edge, err error) {
	err = row.Scan(&e.parent, &e.child)
	return e, err
}

// weight is how long a materialization usually takes.
type weight struct {
	oid       int64
	scheduled bool
	seconds   *float64 // nil: there is no history
	stored    *stored  // nil: it is not
}

func scanWeight(row pgx.CollectableRow) (w weight, err error) {
	var parents, ancestors *string
	var cyclic *bool
	var path, seconds *float64
	err = row.Scan(&w.oid, &w.scheduled, &w.seconds, &parents, &ancestors, &cyclic, &path, &seconds)
	if err == nil && parents != nil {
		w.stored = &stored{*parents, *ancestors, *cyclic, *path, seconds}
	}
	return w, err
}

// node is a materialized view that reads or is read, or has to be weighed against those.
type node struct {
	oid       int64
	parents   []int64
	ancestors []int64 // whom it waits for; of a cycle only those with a lower OID, so that there is an order
	cyclic    bool
	path      float64  // seconds, of itself and the longest chain behind it
	own       *float64 // seconds; nil: there is no history
	stored    *stored
	children  []int64
}

// readNodes reads them with their durations; those that are stored may do.
func readNodes(ctx context.Context, tx pgx.Tx, storedWillDo bool) ([]*node, error) {
	edges, err := rowsOf(ctx, tx, scanEdge, edgesSQL)
	if err != nil {
		return nil, err
	}
	weights, err := rowsOf(ctx, tx, scanWeight, weightsSQL, storedWillDo)
	if err != nil {
		return nil, err
	}
	return arrange(edges, weights), nil
}

// arrange works out the order from the edges, in order of parents: everybody's ancestors, and how long the longest chain
// behind everybody takes. Without any history a view counts as a second, so the chain with most views goes first. Where
// there are edges, there is also a node for each scheduled view without: the claim weighs it against the chains.
func arrange(edges []edge, weights []weight) []*node {
	if len(edges) == 0 {
		return nil
	}
	nodes := map[int64]*node{}
	get := func(oid int64) *node {
		n := nodes[oid]
		if n == nil {
			n = &node{oid: oid, path: -1}
			nodes[oid] = n
		}
		return n
	}
	for _, e := range edges {
		child, parent := get(e.child), get(e.parent)
		child.parents = append(child.parents, e.parent)
		parent.children = append(parent.children, e.child)
	}
	usual, known := 0.0, 0
	for _, w := range weights {
		if w.scheduled {
			get(w.oid)
		}
		n := nodes[w.oid]
		if n == nil {
			continue
		}
		n.own, n.stored = w.seconds, w.stored
		if w.seconds != nil {
			n.path = *w.seconds
			usual, known = usual+*w.seconds, known+1
		}
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
