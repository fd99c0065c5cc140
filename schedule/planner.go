package schedule

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Suspended says that a schedule was suspended because nobody can plan it.
type Suspended struct {
	View   string
	Reason string
}

// unplannedByClockSQL finds the schedules without a slot that it takes more than SQL to plan. A cron expression's next
// slot is known while the view is refreshed; that of a lag only afterwards.
const unplannedByClockSQL = `
select
  from mvsched.materialized_view_refresh_schedule s
 where s.next_run_at is null and s.last_attempted_at is not null and s.suspended_at is null
   and (s.cron is not null or s.max_lag is not null and s.open_execution_id is null)`

// toPlanSQL locks what is to be planned: the fence against an edit in between. With one view that has a lag, all of
// them are planned anew, since the slot of one depends on how long the others are going to take; those without a slot first,
// or the last of very many would never get one.
const toPlanSQL = `
select s.id, s.materialized_view_name, coalesce($1::timestamptz, now()), s.cron, s.timezone,
       coalesce(s.view_oid, 0)::bigint,
       -- Jitter may have had a slot refreshed before it, which is not to come a second time.
       greatest(s.last_attempted_at, s.spec_changed_at, last.scheduled_at + interval '1 microsecond'),
       data.data_as_of, data.refreshed_at, last.ended_at,
       case when last.status <> 'succeeded' and last.reason is distinct from 'unchanged' then last.ended_at end
  from mvsched.materialized_view_refresh_schedule s
  left join lateral (
         select e.scheduled_at, e.status, e.reason, e.ended_at
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.materialized_view_refresh_schedule_id = s.id and e.trigger <> 'manual'
          order by e.id desc
          limit 1
       ) last on true
  left join lateral (
         select e.data_as_of, e.refreshed_at
           from mvsched.materialized_view_refresh_schedule_execution e
          where s.max_lag is not null and e.view_oid = s.view_oid and e.data_as_of is not null
          order by e.id desc
          limit 1
       ) data on true
 where s.last_attempted_at is not null and s.suspended_at is null
   and (s.cron is not null and s.next_run_at is null
        or s.max_lag is not null and s.open_execution_id is null and s.next_run_reason is null)
 order by s.next_run_at is not null, s.id
 limit 10000
   for no key update of s skip locked`

// lagSQL reads the views whose data has a target, and what they read, with how long their refreshes take.
const lagSQL = `
with target as (
  select s.view_oid from mvsched.materialized_view_refresh_schedule s where s.max_lag is not null and s.view_oid is not null
), member as (
  select target.view_oid from target
  union
  select unnest(g.ancestors) from target join mvsched.materialized_view_graph g using (view_oid)
)
select member.view_oid::bigint, coalesce(g.parents, '{}')::bigint[], extract(epoch from s.max_lag)::float8,
       coalesce((s.max_lag is not null or s.after_parents or s.on_change) and s.paused_at is null and s.suspended_at is null, false),
       s.id is not null,
       usual.p95, usual.runs, data.data_as_of,
       case when s.open_execution_id is not null then now() else s.next_run_at end
  from member
  left join mvsched.materialized_view_graph g using (view_oid)
  left join mvsched.materialized_view_refresh_schedule s using (view_oid)
 cross join lateral (
         select percentile_cont(0.95) within group (order by extract(epoch from e.ended_at - e.started_at)::float8) as p95, count(*) as runs
           from (select x.started_at, x.ended_at
                   from mvsched.materialized_view_refresh_schedule_execution x
                  where x.view_oid = member.view_oid and x.status = 'succeeded' and x.data_as_of is not null
                  order by x.id desc
                  limit 20) e) usual
  left join lateral (
         select x.data_as_of
           from mvsched.materialized_view_refresh_schedule_execution x
          where x.view_oid = member.view_oid and x.data_as_of is not null
          order by x.id desc
          limit 1
       ) data on true`

// plannedSQL only ever moves a slot forward: what somebody has set by hand to be sooner stays.
const plannedSQL = `
update mvsched.materialized_view_refresh_schedule s
   set next_run_at = p.next_run_at, next_run_offset = p.next_run_offset, next_run_reason = p.next_run_reason,
       predicted_duration = make_interval(secs => n.predicted), reachable_lag = make_interval(secs => n.reachable)
  from unnest($1::bigint[], $2::timestamptz[], $3::float8[], $4::float8[]) as n (id, slot, predicted, reachable)
 cross join lateral mvsched.planned(
        (select x from mvsched.materialized_view_refresh_schedule x where x.id = n.id), n.slot) p
 where s.id = n.id and coalesce(p.next_run_at < s.next_run_at, true)`

const suspendSQL = `
update mvsched.materialized_view_refresh_schedule s
   set suspended_at = coalesce($3::timestamptz, now()), suspended_reason = $2
 where s.id = $1`

// unplanned is a schedule that is to be given a slot.
type unplanned struct {
	ID         int64
	View       string
	Now        time.Time
	Cron       *string // nil: it has a lag
	Timezone   string
	OID        int64
	Since      time.Time  // slots before that do not count
	DataAsOf   *time.Time // of the view, and of what it reads
	Refreshed  *time.Time // the start of the refresh that it has its contents from
	Ended      *time.Time // when its last run did
	FailedAt   *time.Time // when its last run ended, if the view did not get up to date by it
	slot       time.Time
	prediction prediction
}

// planByClock gives slots to the schedules that SQL cannot plan. One whose cron expression cannot be read, which
// only a hand-written row can have, is suspended.
func (s *Store) planByClock(ctx context.Context) ([]Suspended, error) {
	var suspended []Suspended
	err := s.transaction(ctx, func(tx pgx.Tx) error {
		suspended = nil
		rows, err := tx.Query(ctx, toPlanSQL, s.now())
		if err != nil {
			return err
		}
		open, err := pgx.CollectRows(rows, scanUnplanned)
		if err != nil {
			return err
		}
		rows, err = tx.Query(ctx, lagSQL)
		if err != nil {
			return err
		}
		views, err := pgx.CollectRows(rows, scanLagView)
		if err != nil {
			return err
		}
		lags := newLags(views)
		slices.SortStableFunc(open, func(a, b unplanned) int { return cmp.Compare(lags.place(a.OID), lags.place(b.OID)) })

		var ids []int64
		var slots []time.Time
		var predicted, reachable []*float64
		for _, u := range open {
			switch {
			case u.Cron != nil:
				cron, err := ParseCron(*u.Cron, u.Timezone)
				if err != nil {
					reason := err.Error()
					if _, err := tx.Exec(ctx, suspendSQL, u.ID, reason, s.now()); err != nil {
						return err
					}
					suspended = append(suspended, Suspended{View: u.View, Reason: reason})
					continue
				}
				u.slot = cron.Next(u.Since)
			default:
				u.slot, u.prediction = lags.plan(u)
				lags.planned(u.OID, u.slot)
			}
			ids, slots = append(ids, u.ID), append(slots, u.slot)
			predicted, reachable = append(predicted, seconds(u.prediction.duration)), append(reachable, seconds(u.prediction.lag))
		}
		_, err = tx.Exec(ctx, plannedSQL, ids, slots, predicted, reachable)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("planning: %w", err)
	}
	return suspended, nil
}

func scanUnplanned(row pgx.CollectableRow) (u unplanned, err error) {
	err = row.Scan(&u.ID, &u.View, &u.Now, &u.Cron, &u.Timezone, &u.OID, &u.Since, &u.DataAsOf, &u.Refreshed, &u.Ended, &u.FailedAt)
	return u, err
}

func scanLagView(row pgx.CollectableRow) (v lagView, err error) {
	var maxLag, usual *float64
	err = row.Scan(&v.oid, &v.parents, &maxLag, &v.follows, &v.scheduled, &usual, &v.runs, &v.dataAsOf, &v.begins)
	v.maxLag, v.usual = durationOrNil(maxLag), durationOrNil(usual)
	return v, err
}
