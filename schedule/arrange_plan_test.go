package schedule_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// Views and their history came all at once, and no ANALYZE has seen them: then too nothing is scanned once for each view,
// which with 2,000 of them took longer than the 10 s that a call has.
func TestArrangeWithoutStatistics(t *testing.T) {
	db := pgtest.NewDB(t)
	db.Exec(`do $$ begin
		for i in 1..200 loop
			execute format('create materialized view public.v%s as select %s as id from %s with no data', i, i,
				case when i % 10 = 1 then 'pg_catalog.generate_series(1, 2)' else 'public.p' || i - 1 end);
			execute format('create view public.p%s as select * from public.v%s', i, i);
		end loop;
	end $$`)
	db.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
		select 'public.' || relname, '1 day' from pg_catalog.pg_class where relkind = 'm'`)
	db.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		(materialized_view_refresh_schedule_id, view_name, view_oid, status, started_at, ended_at, method, data_as_of, refreshed_at)
		select id, materialized_view_name, view_oid, 'succeeded', began, began, 'plain', began, began
		  from mvsched.materialized_view_refresh_schedule, pg_catalog.generate_series(now() - interval '1 day', now(), interval '20 minutes') began`)
	plan := func(sql string, args ...any) string {
		t.Helper()
		tx, err := db.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()
		for _, setting := range schedule.EdgesSettings {
			if _, err := tx.Exec(t.Context(), setting); err != nil {
				t.Fatal(err)
			}
		}
		rows, err := tx.Query(t.Context(), "explain "+sql, args...)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(lines, "\n")
	}
	if p := plan(schedule.WeightsSQL, false); strings.Contains(p, "_success") || !strings.Contains(p, "execution_data") {
		t.Errorf("the usual durations:\n%s", p)
	}
	for _, relation := range []string{"mvsched.materialized_view_reads", "mvsched.status"} {
		// The inner side of a loop is an index, or nothing that grows with the views.
		p := plan("select * from " + relation)
		for inner := range strings.SplitSeq(p, "Nested Loop") {
			if strings.Contains(inner, "Join Filter: (reads") {
				t.Errorf("%s:\n%s", relation, p)
			}
		}
	}
}
