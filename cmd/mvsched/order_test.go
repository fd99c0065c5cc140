package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// processes start the real program in the database of a test.
type processes struct {
	testing.TB
	dsn string
}

// run runs the program to its end, which must be one of these exit codes, and returns what it wrote to stdout.
func (p processes) run(codes []int, args ...string) []byte {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "mvsched", append([]string{"-d", p.dsn}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil || !slices.Contains(codes, cmd.ProcessState.ExitCode()) {
		p.Errorf("mvsched %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.Bytes()
}

// runAll has one process for each number of jobs refresh what is due, all at once.
func (p processes) runAll(codes []int, jobs ...int) {
	p.Helper()
	var wg sync.WaitGroup
	for _, j := range jobs {
		wg.Go(func() { p.run(codes, "run", "-q", "--allow-superuser", "-j", strconv.Itoa(j)) })
	}
	wg.Wait()
}

func TestOrderOfRandomGraphs(t *testing.T) {
	seed := rand.Uint64()
	for i, jobs := range [][]int{{1}, {1, 1}, {1, 2}, {2, 2, 1}, {2, 2, 2, 2}} {
		t.Run(fmt.Sprintf("jobs=%v", jobs), func(t *testing.T) {
			t.Parallel()
			t.Logf("seed %d, %d", seed, i)
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			l := pgtest.NewLattice(t, r, 12+r.IntN(25), 4*time.Millisecond)
			p := processes{TB: t, dsn: pgtest.DSN(t)}
			p.run([]int{0}, "add", "--all", "--every", "1h")

			after := l.NextRound(2)
			p.runAll([]int{0}, jobs...)
			l.CheckRound(l.Parents, after, 2, nil)
			l.Check("0", `select deadlocks from pg_stat_database where datname = current_database()`)

			before := slices.Clone(l.Parents)
			after = l.NextRound(3)
			stop := make(chan struct{})
			go func() {
				defer close(stop)
				p.runAll([]int{0, 1}, jobs...) // what is dropped may be missed
			}()
			touched := l.Unsettle(r, stop)
			<-stop
			l.CheckRound(before, after, 3, touched)

			after = l.NextRound(4)
			p.runAll([]int{0}, jobs...)
			l.CheckRound(l.Parents, after, 4, nil)
		})
	}
}

// edgesSQL reads the edges from the text of the rules, and so past whatever mvsched takes for them.
const edgesSQL = `
with recursive names as (
  select r.ev_class as reader, m.g[1]::oid as source
    from pg_catalog.pg_rewrite r
   cross join regexp_matches(r.ev_action::text, ':relid (\d+)', 'g') m(g)
   where r.ev_class >= 16384 and m.g[1]::oid <> r.ev_class
), through as (
  select c.oid as child, names.source
    from pg_catalog.pg_class c
    join names on names.reader = c.oid
   where c.relkind = 'm'
  union
  select through.child, names.source
    from through
    join pg_catalog.pg_class c on c.oid = through.source and c.relkind = 'v'
    join names on names.reader = c.oid
)
select format('%I.%I', pn.nspname, p.relname), format('%I.%I', cn.nspname, c.relname)
  from through
  join pg_catalog.pg_class p on p.oid = through.source and p.relkind = 'm'
  join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
  join pg_catalog.pg_class c on c.oid = through.child
  join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace`

type edge struct{ Parent, Child string }

func compareEdges(a, b edge) int { return strings.Compare(a.Parent+" "+a.Child, b.Parent+" "+b.Child) }

func TestWarehouse(t *testing.T) {
	t.Parallel()
	l := pgtest.NewWarehouse(t)
	p := processes{TB: t, dsn: pgtest.DSN(t)}
	p.run([]int{0}, "add", "--all", "--every", "1h", "--skip-unchanged")
	l.Check(strconv.Itoa(pgtest.WarehouseViews), `select count(*) from mvsched.materialized_view_refresh_schedule`)

	var drawn []edge
	for i, parents := range l.Parents {
		for _, parent := range parents {
			drawn = append(drawn, edge{l.Names[parent], l.Names[i]})
		}
	}
	rows, err := l.Pool.Query(t.Context(), edgesSQL)
	if err != nil {
		t.Fatal(err)
	}
	want, err := pgx.CollectRows(rows, pgx.RowToStructByPos[edge])
	if err != nil {
		t.Fatal(err)
	}
	var graph struct {
		Views []string
		Edges []edge
	}
	if err := json.Unmarshal(p.run([]int{0}, "graph", "-o", "json"), &graph); err != nil {
		t.Fatal(err)
	}
	for _, edges := range [][]edge{drawn, want, graph.Edges} {
		slices.SortFunc(edges, compareEdges)
	}
	if !slices.Equal(want, drawn) || !slices.Equal(graph.Edges, want) {
		t.Errorf("edges %v, want %v, which are %v", graph.Edges, want, drawn)
	}
	slices.Sort(graph.Views)
	if names := slices.Sorted(slices.Values(l.Names)); !slices.Equal(graph.Views, names) {
		t.Errorf("views %v, want %v", graph.Views, names)
	}

	tells := l.TellsChanges()
	round := func(inserted map[int]bool) {
		t.Helper()
		affected := l.Below(inserted)
		after := l.LastExecution()
		l.Pool.Reset() // whoever else is here may have written, and would be waited for
		p.run([]int{0}, "run", "-q", "--allow-superuser", "-j", "4")
		l.CheckRuns(l.Parents, after, nil, func(i int) string {
			if tells && !affected[i] {
				return "skipped unchanged"
			}
			return "succeeded"
		})
	}
	all := map[int]bool{}
	for i := range l.Names {
		all[i] = true
	}
	due := `update mvsched.materialized_view_refresh_schedule set next_run_at = now()`
	round(all)

	// The writer's session is gone; then it stays.
	l.Exec(due)
	l.Aside(`insert into ` + pgtest.WarehouseTable(3) + ` values (2)`)
	round(map[int]bool{3: true})

	writer, err := pgx.ConnectConfig(t.Context(), l.Pool.Config().ConnConfig.Copy())
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close(context.WithoutCancel(t.Context()))
	if _, err := writer.Exec(t.Context(), `insert into `+pgtest.WarehouseTable(7)+` values (2)`); err != nil {
		t.Fatal(err)
	}
	l.Exec(due)
	round(map[int]bool{7: true})
}

// A parent that is always due, since it takes longer than its interval, with a child every 5 s.
func TestBusyParent(t *testing.T) {
	t.Parallel()
	db := pgtest.NewDB(t)
	p := processes{TB: t, dsn: pgtest.DSN(t)}
	db.Exec(`create materialized view public.parent as select 1 as id, pg_sleep(1.2)::text as slept`)
	db.Exec(`create unique index on public.parent (id)`)
	db.Exec(`create materialized view public.child as select id from public.parent`)
	p.run([]int{0}, "add", "parent", "--every", "1s")
	p.run([]int{0}, "add", "child", "--every", "3s")

	// Two of them, so that the parent is hardly ever at rest.
	var loops sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer loops.Wait()
	defer stop()
	for range 2 {
		loops.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				p.runAll([]int{0}, 2)
			}
		})
	}
	const succeeded = ` from mvsched.materialized_view_refresh_schedule_execution e where e.view_name = $1 and e.status = 'succeeded'`
	db.Await("true", `select count(*) >= 3`+succeeded, "public.child") // at 0, 3 and 6 s
	db.Check("true", `select count(*) = count(distinct e.scheduled_at)`+succeeded, "public.child")
	db.Check("true", `select count(*) > 3`+succeeded, "public.parent")
	db.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule_execution e where e.status not in ('running', 'succeeded')`)

	// One that is due but paused or suspended holds nothing.
	for _, rest := range []string{"paused_at = now()", "paused_at = null, suspended_at = now()"} {
		db.Exec(`update mvsched.materialized_view_refresh_schedule set ` + rest + ` where materialized_view_name = 'public.parent'`)
		db.Await("0", `select count(*) from mvsched.materialized_view_refresh_schedule_execution e
			where e.view_name = 'public.parent' and e.status = 'running'`)
		last := db.Value(`select max(id) from mvsched.materialized_view_refresh_schedule_execution`)
		db.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
		db.Await("true", `select count(*) > 0`+succeeded+` and e.id > $2::bigint`, "public.child", last)
		db.Check("0", `select count(*)`+succeeded+` and e.id > $2::bigint`, "public.parent", last)
	}
}
