package schedule_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// While somebody holds a transaction open, what has been claimed stays in the index on what is due. A claim that is told
// where the first due schedule was reads none of that.
func TestClaimSince(t *testing.T) {
	t.Parallel()
	const views, claimed = 3000, 2000
	b := setup(t)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
		select 'public.v' || g, '10 hours', now() - interval '1 hour' from generate_series(1, $1::integer) g`, views)
	holder, err := b.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Rollback(t.Context())
	if _, err := holder.Exec(t.Context(), `select pg_catalog.pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		claims, err := b.store.Claim(t.Context(), schedule.ClaimOptions{Limit: claimed / 10, Settled: true})
		if err != nil || len(claims) != claimed/10 {
			t.Fatalf("%d claims, %v", len(claims), err)
		}
	}

	// entries is how many entries a claim has read of the indexes on what is due, and on what is running.
	entries := func(since *schedule.Position) (read int64) {
		t.Helper()
		tx, err := b.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(t.Context())
		var dueAt *time.Time
		var id *int64
		if since != nil {
			dueAt, id = &since.DueAt, &since.ScheduleID
		}
		// What the session has not reported yet counts too.
		count := `select pg_stat_get_xact_tuples_returned('mvsched.materialized_view_refresh_schedule_due'::regclass)
			+ pg_stat_get_xact_tuples_returned('mvsched.materialized_view_refresh_schedule_execution_running'::regclass)`
		var before int64
		if err := tx.QueryRow(t.Context(), count).Scan(&before); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), schedule.ClaimSQL, "test", 1, nil, nil, nil, false, dueAt, id); err != nil {
			t.Fatal(err)
		}
		if err := tx.QueryRow(t.Context(), count).Scan(&read); err != nil {
			t.Fatal(err)
		}
		return read - before
	}
	next, err := b.store.Claim(t.Context(), schedule.ClaimOptions{Limit: 1, Settled: true})
	if err != nil || len(next) != 1 || next[0].FirstDue == nil || next[0].FirstDue.ScheduleID != *next[0].ScheduleID {
		t.Fatalf("%+v, %v", next, err)
	}
	if read := entries(nil); read < claimed {
		t.Errorf("from the beginning %d entries", read) // then this test shows nothing
	}
	outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1})
	if err != nil || outlook.Passed < claimed || outlook.Passed > claimed+100 || next[0].Passed < claimed || next[0].Passed > claimed+100 {
		t.Errorf("a look passed %d entries, %v, a claim %d; %d lead nowhere", outlook.Passed, err, next[0].Passed, claimed)
	}
	if read := entries(next[0].FirstDue); read > 100 {
		t.Errorf("from the first due schedule on %d entries", read)
	}
}

func TestFloor(t *testing.T) {
	t.Parallel()
	at := func(second, id int64) *schedule.Position {
		return &schedule.Position{DueAt: time.Unix(second, 0), ScheduleID: id}
	}
	synctest.Test(t, func(t *testing.T) {
		var floor schedule.Floor
		is := func(why string, want *schedule.Position, mayPass int64) {
			t.Helper()
			got := floor.Begin(mayPass)
			if (got == nil) != (want == nil) || got != nil && *got != *want {
				t.Errorf("%s: %v, want %v", why, got, want)
			}
		}
		is("at first", nil, schedule.ClaimMayPass)
		floor.Seen(nil, at(1, 1), schedule.ClaimMayPass)
		is("a claim that passed little", nil, schedule.ClaimMayPass)
		floor.Seen(nil, at(1, 1), schedule.LookMayPass)
		is("one that passed much", at(1, 1), schedule.ClaimMayPass)
		is("which is little for a look", nil, schedule.LookMayPass)
		since := floor.Begin(schedule.ClaimMayPass)
		floor.Seen(since, at(1, 7), 0)
		is("a claim has seen a later one", at(1, 7), schedule.ClaimMayPass)
		floor.Seen(since, at(1, 3), 0)
		is("another one, which began before that", at(1, 7), schedule.ClaimMayPass)
		floor.Lower(time.Unix(2, 0))
		is("something is due later", at(1, 7), schedule.ClaimMayPass)
		floor.Lower(time.Unix(1, 0))
		is("something is due before", at(1, 0), schedule.ClaimMayPass)
		floor.Seen(since, at(1, 8), 0)
		is("a claim that began before that", at(1, 0), schedule.ClaimMayPass)
		<-time.After(3*time.Second + 1) // of synctest's clock
		is("three seconds", nil, schedule.ClaimMayPass)
		is("another one while that is on its way", at(1, 0), schedule.ClaimMayPass)
		floor.Seen(nil, at(3, 1), 2*schedule.LookMayPass)
		is("what was made due meanwhile is before it", at(1, 0), schedule.ClaimMayPass)
		floor.Seen(nil, at(3, 1), 2*schedule.LookMayPass)
		is("that is seen by now", at(3, 1), schedule.ClaimMayPass)
		is("much for a look, too", at(3, 1), schedule.LookMayPass)
		<-time.After(3*time.Second + 1)
		is("it goes anew", nil, schedule.LookMayPass)
		<-time.After(3*time.Second + 1)
		is("the one that went has not come back", nil, schedule.LookMayPass)
		for range 3 { // somebody holds a transaction open no more, but looks go on
			floor.Seen(nil, at(4, 1), 30)
			is("nothing is in the way any more", nil, schedule.ClaimMayPass)
			is("and nobody needs a floor", nil, schedule.LookMayPass)
			<-time.After(3 * time.Second)
		}
	})
}

// A look that makes something due before the place where it begins says so: the claims that follow are to find it.
func TestALookTellsWhatItHasMadeDue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.view("a", "1 hour")
	b.tend()
	claims := b.claim(1)
	if len(claims) != 1 {
		t.Fatalf("claims %v", claims)
	}
	b.end(claims[0], schedule.Ending{Status: schedule.Abandoned, Reason: schedule.ReasonNeverStarted})
	since := &schedule.Position{DueAt: time.Now().Add(time.Hour)}
	outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1, Since: since})
	if err != nil || outlook.Due != 1 || outlook.MadeDue == nil || !outlook.MadeDue.Equal(*claims[0].ScheduledAt) {
		t.Errorf("%+v, %v, want it to have made %v due", outlook, err, claims[0].ScheduledAt)
	}
}
