package refresh_test

import (
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

// The record of a failure is refused once, as by a full disk. The transaction that could not take it holds the execution,
// and nobody but the worker itself can end that: it does, and records the failure on its own.
func TestTheRecordOfAFailureIsRefused(t *testing.T) {
	b := setup(t)
	b.Exec(`create table public.base (n integer)`)
	b.view("v", "select 1 as id, 1 / n as share from public.base")
	b.Exec(`insert into public.base values (0)`)
	b.refuseOneRecord()
	record := b.runDue()["public.v"]
	if record.Status != schedule.Failed || text(record.ErrorName) != "division_by_zero" {
		t.Errorf("recorded as %s (%s), %s", record.Status, text(record.Reason), text(record.ErrorName))
	}
	b.Check("2", `select last_value from public.tries`)
}

// That of a group, which holds the executions of all its members, is no different.
func TestTheRecordOfAGroupsFailureIsRefused(t *testing.T) {
	b := setup(t)
	b.Exec(`create table public.base (n integer)`)
	b.view("fails", "select 1 as id, 1 / n as share from public.base")
	b.view("waits", "select 1 as id")
	b.group("fails", "waits")
	b.Exec(`insert into public.base values (0)`)
	b.refuseOneRecord()
	records := b.runDue()
	b.checkEnd(records, "fails", schedule.Failed, "")
	b.checkEnd(records, "waits", schedule.Skipped, schedule.ReasonGroupFailed)
	b.Check("3", `select last_value from public.tries`)
}

// refuseOneRecord refuses the first end of an execution that is to be recorded.
func (b *bundle) refuseOneRecord() {
	for _, sql := range []string{
		`create sequence public.tries`, // not undone by a rollback
		`create function public.refuse_once() returns trigger language plpgsql as $$
		begin
		  if nextval('public.tries') = 1 then
		    raise exception 'no space' using errcode = '53100';
		  end if;
		  return new;
		end $$`,
		`create trigger refuse_once before update on mvsched.materialized_view_refresh_schedule_execution
		   for each row when (new.status <> 'running') execute function public.refuse_once()`,
	} {
		b.Exec(sql)
	}
}
