package refresh_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// vacuums is what was recorded, in order.
const vacuums = `select string_agg(concat_ws(' ', v.view_name, v.command, v.status), ', ' order by v.id)
	from mvsched.materialized_view_vacuum v`

// big creates a table and a view of it with so many rows, without autovacuum, which would do what is tested.
func (b *bundle) big(name string, rows int) {
	b.Helper()
	b.Exec(`create table public.base_`+name+` with (autovacuum_enabled = off, fillfactor = 50) as
		select g as id, 0 as n, repeat('x', 50) as filler from generate_series(1, $1::integer) g`, rows)
	b.view(name, "select * from public.base_"+name)
	b.Exec(`alter materialized view public.` + name + ` set (autovacuum_enabled = off)`)
	// The sessions that made it report what they have written when they end. Up to 10 s later, it would count behind the refresh: from
	// 17 on as a refresh that left nothing dead.
	b.Pool.Reset()
	b.Await("true", `select pg_stat_get_tuples_inserted('public.`+name+`'::regclass) >= $1`, rows)
	b.Exec(`analyze public.` + name)
	b.Await("0", `select pg_stat_get_mod_since_analyze('public.`+name+`'::regclass)`)
}

// change changes one row in so many, and makes the view due.
func (b *bundle) change(name string, nth int) {
	b.Helper()
	b.Exec(`update public.base_`+name+` set n = n + 1 where id % $1 = 0`, nth)
	b.set(name, "next_run_at = now()")
}

func TestVacuum(t *testing.T) {
	for name, test := range map[string]struct {
		mode  string
		rows  int
		nth   int
		plain bool
		want  string
	}{
		"auto":                           {"auto", 20000, 10, false, "public.v vacuum analyze succeeded"},
		"auto_without_need_of_analyze":   {"auto", 20000, 15, false, "public.v vacuum analyze succeeded"},
		"auto_leaves_less_than_5_%":      {"auto", 40000, 30, false, "null"},
		"auto_leaves_less_than_1000":     {"auto", 900, 20, false, "null"},
		"auto_analyzes_small_changes":    {"auto", 900, 2, false, "public.v analyze succeeded"},
		"never":                          {"never", 20000, 1, false, "null"},
		"always":                         {"always", 10, 100, false, "public.v vacuum analyze succeeded"},
		"auto_plain":                     {"auto", 20000, 100, true, "public.v vacuum analyze succeeded"},
		"auto_plain_leaves_a_small_view": {"auto", 10, 1, true, "null"},
		"never_plain":                    {"never", 20000, 100, true, "null"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.big("v", test.rows)
			if test.rows < 50 { // too few for autovacuum; where that is off, an index on 18 leaves the rows uncounted
				b.Exec(`alter materialized view public.v reset (autovacuum_enabled)`)
			}
			b.set("v", "vacuum = '"+test.mode+"'")
			if test.plain {
				b.set("v", "strategy = 'plain'")
			}
			b.change("v", test.nth)
			if e := b.runDue()["public.v"]; e.Status != schedule.Succeeded {
				t.Fatalf("%+v", e)
			}
			b.Check(test.want, vacuums)
			if test.want == "public.v vacuum analyze succeeded" && test.rows > 1000 && !t.Failed() {
				b.Check("true", `select relallvisible > 0.8 * relpages from pg_catalog.pg_class where oid = 'public.v'::regclass`)
				b.Await("0", `pg_catalog.pg_stat_get_dead_tuples('public.v'::regclass)`)
				b.Check("true", `select v.materialized_view_refresh_schedule_id = s.id and v.view_oid = s.view_oid and v.worker = 'test'
					and v.started_at >= e.ended_at - interval '1 second' and v.dead_rows >= coalesce(e.rows_deleted, 0)
					from mvsched.materialized_view_vacuum v, mvsched.materialized_view_refresh_schedule s,
					     mvsched.materialized_view_refresh_schedule_execution e`)
			}
		})
	}

	t.Run("of_a_view_without_a_schedule", func(t *testing.T) {
		b := setup(t)
		b.big("v", 20000)
		b.Exec(`delete from mvsched.materialized_view_refresh_schedule`)
		b.Exec(`update public.base_v set n = 1`)
		if _, err := b.worker.Refresh(t.Context(), []schedule.ViewName{{Schema: "public", Name: "v"}}, refresh.Options{Settings: schedule.Settings{}}); err != nil {
			t.Fatal(err)
		}
		b.Check("public.v vacuum analyze succeeded", vacuums)
	})

	for _, level := range []string{"notice", "error"} { // at error the server hides that it skipped the view
		t.Run("skips_a_view_that_somebody_has_locked_"+level, func(t *testing.T) {
			b := setup(t)
			b.with(map[string]string{"client_min_messages": level}, 2)
			b.big("v", 20000)
			b.big("free", 20000)
			b.change("v", 5)
			b.change("free", 5)
			b.worker.Ended = func(e schedule.Execution) {
				if e.View == "public.v" {
					b.Hold(`alter materialized view public.v set (fillfactor = 100)`)
				}
			}
			b.runDue()
			b.Check("public.free vacuum analyze succeeded, public.v vacuum analyze skipped",
				`select string_agg(concat_ws(' ', view_name, command, status), ', ' order by view_name) from mvsched.materialized_view_vacuum`)
			reason := map[string]string{
				"notice": "lock_not_available skipping vacuum of \"v\" --- lock not available",
				"error":  "the server passed the view over: somebody holds a lock on it",
			}[level]
			b.Check(reason, `select concat_ws(' ', error_name, error_message) from mvsched.materialized_view_vacuum where status = 'skipped'`)
		})
	}
}

// slowly makes a vacuum of the worker take as long as a test may wait. The refresh analyzes what it has found, so of that
// there must be little.
func (b *bundle) slowly(jobs int) {
	b.Helper()
	b.with(map[string]string{"vacuum_cost_delay": "100", "vacuum_cost_limit": "10"}, jobs)
}

// vacuuming counts the backends that vacuum right now.
const vacuuming = `select count(*) from pg_catalog.pg_stat_activity
	where state = 'active' and query like 'vacuum%' and datname = current_database()`

// The vacuum of the first view is under way while the second is refreshed on the only slot; and a stop ends it.
func TestVacuumHoldsUpNobodyAndStops(t *testing.T) {
	b := setupJobs(t, 1)
	b.slowly(1)
	b.big("first", 20000)
	b.big("second", 20)
	b.change("first", 2000)
	b.set("first", "vacuum = 'always'")
	b.change("second", 20)
	b.set("first", "priority = 1000")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	b.worker.Ended = func(e schedule.Execution) {
		if e.View == "public.second" {
			b.Await("1", vacuuming)
			cancel(stop)
		}
	}
	began := time.Now()
	executions, err := b.worker.RunDue(ctx)
	since(began, 10*time.Second, b)
	if !errors.Is(err, stop) || len(executions) != 2 {
		t.Errorf("%v, %v", executions, err)
	}
	b.Check("0", vacuuming)
	b.Check("public.first vacuum analyze cancelled", vacuums)
	b.Check("mvsched was told to stop", `select error_message from mvsched.materialized_view_vacuum`)
}

// A vacuum gives way to the next refresh of its view.
func TestVacuumGivesWay(t *testing.T) {
	b := setupJobs(t, 1)
	b.slowly(1)
	b.big("v", 20000)
	b.change("v", 2000)
	b.set("v", "vacuum = 'always'")
	ctx, cancel := context.WithCancel(t.Context())
	starts, ends := 0, 0
	b.worker.Started = func(schedule.Claim) {
		if starts++; starts == 2 {
			b.Await("1", vacuuming)
		}
	}
	b.worker.Ended = func(schedule.Execution) {
		if ends++; ends == 2 {
			cancel()
		}
	}
	view := schedule.ViewName{Schema: "public", Name: "v"}
	executions, err := b.worker.Refresh(ctx, []schedule.ViewName{view, view}, refresh.Options{Settings: schedule.Settings{}})
	if !errors.Is(err, context.Canceled) || len(executions) != 2 || executions[1].Status != schedule.Succeeded {
		t.Errorf("%+v, %v", executions, err)
	}
	b.Check("public.v vacuum analyze cancelled the view is being refreshed again", `select concat_ws(' ', view_name, command, status, error_message)
		from mvsched.materialized_view_vacuum order by id limit 1`)
}

// Its next slot ends a vacuum, after 5 seconds at the earliest.
func TestVacuumEndsBeforeTheNextSlot(t *testing.T) {
	b := setup(t)
	b.slowly(2)
	b.big("v", 20000)
	b.change("v", 2000)
	b.set("v", "vacuum = 'always'")
	b.set("v", "refresh_interval = '1 second'")
	began := time.Now()
	b.runDue()
	since(began, 12*time.Second, b)
	b.Check("true", `select status = 'cancelled' and ended_at - started_at between interval '5 s' and interval '8 s' from mvsched.materialized_view_vacuum`)
}

// Where the server has no connection left for it, the view is left as it is, and nothing else suffers.
func TestVacuumWithoutConnection(t *testing.T) {
	b := setup(t)
	b.limit(2)
	b.big("first", 20000)
	b.big("second", 20)
	b.change("first", 10)
	b.set("first", "priority = 1000")

	gaveUp := make(chan struct{})
	giveUp := sync.OnceFunc(func() { close(gaveUp) })
	b.worker.Log = slog.New(slog.NewTextHandler(lineFunc(func(line string) {
		if strings.Contains(line, "left unvacuumed") {
			giveUp()
		}
	}), nil))
	b.worker.Started = func(claim schedule.Claim) { // two connections are in use: the control loop's and this one
		if claim.View != "public.second" {
			return
		}
		select {
		case <-gaveUp:
		case <-time.After(20 * time.Second):
			t.Error("the vacuum found a connection")
		}
	}
	if executions := b.runDue(); len(executions) != 2 || executions["public.first"].Status != schedule.Succeeded ||
		executions["public.second"].Status != schedule.Succeeded {
		t.Errorf("%+v", executions)
	}
	b.Check("null", vacuums)
}

// lineFunc is told of every line of a log.
type lineFunc func(string)

func (f lineFunc) Write(line []byte) (int, error) {
	f(string(line))
	return len(line), nil
}

// Without a connection to spare, views are vacuumed at the end.
func TestVacuumWithOneConnection(t *testing.T) {
	b := setup(t)
	config := b.Pool.Config()
	refresh.ConfigurePool(config, 1)
	config.MaxConns = 1
	b.connect(config, 1)
	b.big("v", 20000)
	b.change("v", 10)
	if e := b.runDue()["public.v"]; e.Status != schedule.Succeeded {
		t.Errorf("%+v", e)
	}
	b.Check("public.v vacuum analyze succeeded", vacuums)
}

// The view does not grow, whatever autovacuum does.
func TestTwentyRefreshesDoNotBloat(t *testing.T) {
	b := setup(t)
	if ratio := b.growth(100_000); ratio > 1.15 {
		t.Errorf("%.3f times its size", ratio)
	}
}

// growth is how many times its size after a plain refresh a view's heap has when, 20 times, a tenth of its rows have
// changed and it was refreshed.
func (b *bundle) growth(rows int) float64 {
	b.Helper()
	b.big("v", rows)
	b.set("v", "strategy = 'plain'")
	b.change("v", 10)
	b.runDue()
	b.set("v", "strategy = 'auto'")
	size := func() float64 {
		n, err := strconv.ParseFloat(b.Value(`pg_catalog.pg_relation_size('public.v')`), 64)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	plain := size()
	for i := range 20 {
		b.Exec(`update public.base_v set n = n + 1 where id % 10 = $1`, i%10)
		b.set("v", "next_run_at = now()")
		if e := b.runDue()["public.v"]; *e.Method != schedule.MethodConcurrently || *e.RowsDeleted != int64(rows/10) {
			b.Fatalf("%+v", e)
		}
	}
	return size() / plain
}

func TestRowsKept(t *testing.T) {
	b := setup(t)
	b.big("v", 1000)
	for _, deleted := range []int64{100, 100, 0} {
		if deleted > 0 {
			b.change("v", 10)
		}
		b.set("v", "next_run_at = now()")
		e := b.runDue()["public.v"]
		if e.RowsKept == nil || *e.RowsDeleted != deleted || *e.RowsKept != 1000-deleted {
			t.Errorf("deleted %d, kept %+v", *e.RowsDeleted, e)
		}
	}
}

// One look does for many views. One of them that somebody has locked does not keep the others unvacuumed.
func TestALockedViewIsNoneOfTheOthersBusiness(t *testing.T) {
	b := setupJobs(t, 1)
	config := b.Pool.Config()
	refresh.ConfigurePool(config, 1)
	config.MaxConns = 2 // so that it looks at the end
	b.connect(config, 1)
	for _, name := range []string{"a", "b"} {
		b.Exec(`create materialized view public.` + name + ` with (autovacuum_enabled = off) as select g as id from generate_series(1, 20000) g`)
		b.schedule(name)
		b.set(name, "vacuum = 'always'")
	}
	var release func()
	b.worker.Ended = func(e schedule.Execution) {
		if e.View == "public.a" {
			release = b.Hold(`refresh materialized view public.a`)
		}
	}
	began := time.Now()
	b.runDue()
	release()
	b.Check("true", `select bool_or(view_name = 'public.b' and status = 'succeeded') from mvsched.materialized_view_vacuum`)
	since(began, 9*time.Second, b)
}
