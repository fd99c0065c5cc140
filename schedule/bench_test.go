package schedule_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// A claim of one view among many schedules.
func BenchmarkClaim(b *testing.B) {
	for _, schedules := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("schedules=%d", schedules), func(b *testing.B) {
			pool := pgtest.New(b)
			store := schedule.NewStore(pool)
			for _, sql := range []string{
				`create materialized view public.v as select 1 as id`, // stands for all of them
				`alter table mvsched.materialized_view_refresh_schedule disable trigger user`,
				`insert into mvsched.materialized_view_refresh_schedule
				        (materialized_view_name, refresh_interval, next_run_at, database_identity, view_oid)
				 select 'public.v' || g, '1 second', now() + make_interval(secs => g % 3600) - interval '1 hour',
				        mvsched.database_identity(), 'public.v'::regclass
				   from generate_series(1, ` + fmt.Sprint(schedules) + `) g`,
				`analyze mvsched.materialized_view_refresh_schedule`,
			} {
				if _, err := pool.Exec(b.Context(), sql); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				claims, err := store.Claim(b.Context(), schedule.ClaimOptions{Limit: 1})
				if err != nil || len(claims) != 1 {
					b.Fatal(len(claims), err)
				}
				if _, err := store.End(b.Context(), claims[0], schedule.Ending{Status: schedule.Cancelled}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The skip of an untouched view of a million rows beside so many other views, in the server's time: "ms/skip", the median.
func BenchmarkSkip(b *testing.B) {
	for _, others := range []int{0, 2000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			pool := pgtest.New(b)
			conn, err := pool.Acquire(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Release()
			exec := func(sql string, args ...any) {
				b.Helper()
				if _, err := conn.Exec(b.Context(), sql, args...); err != nil {
					b.Fatal(sql, err)
				}
			}
			exec(`create table public.base as select g as id, g % 1000 as n from generate_series(1, 1000000) g`)
			exec(`create materialized view public.v as select id, n from public.base`)
			exec(`create unique index on public.v (id)`)
			for i := range others {
				exec(fmt.Sprintf(`create table public.t%d (id int)`, i))
				exec(fmt.Sprintf(`create materialized view public.o%d as select id from public.t%d`, i, i))
			}
			exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
				select c.oid::regclass, '1 hour', now() + interval '1 hour' from pg_catalog.pg_class c where c.relkind = 'm' and c.relname <> 'v'`)
			exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, skip_unchanged)
				values ('public.v', '1 second', true)`)
			exec(`vacuum analyze`)
			store := schedule.NewStore(pool).On(conn)
			if _, err := store.Tend(b.Context(), schedule.TendOptions{Limit: 1}); err != nil {
				b.Fatal(err)
			}
			claims, err := store.Claim(b.Context(), schedule.ClaimOptions{Limit: 1})
			if err != nil || len(claims) != 1 {
				b.Fatal(len(claims), err)
			}
			exec(`select mvsched.refresh_succeeded($1, $2::bigint::oid, 'public', 'v', 'plain')`, claims[0].ExecutionID, int64(claims[0].OID))
			exec(`select pg_stat_force_next_flush()`)

			var took []float64
			for b.Loop() {
				exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() - interval '1 minute' where view_oid = $1::bigint`, int64(claims[0].OID))
				var began, ended time.Time
				var reason *string
				var batch pgx.Batch // one transaction, in one go, as a worker sends it
				batch.Queue(`select clock_timestamp()`).QueryRow(func(row pgx.Row) error { return row.Scan(&began) })
				batch.Queue(`select mvsched.settle()`)
				batch.Queue(`select skipped from mvsched.claim('', 1, null, null, null, false)`).QueryRow(func(row pgx.Row) error { return row.Scan(&reason) })
				batch.Queue(`select clock_timestamp()`).QueryRow(func(row pgx.Row) error { return row.Scan(&ended) })
				if err := conn.SendBatch(b.Context(), &batch).Close(); err != nil || reason == nil || *reason != schedule.ReasonUnchanged {
					b.Fatal(reason, err)
				}
				took = append(took, ended.Sub(began).Seconds()*1000)
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2], "ms/skip")
		})
	}
}

// A look at a long history in which there is nothing to trim: of views that are refreshed so often that nothing is old,
// and of some so seldom that their last successes are older than what is kept.
func BenchmarkPruneNothing(b *testing.B) {
	const rows = 300_000
	for name, rare := range map[string]int{"old_successes=0": 0, "old_successes=10000": 100} {
		b.Run(name, func(b *testing.B) {
			pool := pgtest.New(b)
			store := schedule.NewStore(pool)
			for _, sql := range []string{
				`alter table mvsched.materialized_view_refresh_schedule_execution disable trigger user`,
				`insert into mvsched.materialized_view_refresh_schedule_execution
				        (view_name, view_oid, status, reason, method, data_as_of, started_at, ended_at)
				 select 'public.v' || g % 1000, 100000 + g % 1000, kind.status, case kind.status when 'skipped' then 'unchanged' end,
				        case kind.status when 'succeeded' then 'plain' end, case when kind.status <> 'failed' then kind.at end, kind.at, kind.at
				   from generate_series(1, ` + fmt.Sprint(rows) + `) g
				  cross join lateral (
				         select case when g / 1000 % 10 < 5 then 'succeeded' when g / 1000 % 10 < 9 then 'skipped' else 'failed' end as status,
				                now() - interval '6 days' * (1 - g / ` + fmt.Sprint(rows) + `.0) as at) kind`,
				`insert into mvsched.materialized_view_refresh_schedule_execution
				        (view_name, view_oid, status, method, data_as_of, started_at, ended_at)
				 select 'public.rare' || v, 200000 + v, 'succeeded', 'plain', now(), at, at
				   from generate_series(1, ` + fmt.Sprint(rare) + `) v
				  cross join generate_series(1, 100) n
				  cross join lateral (select now() - interval '30 days' - n * interval '1 hour' as at) t`,
				`vacuum analyze mvsched.materialized_view_refresh_schedule_execution`,
			} {
				if _, err := pool.Exec(b.Context(), sql); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if deleted, err := store.Prune(b.Context(), 0); err != nil || deleted != 0 {
					b.Fatal(deleted, err)
				}
			}
		})
	}
}

func BenchmarkParseViewName(b *testing.B) {
	for b.Loop() {
		if _, err := schedule.ParseViewName(`"Sales 2026"."By Day"`); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStatus is how long 2000 views take, with 100 executions each.
func BenchmarkStatus(b *testing.B) {
	pool := pgtest.New(b)
	store := schedule.NewStore(pool)
	exec := func(sql string) {
		b.Helper()
		if _, err := pool.Exec(b.Context(), sql); err != nil {
			b.Fatal(sql, err)
		}
	}
	for i := range 2000 {
		exec(fmt.Sprintf(`create materialized view public.v%d as select 1 as id`, i))
	}
	exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
		select c.oid::regclass, '1 hour' from pg_catalog.pg_class c where c.relkind = 'm'`)
	exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		(materialized_view_refresh_schedule_id, view_name, view_oid, status, reason, started_at, ended_at, method, data_as_of)
		select s.id, s.materialized_view_name, s.view_oid, case when g % 10 = 0 then 'succeeded' else 'skipped' end,
		       case when g % 10 > 0 then 'unchanged' end,
		       now() - (101 - g) * interval '1 minute', now() - (101 - g) * interval '1 minute',
		       case when g % 10 = 0 then 'plain' end, now() - (101 - g) * interval '1 minute'
		  from generate_series(1, 100) g cross join mvsched.materialized_view_refresh_schedule s`)
	exec(`analyze`)
	for b.Loop() {
		standings, err := store.Status(b.Context(), nil)
		if err != nil || len(standings) != 2000 || standings[0].SucceededAt == nil {
			b.Fatal(len(standings), err)
		}
	}
}
