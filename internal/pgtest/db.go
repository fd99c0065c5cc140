package pgtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/throwaway"
	"github.com/mvsched/mvsched/sql"
)

// DB is the database of a test, and the means to look into it and to interfere, past whatever is tested. What goes wrong
// fails the test.
type DB struct {
	testing.TB
	Pool   *pgxpool.Pool     // as New gives it
	Server *throwaway.Server // the test's own, or nil
}

// NewDB returns the database of this test.
func NewDB(t testing.TB) *DB {
	t.Helper()
	return &DB{TB: t, Pool: New(t)}
}

// NewServerDB returns a database, with the schema, on a throw-away server of this test's own, with these settings
// ("name=value"): for what would disturb other tests.
func NewServerDB(t testing.TB, settings ...string) *DB {
	t.Helper()
	server, err := throwaway.Start(t.Context(), throwaway.Options{Fetch: true, Settings: settings})
	if err != nil {
		t.Fatalf("pgtest: no server: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	d := &DB{TB: t, Pool: newPool(t, server.DSN("postgres")), Server: server}
	if _, err := d.Pool.Exec(t.Context(), sql.Schema, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return d
}

// Exec runs one statement.
func (d *DB) Exec(sql string, args ...any) {
	d.Helper()
	if _, err := d.Pool.Exec(d.Context(), sql, args...); err != nil {
		d.Fatalf("%s: %v", sql, err)
	}
}

// Value reads one value, a query without parentheses or an expression, as text; null is "null".
func (d *DB) Value(sql string, args ...any) string {
	d.Helper()
	var v *string
	if err := d.Pool.QueryRow(d.Context(), "select ("+sql+")::text", args...).Scan(&v); err != nil {
		d.Fatalf("%s: %v", sql, err)
	}
	if v == nil {
		return "null"
	}
	return *v
}

// Check compares a value.
func (d *DB) Check(want, sql string, args ...any) {
	d.Helper()
	if got := d.Value(sql, args...); got != want {
		d.Errorf("%s: %s, want %s", sql, got, want)
	}
}

// Await waits until the value is as wanted.
func (d *DB) Await(want, sql string, args ...any) {
	d.Helper()
	WaitFor(d, d.Context(), sql+" is "+want, func() bool { return d.Value(sql, args...) == want })
}

// Hold opens a transaction, runs a statement in it, and leaves it open until the returned function is called or the test
// ends.
func (d *DB) Hold(sql string, args ...any) (release func()) {
	d.Helper()
	tx, err := d.Pool.Begin(d.Context())
	if err != nil {
		d.Fatal(err)
	}
	release = func() { _ = tx.Rollback(context.Background()) }
	d.Cleanup(release)
	if _, err := tx.Exec(d.Context(), sql, args...); err != nil {
		d.Fatalf("%s: %v", sql, err)
	}
	return release
}

// Schedule schedules a view by hand, as somebody in psql would.
func (d *DB) Schedule(name, every string) {
	d.Helper()
	d.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
		values ($1, $2::text::interval)`, name, every)
}

// Aside runs statements in a session of its own, which reports its counters when it ends, and waits until it is gone.
func (d *DB) Aside(statements ...string) {
	d.Helper()
	conn, err := pgx.ConnectConfig(d.Context(), d.Pool.Config().ConnConfig.Copy())
	if err != nil {
		d.Fatal(err)
	}
	for _, sql := range statements {
		if _, err := conn.Exec(d.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			d.Fatalf("%s: %v", sql, err)
		}
	}
	pid := conn.PgConn().PID()
	if err := conn.Close(context.WithoutCancel(d.Context())); err != nil {
		d.Fatal(err)
	}
	d.Await("0", `select count(*) from pg_stat_activity where pid = $1`, pid)
}

// TellsChanges reports whether this server can tell whether what a view reads has changed: 15 and newer.
func (d *DB) TellsChanges() bool {
	d.Helper()
	return d.Value(`select current_setting('server_version_num')::int >= 150000`) == "true"
}
