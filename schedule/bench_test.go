package schedule_test

import (
	"fmt"
	"testing"

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
				if _, err := store.End(b.Context(), claims[0].ExecutionID, schedule.Ending{Status: schedule.Cancelled}); err != nil {
					b.Fatal(err)
				}
			}
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
