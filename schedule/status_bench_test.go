package schedule_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// The status of so many views, each with a history of 20 refreshes, every tenth of which reads the one before and every
// hundredth of which is being refreshed.
func BenchmarkStatusWhileRunning(b *testing.B) {
	const views = 2000
	db := pgtest.NewDB(b)
	db.Exec(`create table public.base as select 1 as id`)
	for i := 0; i < views; i += 100 { // a few statements at a time
		var ddl strings.Builder
		for n := i; n < i+100; n++ {
			from := "base"
			if n%10 == 9 {
				from = fmt.Sprintf("v%04d", n-1)
			}
			fmt.Fprintf(&ddl, "create materialized view public.v%04d as select id from public.%s;", n, from)
		}
		db.Exec(`do $do$ begin ` + ddl.String() + ` end $do$`)
	}
	db.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
		select format('%I.%I', n.nspname, c.relname), '5 minutes'
		  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind = 'm'`)
	db.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		       (materialized_view_refresh_schedule_id, view_oid, view_name, status, started_at, ended_at, method, data_as_of)
		select s.id, s.view_oid, s.materialized_view_name, 'succeeded', t.at, t.at + interval '1 second', 'plain', t.at
		  from mvsched.materialized_view_refresh_schedule s
		 cross join lateral (select now() - g * interval '5 minutes' as at from generate_series(20, 1, -1) g) t`)
	db.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		       (materialized_view_refresh_schedule_id, view_oid, view_name, status)
		select s.id, s.view_oid, s.materialized_view_name, 'running'
		  from mvsched.materialized_view_refresh_schedule s where s.id % 100 = 0`)
	db.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() + interval '4 minutes' where id % 3 > 0`)
	store := schedule.NewStore(db.Pool)
	if _, err := store.Tend(b.Context(), schedule.TendOptions{Limit: 1}); err != nil { // the graph
		b.Fatal(err)
	}
	db.Exec(`vacuum analyze`)
	for b.Loop() {
		standings, err := store.Status(b.Context(), nil)
		if err != nil || len(standings) != views {
			b.Fatal(len(standings), err)
		}
	}
}
