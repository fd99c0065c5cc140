package schedule_test

import (
	"strings"
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

// Rows typed by hand that no CHECK refuses do not break planning, claiming or settling for the others; those that would
// are refused.
func TestHandWrittenExtremes(t *testing.T) {
	b := setup(t)
	b.view("good", "1 hour")
	b.view("odd", "2 days")
	for _, change := range []string{"last_attempted_at = '9999-12-30'", "consecutive_failures = 1000000", "next_run_at = '1970-01-02'", "start_grace = '1 hour'", "priority = 1000"} {
		b.Exec(`update mvsched.materialized_view_refresh_schedule set ` + change + ` where materialized_view_name = 'public.odd'`)
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() where materialized_view_name = 'public.good'`)
		b.tend()
		for _, claim := range b.claim(2) {
			b.end(claim, schedule.Ending{Status: schedule.Failed})
		}
		b.tend()
		b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule where open_execution_id is not null`)
	}
	for _, change := range []string{
		"paused_at = 'infinity'", "suspended_at = '-infinity'", "last_attempted_at = 'infinity'", "next_run_at = 'infinity'", "consecutive_failures = 2147483647",
		"start_grace = '178000000 years'", "priority = 2147483647", "maximum_execution_duration = '25 days'", "materialized_view_name = ''",
	} {
		_, err := b.Pool.Exec(t.Context(), `update mvsched.materialized_view_refresh_schedule set `+change)
		if sqlState(err) == "" {
			t.Errorf("a schedule took %s", change)
		}
	}
	for _, row := range []string{
		"(view_name) values (repeat('x', 9000))", "(view_name, start_grace) values ('public.x', '178000000 years')",
		"(view_name, started_at) values ('public.x', 'infinity')", "(view_name, attempt) values ('public.x', 2147483647)",
	} {
		if _, err := b.Pool.Exec(t.Context(), `insert into mvsched.materialized_view_refresh_schedule_execution `+row); sqlState(err) != "23514" {
			t.Errorf("an execution took %s: %v", row, err)
		}
	}
	if _, err := b.Pool.Exec(t.Context(), `insert into mvsched.materialized_view_refresh_schedule (id, materialized_view_name, refresh_interval) values (1000, 'public.x', '1 h')`); sqlState(err) != "428C9" {
		t.Errorf("an id by hand: %v", err)
	}
}

// One view has one schedule, whatever it was called when it was scheduled.
func TestARenamedViewIsNotScheduledTwice(t *testing.T) {
	b := setup(t)
	b.view("a", "1 hour")
	b.Exec(`alter materialized view public.a rename to b`)
	_, err := b.Pool.Exec(t.Context(), `insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval) values ('public.b', '1 h')`)
	if sqlState(err) != "23505" || !strings.Contains(err.Error(), "public.a") {
		t.Errorf("%v", err)
	}
	every := schedule.Day
	if _, err := b.store.Add(t.Context(), []schedule.ViewName{{Schema: "public", Name: "b"}}, schedule.Settings{Every: &every}, false); err == nil {
		t.Error("added twice")
	}
}

// As migrations write rows.
func TestOnConflict(t *testing.T) {
	b := setup(t)
	b.view("a", "1 hour")
	insert := `insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval) values ('PUBLIC.a', '2 h')
		on conflict (materialized_view_name) do `
	b.Exec(insert + "nothing")
	b.Check("01:00:00", `select refresh_interval from mvsched.materialized_view_refresh_schedule`)
	b.Exec(insert + "update set refresh_interval = excluded.refresh_interval")
	b.Check("02:00:00", `select refresh_interval from mvsched.materialized_view_refresh_schedule`)
}

// A one-shot plans what is new for the instant at which it began, or it would not claim it.
func TestPlanForAOneShot(t *testing.T) {
	b := setup(t)
	began := b.tend().Now
	b.view("new", "1 hour")
	outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{Round: &began, Limit: 10})
	if err != nil || outlook.Due != 1 {
		t.Errorf("%+v, %v", outlook, err)
	}
}

func TestALongMessageIsCut(t *testing.T) {
	b := setup(t)
	b.view("a", "1 hour")
	b.tend()
	e := b.end(b.claim(1)[0], schedule.Ending{Status: schedule.Failed, ErrorMessage: strings.Repeat("é", 50_000)})
	if n := len(*e.ErrorMessage); n > 4100 || !strings.HasSuffix(*e.ErrorMessage, "…") {
		t.Errorf("%d bytes", n)
	}
}
