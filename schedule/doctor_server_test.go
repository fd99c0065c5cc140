package schedule_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/internal/throwaway"
	"github.com/mvsched/mvsched/schedule"
	"github.com/mvsched/mvsched/sql"
)

// connect opens a connection of the kind that the command line has.
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
	return conn
}

// aboutServer returns what doctor finds on a connection, and what it says.
func aboutServer(t *testing.T, conn *pgx.Conn) (checks, messages string) {
	t.Helper()
	findings, err := schedule.NewStore(conn).Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names, said []string
	for _, f := range findings {
		names = append(names, string(f.Severity)+" "+f.Check)
		said = append(said, f.Message)
	}
	return strings.Join(names, ", "), strings.Join(said, "\n")
}

func TestDoctorOnStandby(t *testing.T) {
	server, err := throwaway.Start(t.Context(), throwaway.Options{Fetch: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	conn := connect(t, server.DSN("postgres"))
	const view = `; create materialized view public.v as select 1 as id; create unique index on public.v (id);
		insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval) values ('public.v', '1 h')`
	if _, err := conn.PgConn().Exec(t.Context(), sql.Schema+view).ReadAll(); err != nil {
		t.Fatal(err)
	}
	if checks, _ := aboutServer(t, conn); checks != "" {
		t.Errorf("on the primary: %s", checks)
	}
	if err := server.MakeStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context()) // the restart has done it
	conn = connect(t, server.DSN("postgres"))
	defer conn.Close(t.Context())
	if checks, messages := aboutServer(t, conn); checks != "error standby" || !strings.Contains(messages, "connect to the primary") {
		t.Errorf("%s: %s", checks, messages)
	}
}

// Where it is the default of the role or the database that transactions do not write, nothing can be refreshed there.
func TestDoctorOnReadOnly(t *testing.T) {
	b := setup(t)
	const setting = "default_transaction_read_only"
	database := b.Value("quote_ident(current_database())")
	owner := b.Value("quote_ident(session_user)")
	conn := func() *pgx.Conn {
		conn, err := pgx.ConnectConfig(b.Context(), b.Pool.Config().ConnConfig)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	for _, of := range []string{"database " + database, "role " + owner + " in database " + database} {
		b.Exec("alter " + of + " set " + setting + " = on")
		findings, err := schedule.NewStore(conn()).Doctor(t.Context())
		want := "alter " + of + " reset " + setting + ";"
		if err != nil || len(findings) != 1 || findings[0].Check != "standby" || findings[0].Severity != "error" || deref(findings[0].Fix) != want {
			t.Fatalf("%+v, %v, want %q", findings, err, want)
		}
		b.Exec(*findings[0].Fix)
		if findings, err := schedule.NewStore(conn()).Doctor(t.Context()); err != nil || len(findings) != 0 {
			t.Errorf("%+v, %v", findings, err)
		}
	}
}

// In a bubble of synctest the clock here is not that of the server: it begins in the year 2000, and waiting moves it.
func TestDoctorOnClock(t *testing.T) {
	dsn := pgtest.DirectDSN(t)
	synctest.Test(t, func(t *testing.T) {
		conn := connect(t, dsn)
		defer conn.Close(t.Context())
		serverTime := func() (now time.Time) {
			if err := conn.QueryRow(t.Context(), "select clock_timestamp()").Scan(&now); err != nil {
				t.Fatal(err)
			}
			return now
		}
		for _, test := range []struct {
			ahead time.Duration // of the server
			want  string        // check
			says  string
		}{
			{-time.Hour, "advice clock", "behind the server's"},
			{0, "", ""}, // synchronised
			{10 * time.Second, "advice clock", "the clock here is 10s ahead of the server's"},
		} {
			<-time.After(time.Until(serverTime().Add(test.ahead)))
			if checks, messages := aboutServer(t, conn); checks != test.want || !strings.Contains(messages, test.says) {
				t.Errorf("%v: %s: %s", test.ahead, checks, messages)
			}
		}
	})
}
