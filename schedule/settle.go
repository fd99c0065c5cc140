package schedule

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// settleSQL carries the end of executions into their schedules: failures are counted, a success resets them, and a slot
// that was claimed for nothing becomes due again.
//
//   - never started: the worker died between claim and refresh, or could not begin in time. No failure; due again, with
//     twice the grace, up to 5 minutes.
//   - worker lost: the transaction is gone without a record. Due again, but at most three times a slot, or a view that
//     crashes its server would do so without end; it counts as a failure.
//   - shutdown: the worker was told to stop and cancelled its refresh. No failure; due again.
//
// A changed spec (next_run_at null) wins over the old slot. The row of a schedule that somebody holds is skipped and
// settled by whoever looks next; until then it is not claimed. An execution that was deleted settles as nothing.
const settleSQL = `
with ended as materialized (
  select s.id, e.status, e.reason, e.scheduled_at,
         e.trigger in ('schedule', 'retry') and (
           e.reason = 'never_started' or e.reason = 'shutdown' or e.reason = 'worker_lost' and e.attempt < 3) as again
    from mvsched.materialized_view_refresh_schedule s
    left join mvsched.materialized_view_refresh_schedule_execution e on e.id = s.open_execution_id
   where s.open_execution_id is not null
     and e.status is distinct from 'running'
   order by s.open_execution_id
   limit 1000
     for no key update of s skip locked
)
update mvsched.materialized_view_refresh_schedule s
   set open_execution_id = null,
       consecutive_failures = case
         when ended.status = 'succeeded' then 0
         when ended.status in ('failed', 'timed_out') or ended.reason = 'worker_lost' then least(s.consecutive_failures + 1, 1000000)
         else s.consecutive_failures
       end,
       start_grace = case
         when ended.status = 'succeeded' then interval '3 seconds'
         when ended.reason = 'never_started' then least(s.start_grace * 2, interval '5 minutes')
         else s.start_grace
       end,
       next_run_at = case
         when ended.again and s.next_run_at is not null then least(s.next_run_at, ended.scheduled_at)
         else s.next_run_at
       end
  from ended
 where s.id = ended.id`

// Settle carries the end of executions into their schedules. Tend and Claim do it too: this is for when neither follows.
func (s *Store) Settle(ctx context.Context) error {
	ctx, cancel := withDeadline(ctx, "settling")
	defer cancel()
	if err := s.send(ctx, func(batch *pgx.Batch) { batch.Queue(settleSQL) }); err != nil {
		return fmt.Errorf("settling: %w", err)
	}
	return nil
}
