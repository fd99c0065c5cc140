package pgtest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Lattice is an acyclic graph of materialized views, numbered so that parents come first. Every view carries the least
// value of what it reads, and those that read no other view that of public.tick: so once the tick has moved and everything
// was refreshed in order, all of them carry it.
type Lattice struct {
	DB
	Names   []string // canonical
	Parents [][]int
	Sleep   []time.Duration // how long a view's query takes at the least

	plain []bool // reads its parents through plain views
	index []bool // has a unique index
}

// NewLattice draws a graph and creates it, in any order: what reads a view that is not there yet does so through a plain
// view that is replaced in the end. The names are in no order.
func NewLattice(tb testing.TB, r *rand.Rand, views int, longest time.Duration) *Lattice {
	tb.Helper()
	l := &Lattice{
		DB: *NewDB(tb), Parents: make([][]int, views), Sleep: make([]time.Duration, views),
		plain: make([]bool, views), index: make([]bool, views),
	}
	for _, k := range r.Perm(views) {
		l.Names = append(l.Names, fmt.Sprintf("public.v%02d", k))
	}
	for i := range views {
		l.Parents[i] = drawParents(r, i)
		l.Sleep[i] = time.Duration(r.Int64N(int64(longest) + 1))
	}
	l.Exec("create table public.tick as select 1::bigint as n")
	created := map[int]bool{}
	for _, i := range r.Perm(views) {
		l.plain[i] = r.IntN(2) == 0 || slices.ContainsFunc(l.Parents[i], func(p int) bool { return !created[p] })
		l.index[i] = r.IntN(2) == 0
		if l.plain[i] {
			l.Exec(fmt.Sprintf("create view public.below%d as select 0::bigint as id", i))
			l.Exec(fmt.Sprintf("create view public.above%d as select id from public.below%d", i, i))
		}
		for _, sql := range l.definition(i) {
			l.Exec(sql)
		}
		created[i] = true
	}
	for i := range l.Names {
		l.replace(i)
	}
	return l
}

func drawParents(r *rand.Rand, i int) []int {
	parents := r.Perm(i)[:min(i, r.IntN(4))]
	slices.Sort(parents)
	return parents
}

// definition creates the materialized view; what it reads is there.
func (l *Lattice) definition(i int) []string {
	query := l.query(i)
	if l.plain[i] {
		query = fmt.Sprintf("select id from public.above%d", i)
	}
	statements := []string{fmt.Sprintf("create materialized view %s as %s", l.Names[i],
		strings.Replace(query, "select ", fmt.Sprintf("select pg_sleep(%f)::text as slept, ", l.Sleep[i].Seconds()), 1))}
	if l.index[i] {
		statements = append(statements, "create unique index on "+l.Names[i]+" (id)")
	}
	return statements
}

func (l *Lattice) query(i int) string {
	if len(l.Parents[i]) == 0 {
		return "select n as id from public.tick"
	}
	var reads []string
	for _, p := range l.Parents[i] {
		reads = append(reads, "(select max(id) from "+l.Names[p]+")")
	}
	return "select least(" + strings.Join(reads, ", ") + ") as id"
}

func (l *Lattice) replace(i int) {
	l.Helper()
	if l.plain[i] {
		l.Exec(fmt.Sprintf("create or replace view public.below%d as %s", i, l.query(i)))
	}
}

// Below returns what reads one of these views, over however many others, and these.
func (l *Lattice) Below(these map[int]bool) map[int]bool {
	found := map[int]bool{}
	maps.Copy(found, these)
	for i := range l.Parents {
		if slices.ContainsFunc(l.Parents[i], func(p int) bool { return found[p] }) {
			found[i] = true
		}
	}
	return found
}

// Unsettle drops and creates views, and all that reads them, and replaces plain views until it is told to stop, and
// returns which it touched. At least two thirds of the views stay as they are.
func (l *Lattice) Unsettle(r *rand.Rand, stop <-chan struct{}) (touched map[int]bool) {
	l.Helper()
	touched = map[int]bool{}
	for range 40 {
		select {
		case <-stop:
			return touched
		default:
		}
		i := r.IntN(len(l.Names))
		changed, replace := map[int]bool{i: true}, l.plain[i] && r.IntN(2) == 0
		if !replace {
			changed = l.Below(changed)
		}
		together := maps.Clone(touched)
		maps.Copy(together, changed)
		if len(together) > len(l.Names)/3 {
			continue
		}
		touched = together
		if replace {
			l.Parents[i] = drawParents(r, i)
			l.replace(i)
		} else {
			l.recreate(i, changed, r.IntN(2) == 0)
		}
	}
	return touched
}

// recreate drops a view with all that falls with it and creates everything again, in one transaction or one by one.
func (l *Lattice) recreate(i int, fallen map[int]bool, atOnce bool) {
	l.Helper()
	statements := []string{"drop materialized view " + l.Names[i] + " cascade"}
	for _, j := range slices.Sorted(maps.Keys(fallen)) {
		if j != i && l.plain[j] {
			statements = append(statements,
				fmt.Sprintf("create view public.below%d as %s", j, l.query(j)),
				fmt.Sprintf("create view public.above%d as select id from public.below%d", j, j))
		}
		statements = append(statements, l.definition(j)...)
	}
	if atOnce {
		l.inTransaction(statements...)
		return
	}
	for _, sql := range statements {
		l.inTransaction(sql)
	}
}

// inTransaction tries again when it has lost a deadlock: a refresh that waits for what is being dropped is on one that
// falls with it.
func (l *Lattice) inTransaction(statements ...string) {
	l.Helper()
	for {
		err := pgx.BeginFunc(l.Context(), l.Pool, func(tx pgx.Tx) error {
			for _, sql := range statements {
				if _, err := tx.Exec(l.Context(), sql); err != nil {
					return fmt.Errorf("%s: %w", sql, err)
				}
			}
			return nil
		})
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && pgErr.Code == pgerrcode.DeadlockDetected {
			continue
		}
		if err != nil {
			l.Error(err)
		}
		return
	}
}

// Run is an execution.
type Run struct {
	View, Status   string // the status with its reason and message
	Started, Ended time.Time
}

// Runs returns the executions after this id by view.
func (l *Lattice) Runs(after int64) map[string][]Run {
	l.Helper()
	rows, err := l.Pool.Query(l.Context(), `select view_name, concat_ws(' ', status, reason, error_message), started_at, coalesce(ended_at, 'infinity')
		from mvsched.materialized_view_refresh_schedule_execution where id > $1 order by id`, after)
	if err != nil {
		l.Fatal(err)
	}
	runs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Run])
	if err != nil {
		l.Fatal(err)
	}
	byView := map[string][]Run{}
	for _, run := range runs {
		byView[run.View] = append(byView[run.View], run)
	}
	return byView
}

// CheckRuns says that of the executions after this id each view but those excepted has one, with the status that is wanted
// of it, that no view was begun before one that it reads had ended, and none has succeeded twice.
func (l *Lattice) CheckRuns(parents [][]int, after int64, except map[int]bool, want func(i int) string) {
	l.Helper()
	byView := l.Runs(after)
	for i, name := range l.Names {
		runs := byView[name]
		if except[i] {
			succeeded := 0
			for _, run := range runs {
				if run.Status == "succeeded" {
					succeeded++
				}
			}
			if succeeded > 1 {
				l.Errorf("%s: %v, want one success at the most", name, runs)
			}
			continue
		}
		if len(runs) != 1 || runs[0].Status != want(i) {
			l.Errorf("%s: %v, want one %s", name, runs, want(i))
			continue
		}
		for _, p := range parents[i] {
			if except[p] || len(byView[l.Names[p]]) != 1 {
				continue
			}
			if ended, started := byView[l.Names[p]][0].Ended, runs[0].Started; started.Before(ended) {
				l.Errorf("%s began %v before %s, which it reads, had ended", name, ended.Sub(started), l.Names[p])
			}
		}
	}
}

// CheckRound says that in the executions after this id each of the views but those excepted was refreshed once, none
// before one that it reads, and that all that reads nothing excepted carries the tick.
func (l *Lattice) CheckRound(parents [][]int, after, tick int64, except map[int]bool) {
	l.Helper()
	l.CheckRuns(parents, after, except, func(int) string { return "succeeded" })
	stale := l.Below(except)
	for i, name := range l.Names {
		if !stale[i] {
			l.Check(fmt.Sprint(tick), "select id from "+name)
		}
	}
}

// NextRound makes every view due, some for longer than others, moves the tick, and returns the last execution so far.
func (l *Lattice) NextRound(tick int64) (after int64) {
	l.Helper()
	l.Exec("update public.tick set n = $1", tick)
	// What the last round left behind is not in the way of this one.
	l.Exec(`update mvsched.materialized_view_refresh_schedule
		set next_run_at = now() - make_interval(secs => (id * 7919 % 100)), next_run_offset = '0', next_run_reason = null, last_attempted_at = null`)
	return l.LastExecution()
}

// LastExecution is the id of the last execution so far.
func (l *Lattice) LastExecution() (id int64) {
	l.Helper()
	if err := l.Pool.QueryRow(l.Context(), `select coalesce(max(id), 0) from mvsched.materialized_view_refresh_schedule_execution`).
		Scan(&id); err != nil {
		l.Fatal(err)
	}
	return id
}
