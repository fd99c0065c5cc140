package refresh_test

import (
	"fmt"
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

// The record of a failure is refused, as by a full disk. The transaction that could not take it holds the execution, and goes on holding
// it for a second try: in between, the run would be taken for dead. Refused twice, it ends, since nobody else can record anything
// before, and the record comes on its own.
func TestTheRecordOfAFailureIsRefused(t *testing.T) {
	for refusals, elsewhere := range map[int]string{1: "false", 2: "true"} {
		t.Run(fmt.Sprint(refusals), func(t *testing.T) {
			b := setupJobs(t, 1)
			b.Exec(`create table public.base (n integer)`)
			b.view("v", "select 1 as id, 1 / n as share from public.base")
			b.Exec(`insert into public.base values (0)`)
			b.refuseRecords(refusals)
			record := b.runDue()["public.v"]
			if record.Status != schedule.Failed || text(record.ErrorName) != "division_by_zero" {
				t.Errorf("recorded as %s (%s), %s", record.Status, text(record.Reason), text(record.ErrorName))
			}
			b.Check(fmt.Sprint(refusals+1), `select last_value from public.tries`)
			b.Check(elsewhere, `select is_called from public.elsewhere`)
		})
	}
}

// That of a group, which holds the executions of all its members, is no different.
func TestTheRecordOfAGroupsFailureIsRefused(t *testing.T) {
	for refusals, elsewhere := range map[int]string{1: "false", 2: "true"} {
		t.Run(fmt.Sprint(refusals), func(t *testing.T) {
			b := setupJobs(t, 1)
			b.Exec(`create table public.base (n integer)`)
			b.view("fails", "select 1 as id, 1 / n as share from public.base")
			b.view("waits", "select 1 as id")
			b.group("fails", "waits")
			b.Exec(`insert into public.base values (0)`)
			b.refuseRecords(refusals)
			records := b.runDue()
			b.checkEnd(records, "fails", schedule.Failed, "")
			b.checkEnd(records, "waits", schedule.Skipped, schedule.ReasonGroupFailed)
			b.Check(fmt.Sprint(refusals+2), `select last_value from public.tries`)
			b.Check(elsewhere, `select is_called from public.elsewhere`)
		})
	}
}

// refuseRecords refuses the first ends of executions that are to be recorded.
func (b *bundle) refuseRecords(refusals int) {
	for _, sql := range []string{
		`create sequence public.tries`, // not undone by a rollback, as the others
		`create sequence public.refused_in`,
		`create sequence public.elsewhere`, // called when a record comes in another transaction than the one that was refused
		`create function public.refuse() returns trigger language plpgsql as $$
		begin
		  if nextval('public.tries') <= ` + fmt.Sprint(refusals) + ` then
		    perform setval('public.refused_in', pg_current_xact_id()::text::bigint);
		    raise exception 'no space' using errcode = '53100';
		  end if;
		  if pg_current_xact_id()::text::bigint <> (select last_value from public.refused_in) then
		    perform nextval('public.elsewhere');
		  end if;
		  return new;
		end $$`,
		`create trigger refuse before update on mvsched.materialized_view_refresh_schedule_execution
		   for each row when (new.status <> 'running') execute function public.refuse()`,
	} {
		b.Exec(sql)
	}
}
