package refresh_test

import (
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

// A refresh is done when it has committed. Somebody may cancel what follows in the same pipeline, or the server may
// want to end it: the connection then stands in a transaction that has failed.
func TestSettlingBehindTheCommitFails(t *testing.T) {
	b := setupJobs(t, 1)
	b.view("a", "select 1 as id")
	b.view("b", "select 1 as id")
	b.Exec(`create sequence public.settled`)
	b.Exec(`alter function mvsched.settle() rename to settle_really`)
	// The one behind the first commit fails, once.
	b.Exec(`create function mvsched.settle() returns void language plpgsql as $$
		begin
		  if exists (select from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded') and nextval('public.settled') = 1 then
		    raise exception using errcode = 'query_canceled', message = 'canceling statement due to user request';
		  end if;
		  perform mvsched.settle_really();
		end $$`)
	ended := b.runDue()
	for _, view := range []string{"public.a", "public.b"} {
		if e := ended[view]; e.Status != schedule.Succeeded {
			t.Errorf("%s: %+v", view, e)
		}
	}
	b.Check("0", `select count(open_execution_id) from mvsched.materialized_view_refresh_schedule`)
}
