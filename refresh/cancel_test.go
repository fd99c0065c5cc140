package refresh_test

import (
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

// slow creates a view whose refresh takes as long as public.pace says, a minute at first.
func (b *bundle) slow(name string) {
	b.Helper()
	b.Exec(`create table if not exists public.pace as select 60 as seconds`)
	b.Exec(`create materialized view public.` + name + ` as select pg_sleep(seconds)::text as id from public.pace with no data`)
	b.schedule(name)
}

func (b *bundle) cancel(names ...string) []schedule.Execution {
	b.Helper()
	var views []schedule.ViewName
	for _, name := range names {
		views = append(views, schedule.ViewName{Schema: "public", Name: name})
	}
	ended, idle, err := schedule.NewStore(b.Pool).Cancel(b.Context(), views)
	if err != nil || len(idle) > 0 {
		b.Fatalf("%v, idle %v", err, idle)
	}
	return ended
}

func TestCancel(t *testing.T) {
	t.Run("ends_one_refresh_and_no_other", func(t *testing.T) {
		b := setup(t)
		b.slow("a")
		b.slow("b")
		done := make(chan map[string]schedule.Execution, 1)
		go func() { done <- b.runDue() }()
		b.Await("2", refreshing)
		e := b.cancel("a")[0]
		if e.View != "public.a" || e.Status != schedule.Cancelled || text(e.Reason) != schedule.ReasonRequested ||
			text(e.ErrorMessage) != "cancelled on request of "+b.Value("session_user") || text(e.ErrorName) != "query_canceled" {
			t.Errorf("%+v", e)
		}
		b.Check("1", refreshing)
		b.Check("true", `select acknowledged_at is not null from mvsched.materialized_view_refresh_cancel`)
		b.cancel("b")
		if executions := <-done; len(executions) != 2 {
			t.Errorf("%+v", executions)
		}
		b.Check("0", `select sum(consecutive_failures) from mvsched.materialized_view_refresh_schedule`)
		if again := b.runDue(); len(again) != 0 {
			t.Errorf("tried again: %+v", again)
		}
	})

	t.Run("leaves_the_connection_fit_for_the_next_refresh", func(t *testing.T) {
		b := setupJobs(t, 1)
		b.slow("a")
		b.view("b", "select 1 as id")
		b.set("a", "priority = 10")
		done := make(chan map[string]schedule.Execution, 1)
		go func() { done <- b.runDue() }()
		b.Await("1", refreshing)
		b.cancel("a")
		executions := <-done
		if e := executions["public.b"]; e.Status != schedule.Succeeded || executions["public.a"].Status != schedule.Cancelled {
			t.Errorf("%+v", executions)
		}
	})

	// The only connection refreshes, so nobody looks for requests; the server is asked.
	t.Run("works_with_one_connection", func(t *testing.T) {
		b := setup(t)
		config := b.worker.Pool.Config()
		config.MaxConns = 1
		b.connect(config, 1)
		b.slow("a")
		done := make(chan map[string]schedule.Execution, 1)
		go func() { done <- b.runDue() }()
		b.Await("1", refreshing)
		if e := b.cancel("a")[0]; e.Status != schedule.Cancelled || text(e.Reason) != schedule.ReasonRequested {
			t.Errorf("%+v", e)
		}
		if executions := <-done; executions["public.a"].Status != schedule.Cancelled {
			t.Errorf("%+v", executions)
		}
		b.Check("0", refreshing)
	})

	// The backend is gone together with its connection: what the worker finds is no lost run but one that was to end.
	t.Run("is_the_reason_also_where_the_connection_is_lost", func(t *testing.T) {
		b := setup(t)
		b.slow("a")
		done := make(chan map[string]schedule.Execution, 1)
		go func() { done <- b.runDue() }()
		b.Await("1", refreshing)
		b.Exec(`update public.pace set seconds = 0`) // should it be tried again
		// Committed before the connection is lost, or the worker finds a run that nobody wanted ended.
		b.Exec(`insert into mvsched.materialized_view_refresh_cancel (execution_id)
			select id from mvsched.materialized_view_refresh_schedule_execution where status = 'running'`)
		b.Exec(`select pg_terminate_backend(l.pid)
			  from mvsched.materialized_view_refresh_schedule_execution e
			  join pg_locks l on l.transactionid = e.xmax and l.granted
			 where e.status = 'running'`)
		executions := <-done
		if e := executions["public.a"]; len(executions) != 1 || e.Status != schedule.Cancelled || text(e.Reason) != schedule.ReasonRequested {
			t.Errorf("%+v", executions)
		}
	})
}
