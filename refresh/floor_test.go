package refresh

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// highRun is a run of what is due, with a view that is due an hour before where its looks and claims begin.
func highRun(t *testing.T) (*pgtest.DB, *run) {
	t.Helper()
	db := pgtest.NewDB(t)
	db.Exec(`create materialized view public.v as select 1 as id`)
	db.Schedule("public.v", "1 hour")
	config := db.Pool.Config()
	ConfigurePool(config, 1)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	worker := &Worker{Pool: pool, Store: schedule.NewStore(pool), Jobs: 1, Name: "test"}
	r := worker.newRun(t.Context(), &dueViews{worker: worker})
	t.Cleanup(r.conn.release)
	t.Cleanup(r.close)
	raise(r)
	return db, r
}

// raise has the run begin an hour from now, as one does where a look from the beginning takes long.
func raise(r *run) {
	r.floor.Seen(nil, &schedule.Position{DueAt: time.Now().Add(time.Hour)}, 2*schedule.LookMayPass)
}

// A run whose look has passed something over looks once more, from the beginning, before it ends.
func TestRunEndsWhenNothingWasPassedOver(t *testing.T) {
	db, r := highRun(t)
	db.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
	if err := r.once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.executions) != 1 || r.executions[0].Status != schedule.Succeeded {
		t.Errorf("it has left what was due: %v", r.executions)
	}
}

// What a look itself makes due, by settling an end that nobody has settled, is where the next claim begins.
func TestClaimsBeginWhereALookHasMadeSomethingDue(t *testing.T) {
	db, r := highRun(t)
	store := schedule.NewStore(db.Pool)
	db.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
	claims, err := store.Claim(t.Context(), schedule.ClaimOptions{Limit: 1, Settled: true})
	if err != nil || len(claims) != 1 {
		t.Fatalf("%v, %v", claims, err)
	}
	if _, err := store.End(t.Context(), claims[0], schedule.Ending{Status: schedule.Abandoned, Reason: schedule.ReasonNeverStarted}); err != nil {
		t.Fatal(err)
	}
	raise(r) // for three seconds from now
	outlook, err := r.tend(t.Context())
	if err != nil || outlook.MadeDue == nil {
		t.Fatalf("%+v, %v", outlook, err)
	}
	if since := r.floor.Begin(schedule.ClaimMayPass); since == nil || since.DueAt.After(*outlook.MadeDue) {
		t.Errorf("claims begin at %v, behind what is due since %v", since, outlook.MadeDue)
	}
}
