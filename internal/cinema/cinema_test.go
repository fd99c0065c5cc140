package cinema

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
)

const testScale = 0.02

// views are the materialized views, in an order in which they can be refreshed: venue_view
// reads the two before it. The last one is made unfilled, so its first refresh cannot be
// concurrent.
var views = []string{
	"cinema.auditorium_with_future_events_view",
	"cinema.venue_auditorium_seat_count_view",
	"cinema.venue_view",
	"cinema.future_event_view",
	"cinema.ticket_count_by_country_and_day_view",
}

func TestMain(m *testing.M) { pgtest.Main(m) }

// withConn lends f a connection of the pool.
func withConn(t *testing.T, pool *pgxpool.Pool, f func(*pgx.Conn) error) {
	t.Helper()
	err := pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error { return f(c.Conn()) })
	if err != nil {
		t.Fatal(err)
	}
}

// digest is the number of rows of a relation and a checksum that does not depend on
// their order.
func digest(t *testing.T, pool *pgxpool.Pool, relation string) string {
	t.Helper()
	var rows int
	var sum string
	err := pool.QueryRow(t.Context(), fmt.Sprintf(
		`select count(*), coalesce(md5(string_agg(r::text, ' ' order by r::text collate "C")), '') from %s as r`, relation,
	)).Scan(&rows, &sum)
	if err != nil {
		t.Fatalf("digest %s: %v", relation, err)
	}
	if rows == 0 {
		t.Errorf("%s has no rows", relation)
	}
	return fmt.Sprint(rows, " rows, ", sum)
}

func exec1(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestLoadIsDeterministic(t *testing.T) {
	tables := []string{
		"cinema.cinema", "cinema.google_place", "cinema.venue", "cinema.auditorium",
		"cinema.seat", "cinema.event", "cinema.event_seat_state_change",
		"cinema.cinema_foreign_seat_state", "cinema.event_seat_state_change_seat_state",
	}
	today := time.Now()
	var first map[string]string
	for _, name := range []string{"first", "again"} {
		t.Run(name, func(t *testing.T) { // a test has one database
			pool := pgtest.New(t)
			withConn(t, pool, func(c *pgx.Conn) error { return load(t.Context(), c, testScale, today, nil) })
			got := map[string]string{}
			for _, table := range tables {
				got[table] = digest(t, pool, table)
			}
			if first == nil {
				first = got
			}
			for _, table := range tables {
				if got[table] != first[table] {
					t.Errorf("%s: %s, then %s", table, first[table], got[table])
				}
			}
		})
	}
}

func TestLoadIsSound(t *testing.T) {
	pool := pgtest.New(t)
	withConn(t, pool, func(c *pgx.Conn) error { return Load(t.Context(), c, testScale, nil) })
	for name, sql := range map[string]string{
		"oversold or overfreed events": `
			select count(*) from (
				select event_id from cinema.event_seat_state_change
				join cinema.event on event.id = event_id
				group by event_id, auditorium_id
				having sum(case state when 'sold' then seat_count else -seat_count end)
					not between 0 and (select count(*) from cinema.seat where seat.auditorium_id = event.auditorium_id)
			) as wrong`,
		"sales after the start or from the future": `
			select count(*) from cinema.event_seat_state_change join cinema.event on event.id = event_id
			where changed_at > start_time or changed_at > now()`,
		"events of another venue than their auditorium's": `
			select count(*) from cinema.event join cinema.auditorium on auditorium.id = auditorium_id
			where event.venue_id <> auditorium.venue_id`,
		"changes of which the seats are told and counted, or neither": `
			select count(*) from cinema.event_seat_state_change as change
			where (materialized_at is null) <> exists (
				select from cinema.event_seat_state_change_seat_state where event_seat_state_change_id = change.id)`,
		"auditoriums with two events at once": `
			select count(*) - count(distinct (auditorium_id, start_time)) from cinema.event`,
	} {
		var n int
		if err := pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n != 0 {
			t.Errorf("%d %s", n, name)
		}
	}
}

func TestViews(t *testing.T) {
	pool := pgtest.New(t)
	withConn(t, pool, func(c *pgx.Conn) error { return Load(t.Context(), c, testScale, nil) })

	var unfilled []string
	rows, err := pool.Query(t.Context(),
		"select schemaname || '.' || matviewname from pg_catalog.pg_matviews where not ispopulated")
	if err == nil {
		unfilled, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := views[len(views)-1:]; !slices.Equal(unfilled, want) {
		t.Errorf("unfilled views are %v, want %v", unfilled, want)
	}
	for _, view := range unfilled {
		exec1(t, pool, "refresh materialized view "+view)
	}

	// Twice, as a second change has to find something to do as well.
	for range 2 {
		before := map[string]string{}
		for _, view := range views {
			exec1(t, pool, "refresh materialized view concurrently "+view)
			before[view] = digest(t, pool, view)
		}
		withConn(t, pool, func(c *pgx.Conn) error {
			what, err := Change(t.Context(), c)
			if want := "1 auditorium opened, 500 screenings added, 100 screenings cancelled, 2,000 tickets sold"; what != want {
				t.Errorf("Change says %q, want %q", what, want)
			}
			return err
		})
		for _, view := range views {
			if digest(t, pool, view) != before[view] {
				t.Errorf("%s changed without a refresh", view)
			}
			exec1(t, pool, "refresh materialized view concurrently "+view)
			if digest(t, pool, view) == before[view] {
				t.Errorf("%s is the same after a change", view)
			}
		}
	}
}

// What the load has counted and what the function counts are alike, so that a reader cannot tell one from the other.
func TestSeatStates(t *testing.T) {
	pool := pgtest.New(t)
	withConn(t, pool, func(c *pgx.Conn) error { return Load(t.Context(), c, testScale, nil) })
	withConn(t, pool, func(c *pgx.Conn) error {
		_, err := Change(t.Context(), c)
		return err
	})
	left := func() (n int) {
		t.Helper()
		const sql = "select count(*) from cinema.event_seat_state_change where materialized_at is null"
		if err := pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := left()
	if n < 800 {
		t.Errorf("%d changes are to be counted", n)
	}
	for ; n > 0; n-- {
		exec1(t, pool, "set search_path = cinema; select materialize_event_seat_state_change(); reset search_path")
		if left() == 0 {
			break
		}
	}
	var wrong, unmapped int
	err := pool.QueryRow(t.Context(), `
		select count(*) filter (where (seat_count, seat_sold_count + seat_empty_count + seat_unmapped_count)
		                          is distinct from (ticket_count, ticket_count)
		                           or case state when 'sold' then seat_empty_count else seat_sold_count end <> 0),
		       sum(seat_unmapped_count)
		from cinema.event_seat_state_change`).Scan(&wrong, &unmapped)
	if err != nil || wrong != 0 || unmapped == 0 {
		t.Errorf("%d changes are counted wrong, %d seats unmapped, error: %v", wrong, unmapped, err)
	}
}

// The function is the one that is tested elsewhere, to the letter.
func TestFunctionIsTheArticles(t *testing.T) {
	script, err := os.ReadFile("../../cmd/mvsched/testdata/script/columns.txtar")
	if err != nil {
		t.Fatal(err)
	}
	_, function, found := strings.Cut(materializeSQL, "set local search_path = cinema;\n\n")
	if !found || !strings.Contains(string(script), "-- function.sql --\n"+function+"-- query.sql --\n") {
		t.Error("materialize.sql has another function than columns.txtar")
	}
}

func TestLoadProgress(t *testing.T) {
	pool := pgtest.New(t)
	calls, last := 0, 0
	withConn(t, pool, func(c *pgx.Conn) error {
		return Load(t.Context(), c, testScale, func(done, total int, what string) {
			if done != calls || (what == "") != (done == total) {
				t.Errorf("call %d: progress(%d, %d, %q)", calls, done, total, what)
			}
			calls, last = calls+1, total
		})
	})
	if calls != last+1 {
		t.Errorf("%d calls for %d steps", calls, last)
	}

	// There already: an error, and the data set is left alone. Then gone.
	withConn(t, pool, func(c *pgx.Conn) error {
		if err := Load(t.Context(), c, testScale, nil); err == nil {
			t.Error("a second load works")
		}
		digest(t, pool, "cinema.event")
		return Drop(t.Context(), c)
	})
	withConn(t, pool, func(c *pgx.Conn) error { return Drop(t.Context(), c) })
}

func TestLoadLeavesNothing(t *testing.T) {
	pool := pgtest.New(t)
	withConn(t, pool, func(c *pgx.Conn) error {
		for _, scale := range []float64{0, -1, math.NaN(), math.Inf(1), MaxScale + 1} {
			if err := Load(t.Context(), c, scale, nil); err == nil {
				t.Errorf("scale %v is accepted", scale)
			}
		}
		return nil
	})
	withConn(t, pool, func(c *pgx.Conn) error {
		ctx, cancel := context.WithCancel(t.Context())
		err := Load(ctx, c, testScale, func(done, _ int, _ string) {
			if done == 5 {
				cancel()
			}
		})
		if err == nil {
			t.Error("a cancelled load works")
		}
		return nil
	})
	var found bool
	err := pool.QueryRow(t.Context(),
		"select exists (select from pg_catalog.pg_namespace where nspname = $1)", Schema).Scan(&found)
	if err != nil || found {
		t.Errorf("schema found: %v, error: %v", found, err)
	}
}

func TestAmount(t *testing.T) {
	for n, want := range map[int64]string{
		1:       "1 ticket sold",
		2:       "2 tickets sold",
		999:     "999 tickets sold",
		2000:    "2,000 tickets sold",
		1234567: "1,234,567 tickets sold",
	} {
		if got := amount(n, "tickets sold"); got != want {
			t.Errorf("amount(%d) = %q, want %q", n, got, want)
		}
	}
}
