package schedule

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ForecastOptions say how far to look ahead, and which workers there are going to be.
type ForecastOptions struct {
	For    time.Duration
	Jobs   int            // so many workers, of all queues; 0: Queues says
	Queues []QueueWorkers // the queues that are served
}

// QueueWorkers is how many workers a queue has.
type QueueWorkers struct {
	Queue   string
	Workers int
}

// Forecast is what the schedules are going to do if every refresh takes as long as is usual, succeeds, and finds
// something changed.
type Forecast struct {
	From, Until time.Time
	Cut         bool // Until is sooner than was asked for, since too many runs lie before it
	Workers     int
	Views       []ViewForecast // by name
	Runs        []PredictedRun // by their starts; first those that were running
	Notes       []Remark       // what the forecast does not know
}

// ViewForecast is what a forecast says of one scheduled view.
type ViewForecast struct {
	View         string
	Kind         Kind
	Queue        string
	Runs         int
	FirstRunAt   *time.Time     // nil: there is none
	Usual        *time.Duration // of its refreshes; nil: there is no history
	Busy         time.Duration  // how long it is being refreshed, of the whole time
	MaxAge       *time.Duration // how old its data gets, if it is overdue, from the end of its first run on; nil: there is none
	MaxLag       *time.Duration // its target; nil: the schedule does not say
	ReachableLag *time.Duration // the shortest that could be kept; nil: not known, or no MaxLag
	LateRuns     int            // those that wait for a worker for a tenth of the time between slots, from a second to a minute
	LongestWait  time.Duration  // of those
	MissedSlots  int            // that pass while the view is due or being refreshed
	Problems     []Remark       // what does not fit, the worst first
}

// Remark is a sentence about a forecast.
type Remark struct {
	Code    string // for programs, in one word
	Message string
	Views   []string // canonical names, where it is about several
}

// PredictedRun is one run of a forecast.
type PredictedRun struct {
	View        string
	ScheduledAt time.Time // its slot; zero: by hand
	StartsAt    time.Time
	EndsAt      time.Time
	Trigger     string // as of an execution

	// What it waits for before it starts, one after the other.
	ForItself time.Duration // the end of its own last run
	ForViews  time.Duration // views that it reads
	ForWorker time.Duration // a worker
	Behind    string        // the view whose end gives it the worker; "": not known
}

// mostForecastRuns is more than a run a second for a day, and about a second of work.
const mostForecastRuns = 100_000

// forecastSQL reads how every view stands that has a schedule, reads another, or is read.
const forecastSQL = `
with here as materialized (
  select mvsched.database_identity() as identity
), scheduled as materialized (
  select s.id, mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, here.identity) as oid
    from mvsched.materialized_view_refresh_schedule s, here
), member as (
  select scheduled.id, scheduled.oid from scheduled
  union all
  select null, edge.oid
    from (select d.parent as oid from mvsched.materialized_view_dependency d union select d.child from mvsched.materialized_view_dependency d) edge
   where not exists (select from scheduled where scheduled.oid = edge.oid)
)
select s.id, coalesce(member.oid, 0)::bigint, coalesce(mvsched.view_name(member.oid), s.materialized_view_name),
       mvsched.slot(s.next_run_at, s.next_run_offset, s.next_run_reason), s.next_run_reason is not distinct from 'retry',
       case s.next_run_reason when 'request' then s.next_run_at - s.next_run_offset else s.slot_after_retry end,
       s.next_run_at is null and coalesce(s.after_parents, false) and mvsched.newer_parent(member.oid) is not null,
       s.last_attempted_at, s.spec_changed_at, last.scheduled_at, ended.ended_at,
       case when last.status not in ('succeeded', 'skipped') or last.reason <> 'unchanged' then last.ended_at end,
       data.data_as_of, data.refreshed_at, running.started_at, running.scheduled_at, running.trigger, usual.seconds
  from member
  left join mvsched.materialized_view_refresh_schedule s using (id)
  left join lateral (
         select e.scheduled_at, e.status, e.reason, e.ended_at
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.materialized_view_refresh_schedule_id = s.id and e.trigger <> 'manual'
          order by e.id desc
          limit 1
       ) last on true
  left join lateral (
         select e.ended_at
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.materialized_view_refresh_schedule_id = s.id
          order by e.id desc
          limit 1
       ) ended on true
  left join lateral (
         select e.data_as_of, e.refreshed_at
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.view_oid = member.oid and e.data_as_of is not null
          order by e.id desc
          limit 1
       ) data on true
  left join mvsched.materialized_view_refresh_schedule_execution running
         on running.status = 'running' and running.view_oid = member.oid
 cross join lateral (
         select percentile_cont(0.5) within group (order by extract(epoch from e.ended_at - e.started_at)::float8) as seconds
           from (select x.started_at, x.ended_at
                   from mvsched.materialized_view_refresh_schedule_execution x
                  where x.view_oid = member.oid and x.status = 'succeeded' and x.data_as_of is not null
                  order by x.id desc
                  limit 20) e) usual
 order by 3`

const forecastSettingsSQL = `
select coalesce($1::timestamptz, now()), (select settings.max_concurrent_refreshes from mvsched.settings)`

// Forecast plays the schedules forward. It changes nothing, and waits for no lock on any view.
func (s *Store) Forecast(ctx context.Context, opts ForecastOptions) (Forecast, error) {
	ctx, cancel := withDeadline(ctx, "reading the schedules")
	defer cancel()
	var m simulation
	err := pgx.BeginTxFunc(ctx, s.db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, quickSQL); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, forecastSettingsSQL, s.now()).Scan(&m.from, &m.most); err != nil {
			return err
		}
		schedules, err := rowsOf(ctx, tx, scanSchedule, listSQL)
		if err != nil {
			return err
		}
		if m.views, err = rowsOf(ctx, tx, scanSimulated, forecastSQL); err != nil {
			return err
		}
		nodes, err := readNodes(ctx, tx, false)
		if err != nil {
			return err
		}
		views, err := rowsOf(ctx, tx, scanLagView, lagSQL)
		if err != nil {
			return err
		}
		m.lags = newLags(views)
		m.configure(schedules)
		m.connect(nodes)
		return nil
	})
	if err != nil {
		return Forecast{}, fmt.Errorf("reading the schedules: %w", err)
	}
	m.until, m.mostRuns = m.from.Add(opts.For), mostForecastRuns
	m.workers = map[string]int{}
	if opts.Jobs > 0 {
		m.workers[""] = opts.Jobs
	}
	for _, q := range opts.Queues {
		m.workers[q.Queue] = q.Workers
	}
	m.play()
	return m.forecast(), nil
}

func rowsOf[T any](ctx context.Context, tx pgx.Tx, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

func scanSimulated(row pgx.CollectableRow) (*simulated, error) {
	var v simulated
	var id *int64
	var slot, kept, attempted, changed, lastSlot, lastEnd, failedAt, dataAsOf, refreshed, since, runningSlot *time.Time
	var by *string
	var usual *float64
	err := row.Scan(&id, &v.oid, &v.View, &slot, &v.retry, &kept, &v.newer, &attempted, &changed, &lastSlot, &lastEnd, &failedAt,
		&dataAsOf, &refreshed, &since, &runningSlot, &by, &usual)
	if err != nil {
		return nil, err
	}
	if v.scheduled = id != nil; v.scheduled {
		v.ID = *id
	}
	for _, t := range []struct {
		to   *time.Time
		from *time.Time
	}{
		{&v.slot, slot},
		{&v.kept, kept},
		{&v.attempted, attempted},
		{&v.changed, changed},
		{&v.lastSlot, lastSlot},
		{&v.lastEnd, lastEnd},
		{&v.failedAt, failedAt},
		{&v.dataAsOf, dataAsOf},
		{&v.refreshed, refreshed},
		{&v.runningSince, since},
		{&v.runningSlot, runningSlot},
	} {
		if t.from != nil {
			*t.to = *t.from
		}
	}
	if by != nil {
		v.running, v.runningBy = true, *by
	}
	v.missing, v.usual = v.oid == 0, durationOrNil(usual)
	return &v, nil
}

// configure gives the views their schedules.
func (m *simulation) configure(schedules []Schedule) {
	byID := map[int64]Schedule{}
	for _, s := range schedules {
		byID[s.ID] = s
	}
	for _, v := range m.views {
		if v.scheduled {
			v.configure(byID[v.ID])
		}
	}
}

func (v *simulated) configure(s Schedule) {
	v.Schedule = s
	if s.NextRunAt != nil {
		v.due = *s.NextRunAt
	}
	var err error
	if v.location, err = loadZone(s.Timezone); err == nil && s.Cron != nil {
		v.cron, err = ParseCron(*s.Cron, s.Timezone)
	}
	if err != nil {
		v.broken = err.Error()
	}
}

// connect tells the views what they read and wait for.
func (m *simulation) connect(nodes []*node) {
	byOID := map[int64]*simulated{}
	for _, v := range m.views {
		if v.oid != 0 {
			byOID[v.oid] = v
		}
	}
	of := func(oids []int64) (views []*simulated) {
		for _, oid := range oids {
			if v := byOID[oid]; v != nil {
				views = append(views, v)
			}
		}
		return views
	}
	for _, n := range nodes {
		if v := byOID[n.oid]; v != nil {
			v.parents, v.ancestors = of(n.parents), of(n.ancestors)
			v.path = duration(n.path)
		}
	}
}

// forecast is what has come of it.
func (m *simulation) forecast() Forecast {
	f := Forecast{From: m.from, Until: m.until, Cut: m.cut, Runs: m.runs, Notes: m.notes()}
	for _, workers := range m.workers {
		f.Workers += workers
	}
	for _, v := range m.views {
		if !v.scheduled {
			continue
		}
		view := ViewForecast{
			View: v.View, Kind: v.Kind, Queue: v.Queue, Runs: v.tally.runs, FirstRunAt: timeOrNil(v.tally.first), Usual: v.usual,
			Busy: v.tally.busy, MaxAge: v.tally.oldest, MaxLag: v.MaxLag, LateRuns: v.tally.late, LongestWait: v.tally.longest,
			MissedSlots: v.tally.missed,
		}
		if v.MaxLag != nil {
			_, known := m.lags.plan(unplanned{OID: v.oid, Now: m.from})
			view.ReachableLag = known.lag
		}
		view.Problems = m.problems(v, view)
		f.Views = append(f.Views, view)
	}
	return f
}
