package schedule_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// bundle is a database with a store on it and the means to look behind the store's back.
type bundle struct {
	*testing.T
	pool  *pgxpool.Pool
	store *schedule.Store
}

func setup(t *testing.T) *bundle {
	t.Helper()
	pool := pgtest.New(t)
	return &bundle{t, pool, schedule.NewStore(pool)}
}

func (b *bundle) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.pool.Exec(b.Context(), sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

// value reads one value, as text.
func (b *bundle) value(sql string, args ...any) string {
	b.Helper()
	var v *string
	if err := b.pool.QueryRow(b.Context(), "select ("+sql+")::text", args...).Scan(&v); err != nil {
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

// view creates a small materialized view in schema public and schedules it at the interval, "" for no schedule.
func (b *bundle) view(name, every string) {
	b.Helper()
	quoted := pgx.Identifier{"public", name}.Sanitize()
	b.exec("create materialized view " + quoted + " as select 1 as id")
	b.exec("create unique index on " + quoted + " (id)")
	if every != "" {
		b.schedule("public."+pgx.Identifier{name}.Sanitize(), every)
	}
}

func (b *bundle) schedule(name, every string) {
	b.Helper()
	b.exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
		values ($1, $2::text::interval)`, name, every)
}

func (b *bundle) tend() schedule.Outlook {
	b.Helper()
	outlook, err := b.store.Tend(b.Context(), nil, 1000)
	if err != nil {
		b.Fatal(err)
	}
	return outlook
}

func (b *bundle) claim(limit int) []schedule.Claim {
	b.Helper()
	claims, err := b.store.Claim(b.Context(), schedule.ClaimOptions{Worker: "test", Limit: limit})
	if err != nil {
		b.Fatal(err)
	}
	return claims
}

// end ends a claim's execution as the given status.
func (b *bundle) end(c schedule.Claim, ending schedule.Ending) schedule.Execution {
	b.Helper()
	e, err := b.store.End(b.Context(), c.ExecutionID, ending)
	if err != nil {
		b.Fatal(err)
	}
	return e
}

// succeed ends a claim's execution as a refresh does.
func (b *bundle) succeed(c schedule.Claim) {
	b.Helper()
	b.exec(`select mvsched.refresh_succeeded($1, $2::bigint::oid, $3, $4, 'plain')`,
		c.ExecutionID, int64(c.OID), c.Schema, c.Name)
}

// hold opens a transaction, runs sql in it and leaves it open until the returned function or the end of the test.
func (b *bundle) hold(sql string, args ...any) (release func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	tx, err := b.pool.Begin(ctx)
	if err != nil {
		b.Fatal(err)
	}
	release = func() {
		_ = tx.Rollback(context.Background())
		cancel()
	}
	b.Cleanup(release)
	if _, err := tx.Exec(ctx, sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
	return release
}

func views(claims []schedule.Claim) []string {
	var names []string
	for _, c := range claims {
		names = append(names, c.View)
	}
	return names
}

func ptr[T any](v T) *T { return &v }

// clock is a store's Now that a test sets.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}
