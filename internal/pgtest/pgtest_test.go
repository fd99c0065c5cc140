package pgtest_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestNew(t *testing.T) {
	ctx := t.Context()
	var name string
	t.Run("gives a database with the schema and an empty search_path", func(t *testing.T) {
		pool := pgtest.New(t)
		name = one(t, pool, "select current_database()")
		if got := one(t, pool, "show search_path"); got != "" && got != `""` {
			t.Errorf("search_path is %q", got)
		}
		if got := one(t, pool, "select count(*)::text from pg_namespace where nspname = 'mvsched'"); got != "1" {
			t.Errorf("%s schemas mvsched", got)
		}
		if _, err := pool.Exec(ctx, "create table public.mine ()"); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("gives the next test another", func(t *testing.T) {
		pool := pgtest.New(t)
		if got := one(t, pool, "select coalesce(to_regclass('public.mine')::text, 'none')"); got != "none" {
			t.Errorf("found the table %q of another test", got)
		}
		if got := one(t, pool, "select count(*)::text from pg_database where datname = '"+name+"'"); got != "0" {
			t.Errorf("the database %q of another test is still there", name)
		}
	})

	t.Run("and DSN mean the same database", func(t *testing.T) {
		pool := pgtest.New(t)
		conn, err := pgx.Connect(ctx, pgtest.DSN(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		var database, path string
		if err := conn.QueryRow(ctx, "select current_database(), current_setting('search_path')").Scan(&database, &path); err != nil {
			t.Fatal(err)
		}
		if want := one(t, pool, "select current_database()"); database != want {
			t.Errorf("DSN leads to %q, New to %q", database, want)
		}
		if path != `"$user", public` {
			t.Errorf("search_path is %s", path)
		}
	})

	t.Run("works in parallel", func(t *testing.T) {
		for range 4 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				one(t, pgtest.New(t), "select 'here'")
			})
		}
	})
}

// envInner marks the run of this test binary on a server that is not its own.
const envInner = "PGTEST_INNER"

func TestExistingServer(t *testing.T) {
	pool := pgtest.New(t)
	database := one(t, pool, "select current_database()")
	if os.Getenv(envInner) != "" {
		if pgtest.Server() != nil {
			t.Error("a server was started although one was given")
		}
		t.Log("inner database:", database)
		return
	}
	inner := exec.Command(os.Args[0], "-test.run=TestNew|TestExistingServer", "-test.v")
	inner.Env = append(os.Environ(), envInner+"=yes", pgtest.EnvDatabaseURL+"="+pgtest.DirectDSN(t), pgtest.EnvPooler+"=")
	out, err := inner.CombinedOutput()
	found := regexp.MustCompile(`inner database: (mvsched_test_[a-z0-9]+)_`).FindSubmatch(out)
	if err != nil || found == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	left := "select coalesce(string_agg(datname, ' '), '') from pg_database where starts_with(datname, '" + string(found[1]) + "')"
	if got := one(t, pool, left); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func TestWaitFor(t *testing.T) {
	n := 0
	pgtest.WaitFor(t, t.Context(), "three is reached", func() bool { n++; return n == 3 })

	// A failure ends the goroutine, so it gets one of its own, and a stand-in.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	fake := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		pgtest.WaitFor(fake, ctx, "pigs fly", func() bool { return false })
	}()
	<-done
	if !fake.failed {
		t.Error("a condition that never holds did not fail the test")
	}
}

// recorder notes a failure instead of passing it on.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(string, ...any) {
	r.failed = true
	runtime.Goexit()
}

func one(t *testing.T, pool *pgxpool.Pool, query string) (value string) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), query).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}
