package schedule

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const listSQL = `
select s.id, coalesce(mvsched.view_name(v.oid), s.materialized_view_name),
       case when s.after_parents then 'after_parents' when s.on_change then 'on_change' when s.cron is not null then 'cron'
            when s.refresh_delay is not null then 'after' when s.max_lag is not null then 'max_lag' else 'every' end,
       extract(epoch from s.refresh_interval)::float8, extract(epoch from s.refresh_delay)::float8, s.cron,
       extract(epoch from s.max_lag)::float8, s.timezone, extract(epoch from s.debounce)::float8,
       extract(epoch from s.at_most_every)::float8, extract(epoch from s.jitter)::float8,
       extract(epoch from s.window_start)::float8, extract(epoch from s.window_end)::float8, s.retries, s.suspend_after,
       s.on_parent_failure, s.skip_unchanged, extract(epoch from s.max_staleness)::float8,
       extract(epoch from s.maximum_execution_duration)::float8, extract(epoch from s.lock_timeout)::float8,
       s.strategy, s.vacuum, s.queue, s.priority, s.search_path, s.settings, s.next_run_at, s.paused_at, s.paused_reason, s.suspended_at,
       s.suspended_reason, s.consecutive_failures, extract(epoch from s.predicted_duration)::float8,
       extract(epoch from s.reachable_lag)::float8, s.kind, s.merge_source, s.merge_key, s.merge_window,
       extract(epoch from s.full_interval)::float8, s.refresh_group,
       s.columns_query, s.columns_call, array_remove(s.columns_list, null),
       case when s.columns_query is not null then s.batch_rows end, case when s.columns_query is not null then s.lanes end
  from mvsched.materialized_view_refresh_schedule s
 cross join (select mvsched.database_identity() as identity offset 0) here
 cross join lateral (
        select mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, here.identity) as oid offset 0) v
 order by 2`

// List returns all schedules by view name.
func (s *Store) List(ctx context.Context) ([]Schedule, error) {
	ctx, cancel := withDeadline(ctx, "reading the schedules")
	defer cancel()
	return read(ctx, s, "reading the schedules", scanSchedule, listSQL)
}

func scanSchedule(row pgx.CollectableRow) (sc Schedule, err error) {
	var timeout, maxStaleness float64
	var filling Columns
	var every, after, maxLag, debounce, atMostEvery, jitter, start, end, lockTimeout, predicted, reachable, fullEvery *float64
	err = row.Scan(&sc.ID, &sc.View, &sc.Kind, &every, &after, &sc.Cron, &maxLag, &sc.Timezone, &debounce, &atMostEvery,
		&jitter, &start, &end, &sc.Retries, &sc.SuspendAfter, &sc.OnParentFailure, &sc.SkipUnchanged, &maxStaleness,
		&timeout, &lockTimeout, &sc.Strategy, &sc.Vacuum, &sc.Queue, &sc.Priority, &sc.SearchPath, &sc.Parameters, &sc.NextRunAt,
		&sc.PausedAt, &sc.PausedReason, &sc.SuspendedAt, &sc.SuspendedReason, &sc.ConsecutiveFailures, &predicted, &reachable,
		&sc.Materialization, &sc.MergeSource, &sc.MergeKey, &sc.MergeWindow, &fullEvery, &sc.Group,
		&filling.Query, &filling.Call, &sc.Filled, &filling.BatchRows, &filling.Lanes)
	if err != nil {
		return Schedule{}, err
	}
	sc.Every, sc.After, sc.MaxLag = durationOrNil(every), durationOrNil(after), durationOrNil(maxLag)
	sc.Debounce, sc.AtMostEvery, sc.Jitter = durationOrNil(debounce), durationOrNil(atMostEvery), durationOrNil(jitter)
	sc.MaxStaleness, sc.Timeout, sc.LockTimeout = duration(maxStaleness), duration(timeout), durationOrNil(lockTimeout)
	sc.PredictedDuration, sc.ReachableLag = durationOrNil(predicted), durationOrNil(reachable)
	sc.FullEvery = durationOrNil(fullEvery)
	if start != nil && end != nil {
		sc.Window = &Window{Start: TimeOfDay(duration(*start)), End: TimeOfDay(duration(*end))}
	}
	if filling != (Columns{}) {
		sc.Filling = &filling
	}
	return sc, nil
}

// The ages are differences on the database's clock, so that a reader whose own clock is wrong shows the right ones.
const standingColumns = `
       st.view_name, st.state, st.data_as_of, extract(epoch from st.age)::float8, extract(epoch from st.max_lag)::float8,
       extract(epoch from st.reachable_lag)::float8, st.next_run_at,
       extract(epoch from st.next_run_at - now())::float8, extract(epoch from now() - st.running_since)::float8,
       case when st.running_since is not null then mvsched.usual_seconds(st.view_name) end,
       st.last_execution_id, st.last_status, st.last_reason, st.last_method, st.last_scheduled_at,
       st.last_started_at, st.last_ended_at, st.last_rows_inserted, st.last_rows_deleted,
       st.last_error_name, st.last_error_message, st.consecutive_failures, st.queue, coalesce(st.size_bytes, 0),
       st.parents, st.succeeded_at, st.kind, st.rows_left, st.rows_per_second, st.rows_set_aside, st.columns_queued,
       case when st.running_since is not null then coalesce((
         select case when s.paused_at is not null then 'paused' when s.suspended_at is not null then 'suspended'
                     when s.window_start is null and now() - 2 * s.refresh_interval > (
                            select e.ended_at
                              from mvsched.materialized_view_refresh_schedule_execution e
                             where e.view_oid = s.view_oid and e.data_as_of is not null
                             order by e.id desc
                             limit 1) then 'late' end
           from mvsched.materialized_view_refresh_schedule s
          where s.id = st.materialized_view_refresh_schedule_id), '') else '' end`

const statusSQL = `
select ` + standingColumns + `
  from mvsched.status st
 where $1::bigint[] is null or st.materialized_view_refresh_schedule_id = any ($1::bigint[])
 order by st.view_name`

// Status tells how scheduled views stand, by view name; views nil means all. It waits for no lock on any view.
func (s *Store) Status(ctx context.Context, views []ViewName) ([]Standing, error) {
	ctx, cancel := withDeadline(ctx, "reading the status")
	defer cancel()
	ids, err := s.scheduleIDs(ctx, views)
	if err != nil {
		return nil, err
	}
	var standings []Standing
	var blockers []Blocker
	err = s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(statusSQL, ids).Query(collect(&standings, scanStanding))
		batch.Queue(blockersSQL, nil).Query(collect(&blockers, scanBlocker))
	})
	if err != nil {
		return nil, fmt.Errorf("reading the status: %w", err)
	}
	block(standings, blockers)
	return standings, nil
}

// block adds to what is being refreshed who stands in its way.
func block(standings []Standing, blockers []Blocker) {
	for i := range standings {
		for _, b := range blockers {
			if b.View == standings[i].View && standings[i].RunningFor != nil {
				standings[i].Blockers = append(standings[i].Blockers, b)
			}
		}
	}
}

func scanStanding(row pgx.CollectableRow) (st Standing, err error) {
	var age, maxLag, reachable, nextIn, runningFor, usual *float64
	var lastID *int64
	var lastStatus *Status
	var lastStarted *time.Time
	var last Execution
	err = row.Scan(&st.View, &st.State, &st.DataAsOf, &age, &maxLag, &reachable, &st.NextRunAt, &nextIn, &runningFor, &usual,
		&lastID, &lastStatus, &last.Reason, &last.Method, &last.ScheduledAt, &lastStarted, &last.EndedAt,
		&last.RowsInserted, &last.RowsDeleted, &last.ErrorName, &last.ErrorMessage,
		&st.ConsecutiveFailures, &st.Queue, &st.SizeBytes, &st.Parents, &st.SucceededAt, &st.Materialization,
		&st.RowsLeft, &st.RowsPerSecond, &st.RowsSetAside, &st.ColumnsQueued, &st.Held)
	if err != nil {
		return Standing{}, err
	}
	st.MaxLag, st.ReachableLag = durationOrNil(maxLag), durationOrNil(reachable)
	st.Age, st.NextRunIn, st.RunningFor = elapsedOrNil(age), durationOrNil(nextIn), elapsedOrNil(runningFor)
	st.Usual = durationOrNil(usual)
	if lastID != nil {
		last.ID, last.View, last.Status, last.StartedAt = *lastID, st.View, *lastStatus, *lastStarted
		st.Last = &last
	}
	return st, nil
}

// HistoryFilter says which executions are wanted.
type HistoryFilter struct {
	View       *ViewName      // nil: of all views
	Since      *time.Duration // started within this time before now; nil: ever
	OnlyFailed bool           // only those that ended failed, timed_out, cancelled or abandoned
	Limit      int            // at most so many; 0: all
}

// A view's history is that of its schedule, which follows a rename, and of the runs under its name without one.
const historySQL = `
select ` + ExecutionColumns + `
  from mvsched.materialized_view_refresh_schedule_execution e
 where ($1::text is null
        or e.materialized_view_refresh_schedule_id = $7::bigint
        or e.view_name = any (array[$1::text, $2::text])
        or e.view_name = any ($8::text[]))
   and ($3::float8 is null or e.started_at >= coalesce($4::timestamptz, now()) - make_interval(secs => $3::float8))
   and (not $5::boolean or e.status in ('failed', 'timed_out', 'cancelled', 'abandoned'))
 order by e.id desc
 limit nullif($6::integer, 0)`

// History returns executions, newest first. It returns ErrNoView in a *ViewError for a view that neither exists nor has
// a history.
func (s *Store) History(ctx context.Context, filter HistoryFilter) ([]Execution, error) {
	ctx, cancel := withDeadline(ctx, "reading the history")
	defer cancel()
	var found description
	var written *string
	if filter.View != nil {
		var err error
		if found, err = s.describe(ctx, *filter.View); err != nil {
			return nil, fmt.Errorf("reading the history: %w", err)
		}
		name := filter.View.String()
		written = &name
	}
	executions, err := read(ctx, s, "reading the history", ScanExecution, historySQL, written, found.name,
		seconds(filter.Since), s.now(), filter.OnlyFailed, filter.Limit, found.scheduleID, found.names)
	if err == nil && len(executions) == 0 && found.problem != nil {
		return nil, found.problem
	}
	return executions, err
}
