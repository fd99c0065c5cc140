package schedule

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// StateUnscheduled is the state of a view without a schedule, which view mvsched.status does not have.
const StateUnscheduled State = "unscheduled"

// Explanation says why a view is or is not being refreshed, and what happens next.
type Explanation struct {
	View    string // canonical name
	State   State
	Reasons []Reason   // the answer first, then its grounds
	Last    *Execution // the last that ended; nil: none yet
	Now     time.Time  // by the database's clock
}

// Reason is one sentence of an explanation.
type Reason struct {
	Code    string // for programs, in one word
	Message string // for people; it leaves the times to Since and Until
	Since   *time.Time
	Until   *time.Time // when it will be over, or at the latest
	Views   []string   // canonical names of other views that it is about
}

// Codes of reasons. The answer is the first of the first group that holds; the awaited and awaits_parents ones may be
// several.
const (
	WhyRunning       = "running"
	WhyUnscheduled   = "unscheduled"
	WhyPaused        = "paused"
	WhySuspended     = "suspended"
	WhyEnded         = "ended"          // what its end means for its schedule is still to be settled
	WhyAwaitsParents = "awaits_parents" // after_parents: until a view that it reads gets new data
	WhyRequested     = "requested"      // somebody has asked for it (mvsched.request_refresh); a ground too
	WhyUnplanned     = "unplanned"      // its slot is still to be computed
	WhyNotDue        = "not_due"
	WhyLockBusy      = "lock_busy"
	WhyRetry         = "retry"
	WhyAwaitsChange  = "awaits_change" // on_change: until what it reads changes, or somebody asks
	WhyLookAgain     = "look_again"    // seemed unchanged; a second look will tell
	WhyAwaited       = "awaited"       // waits for an ancestor
	WhyMoved         = "moved"         // its view is still to be found again, after a restore or a drop
	WhyWindowClosed  = "window_closed" // its window, or one of its group's
	WhyCapped        = "capped"        // as many refreshes run as may (settings.max_concurrent_refreshes)
	WhyDue           = "due"

	WhyOutOfReach = "out_of_reach"  // max_lag cannot be kept
	WhyMaxLag     = "planned_ahead" // max_lag: how long its refresh is assumed to take

	WhyMissing        = "missing"
	WhyLastRun        = "last_run"
	WhyUpstreamFailed = "upstream_failed"
	WhyParentData     = "parent_data"
	WhySkipUnchanged  = "skip_unchanged"
	WhyCannotSee      = "changes_unseen"
	WhyMethod         = "method"
	WhyCost           = "cost"
	WhyNextSlot       = "next_slot"
)

// circumstances are what one view's explanation is made of.
type circumstances struct {
	Now             time.Time
	ScheduleID      *int64
	View            string
	State           State
	Exists          bool
	AfterParents    bool
	OnChange        bool
	Paused          *time.Time
	PausedReason    *string
	Suspended       *time.Time
	Failures        int
	NextRunAt       *time.Time
	Slot            *time.Time
	NextRunReason   string // "retry", "second_look", "request", or ""
	SuspendedReason *string
	Retries         int
	LastAttemptedAt *time.Time
	Unsettled       bool // it has a claim whose end is still to be settled
	Moved           bool // the stored OID does not count
	RunningSince    *time.Time
	RunningUntil    *time.Time
	RunningUnbegun  *bool
	RunningWorker   *string
	RunningTrigger  *string
	Materialization Materialization
	Whole           bool
	Strategy        Strategy
	Parameters      Parameters
	Populated       bool
	UniqueIndex     bool
	OwnerTemp       bool
	FailedAncestor  *string
	SkipUnchanged   bool
	StaleAt         *time.Time
	Obstacles       []string
	FillQueued      *time.Time // since when single columns are to be computed again
	AskedSince      *time.Time // of the requests that no run has answered yet, the first
	AskedRipe       *time.Time // when they are to be answered
	AskedOpens      *time.Time // and when that, or now, is in its window
	MaxLag          *float64   // seconds, as the two that follow
	ReachableLag    *float64
	Predicted       *float64
	WindowOpens     *time.Time // nil: it is open, or there is none
	Cap             *int       // on concurrent refreshes, where it has been reached
	Blockers        []Blocker  `db:"-"` // who holds a lock that its refresh waits for
}

// whyScheduleSQL is what the queries begin with: the schedule, if there is one, and the view, if it is still there.
const whyScheduleSQL = `
with clock as materialized (
  select coalesce($3::timestamptz, now()) as now, mvsched.database_identity() as identity
), it as materialized (
  select clock.now, clock.identity, s.*,
         case when s.id is null then $2::bigint::oid
              else mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, clock.identity) end as oid
    from clock
    left join mvsched.materialized_view_refresh_schedule s on s.id = $1::bigint
)`

const circumstancesSQL = whyScheduleSQL + `
select it.now, it.id, coalesce(mvsched.view_name(it.oid), it.materialized_view_name),
       coalesce((select st.state from mvsched.status st where st.materialized_view_refresh_schedule_id = it.id),
                case when running.id is not null then 'running' else 'unscheduled' end),
       v.oid is not null or it.id is not null and it.oid is not null, coalesce(it.after_parents, false), coalesce(it.on_change, false), it.paused_at, it.paused_reason, it.suspended_at,
       coalesce(it.consecutive_failures, 0), it.next_run_at, mvsched.slot(it.next_run_at, it.next_run_offset, it.next_run_reason),
       coalesce(it.next_run_reason, ''), it.suspended_reason, coalesce(it.retries, 0), it.last_attempted_at,
       it.open_execution_id is not null,
       it.id is not null and (it.view_oid is distinct from it.oid or it.database_identity is distinct from it.identity),
       running.started_at,
       -- Before its transaction has locked the row (xmax 0) there is the grace. A refresh by hand may have been given
       -- another limit, which nobody has written down.
       case when running.unbegun then coalesce(running.batch_at, running.started_at) + running.start_grace
            when running.trigger <> 'manual' then running.started_at + it.maximum_execution_duration end,
       running.unbegun,
       running.worker, running.trigger, coalesce(it.kind, 'view'), it.merge_window is null or coalesce(it.next_full_at <= it.now, false),
       coalesce(it.strategy, 'auto'), it.settings,
       coalesce(v.populated, false), coalesce(v.unique_index, false), coalesce(v.owner_temp, false),
       case when it.on_parent_failure = 'skip' then mvsched.failed_ancestor(it.oid, it.last_attempted_at) end,
       coalesce(it.skip_unchanged, false), known.refreshed_at + it.max_staleness,
       case when (it.skip_unchanged or it.on_change) and v.oid is not null then mvsched.obstacles(mvsched.read_sources(v.oid)) end,
       (select min(f.requested_at) from mvsched.materialization_fill f where f.materialized_view_refresh_schedule_id = it.id),
       asked.since, asked.ripe, coalesce(mvsched.in_window(greatest(it.now, asked.ripe), it.window_start, it.window_end, it.timezone), it.now),
       extract(epoch from it.max_lag)::float8, extract(epoch from it.reachable_lag)::float8, extract(epoch from it.predicted_duration)::float8,
       (select max(nullif(mvsched.in_window(it.now, m.window_start, m.window_end, m.timezone), it.now))
          from mvsched.materialized_view_refresh_schedule m
         where m.id = it.id or m.refresh_group = it.refresh_group and m.paused_at is null and m.suspended_at is null),
       (select st.max_concurrent_refreshes
          from mvsched.settings st
         where st.max_concurrent_refreshes <= (select count(*) from mvsched.materialized_view_refresh_schedule_execution e where e.status = 'running'))
  from it
  left join mvsched.refreshable v on v.oid = it.oid
  -- The schedule's own may be of a view that has been dropped and created again since its claim.
  left join lateral (
         select e.*, e.xmax::text = '0' as unbegun
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.status = 'running' and (e.view_oid = it.oid or e.id = it.open_execution_id)
          order by e.id desc
          limit 1
       ) running on true
  left join lateral (
         select e.refreshed_at
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.view_oid = it.oid and e.data_as_of is not null
          order by e.id desc
          limit 1
       ) known on true
  left join lateral (
         select pending.first as since, ` + requestRipeSQL + ` as ripe
           from (select min(r.requested_at) as first, max(r.requested_at) as last
                   from mvsched.materialized_view_refresh_request r
                  where r.materialized_view_refresh_schedule_id = it.id) pending
           join mvsched.materialized_view_refresh_schedule s on s.id = it.id and pending.first is not null
       ) asked on true`

// Without a schedule the last run is that of the view's name, as in the history, but not that of another view that was called
// so then.
const whyLastSQL = whyScheduleSQL + `
select ` + ExecutionColumns + `
  from it
 cross join lateral (
         (select x.* from mvsched.materialized_view_refresh_schedule_execution x
           where x.materialized_view_refresh_schedule_id = it.id and x.status <> 'running'
           order by x.id desc limit 1)
         union all
         (select x.* from mvsched.materialized_view_refresh_schedule_execution x
           where it.id is null and x.view_name = mvsched.view_name(it.oid) and x.status <> 'running'
             and not exists (select from pg_catalog.pg_class c where c.oid = x.view_oid and c.oid <> it.oid)
           order by x.id desc limit 1)
       ) e`

// awaitedView is an ancestor that a due view waits for.
type awaitedView struct {
	View    string
	Because string // due, running or ended
	Since   *time.Time
	Until   *time.Time
}

// An ancestor that is due and running at once (a refresh by hand) is told as running. A group waits as one
// (mvsched.claim_group).
const whyAwaitedSQL = whyScheduleSQL + `
select distinct on (named.name) named.name, a.because,
       case a.because when 'running' then running.started_at when 'ended' then ended.ended_at else p.next_run_at end,
       case a.because
         when 'running' then case when running.trigger <> 'manual' then running.started_at + p.maximum_execution_duration end
         when 'due' then p.next_run_at + p.maximum_execution_duration
       end
  from it
 cross join lateral (
        select case when it.refresh_group is null then array[it.oid] else array_agg(m.view_oid) end as views,
               min(mvsched.slot(m.next_run_at, m.next_run_offset, m.next_run_reason)) filter (where m.next_run_at <= it.now) as slot
          from mvsched.materialized_view_refresh_schedule m
         where m.id = it.id or m.refresh_group = it.refresh_group and m.paused_at is null and m.suspended_at is null) together
 cross join lateral unnest(together.views) member (oid)
 cross join lateral mvsched.awaited(member.oid, together.slot, null, it.now) a
 cross join lateral (select mvsched.view_name(a.view_oid) collate pg_catalog."C" as name) named
  left join mvsched.materialized_view_refresh_schedule p on p.view_oid = a.view_oid
  left join mvsched.materialized_view_refresh_schedule_execution running
    on running.view_oid = a.view_oid and running.status = 'running'
  left join mvsched.materialized_view_refresh_schedule_execution ended on ended.id = p.open_execution_id
 where it.next_run_at <= it.now and named.name is not null
   and (it.refresh_group is null
        or a.view_oid <> all (together.views)
           and not exists (select from mvsched.materialized_view_graph g where g.view_oid = a.view_oid and g.ancestors && together.views))
 order by named.name, a.because desc`

// parentView is a view that the view reads.
type parentView struct {
	View     string
	DataAsOf *time.Time
	Newer    bool // it got new data since the view was refreshed
}

// From the catalog itself: the graph that workers keep may not have been worked out yet.
const whyParentsSQL = whyScheduleSQL + `
select named.name, data.data_as_of,
       coalesce(d.parent = mvsched.newer_parent(it.oid), false)
  from it
  join mvsched.materialized_view_dependency d on d.child = it.oid and d.parent <> d.child
 cross join lateral (select mvsched.view_name(d.parent) collate pg_catalog."C" as name) named
  left join lateral (
         select e.data_as_of
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.view_oid = d.parent and e.data_as_of is not null
          order by e.id desc
          limit 1
       ) data on true
 where it.after_parents
 order by named.name`

// Why explains what a view is waiting for, scheduled or not. It changes nothing and waits for no lock on any view. It
// returns ErrNoView or ErrNotAView in a *ViewError where there is neither a view nor a schedule.
func (s *Store) Why(ctx context.Context, view ViewName) (Explanation, error) {
	const what = "finding out what a view waits for"
	ctx, cancel := withDeadline(ctx, what)
	defer cancel()
	found, err := s.describe(ctx, view)
	if err != nil {
		return Explanation{}, fmt.Errorf("looking up %s: %w", view, err)
	}
	if found.scheduleID == nil && found.problem != nil {
		return Explanation{}, found.problem
	}

	var (
		its     []circumstances
		last    []Execution
		awaited []awaitedView
		parents []parentView
		costs   []refreshCost
		holders []Blocker
	)
	err = s.send(ctx, func(batch *pgx.Batch) {
		args := []any{found.scheduleID, found.oid, s.now()}
		batch.Queue(`commit`)
		batch.Queue(`begin isolation level repeatable read, read only`) // the answers have to agree
		batch.Queue(quickSQL)
		batch.Queue(`set local quote_all_identifiers = off`) // regclass heeds it
		batch.Queue(circumstancesSQL, args...).Query(collect(&its, pgx.RowToStructByPos[circumstances]))
		batch.Queue(whyLastSQL, args...).Query(collect(&last, ScanExecution))
		batch.Queue(whyAwaitedSQL, args...).Query(collect(&awaited, pgx.RowToStructByPos[awaitedView]))
		batch.Queue(whyCostSQL, args...).Query(collect(&costs, pgx.RowToStructByPos[refreshCost]))
		batch.Queue(whyParentsSQL, args...).Query(collect(&parents, pgx.RowToStructByPos[parentView]))
		batch.Queue(blockersSQL, nil).Query(collect(&holders, scanBlocker))
	})
	if err != nil {
		return Explanation{}, fmt.Errorf("%s: %w", what, err)
	}
	if len(its) != 1 || its[0].ScheduleID == nil && found.scheduleID != nil { // removed since it was looked up
		return Explanation{}, &ViewError{View: view.String(), Err: ErrNotScheduled}
	}
	e := Explanation{View: its[0].View, State: its[0].State, Now: its[0].Now}
	if len(last) > 0 {
		e.Last = &last[0]
	}
	its[0].Blockers = slices.DeleteFunc(holders, func(b Blocker) bool { return b.View != e.View })
	e.Reasons = its[0].explain(e.Last, awaited, parents)
	if cost, known := costs[0].reason(); known {
		e.Insert(WhyMethod, cost)
	}
	return e, nil
}
