package refresh_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// lattice is an acyclic graph of materialized views, numbered so that parents come first. Every view carries the least
// value of what it reads, and those that read no other view that of public.tick: so once the tick has moved and everything
// was refreshed in order, all of them carry it.
type lattice struct {
	pgtest.DB
	names   []string
	parents [][]int
	plain   []bool          // reads its parents through plain views
	sleep   []time.Duration // how long its query takes at the least
}

// newLattice draws a graph. Names are in no order.
func newLattice(tb testing.TB, pool *pgtest.DB, r *rand.Rand, n int, longest time.Duration) *lattice {
	tb.Helper()
	l := &lattice{DB: *pool, parents: make([][]int, n), plain: make([]bool, n), sleep: make([]time.Duration, n)}
	for _, k := range r.Perm(n) {
		l.names = append(l.names, fmt.Sprintf("public.v%02d", k))
	}
	for i := range n {
		l.parents[i] = drawParents(r, i)
		l.sleep[i] = time.Duration(r.Int64N(int64(longest) + 1))
	}
	return l
}

func drawParents(r *rand.Rand, i int) []int {
	parents := r.Perm(i)[:min(i, r.IntN(4))]
	slices.Sort(parents)
	return parents
}

// create creates the views in any order: what reads a view that is not there yet does so through a plain view that is
// replaced in the end.
func (l *lattice) create(r *rand.Rand) {
	l.Helper()
	l.Exec("create table public.tick as select 1::bigint as n")
	created := map[int]bool{}
	for _, i := range r.Perm(len(l.names)) {
		l.plain[i] = r.IntN(2) == 0 || slices.ContainsFunc(l.parents[i], func(p int) bool { return !created[p] })
		if l.plain[i] {
			l.Exec(fmt.Sprintf("create view public.below%d as select 0::bigint as id", i))
			l.Exec(fmt.Sprintf("create view public.above%d as select id from public.below%d", i, i))
		}
		l.Exec(l.definition(i))
		if r.IntN(2) == 0 {
			l.Exec("create unique index on " + l.names[i] + " (id)")
		}
		created[i] = true
	}
	for i := range l.names {
		l.replace(i)
	}
}

func (l *lattice) definition(i int) string {
	query := l.query(i)
	if l.plain[i] {
		query = fmt.Sprintf("select id from public.above%d", i)
	}
	return fmt.Sprintf("create materialized view %s as %s", l.names[i],
		strings.Replace(query, "select ", fmt.Sprintf("select pg_sleep(%f)::text as slept, ", l.sleep[i].Seconds()), 1))
}

func (l *lattice) query(i int) string {
	if len(l.parents[i]) == 0 {
		return "select n as id from public.tick"
	}
	var reads []string
	for _, p := range l.parents[i] {
		reads = append(reads, "(select max(id) from "+l.names[p]+")")
	}
	return "select least(" + strings.Join(reads, ", ") + ") as id"
}

func (l *lattice) replace(i int) {
	l.Helper()
	if l.plain[i] {
		l.Exec(fmt.Sprintf("create or replace view public.below%d as %s", i, l.query(i)))
	}
}

func (l *lattice) isLeaf(i int) bool {
	return !slices.ContainsFunc(l.parents, func(p []int) bool { return slices.Contains(p, i) })
}

// below returns what reads one of these views, over however many others, and these.
func below(parents [][]int, these map[int]bool) map[int]bool {
	found := map[int]bool{}
	maps.Copy(found, these)
	for i := range parents {
		if slices.ContainsFunc(parents[i], func(p int) bool { return found[p] }) {
			found[i] = true
		}
	}
	return found
}

// unsettle drops and creates views and replaces plain views until it is told to stop, and returns which it touched.
func (l *lattice) unsettle(r *rand.Rand, stop <-chan struct{}) (touched map[int]bool) {
	l.Helper()
	touched = map[int]bool{}
	victims := r.Perm(len(l.names))[:len(l.names)/3]
	for range 30 {
		select {
		case <-stop:
			return touched
		default:
		}
		i := victims[r.IntN(len(victims))]
		switch {
		case l.plain[i] && r.IntN(2) == 0:
			touched[i] = true
			l.parents[i] = drawParents(r, i)
			l.replace(i)
		case l.isLeaf(i):
			touched[i] = true
			l.inTransaction("drop materialized view "+l.names[i], l.definition(i))
		}
	}
	return touched
}

func (l *lattice) inTransaction(statements ...string) {
	l.Helper()
	err := pgx.BeginFunc(l.Context(), l.Pool, func(tx pgx.Tx) error {
		for _, sql := range statements {
			if _, err := tx.Exec(l.Context(), sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
	if err != nil {
		l.Error(err)
	}
}

// check says that in the executions after this id each of the views but those excepted was refreshed once, none before
// one that it reads, and that all that reads nothing excepted carries the tick.
func (l *lattice) check(parents [][]int, after, tick int64, except map[int]bool) {
	l.Helper()
	type run struct {
		View, Status   string
		Started, Ended time.Time
	}
	rows, err := l.Pool.Query(l.Context(), `select view_name, concat_ws(' ', status, reason, error_message), started_at, coalesce(ended_at, 'infinity')
		from mvsched.materialized_view_refresh_schedule_execution where id > $1 order by id`, after)
	if err != nil {
		l.Fatal(err)
	}
	runs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[run])
	if err != nil {
		l.Fatal(err)
	}
	byView := map[string][]run{}
	for _, run := range runs {
		byView[run.View] = append(byView[run.View], run)
	}
	for i, name := range l.names {
		if except[i] {
			continue
		}
		if runs := byView[name]; len(runs) != 1 || runs[0].Status != "succeeded" {
			l.Errorf("%s: %v, want one success", name, runs)
			continue
		}
		for _, p := range parents[i] {
			if except[p] || len(byView[l.names[p]]) != 1 {
				continue
			}
			if ended, started := byView[l.names[p]][0].Ended, byView[name][0].Started; started.Before(ended) {
				l.Errorf("%s began %v before %s, which it reads, had ended", name, ended.Sub(started), l.names[p])
			}
		}
	}
	stale := below(parents, except)
	for i, name := range l.names {
		if !stale[i] {
			l.Check(fmt.Sprint(tick), "select id from "+name)
		}
	}
}

// workers are workers with a pool of each their own, as so many processes have.
func (l *lattice) workers(r *rand.Rand, count int) (workers []*refresh.Worker) {
	l.Helper()
	for range count {
		b := &bundle{DB: &l.DB}
		jobs := 1 + r.IntN(2)
		config := l.Pool.Config()
		refresh.ConfigurePool(config, jobs)
		b.connect(config, jobs)
		workers = append(workers, b.worker)
	}
	return workers
}

// runAll has all of the workers refresh what is due.
func (l *lattice) runAll(workers []*refresh.Worker) {
	l.Helper()
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() {
			if _, err := w.RunDue(l.Context()); err != nil {
				l.Error(err)
			}
		})
	}
	wg.Wait()
}

// round makes every view due, some for longer than others, and moves the tick.
func (l *lattice) round(tick int64) (after int64) {
	l.Helper()
	l.Exec("update public.tick set n = $1", tick)
	// What the last round left behind is not in the way of this one.
	l.Exec(`update mvsched.materialized_view_refresh_schedule
		set next_run_at = now() - make_interval(secs => (id * 7919 % 100)), next_run_offset = '0', next_run_reason = null, last_attempted_at = null`)
	if err := l.Pool.QueryRow(l.Context(), `select coalesce(max(id), 0) from mvsched.materialized_view_refresh_schedule_execution`).
		Scan(&after); err != nil {
		l.Fatal(err)
	}
	return after
}

func TestOrderOfRandomGraphs(t *testing.T) {
	seed := rand.Uint64()
	for i, workers := range []int{1, 2, 3, 5, 8} {
		t.Run(fmt.Sprintf("workers=%d", workers), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			t.Logf("seed %d, %d", seed, i)
			l := newLattice(t, pgtest.NewDB(t), r, 12+r.IntN(25), 4*time.Millisecond)
			l.create(r)
			hour := time.Hour
			if _, err := schedule.NewStore(l.Pool).AddAll(t.Context(), nil, schedule.Settings{Every: &hour}); err != nil {
				t.Fatal(err)
			}
			pools := l.workers(r, workers)

			after := l.round(2)
			l.runAll(pools)
			l.check(l.parents, after, 2, nil)

			before := slices.Clone(l.parents)
			after = l.round(3)
			done, stop := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				l.runAll(pools)
				close(stop)
			}()
			touched := l.unsettle(r, stop)
			<-done
			l.check(before, after, 3, touched)

			after = l.round(4)
			l.runAll(pools)
			l.check(l.parents, after, 4, nil)
			l.Check("0", `select deadlocks from pg_stat_database where datname = current_database()`)
		})
	}
}

// aside runs a statement in a session that then ends, as somebody with psql would.
func (l *lattice) aside(sql string) {
	l.Helper()
	conn, err := pgx.ConnectConfig(l.Context(), l.Pool.Config().ConnConfig.Copy())
	if err != nil {
		l.Fatal(err)
	}
	if _, err := conn.Exec(l.Context(), sql); err != nil {
		l.Fatalf("%s: %v", sql, err)
	}
	if err := conn.Close(context.WithoutCancel(l.Context())); err != nil {
		l.Fatal(err)
	}
}

// A warehouse: eleven tables, and five layers of eleven views each over them, half of them through plain views.
func TestWarehouse(t *testing.T) {
	const tables, views = 11, 55
	l := &lattice{DB: *pgtest.NewDB(t), parents: make([][]int, views)}
	var want []schedule.Edge
	for i := range views {
		name := fmt.Sprintf("public.v%02d", (i*34)%views)
		l.names = append(l.names, name)
		reads := fmt.Sprintf("(select count(*) from public.t%d)", i)
		if i < tables {
			l.Exec(fmt.Sprintf("create table public.t%d as select 1 as id", i))
		} else {
			layer := i / tables * tables
			l.parents[i] = []int{i - tables, (i*7 + 3) % layer}
			if l.parents[i][0] == l.parents[i][1] {
				l.parents[i] = l.parents[i][:1]
			}
			var terms []string
			for _, p := range l.parents[i] {
				terms = append(terms, "(select sum(n) from "+l.names[p]+")")
				want = append(want, schedule.Edge{Parent: l.names[p], Child: name})
			}
			reads = strings.Join(terms, " + ")
		}
		query := "select 1 as id, " + reads + " as n"
		if i%2 == 0 {
			l.Exec(fmt.Sprintf("create view public.inner%d as %s", i, query))
			l.Exec(fmt.Sprintf("create view public.outer%d as select id, n from public.inner%d", i, i))
			query = fmt.Sprintf("select id, n from public.outer%d", i)
		}
		l.Exec("create materialized view " + name + " as " + query)
		if i%3 > 0 {
			l.Exec("create unique index on " + name + " (id)")
		}
	}

	const jobs = 4
	config := l.Pool.Config()
	config.ConnConfig.RuntimeParams["application_name"] = "mvsched"
	refresh.ConfigurePool(config, jobs)
	b := &bundle{DB: &l.DB}
	b.connect(config, jobs)
	hour, skip := time.Hour, true
	added, err := b.store.AddAll(t.Context(), nil, schedule.Settings{Every: &hour, SkipUnchanged: &skip})
	if err != nil || added != views {
		t.Fatal(added, err)
	}
	graph, err := b.store.Graph(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(want, func(a, b schedule.Edge) int {
		return strings.Compare(a.Parent+" "+a.Child, b.Parent+" "+b.Child)
	})
	if !slices.Equal(graph.Edges, want) || len(graph.Views) != views {
		t.Errorf("%d views, edges %v, want %v", len(graph.Views), graph.Edges, want)
	}

	// A session reports what it wrote when it ends; and whoever else is here may have written, and would be waited for.
	alone := func() {
		t.Helper()
		l.Pool.Reset()
		b.worker.Pool.Reset()
		pgtest.WaitFor(t, t.Context(), "the other sessions are gone", func() bool {
			var sessions int
			if err := b.worker.Pool.QueryRow(t.Context(), `select count(*) from pg_stat_activity
				where datname = current_database() and backend_type = 'client backend'`).Scan(&sessions); err != nil {
				t.Fatal(err)
			}
			return sessions == 1
		})
	}
	alone()
	if got := b.runDue(); len(got) != views {
		t.Errorf("%d views were refreshed", len(got))
	}
	l.check(l.parents, 0, 1, nil)
	canTell := l.Value(`select current_setting('server_version_num')::int >= 150000`) == "true"

	for _, inserted := range []map[int]bool{{}, {3: true}, {0: true, 10: true}, {}} {
		affected := below(l.parents, inserted)
		for i := range inserted {
			l.aside(fmt.Sprintf("insert into public.t%d values (2)", i))
		}
		l.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
		alone()
		began := time.Now()
		got := b.runDue()
		t.Logf("insert into %v: %v", slices.Collect(maps.Keys(inserted)), time.Since(began))
		if len(got) != views {
			t.Errorf("%d executions", len(got))
		}
		for i, name := range l.names {
			status := schedule.Succeeded
			if canTell && !affected[i] {
				status = schedule.Skipped
			}
			if e := got[name]; e.Status != status || status == schedule.Skipped && text(e.Reason) != schedule.ReasonUnchanged {
				t.Errorf("after an insert into %v: %s is %s %s, want %s", inserted, name, e.Status, text(e.Reason), status)
			}
			for _, p := range l.parents[i] {
				if parent := got[l.names[p]]; parent.EndedAt != nil && got[name].StartedAt.Before(*parent.EndedAt) {
					t.Errorf("%s began before %s had ended", name, l.names[p])
				}
			}
		}
	}
}
