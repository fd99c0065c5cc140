package browser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/cinema"
	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// hostile is what views are called that a page should be afraid of.
var hostile = []string{
	"<script>alert(1)</script>", `"><img src=x onerror=alert(2)>`, "</style></title><script>alert(3)</script>", "=cmd|' /C calc'!A0", "::error::x",
	"a|b", "\x1b[31mred\nnew line\u202e", "javascript:alert(4)", "a_name_as_long_as_postgres_lets_it_be_without_any_place_to_brea",
}

// database is the cinema's with a day of history, and views that are called what nothing should be called. That history is
// made up: what a day of refreshes looks like takes a day.
func database(t *testing.T) *pgtest.DB {
	t.Helper()
	db := pgtest.NewDB(t)
	conn, err := db.Pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = cinema.Load(t.Context(), conn.Conn(), 0.01, nil)
	conn.Release()
	if err != nil {
		t.Fatal(err)
	}
	db.Exec("create materialized view cinema.week_by_venue_view as select v.* from cinema.venue_view v, cinema.future_event_view limit 10")
	db.Exec("create materialized view cinema.best_of_the_week_view as select * from cinema.week_by_venue_view limit 3")
	for _, name := range hostile {
		db.Exec("create materialized view public." + pgx.Identifier{name}.Sanitize() + " as select 1 as id")
	}
	db.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, suspend_after)
		select pg_catalog.format('%I.%I', n.nspname, c.relname), make_interval(mins => 5 + 5 * (c.oid::bigint % 4)::integer), null
		  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		 where c.relkind = 'm' and c.relname <> 'best_of_the_week_view'`)
	db.Exec(`update mvsched.materialized_view_refresh_schedule set refresh_interval = null, max_lag = '20 min' where materialized_view_name ~ 'venue'`)
	db.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		(materialized_view_refresh_schedule_id, view_name, view_oid, status, reason, scheduled_at, started_at, ended_at, method, rows_inserted, rows_deleted,
		 data_as_of, refreshed_at, error_name, error_message)
		select id, name, oid, status, case when status = 'skipped' then 'unchanged' end, began, began, began + took,
		       case when status = 'succeeded' then 'concurrently' end,
		       case when status = 'succeeded' then n * 37 % 1000 * (n % 5 <> 1)::integer end, case when status = 'succeeded' then n * 37 % 100 * (n % 5 <> 1)::integer end,
		       case when status <> 'failed' then began end, case when status <> 'failed' then began end,
		       case when status = 'failed' then 'division_by_zero' end,
		       case when status = 'failed' then name || E' failed:\ndivision by zero <b>here</b>' end
		  from (select s.id, s.materialized_view_name as name, s.view_oid as oid, began, n,
		               make_interval(secs => 4 + (s.id * 7919 % 23) * (1 + n % 7)) as took,
		               (case when s.id % 5 = 4 and began > now() - interval '3 hours' then 'failed' when s.id % 4 = 1 and n % 3 = 0 then 'skipped'
		                     when s.id % 7 = 3 and n % 29 = 0 then 'failed' else 'succeeded' end) as status
		          from mvsched.materialized_view_refresh_schedule s,
		               pg_catalog.generate_series(now() - interval '25 hours', now() - interval '6 min', make_interval(mins => 4 + 9 * (s.id % 4)::integer))
		               with ordinality as g (began, n)
		         where s.materialized_view_name !~ 'alert.3') made_up
		 order by began`)
	db.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() + interval '3 min', consecutive_failures = (id % 5 = 4)::integer * 14`)
	db.Exec(`update mvsched.materialized_view_refresh_schedule set paused_at = now(), paused_reason = 'for the summer' where materialized_view_name ~ 'calc'`)
	db.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (materialized_view_refresh_schedule_id, view_name, view_oid, started_at)
		select id, materialized_view_name, view_oid, now() - interval '4 min' from mvsched.materialized_view_refresh_schedule where materialized_view_name ~ 'week_by'`)
	return db
}

// snapshot is what the pages of this test show.
func snapshot(t *testing.T, db *pgtest.DB) schedule.Snapshot {
	t.Helper()
	snap, err := schedule.NewStore(db.Pool).Snapshot(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func pageOf(t *testing.T, snap schedule.Snapshot) []byte {
	t.Helper()
	var html bytes.Buffer
	if err := report.WritePage(&html, snap, report.PageOptions{Database: "cinema"}); err != nil {
		t.Fatal(err)
	}
	return html.Bytes()
}

// objects is what -o json says of the same snapshot.
func objects(t *testing.T, write func(report.Printer) error) (list []map[string]any) {
	t.Helper()
	var text bytes.Buffer
	if err := write(report.Printer{W: &text, Format: report.JSON}); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text.Bytes(), &list); err != nil {
		t.Fatal(fmt.Errorf("%w: %s", err, text.String()))
	}
	return list
}
