package schedule_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// setupRetries schedules public.v every hour; its clock follows the executions, which end by the server's.
func setupRetries(t *testing.T, settings schedule.Settings) *course {
	t.Helper()
	settings.Every = ptr(time.Hour)
	c := setupCourse(t, settings)
	c.now = time.Now()
	c.tend()
	return c
}

func (c *course) fail(claim schedule.Claim, condition string) schedule.Execution {
	c.Helper()
	e := c.end(claim, schedule.Ending{Status: schedule.Failed, ErrorName: condition})
	c.now = *e.EndedAt
	c.tend()
	return e
}

// trying claims public.v, which is due.
func (c *course) trying() schedule.Claim {
	c.Helper()
	c.tend()
	claims := c.claimAll()
	if len(claims) != 1 {
		c.Fatalf("claimed %v", views(claims))
	}
	return claims[0]
}

// retryIn checks that there is another try, so long after the last, within a fifth, and makes that time pass.
func (c *course) retryIn(d time.Duration) {
	c.Helper()
	if claims := c.claimAll(); len(claims) != 0 {
		c.Fatalf("at once: %v", views(claims))
	}
	at := c.now
	c.Check("retry", `select next_run_reason from mvsched.materialized_view_refresh_schedule`)
	var next time.Time
	if err := c.Pool.QueryRow(c.Context(), `select next_run_at from mvsched.materialized_view_refresh_schedule`).Scan(&next); err != nil {
		c.Fatal(err)
	}
	if next.Sub(at) < d*8/10-time.Millisecond || next.Sub(at) > d*12/10+time.Millisecond {
		c.Errorf("another try in %v, want about %v", next.Sub(at), d)
	}
	c.now = next
}

func TestRetries(t *testing.T) {
	t.Parallel()
	t.Run("an_error_that_may_pass_is_tried_again_in_the_slot", func(t *testing.T) {
		c := setupRetries(t, schedule.Settings{})
		first := c.trying()
		c.fail(first, "serialization_failure")
		c.retryIn(time.Second)
		second := c.trying()
		c.fail(second, "deadlock_detected")
		c.retryIn(2 * time.Second)
		third := c.trying()
		for i, claim := range []schedule.Claim{first, second, third} {
			if claim.Attempt != i+1 || !claim.ScheduledAt.Equal(*first.ScheduledAt) {
				t.Errorf("try %d: %+v", i+1, claim)
			}
		}
		c.succeed(third)
		c.tend()
		c.Check("0 t", `select concat_ws(' ', consecutive_failures, next_run_at = $1::timestamptz + interval '1 hour')
			from mvsched.materialized_view_refresh_schedule`, *first.ScheduledAt)
		c.Check("schedule retry retry", `select string_agg(trigger, ' ' order by id) from mvsched.materialized_view_refresh_schedule_execution`)
	})

	t.Run("as_often_as_the_schedule_says", func(t *testing.T) {
		for retries, tries := range map[int]int{0: 1, 2: 3} {
			t.Run(fmt.Sprint(retries), func(t *testing.T) {
				c := setupRetries(t, schedule.Settings{Retries: ptr(retries)})
				for try := 1; ; try++ {
					c.fail(c.trying(), "admin_shutdown")
					if c.Value(`select next_run_reason is null from mvsched.materialized_view_refresh_schedule`) == "true" {
						if try != tries {
							t.Errorf("%d tries, want %d", try, tries)
						}
						break
					}
					c.retryIn(time.Duration(1<<(try-1)) * time.Second)
				}
				c.Check("1", `select consecutive_failures from mvsched.materialized_view_refresh_schedule`) // slots, not tries
			})
		}
	})

	t.Run("never_beyond_the_next_slot", func(t *testing.T) {
		c := setupRetries(t, schedule.Settings{})
		claim := c.trying()
		c.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = clock_timestamp() + interval '500 milliseconds'`)
		c.fail(claim, "serialization_failure")
		c.Check("null 1", `select concat_ws(' ', coalesce(next_run_reason, 'null'), consecutive_failures) from mvsched.materialized_view_refresh_schedule`)
		c.now = c.now.Add(time.Second)
		if next := c.trying(); next.Attempt != 1 || next.ScheduledAt.Equal(*claim.ScheduledAt) {
			t.Errorf("%+v", next)
		}
	})

	// It fails before anybody has planned the slot that follows.
	for name, test := range map[string]struct{ spec, next string }{
		"cron":    {"cron = '* * * * *'", `date_trunc('minute', $1::timestamptz) + interval '1 minute'`},
		"after":   {"refresh_delay = '2 seconds'", `$1::timestamptz + interval '2 seconds'`},
		"max_lag": {"max_lag = '10 seconds'", `$1::timestamptz + interval '9.55 seconds'`},
	} {
		t.Run("nor_one_that_is_not_planned_yet_of_"+name, func(t *testing.T) {
			c := setupRetries(t, schedule.Settings{Retries: ptr(20)})
			c.change("v", "refresh_interval = null, "+test.spec)
			for try := 1; try < 15; try++ {
				e := c.fail(c.trying(), "deadlock_detected")
				late := `select next_run_at > ` + test.next + ` from mvsched.materialized_view_refresh_schedule`
				if c.Value(late, *e.EndedAt) == "true" {
					t.Fatalf("try %d: at %s, %s", try, c.next(), c.Value(`select coalesce(next_run_reason, 'null') from mvsched.materialized_view_refresh_schedule`))
				}
				if e.Attempt == 1 && try > 1 {
					// The slot before; and this one too, where there is no time for another try, as at the end of a minute.
					c.Check("true", `select consecutive_failures = 1 + (next_run_reason is null)::integer from mvsched.materialized_view_refresh_schedule`)
					return
				}
				// As if it had been that late.
				c.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_offset = next_run_offset - (next_run_at - now()), next_run_at = now()
					where next_run_reason = 'retry'`)
				c.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now(), next_run_offset = '0' where next_run_reason is null`)
				c.now = time.Now()
			}
			t.Error("it is tried for ever")
		})
	}

	t.Run("what_somebody_has_asked_for_leaves_the_clock_where_it_is", func(t *testing.T) {
		c := setupRetries(t, schedule.Settings{})
		c.succeed(c.trying())
		c.tend()
		next := c.next()
		c.Exec(`select mvsched.request_refresh('public.v')`)
		c.now = time.Now()
		asked := c.trying()
		c.fail(asked, "deadlock_detected")
		c.retryIn(time.Second)
		second := c.trying()
		c.end(second, schedule.Ending{Status: schedule.Cancelled, Reason: schedule.ReasonShutdown})
		c.tend()
		third := c.trying()
		if third.Attempt != 3 || !third.ScheduledAt.Equal(*asked.ScheduledAt) {
			t.Errorf("the third try: %+v", third)
		}
		c.succeed(third)
		c.tend()
		if got := c.next(); got != next {
			t.Errorf("next %s, and was %s before", got, next)
		}
		c.Check("null", `select coalesce(slot_after_retry::text, 'null') from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("a_new_interval_counts_from_the_last_run_whatever_was_to_be_tried_again", func(t *testing.T) {
		c := setupRetries(t, schedule.Settings{})
		c.fail(c.trying(), "deadlock_detected")
		c.Check("true", `select slot_after_retry is not null from mvsched.materialized_view_refresh_schedule`)
		c.set("v", schedule.Settings{Every: ptr(30 * time.Minute)})
		c.Check("true", `select slot_after_retry is null and next_run_at is null from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("any_other_error_has_had_its_slot", func(t *testing.T) {
		c := setupRetries(t, schedule.Settings{})
		for i := range 3 {
			claim := c.trying()
			c.fail(claim, "division_by_zero")
			if claims := c.claimAll(); len(claims) != 0 {
				t.Errorf("again: %v", views(claims))
			}
			c.Check(fmt.Sprint(i+1), `select consecutive_failures from mvsched.materialized_view_refresh_schedule`)
			c.now = claim.ScheduledAt.Add(time.Hour)
		}
		c.Check("3", `select count(distinct scheduled_at) from mvsched.materialized_view_refresh_schedule_execution where attempt = 1`)
	})

	t.Run("without_a_clock_it_is_called_again", func(t *testing.T) {
		c := &course{setup(t), clock{time.Now()}}
		c.store.Now = c.Now
		c.chain("a", "v")
		c.Exec(`delete from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'public.a'`)
		c.set("v", schedule.Settings{AfterParents: ptr(true)})
		for _, minutes := range []int{1, 2, 4} {
			e := c.fail(c.trying(), "division_by_zero")
			c.Check("true", `select next_run_at = $1::timestamptz + make_interval(mins => $2) and next_run_reason is null
				from mvsched.materialized_view_refresh_schedule`, *e.EndedAt, minutes)
			c.now = e.EndedAt.Add(time.Duration(minutes) * time.Minute)
		}
	})

	t.Run("by_class", func(t *testing.T) {
		b := setup(t)
		for condition, want := range map[string]string{
			"serialization_failure": "true", "deadlock_detected": "true", "lock_not_available": "true", "disk_full": "true",
			"out_of_memory": "true", "too_many_connections": "true", "admin_shutdown": "true", "crash_shutdown": "true",
			"cannot_connect_now": "true", "connection_failure": "true", "protocol_violation": "true", "read_only_sql_transaction": "true",
			"division_by_zero": "false", "undefined_table": "false", "unique_violation": "false", "query_canceled": "false",
			"insufficient_privilege": "false", "object_in_use": "false", "internal_error": "false", "": "false",
		} {
			b.Check(want, `select mvsched.may_pass($1)`, condition)
		}
		b.Check("false", `select mvsched.may_pass(null)`)
	})
}

func TestSuspendAfter(t *testing.T) {
	t.Parallel()
	c := setupRetries(t, schedule.Settings{SuspendAfter: ptr(2), Retries: ptr(1)})
	slot := func(condition string) {
		t.Helper()
		claim := c.trying()
		c.fail(claim, condition)
		if condition != "division_by_zero" {
			c.retryIn(time.Second)
			c.fail(c.trying(), condition)
		}
		c.now = claim.ScheduledAt.Add(time.Hour)
	}
	stands := func(want string) {
		t.Helper()
		c.Check(want, `select concat_ws(' ', consecutive_failures, suspended_at is not null, coalesce(suspended_reason, 'null'))
			from mvsched.materialized_view_refresh_schedule`)
	}
	byHand := func(ends bool) {
		t.Helper()
		claim := c.claimView("v")
		if ends {
			c.succeed(*claim)
		} else {
			c.end(*claim, schedule.Ending{Status: schedule.Failed, ErrorName: "division_by_zero"})
		}
		c.tend()
	}
	slot("serialization_failure") // two tries
	stands("1 f null")
	byHand(false)
	stands("1 f null")
	byHand(true)
	stands("0 f null")
	slot("division_by_zero")
	slot("division_by_zero")
	stands("2 t 2 failed slots in a row")
	c.Check("suspended", `select state from mvsched.status`)
	c.now = c.now.Add(time.Hour)
	c.tend()
	if claims := c.claimAll(); len(claims) != 0 {
		t.Errorf("claimed %v", views(claims))
	}

	byHand(false)
	stands("2 t 2 failed slots in a row")
	byHand(true)
	stands("0 f null")
	c.succeed(c.trying()) // it goes on
	c.now = c.now.Add(time.Hour)
	slot("division_by_zero")
	slot("division_by_zero")
	stands("2 t 2 failed slots in a row")
	if err := c.store.Resume(t.Context(), []schedule.ViewName{{Schema: "public", Name: "v"}}); err != nil {
		t.Fatal(err)
	}
	stands("0 f null")
}

func (b *bundle) claimFrom(queues ...string) []string {
	b.Helper()
	claims, err := b.store.Claim(b.Context(), schedule.ClaimOptions{Worker: "test", Limit: 10, Queues: queues})
	if err != nil {
		b.Fatal(err)
	}
	names := views(claims)
	slices.Sort(names)
	return names
}

func TestQueues(t *testing.T) {
	t.Parallel()
	t.Run("a_worker_leaves_the_others_alone", func(t *testing.T) {
		b := setup(t)
		for _, name := range []string{"a", "heavy1", "heavy2", "other"} {
			b.view(name, "1 hour")
			b.change(name, "queue = '"+strings.TrimRight(name, "12")+"'")
		}
		b.change("a", "queue = 'default'")
		b.tend()
		outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 10, Queues: []string{"heavy"}})
		if err != nil || outlook.Due != 2 {
			t.Errorf("%+v, %v", outlook, err)
		}
		due, err := b.store.Due(t.Context(), []string{"default", "other"}, 0)
		if err != nil || len(due) != 2 || due[0].View == due[1].View {
			t.Errorf("%+v, %v", due, err)
		}
		if got := b.claimFrom("heavy", "nobody"); !slices.Equal(got, []string{"public.heavy1", "public.heavy2"}) {
			t.Errorf("claimed %v", got)
		}
		if got := b.claimFrom("heavy"); len(got) != 0 {
			t.Errorf("claimed %v", got)
		}
		if got := b.claimFrom(); !slices.Equal(got, []string{"public.a", "public.other"}) {
			t.Errorf("claimed %v", got)
		}
	})

	t.Run("an_ancestor_in_a_queue_that_nobody_serves_holds_for_seconds_only", func(t *testing.T) {
		b := setup(t)
		now := &clock{time.Now()}
		b.store.Now = now.Now
		b.chain("a", "b")
		b.view("busy", "1 hour")
		b.change("a", "queue = 'heavy'")
		b.change("busy", "queue = 'heavy'")
		b.tend()
		waits := func(want bool, why string) {
			t.Helper()
			tx, err := b.Pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(t.Context()) }() // nothing of it stays
			claims, err := b.store.On(tx.Conn()).Claim(t.Context(), schedule.ClaimOptions{Worker: "test", Limit: 1, Queues: []string{"default"}})
			if err != nil {
				t.Fatal(err)
			}
			if waiting := len(claims) == 0; waiting != want {
				t.Errorf("%s: waiting %v", why, waiting)
			}
			for _, c := range claims {
				b.Exec(`delete from mvsched.materialized_view_refresh_schedule_execution where id = $1`, c.ExecutionID)
				b.change("b", "open_execution_id = null, last_attempted_at = null, next_run_at = $$"+c.ScheduledAt.Format(time.RFC3339Nano)+"$$")
			}
		}
		now.now = now.now.Add(9 * time.Second)
		waits(true, "somebody may be about to come")
		now.now = now.now.Add(2 * time.Second)
		waits(false, "nobody has come for 10 seconds")
		b.change("a", "next_run_at = next_run_at + interval '1 hour'")
		if got := b.claimFrom("heavy"); !slices.Equal(got, []string{"public.busy"}) {
			t.Fatalf("claimed %v", got)
		}
		b.change("a", "next_run_at = next_run_at - interval '1 hour'")
		waits(true, "the queue is busy")
	})
}

// TestMaxConcurrentRefreshes has 20 workers claim at the same time, on connections of their own.
func TestMaxConcurrentRefreshes(t *testing.T) {
	t.Parallel()
	const workers, most = 20, 3
	b := setup(t)
	for i := range workers {
		b.view(fmt.Sprintf("v%d", i), "1 hour")
		b.view(fmt.Sprintf("unscheduled%d", i), "")
	}
	b.Exec(`update mvsched.settings set max_concurrent_refreshes = $1`, most)
	b.tend()
	stores := make([]*schedule.Store, workers)
	for i := range stores {
		stores[i] = schedule.NewStore(b.writer())
	}
	for round := range 6 {
		var mu sync.Mutex
		var claimed []schedule.Claim
		var group sync.WaitGroup
		begin := make(chan struct{})
		for i, store := range stores {
			group.Go(func() {
				<-begin
				var claims []schedule.Claim
				var err error
				if (i+round)%4 == 0 { // by hand
					var c *schedule.Claim
					c, err = store.ClaimView(t.Context(), schedule.ViewName{Schema: "public", Name: fmt.Sprintf("unscheduled%d", i)},
						schedule.Settings{}, schedule.ClaimOptions{Worker: "test"})
					if c != nil {
						claims = append(claims, *c)
					}
				} else {
					claims, err = store.Claim(t.Context(), schedule.ClaimOptions{Worker: "test", Limit: 2})
				}
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				claimed = append(claimed, claims...)
			})
		}
		close(begin)
		group.Wait()
		if len(claimed) != most {
			t.Fatalf("round %d: %d claimed at the same time", round, len(claimed))
		}
		b.Check(fmt.Sprint(most), `select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'running'`)
		if outlook := b.tend(); round < 2 && (outlook.Due != 0 || !outlook.Waiting) {
			t.Errorf("%+v", outlook)
		}
		for _, c := range claimed {
			b.succeed(c)
		}
	}
}
