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

func BenchmarkParseViewName(b *testing.B) {
	for b.Loop() {
		if _, err := schedule.ParseViewName(`"Sales 2026"."By Day"`); err != nil {
			b.Fatal(err)
		}
	}
}
