package schedule_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/schedule"
)

func TestPlan(t *testing.T) {
	t.Run("makes_a_new_schedule_due_at_once", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Check("null", `select next_run_at from mvsched.materialized_view_refresh_schedule`)
		if outlook := b.tend(); outlook.Due != 1 {
			t.Errorf("%+v", outlook)
		}
		b.Check("true", `select next_run_at <= now() from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("counts_a_changed_interval_from_the_last_run", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		b.succeed(b.claim(1)[0])
		b.Exec(`update mvsched.materialized_view_refresh_schedule set refresh_interval = '10 minutes'`)
		b.Check("null", `select next_run_at from mvsched.materialized_view_refresh_schedule`)
		b.tend()
		b.Check("true", `select next_run_at = last_attempted_at + interval '10 minutes' from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("leaves_a_row_that_somebody_edits", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.view("b", "1 hour")
		b.Hold(`select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.a' for update`)
		b.tend()
		b.Check("public.a", `select string_agg(materialized_view_name, ' ') from mvsched.materialized_view_refresh_schedule where next_run_at is null`)
	})
}

func TestSettle(t *testing.T) {
	for name, c := range map[string]struct {
		ending   schedule.Ending
		failures string
		due      bool
	}{
		"failed":      {schedule.Ending{Status: schedule.Failed, ErrorName: "division_by_zero"}, "6", false},
		"timed_out":   {schedule.Ending{Status: schedule.TimedOut, Reason: schedule.ReasonTimeLimit}, "6", false},
		"cancelled":   {schedule.Ending{Status: schedule.Cancelled, Reason: schedule.ReasonRequested}, "5", false},
		"shutdown":    {schedule.Ending{Status: schedule.Cancelled, Reason: schedule.ReasonShutdown}, "5", true},
		"skipped":     {schedule.Ending{Status: schedule.Skipped, Reason: schedule.ReasonLockBusy}, "5", false},
		"worker_lost": {schedule.Ending{Status: schedule.Abandoned, Reason: schedule.ReasonWorkerLost}, "5", true},
		"started_not": {schedule.Ending{Status: schedule.Abandoned, Reason: schedule.ReasonNeverStarted}, "5", true},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.view("a", "1 hour")
			b.Exec(`update mvsched.materialized_view_refresh_schedule set consecutive_failures = 5`)
			b.tend()
			claim := b.claim(1)[0]
			b.end(claim, c.ending)
			b.tend()
			b.Check(c.failures, `select consecutive_failures from mvsched.materialized_view_refresh_schedule`)
			b.Check("null", `select open_execution_id from mvsched.materialized_view_refresh_schedule`)
			again := b.claim(1)
			if (len(again) == 1) != c.due {
				t.Fatalf("claimed again: %v", again)
			}
			if c.due && (again[0].Attempt != 2 || !again[0].ScheduledAt.Equal(*claim.ScheduledAt)) {
				t.Errorf("%+v after %+v", again[0], claim)
			}
		})
	}

	t.Run("gives_up_a_slot_that_was_lost_three_times", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		for i := range 3 {
			claims := b.claim(1)
			if len(claims) != 1 {
				t.Fatalf("try %d: not due", i+1)
			}
			b.end(claims[0], schedule.Ending{Status: schedule.Abandoned, Reason: schedule.ReasonWorkerLost})
		}
		if claims := b.claim(1); len(claims) != 0 {
			t.Errorf("claimed for the fourth time: %+v", claims)
		}
	})

	t.Run("doubles_the_grace_of_what_never_started_until_it_succeeds", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		for _, want := range []string{"00:00:06", "00:00:12"} {
			b.end(b.claim(1)[0], schedule.Ending{Status: schedule.Abandoned, Reason: schedule.ReasonNeverStarted})
			b.tend()
			b.Check(want, `select start_grace from mvsched.materialized_view_refresh_schedule`)
		}
		b.succeed(b.claim(1)[0])
		b.tend()
		b.Check("00:00:03", `select start_grace from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("leaves_a_changed_spec_alone", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		claim := b.claim(1)[0]
		b.Exec(`update mvsched.materialized_view_refresh_schedule set refresh_interval = '2 hours'`)
		b.end(claim, schedule.Ending{Status: schedule.Cancelled, Reason: schedule.ReasonShutdown})
		b.tend()
		b.Check("true", `select next_run_at = last_attempted_at + interval '2 hours' from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("waits_for_nobody_who_holds_the_schedule", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		claim := b.claim(1)[0]
		release := b.Hold(`update mvsched.materialized_view_refresh_schedule set priority = 1`)
		b.succeed(claim)
		b.tend()
		release()
		b.tend()
		b.Check("null", `select open_execution_id from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("survives_a_deleted_schedule_and_a_deleted_execution", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.view("b", "1 hour")
		b.tend()
		claims := b.claim(2)
		b.Exec(`delete from mvsched.materialized_view_refresh_schedule where id = $1`, *claims[0].ScheduleID)
		b.Exec(`delete from mvsched.materialized_view_refresh_schedule_execution where id = $1`, claims[1].ExecutionID)
		b.succeed(claims[0])
		b.tend()
		b.Check("succeeded", `select status from mvsched.materialized_view_refresh_schedule_execution`)
		b.Check("null", `select open_execution_id from mvsched.materialized_view_refresh_schedule`)
	})
}

func TestRescue(t *testing.T) {
	lock := `select from mvsched.materialized_view_refresh_schedule_execution for no key update`

	t.Run("leaves_a_claim_in_its_grace_alone", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		b.claim(1)
		outlook := b.tend()
		if len(outlook.Abandoned) != 0 || outlook.Unbegun == nil {
			t.Errorf("%+v", outlook)
		}
	})

	t.Run("abandons_a_claim_that_never_started", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		// As a claim of 4 s ago has left it; an update would make the row look as if a transaction had begun.
		b.Exec(`with claim as (
			insert into mvsched.materialized_view_refresh_schedule_execution
			       (materialized_view_refresh_schedule_id, view_name, view_oid, scheduled_at, started_at)
			select s.id, s.materialized_view_name, s.view_oid, s.next_run_at, now() - interval '4 seconds'
			  from mvsched.materialized_view_refresh_schedule s
			returning id)
			update mvsched.materialized_view_refresh_schedule set open_execution_id = claim.id, next_run_at = next_run_at + interval '1 hour'
			  from claim`)
		outlook := b.tend()
		if len(outlook.Abandoned) != 1 || *outlook.Abandoned[0].Reason != schedule.ReasonNeverStarted || outlook.Due != 1 {
			t.Errorf("%+v", outlook)
		}
	})

	t.Run("leaves_a_live_run_alone_however_old", func(t *testing.T) { // I5
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		b.claim(1)
		b.Exec(`update mvsched.materialized_view_refresh_schedule_execution set started_at = started_at - interval '6 hours'`)
		b.Hold(`select mvsched.begin_refresh(e.id, e.view_oid, 'plain', '1 min', '1 s', e.started_at)
			from mvsched.materialized_view_refresh_schedule_execution e`)
		if outlook := b.tend(); len(outlook.Abandoned) != 0 {
			t.Errorf("%+v", outlook)
		}
	})

	t.Run("abandons_a_run_whose_transaction_is_gone_at_once", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		b.claim(1)
		b.Hold(lock)()
		outlook := b.tend()
		if len(outlook.Abandoned) != 1 || *outlook.Abandoned[0].Reason != schedule.ReasonWorkerLost {
			t.Errorf("%+v", outlook)
		}
		b.Check("true", `select terminated_at is not null and ended_at is not null from mvsched.materialized_view_refresh_schedule_execution`)
	})

	t.Run("fences_off_the_worker_that_wakes_up_late", func(t *testing.T) { // I4
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		claim := b.claim(1)[0]
		b.Hold(lock)()
		b.tend()
		_, err := b.Pool.Exec(t.Context(), `select mvsched.begin_refresh($1, $2::bigint::oid, 'plain', '1 s', '1 s', $3)`, claim.ExecutionID, int64(claim.OID), claim.ClaimedAt)
		if code := sqlState(err); code != "MV001" {
			t.Errorf("%v", err)
		}
	})
}

// A crash takes back a claim whose commit had not reached the disk, and its id with it: the next claim gets that again.
// What the first one's worker does must not touch it.
func TestClaimWhoseIDWasGivenOutAgain(t *testing.T) { // I3, I4, I5
	b := setup(t)
	b.view("a", "1 hour")
	b.tend()
	lost := b.claim(1)[0]
	b.Exec(`delete from mvsched.materialized_view_refresh_schedule_execution`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (id, view_name, view_oid) overriding system value values ($1, 'public.b', 1)`,
		lost.ExecutionID)

	_, err := b.Pool.Exec(t.Context(), `select mvsched.begin_refresh($1, $2::bigint::oid, 'plain', '1 s', '1 s', $3)`, lost.ExecutionID, int64(lost.OID), lost.ClaimedAt)
	if code := sqlState(err); code != "MV001" {
		t.Errorf("begin: %v", err)
	}
	if e, err := b.store.End(t.Context(), lost, schedule.Ending{Status: schedule.Failed}); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("end: %+v, %v", e, err)
	}
	if e, err := b.store.Outcome(t.Context(), lost, schedule.Ending{Status: schedule.Abandoned}); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("outcome: %+v, %v", e, err)
	}
	b.Check("running", `select status from mvsched.materialized_view_refresh_schedule_execution`)
}

func TestOutcome(t *testing.T) {
	lost := schedule.Ending{Status: schedule.Abandoned, Reason: schedule.ReasonWorkerLost}
	b := setup(t)
	b.view("a", "1 hour")
	b.tend()
	claim := b.claim(1)[0]
	release := b.Hold(`select from mvsched.materialized_view_refresh_schedule_execution for no key update`)
	if e, err := b.store.Outcome(t.Context(), claim, lost); err != nil || e.Status != schedule.Running {
		t.Errorf("while it lives: %+v, %v", e, err)
	}
	release()
	if e, err := b.store.Outcome(t.Context(), claim, lost); err != nil || e.Status != schedule.Abandoned {
		t.Errorf("when it is gone: %+v, %v", e, err)
	}
	if e, err := b.store.Outcome(t.Context(), claim, schedule.Ending{Status: schedule.Failed}); err != nil || e.Status != schedule.Abandoned {
		t.Errorf("when it has ended: %+v, %v", e, err)
	}
}

// 57014 is a time limit or somebody's cancel; the server's clock tells which.
func TestEndTellsATimeLimitFromACancel(t *testing.T) {
	for limit, want := range map[time.Duration]schedule.Status{time.Microsecond: schedule.TimedOut, time.Hour: schedule.Cancelled} {
		t.Run(string(want), func(t *testing.T) {
			b := setup(t)
			b.view("a", "1 hour")
			b.tend()
			e := b.end(b.claim(1)[0], schedule.Ending{Status: schedule.Cancelled, Reason: schedule.ReasonRequested, TimeLimit: limit})
			if e.Status != want || e.TerminatedAt == nil {
				t.Errorf("limit %v: %+v", limit, e)
			}
		})
	}
}

func TestWhereTheViewIs(t *testing.T) {
	t.Run("a_renamed_view_is_followed", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Exec(`create schema elsewhere`)
		b.Exec(`alter materialized view public.a rename to "New Name"`)
		b.Exec(`alter materialized view public."New Name" set schema elsewhere`)
		b.Check(`elsewhere."New Name"`, `select view_name from mvsched.status`)
		b.tend()
		claim := b.claim(1)[0]
		if claim.Schema != "elsewhere" || claim.Name != "New Name" || !claim.Renamed || claim.View != `elsewhere."New Name"` {
			t.Errorf("%+v", claim)
		}
		if err := b.store.FollowRename(t.Context(), *claim.ScheduleID); err != nil {
			t.Fatal(err)
		}
		b.Check(`elsewhere."New Name"`, `select materialized_view_name from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("a_recreated_view_is_found_again_and_reported", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Exec(`drop materialized view public.a`)
		b.Check("missing", `select state from mvsched.status`)
		b.view("a", "")
		b.Check("never", `select state from mvsched.status`)
		outlook := b.tend()
		if len(outlook.Moved) != 1 || !outlook.Moved[0].Found || outlook.Moved[0].Restored {
			t.Errorf("%+v", outlook.Moved)
		}
		if claim := b.claim(1)[0]; claim.OID == 0 || claim.Name != "a" {
			t.Errorf("%+v", claim)
		}
	})

	t.Run("a_recreated_view_is_found_before_it_is_due_where_that_matters", func(t *testing.T) {
		recreate := func(b *bundle) {
			b.Exec(`drop materialized view public.v`)
			b.Exec(`create materialized view public.v as select id from public.parent`)
		}
		const located = `select view_oid = 'public.v'::regclass from mvsched.materialized_view_refresh_schedule
			where materialized_view_name = 'public.v'`
		for name, settings := range map[string]schedule.Settings{
			"after_parents": {AfterParents: ptr(true)}, "on_change": {OnChange: ptr(true)}, "group": {Group: ptr("g")},
		} {
			t.Run(name, func(t *testing.T) {
				b := setup(t)
				b.chain("parent", "v")
				b.set("v", settings)
				b.tend()
				for _, claim := range b.claimAll() {
					b.succeed(claim)
					for _, reader := range b.claimAll() {
						b.succeed(reader)
					}
				}
				b.tend()
				release := b.Hold(`select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.v' for update`)
				recreate(b)
				if outlook := b.tend(); len(outlook.Moved) != 0 {
					t.Errorf("although somebody holds its row: %+v", outlook.Moved)
				}
				b.Check("false", located)
				release()
				if outlook := b.tend(); len(outlook.Moved) != 1 || !outlook.Moved[0].Found || outlook.Moved[0].Restored {
					t.Errorf("%+v", outlook.Moved)
				}
				b.Check("true", located)
				if outlook := b.tend(); len(outlook.Moved) != 0 {
					t.Errorf("again: %+v", outlook.Moved)
				}
			})
		}
		t.Run("also_while_its_end_is_not_settled", func(t *testing.T) {
			b := setup(t)
			b.chain("parent", "v")
			b.set("v", schedule.Settings{Group: ptr("g")})
			b.tend()
			for range 2 {
				for _, claim := range b.claimAll() {
					if claim.Name != "v" {
						b.succeed(claim)
					}
				}
				b.tend()
			}
			b.Check("running", `select status from mvsched.materialized_view_refresh_schedule_execution where view_name = 'public.v'`)
			recreate(b)
			b.tend()
			b.Check("true", located)
		})
		t.Run("so_it_gets_what_its_parent_has_got", func(t *testing.T) {
			b := setup(t)
			b.chain("parent", "v")
			b.set("v", schedule.Settings{AfterParents: ptr(true)})
			b.tend()
			for range 2 {
				for _, claim := range b.claimAll() {
					b.succeed(claim)
				}
				b.tend()
			}
			recreate(b)
			b.tend()
			if got := views(b.claim(1)); !slices.Equal(got, []string{"public.v"}) {
				t.Errorf("claimed %v", got)
			}
		})
	})

	t.Run("a_missing_view_is_claimed_as_such", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Exec(`drop materialized view public.a`)
		b.tend()
		if claim := b.claim(1)[0]; claim.OID != 0 || claim.View != "public.a" {
			t.Errorf("%+v", claim)
		}
	})

	t.Run("a_database_is_one_to_every_role", func(t *testing.T) {
		b := setup(t)
		b.Exec(`revoke execute on function pg_control_system() from public`)
		role, here := b.role(), b.Value(`select mvsched.database_identity()`)
		tx, err := b.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if _, err := tx.Exec(t.Context(), `set local role `+role); err != nil {
			t.Fatal(err)
		}
		var there string
		if err := tx.QueryRow(t.Context(), `select mvsched.database_identity()`).Scan(&there); err != nil || there != here {
			t.Errorf("%s, to the owner of the schema %s; %v", there, here, err)
		}
	})

	t.Run("an_OID_from_another_database_does_not_count", func(t *testing.T) { // I6
		b := setup(t)
		b.view("a", "1 hour")
		b.view("stranger", "")
		b.tend()
		b.Exec(`update mvsched.materialized_view_refresh_schedule
			set view_oid = 'public.stranger'::regclass, database_identity = 'another/1'`)
		b.Check("public.a", `select view_name from mvsched.status`)
		if claims := b.claim(1); len(claims) != 0 {
			t.Errorf("claimed before it was located: %+v", claims)
		}
		outlook := b.tend()
		if len(outlook.Moved) != 1 || !outlook.Moved[0].Restored {
			t.Errorf("%+v", outlook.Moved)
		}
		if claim := b.claim(1)[0]; claim.Name != "a" {
			t.Errorf("%+v", claim)
		}
	})
}

// CONCURRENTLY waits longer than deadlock_timeout whatever was asked for: autovacuum gives way only after that.
func TestLockLimit(t *testing.T) {
	for method, want := range map[string]string{"concurrently": "1500ms", "plain": "1s"} {
		t.Run(method, func(t *testing.T) {
			b := setup(t)
			b.view("a", "1 hour")
			b.tend()
			claim := b.claim(1)[0]
			tx, err := b.Pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(context.Background()) }()
			var got string
			if _, err := tx.Exec(t.Context(), `select mvsched.begin_refresh($1, $2::bigint::oid, $3, '90 min', '1 s', $4)`,
				claim.ExecutionID, int64(claim.OID), method, claim.ClaimedAt); err != nil {
				t.Fatal(err)
			}
			err = tx.QueryRow(t.Context(), `select current_setting('lock_timeout')`).Scan(&got)
			if err != nil || got != want {
				t.Errorf("%s, %v; want %s", got, err, want)
			}
		})
	}
}
