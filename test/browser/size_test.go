package browser

import (
	"testing"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// How long the live page of 2,000 views takes is a matter of the machine, and is told; how large it may be is not.
func TestThousandsOfViews(t *testing.T) {
	db := pgtest.NewDB(t)
	for _, sql := range []string{
		`do $$ begin
			for i in 1..2000 loop
				execute format('create materialized view public.sales_by_region_and_day_%s as select %s as id from %s', i, i,
					case when i % 10 = 1 then 'pg_catalog.generate_series(1, 2)' else 'public.sales_by_region_and_day_' || i - 1 end);
			end loop;
		end $$`,
		`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
			select 'public.' || relname, '1 day' from pg_catalog.pg_class where relkind = 'm'`,
		`insert into mvsched.materialized_view_refresh_schedule_execution
			(materialized_view_refresh_schedule_id, view_name, view_oid, status, started_at, ended_at, method, data_as_of, refreshed_at)
			select id, materialized_view_name, view_oid, 'succeeded', began, began + interval '2 s', 'plain', began, began
			  from mvsched.materialized_view_refresh_schedule, pg_catalog.generate_series(now() - interval '23 hours', now(), interval '3 hours') began`,
		`update mvsched.materialized_view_refresh_schedule set next_run_at = now() + interval '1 day'`,
	} {
		db.Exec(sql)
	}
	url, _ := serve(t, program(t)("serve", "--listen", "127.0.0.1:0"))
	for _, when := range []string{"the first", "another"} {
		b := open(t, url)
		rows := evaluate[int](b, "document.querySelectorAll('.status tbody tr').length")
		t.Logf("%s browser: answered after %.0f ms, first paint after %.0f ms, loaded after %.0f ms; %d rows", when,
			evaluate[float64](b, "performance.getEntriesByType('navigation')[0].responseStart"),
			b.firstPaint(), evaluate[float64](b, "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"), rows)
		if rows != 2000 {
			t.Errorf("%d rows", rows)
		}
	}
	report := len(pageOf(t, snapshot(t, db)))
	t.Logf("the report has %.2f MB", float64(report)/1e6)
	if report > 5e6 {
		t.Errorf("a report of %d bytes", report)
	}
}

// firstPaint is when there was something to be seen, in milliseconds since the page was asked for.
func (b *tab) firstPaint() float64 {
	b.Helper()
	b.until("performance.getEntriesByName('first-contentful-paint').length > 0 || (document.title += ' ') && false")
	return evaluate[float64](b, "performance.getEntriesByName('first-contentful-paint')[0].startTime")
}
