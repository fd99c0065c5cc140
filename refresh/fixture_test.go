package refresh_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is a database with a worker on it, which has a pool of its own.
type bundle struct {
	*pgtest.DB
	store  *schedule.Store
	worker *refresh.Worker
}

func setup(t testing.TB) *bundle {
	t.Helper()
	return setupJobs(t, 2)
}

func setupJobs(t testing.TB, jobs int) *bundle {
	t.Helper()
	b := &bundle{DB: pgtest.NewDB(t)}
	config := b.Pool.Config()
	refresh.ConfigurePool(config, jobs)
	b.connect(config, jobs)
	return b
}

// connect gives the worker another pool.
func (b *bundle) connect(config *pgxpool.Config, jobs int) {
	b.Helper()
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	b.store = schedule.NewStore(pool)
	b.worker = &refresh.Worker{Pool: pool, Store: b.store, Jobs: jobs, Name: "test"}
}

// limit gives the worker one job, and a role that may have so many connections.
func (b *bundle) limit(connections int) {
	b.Helper()
	role := "few_connections_" + b.Value("current_database()")
	b.Exec(fmt.Sprintf("create role %s login connection limit %d in role %s", role, connections, b.Value("quote_ident(current_user)")))
	b.Cleanup(func() {
		if _, err := b.Pool.Exec(context.Background(), "drop role "+role); err != nil {
			b.Error(err)
		}
	})
	config := b.Pool.Config()
	refresh.ConfigurePool(config, 1)
	config.ConnConfig.User = role
	b.connect(config, 1)
	b.Cleanup(b.worker.Pool.Close) // before the role goes
}

// view creates public.name with a unique index on id, and schedules it every hour.
func (b *bundle) view(name, query string) {
	b.Helper()
	b.Exec("create materialized view public." + name + " as " + query)
	b.Exec("create unique index on public." + name + " (id)")
	b.schedule(name)
}

func (b *bundle) schedule(name string) {
	b.Helper()
	b.Schedule("public."+name, "1 hour")
}

func (b *bundle) set(name, change string) {
	b.Helper()
	b.Exec(`update mvsched.materialized_view_refresh_schedule set `+change+` where materialized_view_name = $1`, "public."+name)
}

// runDue runs the worker and returns the executions by view.
func (b *bundle) runDue() map[string]schedule.Execution {
	b.Helper()
	executions, err := b.worker.RunDue(b.Context())
	if err != nil {
		b.Error(err) // not Fatal: it may be called from another goroutine
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

func parse(t testing.TB, dsn string) *pgxpool.Config {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// bothHosts is the connection string for whichever of two servers takes writes.
func bothHosts(t testing.TB, one, two string) string {
	t.Helper()
	a, b := parse(t, one).ConnConfig, parse(t, two).ConnConfig
	return fmt.Sprintf("host=%s,%s port=%d,%d user=%s dbname=%s target_session_attrs=read-write",
		a.Host, b.Host, a.Port, b.Port, a.User, a.Database)
}
