package refresh_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// What mvsched adds to bare REFRESH: the same views on the same server in turn, one worker against a loop over one
// connection. "bare/mvsched" is the share of the bare loop's throughput that is left.
func BenchmarkRefresh(b *testing.B) {
	const views = 50
	other := pgtest.New(b)
	config := other.Config()
	refresh.ConfigurePool(config, 1)
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	for i := range views {
		_, err := other.Exec(b.Context(), fmt.Sprintf(`create materialized view public.v%d as select 1 as id`, i))
		if err == nil {
			_, err = other.Exec(b.Context(), fmt.Sprintf(`create unique index on public.v%d (id)`, i))
		}
		if err == nil {
			_, err = other.Exec(b.Context(), `insert into mvsched.materialized_view_refresh_schedule
				(materialized_view_name, refresh_interval) values ($1, '1 hour')`, fmt.Sprintf("public.v%d", i))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	worker := &refresh.Worker{Pool: pool, Store: schedule.NewStore(pool), Jobs: 1}
	conn, err := other.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()

	var bare, ours time.Duration
	for b.Loop() {
		began := time.Now()
		for i := range views {
			if _, err := conn.Exec(b.Context(), fmt.Sprintf(`refresh materialized view concurrently public.v%d`, i)); err != nil {
				b.Fatal(err)
			}
		}
		bare += time.Since(began)

		if _, err := other.Exec(b.Context(), `update mvsched.materialized_view_refresh_schedule set next_run_at = now()`); err != nil {
			b.Fatal(err)
		}
		began = time.Now()
		executions, err := worker.RunDue(b.Context())
		if err != nil || len(executions) != views {
			b.Fatal(len(executions), err)
		}
		ours += time.Since(began)
	}
	b.ReportMetric(bare.Seconds()/ours.Seconds(), "bare/mvsched")
	b.ReportMetric(float64(b.N*views)/ours.Seconds(), "refreshes/s")
}

var growthRows = flag.Int("growth-rows", 20_000, "the rows of the view of BenchmarkGrowth")

// How far a view grows when it is refreshed 20 times with a tenth of it changed each time: "times", its heap against that
// after a plain refresh. A million rows
// (-growth-rows 1000000) take minutes.
func BenchmarkGrowth(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(setup(b).growth(*growthRows), "times")
	}
}
