package refresh_test

import (
	"testing"

	"github.com/mvsched/mvsched/refresh"
)

// What a long transaction has left of the schedules' table is given back by whoever works with it next.
func TestCompacts(t *testing.T) {
	const short = `select pg_relation_size('mvsched.materialized_view_refresh_schedule') < 8 * 8192`
	for name, work := range map[string]func(*bundle){
		"run":   func(b *bundle) { b.runDue() },
		"serve": func(b *bundle) { b.serve(refresh.Serving{}) },
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.view("a", "select 1 as id")
			release := b.Hold(`select pg_current_xact_id()`)
			b.Aside(`do $$ begin
				for i in 1..4000 loop
					update mvsched.materialized_view_refresh_schedule set priority = i % 10;
				end loop; end $$`)
			release()
			b.Exec(`vacuum mvsched.materialized_view_refresh_schedule`)
			b.Await("true", `select pg_stat_get_dead_tuples('mvsched.materialized_view_refresh_schedule'::regclass) < 10`)
			b.Check("false", short)
			work(b)
			b.Await("true", short)
			b.Await("1", successes)
		})
	}
}
