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
	if read := entries(nil); read < claimed || next[0].EntriesRead < claimed {
		t.Errorf("from the beginning %d entries, and %d by the claim itself", read, next[0].EntriesRead) // else this test shows nothing
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
		is := func(why string, want *schedule.Position, over time.Duration) {
			t.Helper()
			got := floor.Begin(over)
			if (got == nil) != (want == nil) || got != nil && *got != *want {
				t.Errorf("%s: %v, want %v", why, got, want)
			}
		}
		is("at first", nil, 0)
		floor.Looked(nil, at(1, 1), 50*time.Millisecond)
		is("a quick look", nil, 0)
		floor.Looked(nil, at(1, 1), 100*time.Millisecond)
		is("a slow look", at(1, 1), 0)
		since := floor.Begin(0)
		floor.Claimed(since, at(1, 7), 30)
		is("a claim has seen a later one", at(1, 7), 0)
		floor.Claimed(since, at(1, 3), 30)
		is("another one, which began before that", at(1, 7), 0)
		floor.Lower(time.Unix(2, 0))
		is("something is due later", at(1, 7), 0)
		floor.Lower(time.Unix(1, 0))
		is("something is due before", at(1, 0), 0)
		floor.Claimed(since, at(1, 8), 30)
		is("a claim that began before that", at(1, 0), 0)
		<-time.After(time.Second + 1) // of synctest's clock
		is("a claim goes by it for longer", at(1, 0), schedule.ClaimsFloorLater)
		is("ten times as long for a look", nil, 0)
		is("another one while that is on its way", at(1, 0), 0)
		floor.Looked(nil, at(3, 1), time.Minute)
		<-time.After(3*time.Second + 1)
		is("three seconds at the most", nil, 0)
		<-time.After(3*time.Second + 1)
		is("the one that went has not come back", nil, 0)
		floor.Looked(nil, at(4, 1), time.Millisecond)
		is("a quick look again", nil, 0)
		is("and nobody needs a floor", nil, 0)

		floor.Claimed(nil, at(5, 1), 2500)
		is("a claim that read little", nil, 0)
		floor.Claimed(nil, at(5, 1), 20_000)
		is("one that read much", at(5, 1), 0)
		floor.Looked(nil, at(6, 1), time.Millisecond)
		is("a quick look does not know of it", at(6, 1), 0)
		<-time.After(3*time.Second + 1)
		is("a claim goes by it for longer, too", at(6, 1), schedule.ClaimsFloorLater)
		<-time.After(time.Second)
		is("and begins anew in the end", nil, schedule.ClaimsFloorLater)
		floor.Claimed(nil, at(7, 1), 30)
		is("nothing is in the way any more", nil, 0)
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
