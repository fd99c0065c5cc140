package refresh_test

import (
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

// What was claimed before a conversion waits behind its locks, and finds another relation then. That is no failure of the view's.
func TestARefreshThatWaitsForAConversion(t *testing.T) {
	for name, change := range map[string]string{"of itself": "v", "of what it reads": "reader"} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.gate()
			b.view("v", "select 1 as id")
			b.view("reader", "select id, public.wait() as n from public.v")
			b.set(change, "suspend_after = 1")
			b.runDue()
			conversion, err := b.store.PlanConversion(t.Context(), schedule.ViewName{Schema: "public", Name: "v"}, schedule.ConvertOptions{Rebuild: true})
			if err != nil {
				t.Fatal(err)
			}
			release := b.Hold(`lock table public.gate in access exclusive mode`)
			converted, refreshed := make(chan error), make(chan []schedule.Execution)
			go func() { converted <- b.store.Convert(t.Context(), conversion) }()
			b.Await("1", waits) // it fills the reader anew, and has all its locks
			b.set(change, "next_run_at = now()")
			go func() {
				executions, _ := b.worker.RunDue(t.Context()) // of which one may have failed
				refreshed <- executions
			}()
			b.Await("1", `select count(*) from pg_locks where not granted and relation = 'public.`+change+`'::regclass`)
			release()
			if err := <-converted; err != nil {
				t.Fatal(err)
			}
			got := <-refreshed
			b.Check("0", `select max(consecutive_failures) from mvsched.materialized_view_refresh_schedule`)
			b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule where suspended_at is not null`)
			if last := got[len(got)-1]; change == "v" && last.Status != schedule.Succeeded {
				t.Errorf("%s %s", last.Status, text(last.ErrorMessage))
			}
		})
	}
}
