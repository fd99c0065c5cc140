package pgtest_test

import (
	"errors"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// One server process for two clients at a time is what tells a pooler in
// transaction mode from a server.
func TestDSN(t *testing.T) {
	pooled := os.Getenv(pgtest.EnvPooler) != ""
	t.Run("leads through the pooler if there is one", func(t *testing.T) {
		if got := shareServerProcess(t, pgtest.DSN(t)); got != pooled {
			t.Errorf("clients share a server process: %t, want %t", got, pooled)
		}
	})

	t.Run("direct never does", func(t *testing.T) {
		for _, dsn := range []string{pgtest.DirectDSN(t), pgtest.Direct(pgtest.DSN(t))} {
			if shareServerProcess(t, dsn) {
				t.Errorf("clients of %q share a server process", dsn)
			}
		}
		if one(t, pgtest.New(t), "select current_database()") != ask(t, connect(t, pgtest.DSN(t)), "select current_database()") {
			t.Error("DSN leads to another database than New")
		}
	})

	t.Run("fails with a pooler that nobody knows", func(t *testing.T) {
		t.Setenv(pgtest.EnvPooler, "carpool")
		fake := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			pgtest.DSN(fake)
		}()
		<-done
		if !fake.failed {
			t.Error("DSN did not fail the test")
		}
	})

	if !pooled {
		return
	}

	t.Run("serves roles and databases made by the test", func(t *testing.T) {
		admin := connect(t, pgtest.DirectDSN(t))
		name := "mvsched_test_made_" + ask(t, admin, "select pg_backend_pid()::text")
		for _, statement := range []string{"create role " + name + " login", "create database " + name} {
			if _, err := admin.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		conn := connect(t, pgtest.DSN(t)+" user="+name+" dbname="+name)
		if got := ask(t, conn, "select current_user || '@' || current_database()"); got != name+"@"+name {
			t.Errorf("connected as %s", got)
		}
		for _, statement := range []string{"drop database " + name + " with (force)", "drop role " + name} {
			if _, err := admin.Exec(t.Context(), statement); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("takes no startup parameters", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), pgtest.DSN(t)+" lock_timeout=1s")
		var refused *pgconn.PgError
		if !errors.As(err, &refused) {
			t.Errorf("error is %v", err)
		}
		if err == nil {
			_ = conn.Close(t.Context())
		}
	})
}

// shareServerProcess reports whether two clients are served by one process.
func shareServerProcess(t *testing.T, dsn string) bool {
	t.Helper()
	a, b := connect(t, dsn), connect(t, dsn)
	const pid = "select pg_backend_pid()::text"
	return ask(t, a, pid) == ask(t, b, pid)
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

func ask(t *testing.T, conn *pgx.Conn, query string) (value string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), query).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}
