package schedule_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// bundle is a database with a store on it.
type bundle struct {
	*pgtest.DB
	store *schedule.Store
}

func setup(t *testing.T) *bundle {
	t.Helper()
	db := pgtest.NewDB(t)
	return &bundle{db, schedule.NewStore(db.Pool)}
}

// view creates a small materialized view in schema public and schedules it at the interval, "" for no schedule.
func (b *bundle) view(name, every string) {
	b.Helper()
	quoted := pgx.Identifier{"public", name}.Sanitize()
	b.Exec("create materialized view " + quoted + " as select 1 as id")
	b.Exec("create unique index on " + quoted + " (id)")
	if every != "" {
		b.Schedule("public."+pgx.Identifier{name}.Sanitize(), every)
	}
}

func (b *bundle) tend() schedule.Outlook {
	b.Helper()
	outlook, err := b.store.Tend(b.Context(), schedule.TendOptions{Limit: 1000})
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
	e, err := b.store.End(b.Context(), c, ending)
	if err != nil {
		b.Fatal(err)
	}
	return e
}

// succeed ends a claim's execution as a refresh does.
func (b *bundle) succeed(c schedule.Claim) {
	b.Helper()
	b.Exec(`select mvsched.refresh_succeeded($1, $2::bigint::oid, $3, $4, 'plain')`,
		c.ExecutionID, int64(c.OID), c.Schema, c.Name)
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
