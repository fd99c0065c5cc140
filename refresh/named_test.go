package refresh_test

import (
	"context"
	"testing"
	"time"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// named refreshes views of schema public by hand, within a time.
func (b *bundle) named(patience time.Duration, names ...string) map[string][]schedule.Execution {
	b.Helper()
	var views []schedule.ViewName
	for _, name := range names {
		views = append(views, schedule.ViewName{Schema: "public", Name: name})
	}
	return b.within(patience, func(ctx context.Context) ([]schedule.Execution, error) {
		return b.worker.Refresh(ctx, views, refresh.Options{})
	})
}

func (b *bundle) checkEach(got map[string][]schedule.Execution, want map[string]schedule.Status) {
	b.Helper()
	for name, status := range want {
		if es := got["public."+name]; len(es) != 1 || es[0].Status != status {
			b.Errorf("%s: %+v, want one %s", name, es, status)
		}
	}
}

func TestRefreshByHand(t *testing.T) {
	t.Run("a_group_once_however_many_of_it_are_named", func(t *testing.T) {
		b := setup(t)
		b.view("a", "select 1 as id, pg_catalog.pg_sleep(0.3)::text as slept")
		b.view("b", "select 1 as id, pg_catalog.pg_sleep(0.3)::text as slept")
		b.group("a", "b")
		b.checkEach(b.named(time.Minute, "a", "b"), map[string]schedule.Status{"a": schedule.Succeeded, "b": schedule.Succeeded})
	})

	t.Run("a_group_of_which_one_was_created_again", func(t *testing.T) {
		b := setup(t)
		b.view("a", "select 1 as id")
		b.view("b", "select 1 as id")
		b.group("a", "b")
		b.runDue()
		b.Exec(`drop materialized view public.b`)
		b.Exec(`create materialized view public.b as select 1 as id`)
		b.checkEach(b.named(time.Minute, "a"), map[string]schedule.Status{"a": schedule.Succeeded, "b": schedule.Succeeded})
	})

	t.Run("a_group_that_is_none_any_more_when_its_turn_has_come", func(t *testing.T) {
		b := setup(t)
		b.view("a", "select 1 as id, pg_catalog.pg_sleep(1)::text as slept")
		b.view("b", "select 1 as id")
		b.group("a", "b")
		first := make(chan error, 1)
		go func() {
			_, err := b.another().Refresh(t.Context(), []schedule.ViewName{{Schema: "public", Name: "a"}}, refresh.Options{})
			first <- err
		}()
		b.Await("2", `select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'running'`)
		defer later(300*time.Millisecond, func() { b.Exec(`update mvsched.materialized_view_refresh_schedule set refresh_group = null`) })()
		b.checkEach(b.named(time.Minute, "a"), map[string]schedule.Status{"a": schedule.Succeeded})
		if err := <-first; err != nil {
			t.Error(err)
		}
	})

	t.Run("what_is_to_be_skipped_also_when_its_connection_is_lost", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create table public.base as select 1 as id`)
		b.view("a", "select 1 / id as id from public.base")
		b.view("b", "select id from public.a")
		b.view("c", "select id from public.b")
		b.Exec(`update public.base set id = 0`)
		b.Exec(`create sequence public.calls`)
		b.Exec(`create function public.lose() returns trigger language plpgsql as $$
			begin
				if nextval('public.calls') = 1 then
					perform pg_terminate_backend(pg_backend_pid());
				end if;
				return new;
			end $$`)
		b.Exec(`create trigger lose before insert on mvsched.materialized_view_refresh_schedule_execution
			for each row when (new.status = 'skipped') execute function public.lose()`)
		b.checkEach(b.named(time.Minute, "a", "b", "c"), map[string]schedule.Status{
			"a": schedule.Failed, "b": schedule.Skipped, "c": schedule.Skipped,
		})
	})
}
