package schedule_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// The margin of a target of 60 s is 1.45 s: 250 ms and a fiftieth.
func TestLag(t *testing.T) {
	const s = time.Second
	at := func(d time.Duration) *time.Time { return ptr(begins.Add(d)) }
	view := func(oid int64, maxLag, usual time.Duration, parents ...int64) schedule.LagView {
		return schedule.LagView{OID: oid, Parents: parents, MaxLag: maxLag, Usual: usual, Follows: true, Scheduled: true, Runs: 20}
	}
	clocked := func(v schedule.LagView) schedule.LagView {
		v.Follows = false
		return v
	}
	few := func(v schedule.LagView) schedule.LagView {
		v.Runs = 4
		return v
	}
	type views = []schedule.LagView
	// The view was claimed at 0; unless a case says otherwise, its data is as of then.
	for name, test := range map[string]struct {
		views                views
		oid                  int64
		data                 schedule.LagData
		slot                 time.Duration // after 0
		predicted, reachable time.Duration // 0: nothing is known
	}{
		"alone": {
			views: views{view(1, 60*s, 4*s)}, oid: 1,
			slot: 54550 * time.Millisecond, predicted: 4 * s, reachable: 9450 * time.Millisecond,
		},
		"never_refreshed": {views: views{view(1, 60*s, 0)}, oid: 1, slot: 57550 * time.Millisecond},
		"few_runs_count_for_a_fifth_more": {
			views: views{few(view(1, 60*s, 4*s))}, oid: 1,
			slot: 53750 * time.Millisecond, predicted: 4800 * time.Millisecond, reachable: 11050 * time.Millisecond,
		},
		// The first one begins in time for the last, however long its own target.
		"first_of_a_chain": {
			views: views{view(1, 600*s, 5*s), view(2, 0, 3*s, 1), view(3, 60*s, 2*s, 2)}, oid: 1,
			slot: 48550 * time.Millisecond, predicted: 5 * s, reachable: 22250 * time.Millisecond,
		},
		"last_of_a_chain": {
			views: views{view(1, 600*s, 5*s), view(2, 0, 3*s, 1), view(3, 60*s, 2*s, 2)}, oid: 3,
			// Its data is older than its own refresh.
			data: schedule.LagData{DataAsOf: at(-9 * s), Refreshed: at(0)},
			slot: 47550 * time.Millisecond, predicted: 2 * s, reachable: 16450 * time.Millisecond, // 10 and 5 and the margin
		},
		"the_stricter_side_of_a_diamond": {
			views: views{view(1, 60*s, 1*s), view(2, 0, 2*s, 1), view(3, 0, 8*s, 1), view(4, 60*s, 3*s, 2, 3)}, oid: 1,
			slot: 46550 * time.Millisecond, predicted: 1 * s, reachable: 3450 * time.Millisecond,
		},
		"the_end_of_a_diamond": {
			views: views{view(1, 60*s, 1*s), view(2, 0, 2*s, 1), view(3, 0, 8*s, 1), view(4, 60*s, 3*s, 2, 3)}, oid: 4,
			slot: 55550 * time.Millisecond, predicted: 3 * s, reachable: 21450 * time.Millisecond,
		},
		// What the one that reads it does has nothing to do with it.
		"a_child_with_a_clock_does_not_count": {
			views: views{view(1, 60*s, 4*s), clocked(view(2, 0, 50*s, 1))}, oid: 1,
			slot: 54550 * time.Millisecond, predicted: 4 * s, reachable: 9450 * time.Millisecond,
		},
		// It is refreshed as often as its own target wants; the parent's data it cannot make younger.
		"a_parent_with_a_clock": {
			views: views{clocked(view(1, 0, 5*s)), view(2, 60*s, 4*s, 1)}, oid: 2,
			data: schedule.LagData{DataAsOf: at(-time.Hour), Refreshed: at(0)},
			slot: 54550 * time.Millisecond, predicted: 4 * s, reachable: 9450 * time.Millisecond,
		},
		"out_of_reach": {
			views: views{view(1, 5*s, 4*s)}, oid: 1,
			slot: 650 * time.Millisecond, predicted: 4 * s, reachable: 8350 * time.Millisecond,
		},
		"far_out_of_reach_is_at_once": {
			views: views{view(1, 5*s, 10*s)}, oid: 1, data: schedule.LagData{DataAsOf: at(0), Refreshed: at(0)},
			slot: 0, predicted: 10 * s, reachable: 20350 * time.Millisecond,
		},
		"far_out_of_reach_it_has_a_second_between_its_runs": {
			views: views{view(1, 5*s, 10*s)}, oid: 1, data: schedule.LagData{DataAsOf: at(0), Refreshed: at(0), Ended: at(10 * s)},
			slot: 11 * s, predicted: 10 * s, reachable: 20350 * time.Millisecond,
		},
		"late_already_is_at_once": {
			views: views{view(1, 60*s, 4*s)}, oid: 1, data: schedule.LagData{DataAsOf: at(-time.Hour), Refreshed: at(-time.Hour)},
			slot: 0, predicted: 4 * s, reachable: 9450 * time.Millisecond,
		},
		"what_it_reads_is_late_and_its_own_refresh_no_help": {
			views: views{view(1, 600*s, 5*s), view(2, 60*s, 4*s, 1)}, oid: 2, data: schedule.LagData{DataAsOf: at(-time.Hour), Refreshed: at(0)},
			slot: 54550 * time.Millisecond, predicted: 4 * s, reachable: 15450 * time.Millisecond,
		},
		"after_a_failure_it_counts_from_that": {
			views: views{view(1, 60*s, 4*s)}, oid: 1, data: schedule.LagData{DataAsOf: at(-time.Hour), Refreshed: at(-time.Hour), FailedAt: at(3 * s)},
			slot: 57550 * time.Millisecond, predicted: 4 * s, reachable: 9450 * time.Millisecond,
		},
		"after_a_failure_out_of_reach_it_is_half_the_target": {
			views: views{view(1, 5*s, 10*s)}, oid: 1, data: schedule.LagData{DataAsOf: at(-time.Hour), Refreshed: at(-time.Hour), FailedAt: at(3 * s)},
			slot: 5500 * time.Millisecond, predicted: 10 * s, reachable: 20350 * time.Millisecond,
		},
		// 1 and 2 read each other: there is no way from the one to the other.
		"a_cycle_ends": {
			views: views{view(1, 60*s, 4*s, 2), view(2, 60*s, 4*s, 1)}, oid: 1,
			slot: 54550 * time.Millisecond, predicted: 4 * s, reachable: 9450 * time.Millisecond,
		},
		"reads_itself":     {views: views{view(1, 60*s, 4*s, 1)}, oid: 1, slot: 54550 * time.Millisecond, predicted: 4 * s, reachable: 9450 * time.Millisecond},
		"the_view_is_gone": {views: views{view(1, 60*s, 4*s)}, oid: 7, slot: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			test.data.Since = begins
			if test.data == (schedule.LagData{Since: begins}) {
				test.data.DataAsOf, test.data.Refreshed = &begins, &begins
			}
			slot, predicted, reachable := schedule.PlanLag(test.views, test.oid, test.data)
			value := func(d *time.Duration) time.Duration {
				if d == nil {
					return 0
				}
				return *d
			}
			if slot.Sub(begins) != test.slot || value(predicted) != test.predicted || value(reachable) != test.reachable {
				t.Errorf("slot after %v, predicted %v, reachable %v; want %v, %v, %v",
					slot.Sub(begins), value(predicted), value(reachable), test.slot, test.predicted, test.reachable)
			}
		})
	}
}

// TestMaxLag goes through the database: the history predicts, the graph says what is in time for what.
func TestMaxLag(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.chain("a", "b")
	b.set("a", schedule.Settings{MaxLag: ptr(10 * time.Minute)})
	b.set("b", schedule.Settings{MaxLag: ptr(time.Minute)})
	b.succeeded(40, 24*time.Hour, 4*time.Second)
	b.tend()
	for _, want := range []string{"public.a", "public.b"} {
		claims := b.claimAll()
		if !slices.Equal(views(claims), []string{want}) {
			t.Fatalf("claimed %v, want %s", views(claims), want)
		}
		b.succeed(claims[0])
		b.tend()
	}
	// 60 s less the margin, less 4 s each: a goes first, b has its slot when a is through.
	b.Check("t t", `select string_agg((abs(extract(epoch from s.next_run_at - e.data_as_of) - case s.materialized_view_name when 'public.a' then 50.55 else 54.55 end) < 0.01)::text::"char"::text, ' ')
		from mvsched.materialized_view_refresh_schedule s
		join mvsched.materialized_view_refresh_schedule_execution e on e.materialized_view_refresh_schedule_id = s.id
		 and e.id = (select max(id) from mvsched.materialized_view_refresh_schedule_execution x where x.materialized_view_refresh_schedule_id = s.id)`)
	b.Check("00:00:04", `select predicted_duration from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.b'`)
	b.Check("00:00:13.45", `select reachable_lag from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.b'`)

	// One that takes longer than it was assumed to says so.
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
	b.tend()
	claims := b.claimAll()
	b.Exec(`update mvsched.materialized_view_refresh_schedule_execution set started_at = started_at - interval '5 seconds' where id = $1`, claims[0].ExecutionID)
	b.succeed(claims[0])
	b.Check(schedule.ReasonOutlasted, `select reason from mvsched.materialized_view_refresh_schedule_execution where id = $1`, claims[0].ExecutionID)
	// It is a success all the same: the next slot counts from its data, and not from its end.
	b.Exec(`alter table mvsched.materialized_view_refresh_schedule_execution disable trigger keep_terminal_execution`)
	b.Exec(`update mvsched.materialized_view_refresh_schedule_execution set ended_at = ended_at + interval '20 seconds' where id = $1`, claims[0].ExecutionID)
	b.tend()
	b.Check("true", `select extract(epoch from s.next_run_at - e.data_as_of) < 51 from mvsched.materialized_view_refresh_schedule s
		join mvsched.materialized_view_refresh_schedule_execution e on e.id = $1 where s.id = e.materialized_view_refresh_schedule_id`, claims[0].ExecutionID)
}

// I10: a target that cannot be kept makes no second run of a slot that jitter has had refreshed before it.
func TestALateTargetWithJitterKeepsToOneRunASlot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.view("v", "")
	b.add("v", schedule.Settings{MaxLag: ptr(time.Second)})
	b.succeeded(40, 24*time.Hour, 4*time.Second)
	b.run()
	b.Check("00:00:01", `select s.next_run_at - e.ended_at from mvsched.materialized_view_refresh_schedule s, mvsched.materialized_view_refresh_schedule_execution e order by e.id desc limit 1`)
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now(), next_run_offset = '-1 hour'`)
	b.run()
	b.Check("true", `select s.next_run_at - s.next_run_offset > e.scheduled_at from mvsched.materialized_view_refresh_schedule s,
		mvsched.materialized_view_refresh_schedule_execution e order by e.id desc limit 1`)
}

// The slots of targets are worked out together, and those of a cron and of one more behind ten thousand of them all the same.
func TestManyTargetsKeepNoneFromBeingPlanned(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Exec(`alter table mvsched.materialized_view_refresh_schedule disable trigger user`)
	const insert = `insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, last_attempted_at, `
	b.Exec(insert + `max_lag, next_run_at) select 'public.x' || i, now(), '1 hour', now() + interval '1 hour' from generate_series(1, 10000) i`)
	b.Exec(insert + `max_lag) values ('public.v', now(), '1 hour')`)
	b.Exec(insert + `cron) values ('public.c', now(), '* * * * *')`)
	b.tend()
	b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule where next_run_at is null`)
}
