package schedule_test

import (
	"errors"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// cancel asks in the background for the end of a view's refresh, and returns once the request is there.
func (b *bundle) cancel(view string) (wait func() []schedule.Execution) {
	b.Helper()
	name, err := schedule.ParseViewName(view)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan []schedule.Execution, 1)
	before := b.Value(`select count(*) from mvsched.materialized_view_refresh_cancel`)
	go func() {
		executions, _, err := b.store.Cancel(b.Context(), []schedule.ViewName{name})
		if err != nil {
			b.Error(err)
		}
		done <- executions
	}()
	b.Await("true", `select count(*) > $1::bigint from mvsched.materialized_view_refresh_cancel`, before)
	return func() []schedule.Execution { return <-done }
}

func TestCancel(t *testing.T) {
	claimed := func(t *testing.T) (*bundle, schedule.Claim) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		return b, b.claim(1)[0]
	}

	t.Run("reports_a_success_that_was_quicker", func(t *testing.T) {
		b, claim := claimed(t)
		wait := b.cancel("public.a")
		b.succeed(claim)
		if ended := wait(); len(ended) != 1 || ended[0].Status != schedule.Succeeded {
			t.Errorf("%+v", ended)
		}
	})

	t.Run("asks_for_nothing_when_one_of_the_views_is_none", func(t *testing.T) {
		b, _ := claimed(t)
		views := []schedule.ViewName{{Schema: "public", Name: "a"}, {Schema: "public", Name: "nowhere"}}
		if _, _, err := b.store.Cancel(t.Context(), views); !errors.Is(err, schedule.ErrNoView) {
			t.Errorf("%v", err)
		}
		b.Check("0", `select count(*) from mvsched.materialized_view_refresh_cancel`)
	})

	t.Run("is_announced_also_when_asked_for_by_hand", func(t *testing.T) {
		b, claim := claimed(t)
		conn, err := b.Pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		if _, err := conn.Exec(t.Context(), "listen mvsched_cancel"); err != nil {
			t.Fatal(err)
		}
		b.Exec(`insert into mvsched.materialized_view_refresh_cancel (execution_id) values ($1)`, claim.ExecutionID)
		n, err := conn.Conn().WaitForNotification(t.Context())
		if err != nil || n.Payload != "1" {
			t.Errorf("%+v, %v", n, err)
		}
		if _, err := conn.Exec(t.Context(), "unlisten *"); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("ends_a_claim_that_has_not_begun_without_its_grace", func(t *testing.T) {
		b, claim := claimed(t)
		b.Exec(`insert into mvsched.materialized_view_refresh_cancel (execution_id, requested_by) values ($1, 'alice')`, claim.ExecutionID)
		outlook := b.tend()
		if len(outlook.Abandoned) != 1 || outlook.Abandoned[0].Status != schedule.Cancelled || *outlook.Abandoned[0].Reason != schedule.ReasonRequested ||
			*outlook.Abandoned[0].ErrorMessage != "cancelled on request of alice" {
			t.Errorf("%+v", outlook.Abandoned)
		}
		// I4: what was taken from it can never commit.
		_, err := b.Pool.Exec(t.Context(), `select mvsched.begin_refresh($1, $2::bigint::oid, 'plain', '1 min', '1 s', $3)`, claim.ExecutionID, int64(claim.OID), claim.ClaimedAt)
		if sqlState(err) != "MV001" {
			t.Errorf("%v", err)
		}
		if claims := b.claim(1); len(claims) != 0 {
			t.Errorf("tried again: %+v", claims)
		}
	})

	t.Run("leaves_a_live_run_to_its_worker", func(t *testing.T) {
		b, claim := claimed(t)
		release := b.Hold(`select mvsched.begin_refresh($1, $2::bigint::oid, 'plain', '1 min', '1 s', $3)`, claim.ExecutionID, int64(claim.OID), claim.ClaimedAt)
		wait := b.cancel("public.a")
		if outlook := b.tend(); len(outlook.Abandoned) != 0 {
			t.Errorf("%+v", outlook.Abandoned) // I5
		}
		requests, _, err := b.store.Watch(t.Context(), []int64{claim.ExecutionID, claim.ExecutionID + 1}, nil)
		if err != nil || len(requests) != 1 || requests[0].ExecutionID != claim.ExecutionID {
			t.Errorf("%+v, %v", requests, err)
		}
		if err := b.store.AcknowledgeCancel(t.Context(), []int64{claim.ExecutionID}); err != nil {
			t.Error(err)
		}
		if requests, _, err := b.store.Watch(t.Context(), []int64{claim.ExecutionID}, nil); err != nil || len(requests) != 0 {
			t.Errorf("%+v, %v", requests, err)
		}
		release()
		b.tend() // the worker is gone after all
		if ended := wait(); len(ended) != 1 || ended[0].Status != schedule.Cancelled {
			t.Errorf("%+v", ended)
		}
	})

	// Whoever records a dead run holds its row as well, and must not be cancelled for it.
	t.Run("signals_nobody_who_has_just_taken_the_row", func(t *testing.T) {
		b, claim := claimed(t)
		b.Exec(`insert into mvsched.materialized_view_refresh_cancel (execution_id, requested_at) values ($1, now() - interval '1 min')`, claim.ExecutionID)
		tx, err := b.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()
		if _, err := tx.Exec(t.Context(), `select from mvsched.materialized_view_refresh_schedule_execution for update`); err != nil {
			t.Fatal(err)
		}
		done := make(chan []schedule.Execution, 1)
		go func() {
			ended, _, err := b.store.Cancel(t.Context(), []schedule.ViewName{{Schema: "public", Name: "a"}})
			if err != nil {
				t.Error(err)
			}
			done <- ended
		}()
		if _, err := tx.Exec(t.Context(), `select pg_sleep(0.8)`); err != nil {
			t.Error(err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
		select {
		case ended := <-done:
			if len(ended) != 1 || ended[0].Status != schedule.Cancelled {
				t.Errorf("%+v", ended)
			}
		case <-time.After(20 * time.Second):
			t.Error("it does not end")
		}
	})
}
