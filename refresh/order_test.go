package refresh_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// Round after round of a worker whose connections stay open, as those of `serve` do: what one session has done must not
// look to another one like a change from outside.
func TestWarehouse(t *testing.T) {
	const jobs = 4
	l := pgtest.NewWarehouse(t)
	config := l.Pool.Config()
	config.ConnConfig.RuntimeParams["application_name"] = "mvsched"
	refresh.ConfigurePool(config, jobs)
	b := &bundle{DB: &l.DB}
	b.connect(config, jobs)
	l.Pool.Reset() // a session reports what it wrote when it ends; and whoever else is here may have written
	l.Pool = b.worker.Pool
	l.Await("1", `select count(*) from pg_stat_activity where datname = current_database() and backend_type = 'client backend'`)

	hour, skip := time.Hour, true
	added, err := b.store.AddAll(t.Context(), nil, schedule.Settings{Every: &hour, SkipUnchanged: &skip})
	if err != nil || added != pgtest.WarehouseViews {
		t.Fatal(added, err)
	}
	b.runDue()
	l.CheckRuns(l.Parents, 0, nil, func(int) string { return "succeeded" })

	tells := l.TellsChanges()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 10 {
		inserted := map[int]bool{}
		for range r.IntN(3) {
			i := r.IntN(pgtest.WarehouseTables)
			inserted[i] = true
			l.Aside("insert into " + pgtest.WarehouseTable(i) + " values (2)")
		}
		affected := l.Below(inserted)
		after := l.LastExecution()
		l.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
		b.runDue()
		l.CheckRuns(l.Parents, after, nil, func(i int) string {
			if tells && !affected[i] {
				return "skipped unchanged"
			}
			return "succeeded"
		})
	}
}
