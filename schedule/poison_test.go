package schedule_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgerrcode"

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
	if n := len(*e.ErrorMessage); n > 4100 || !strings.HasSuffix(*e.ErrorMessage, "...") {
		t.Errorf("%d bytes", n)
	}
}

// What a person may write into one row, or lose of mvsched's own, must not stop the others.
func TestNothingStopsTheOthers(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string]string{
		"an_epoch_that_failed_for_now": `
			update mvsched.materialized_view_refresh_schedule set next_run_at = '1970-01-01 00:00+00' where materialized_view_name = 'public.bad';
			with e as (
			  insert into mvsched.materialized_view_refresh_schedule_execution
			         (materialized_view_refresh_schedule_id, view_name, view_oid, status, scheduled_at, started_at, ended_at, error_name)
			  select id, materialized_view_name, view_oid, 'failed', next_run_at, now(), now(), 'deadlock_detected'
			    from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.bad'
			  returning id)
			update mvsched.materialized_view_refresh_schedule s set open_execution_id = e.id from e where materialized_view_name = 'public.bad'`,
		"a_request_for_one_parked_at_the_end_of_time": `
			update mvsched.materialized_view_refresh_schedule set next_run_at = '9999-12-30 00:00+00' where materialized_view_name = 'public.bad';
			select mvsched.request_refresh('public.bad')`,
		"a_window_at_the_end_of_time": `
			update mvsched.materialized_view_refresh_schedule
			   set last_attempted_at = '9999-12-31 00:00+00', next_run_at = null, window_start = '22:00', window_end = '06:00'
			 where materialized_view_name = 'public.bad'`,
		"a_slot_before_the_beginning_of_time": `
			update mvsched.materialized_view_refresh_schedule set next_run_at = '1970-01-01 00:00+00', next_run_offset = '4 minutes'
			 where materialized_view_name = 'public.bad'`,
		"a_slot_behind_the_end_of_time": `
			update mvsched.materialized_view_refresh_schedule set next_run_at = now(), next_run_offset = '-3000000 days'
			 where materialized_view_name = 'public.bad'`,
		"a_request_with_a_slot_behind_the_end_of_time": `
			update mvsched.materialized_view_refresh_schedule set next_run_at = '9999-12-31 00:00+00', next_run_offset = '-3000000 days'
			 where materialized_view_name = 'public.bad';
			select mvsched.request_refresh('public.bad')`,
		"a_window_that_opens_behind_the_end_of_time": `
			update mvsched.materialized_view_refresh_schedule set window_start = '09:00', window_end = '20:00' where materialized_view_name = 'public.bad';
			update mvsched.materialized_view_refresh_schedule set last_attempted_at = '9999-12-31 00:00+00' where materialized_view_name = 'public.bad'`,
		"no_state_of_the_catalog": `delete from mvsched.catalog_state`,
		"no_settings":             `delete from mvsched.settings`,
		"no_turn_to_take":         `delete from mvsched.claim_turn; update mvsched.settings set max_concurrent_refreshes = 5`,
		"a_time_zone_that_nobody_knows": `
			alter table mvsched.materialized_view_refresh_schedule disable trigger check_schedule;
			update mvsched.materialized_view_refresh_schedule set timezone = 'US/Gone', next_run_at = null where materialized_view_name = 'public.bad';
			select mvsched.request_refresh('public.bad')`,
		"a_window_in_a_time_zone_that_nobody_knows": `
			alter table mvsched.materialized_view_refresh_schedule disable trigger check_schedule;
			update mvsched.materialized_view_refresh_schedule
			   set timezone = 'US/Gone', next_run_at = null, last_attempted_at = null, window_start = '22:00', window_end = '06:00', jitter = '1 minute'
			 where materialized_view_name = 'public.bad';
			select mvsched.request_refresh('public.bad')`,
		"a_time_zone_that_only_one_knows": `
			update mvsched.materialized_view_refresh_schedule
			   set last_attempted_at = now(), next_run_at = null, refresh_interval = null, cron = '0 3 * * *', timezone = 'XYZ+3'
			 where materialized_view_name = 'public.bad'`,
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.view("bad", "1 hour")
			b.view("good", "1 hour")
			b.tend()
			for _, sql := range strings.Split(poison, ";\n") {
				b.Exec(sql)
			}
			for range 2 {
				b.tend()
				b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() where materialized_view_name = 'public.good'`)
				claims := b.claim(10)
				if !slices.Contains(views(claims), "public.good") {
					t.Fatalf("claimed %v", views(claims))
				}
				for _, claim := range claims {
					b.succeed(claim)
				}
			}
		})
	}

	t.Run("a_window_from_midnight_to_midnight_is_refused", func(t *testing.T) {
		b := setup(t)
		b.view("v", "1 hour")
		_, err := b.Pool.Exec(t.Context(), `update mvsched.materialized_view_refresh_schedule set window_start = '24:00', window_end = '00:00'`)
		if sqlState(err) != pgerrcode.CheckViolation {
			t.Error(err)
		}
	})

	t.Run("a_request_is_not_taken_for_answered_by_a_skip", func(t *testing.T) {
		if b := setup(t); b.TellsChanges() {
			b.view("v", "1 hour")
			b.change("v", "skip_unchanged = true")
			b.tend()
			b.succeed(b.claim(1)[0])
			b.tend()
			b.change("v", "next_run_at = now() - interval '20 seconds'")
			b.Exec(`select mvsched.request_refresh('public.v')`)
			if claims := b.claim(1); len(claims) != 1 || claims[0].Skipped != "" {
				t.Errorf("%+v", claims)
			}
		}
	})
}
