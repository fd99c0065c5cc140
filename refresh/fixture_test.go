package refresh_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is a database with a worker on it, and a second pool to look and to interfere with.
type bundle struct {
	*testing.T
	pool   *pgxpool.Pool // the worker's
	other  *pgxpool.Pool
	store  *schedule.Store
	worker *refresh.Worker
}

func setup(t *testing.T) *bundle {
	t.Helper()
	return setupJobs(t, 2)
}

func setupJobs(t *testing.T, jobs int) *bundle {
	t.Helper()
	other := pgtest.New(t)
	config := other.Config()
	refresh.ConfigurePool(config, jobs)
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store := schedule.NewStore(pool)
	return &bundle{t, pool, other, store, &refresh.Worker{Pool: pool, Store: store, Jobs: jobs, Name: "test"}}
}

func (b *bundle) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.other.Exec(b.Context(), sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

func (b *bundle) value(sql string, args ...any) string {
	b.Helper()
	var v *string
	if err := b.other.QueryRow(b.Context(), "select ("+sql+")::text", args...).Scan(&v); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
	if v == nil {
		return "null"
	}
	return *v
}

func (b *bundle) check(want, sql string, args ...any) {
	b.Helper()
	if got := b.value(sql, args...); got != want {
		b.Errorf("%s: %s, want %s", sql, got, want)
	}
}

func (b *bundle) waitFor(want, sql string, args ...any) {
	b.Helper()
	pgtest.WaitFor(b, b.Context(), sql+" is "+want, func() bool { return b.value(sql, args...) == want })
}

// view creates public.name with a unique index on id, and schedules it every hour.
func (b *bundle) view(name, query string) {
	b.Helper()
	b.exec("create materialized view public." + name + " as " + query)
	b.exec("create unique index on public." + name + " (id)")
	b.schedule(name)
}

func (b *bundle) schedule(name string) {
	b.Helper()
	b.exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
		values ($1, '1 hour')`, "public."+name)
}

func (b *bundle) set(name, change string) {
	b.Helper()
	b.exec(`update mvsched.materialized_view_refresh_schedule set `+change+` where materialized_view_name = $1`, "public."+name)
}

// runDue runs the worker and returns the executions by view.
func (b *bundle) runDue() map[string]schedule.Execution {
	b.Helper()
	executions, err := b.worker.RunDue(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	byView := map[string]schedule.Execution{}
	for _, e := range executions {
		if _, twice := byView[e.View]; twice {
			b.Errorf("%s was refreshed twice", e.View)
		}
		byView[e.View] = e
	}
	return byView
}

// hold opens a transaction, runs sql in it and leaves it open until the returned function or the end of the test.
func (b *bundle) hold(sql string, args ...any) (release func()) {
	b.Helper()
	tx, err := b.other.Begin(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	release = func() { _ = tx.Rollback(context.Background()) }
	b.Cleanup(release)
	if _, err := tx.Exec(b.Context(), sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
	return release
}

// refreshing counts the backends that refresh a view right now.
const refreshing = `select count(*) from pg_stat_activity
	where state = 'active' and query like 'refresh materialized view%' and datname = current_database()`

func text(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

func since(began time.Time, most time.Duration, b *bundle) {
	b.Helper()
	if took := time.Since(began); took > most {
		b.Errorf("it took %v, want at most %v", took, most)
	}
}
