package refresh_test

import (
	"testing"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// An autovacuum that is at work on the view, and would be for hours, gives way to the refresh: but only when that has
// waited for deadlock_timeout, which a shorter lock_timeout must not forestall.
func TestAutovacuumGivesWay(t *testing.T) {
	db := pgtest.NewServerDB(t, "autovacuum_naptime=1s")
	b := &bundle{DB: db}
	config := db.Pool.Config()
	refresh.ConfigurePool(config, 1)
	b.connect(config, 1)
	slow := config.Copy()
	slow.ConnConfig.RuntimeParams["deadlock_timeout"] = "2s"
	b.Exec(`create table public.base with (autovacuum_enabled = off) as select g as id, 0 as n from generate_series(1, 20000) g`)
	b.view("v", "select * from public.base")
	b.set("v", "vacuum = 'never'")
	b.Exec(`alter materialized view public.v set (autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0,
		autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)`)

	const vacuumed = `select count(*) from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a using (pid)
		where l.relation = 'public.v'::regclass and l.mode = 'ShareUpdateExclusiveLock' and l.granted and a.backend_type = 'autovacuum worker'`
	refreshed := func(settings string, method schedule.Method) {
		t.Helper()
		b.set("v", settings+", next_run_at = now()")
		e := b.runDue()["public.v"]
		if e.Status != schedule.Succeeded || *e.Method != method || e.Attempt != 1 {
			t.Errorf("%s: %+v %s", method, e, text(e.ErrorMessage))
		}
	}
	b.Exec(`update public.base set n = 1`)
	refreshed("lock_timeout = null", schedule.MethodConcurrently) // leaves dead rows
	b.Await("1", vacuumed)
	b.Exec(`update public.base set n = 2`)
	b.connect(slow, 1)
	refreshed("lock_timeout = '1 second'", schedule.MethodConcurrently)
	b.connect(config, 1)
	b.Await("1", vacuumed)
	refreshed("lock_timeout = null, strategy = 'plain'", schedule.MethodPlain)
}
