package schedule

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Claim is the right to refresh one view once. Its execution is visible to everybody as running; the refresh has to
// begin within the schedule's start grace (3 s at first), or the claim is given up.
type Claim struct {
	ExecutionID int64
	ScheduleID  *int64 // nil: the view is not scheduled
	View        string // canonical name, for people
	ScheduledAt *time.Time
	Attempt     int
	Timeout     time.Duration
	LockTimeout *time.Duration // nil: the default of the method
	Strategy    Strategy
	SearchPath  *string

	// What the catalog said at the claim. OID is 0 when there is no such view any more.
	OID         uint32
	Schema      string
	Name        string
	Populated   bool
	UniqueIndex bool // one that REFRESH … CONCURRENTLY can use
	OwnerTemp   bool // the owner may create temporary tables, as CONCURRENTLY has to
	Renamed     bool // the schedule still bears the view's former name

	Usual *time.Duration // median of the last successes, when it was asked for and there are any
}

// ClaimOptions say who claims what.
type ClaimOptions struct {
	Worker string     // for people: host and process
	Limit  int        // as many as can begin now: one for each idle connection
	Due    *time.Time // claim what was due at this instant; nil: now
	Usual  bool       // also look up Claim.Usual
	Window int        // among how many of the longest due to choose; 0: 100 and Limit
}

// claimSQL claims what has been due for longest, in one statement: the lock on the schedule, the execution and the
// advanced slot commit together, so no claim is without its record and no record without its claim.
//
// Both CTEs are materialized. Without that the planner may run the locking subquery once per outer row, and "limit 1"
// claims everything that is due (PostgreSQL BUG #15715). A row that another claimer holds is skipped; one that was
// claimed since this statement's snapshot is locked in its new version, and the conditions, repeated beside the lock,
// are checked on that. What they cannot see, an execution of another transaction, is caught by the unique index on
// running executions: "do nothing" then leaves the slot where it is.
//
// One step of priority is worth a minute of waiting, so nothing starves. It reorders only what has been due for longest,
// a window of the index in order of next_run_at. A claim that comes back empty although something is due, because
// somebody holds all rows of the window, is repeated with a wider one.
//
// A schedule whose OID does not count, or not any more, is left to locateSQL.
//
// The slot advances by whole intervals from itself, so there is no drift, past now, so there is no backlog. An interval
// is added as seconds: a day is 24 hours whatever the session's time zone.
const claimSQL = `
with clock as materialized (
  select coalesce($1::timestamptz, now()) as now,
         least($2::timestamptz, coalesce($1::timestamptz, now())) as due,
         mvsched.database_identity() as identity
), longest_due as materialized (
  select s.id
    from mvsched.materialized_view_refresh_schedule s
   where s.next_run_at <= (select due from clock)
     and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null
     and s.database_identity = (select identity from clock)
     and (s.view_oid is null or exists (select from pg_catalog.pg_class c where c.oid = s.view_oid and c.relkind = 'm'))
     and not exists (select
                       from mvsched.materialized_view_refresh_schedule_execution e
                      where e.status = 'running' and e.view_oid = s.view_oid)
   order by s.next_run_at
   limit $6::integer
), due as materialized (
  select s.*
    from mvsched.materialized_view_refresh_schedule s
    join longest_due using (id)
   where s.next_run_at <= (select due from clock)
     and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null
   order by s.next_run_at - make_interval(mins => s.priority), s.id
   limit $3::integer
     for no key update of s skip locked
), execution as (
  insert into mvsched.materialized_view_refresh_schedule_execution as e
         (materialized_view_refresh_schedule_id, view_name, view_oid, trigger, scheduled_at, attempt, worker, start_grace)
  select due.id, coalesce(mvsched.view_name(due.view_oid), due.materialized_view_name), due.view_oid,
         case when last.id is null then 'schedule' else 'retry' end, due.next_run_at, least(coalesce(last.attempt, 0) + 1, 1000000),
         $4::text, due.start_grace
    from due
    left join lateral (
           select l.id, l.attempt
             from (select e.id, e.attempt, e.scheduled_at
                     from mvsched.materialized_view_refresh_schedule_execution e
                    where e.materialized_view_refresh_schedule_id = due.id
                    order by e.id desc
                    limit 1) l
            where l.scheduled_at = due.next_run_at
         ) last on true
  on conflict (view_oid) where status = 'running' do nothing
  returning e.id, e.materialized_view_refresh_schedule_id, e.view_name, e.scheduled_at, e.attempt
), advance as (
  update mvsched.materialized_view_refresh_schedule s
     set last_attempted_at = clock.now,
         open_execution_id = execution.id,
         next_run_at = s.next_run_at + make_interval(secs =>
           (floor(extract(epoch from clock.now - s.next_run_at) / extract(epoch from s.refresh_interval)) + 1)::float8
           * extract(epoch from s.refresh_interval)::float8)
    from execution, clock
   where s.id = execution.materialized_view_refresh_schedule_id
)
select execution.id, due.id, execution.view_name, execution.scheduled_at, execution.attempt,
       extract(epoch from due.maximum_execution_duration)::float8, extract(epoch from due.lock_timeout)::float8,
       due.strategy, due.search_path, ` + viewColumns + `,
       coalesce(mvsched.view_name(due.view_oid) <> due.materialized_view_name, false), ` + usualColumn + `
  from execution
  join due on due.id = execution.materialized_view_refresh_schedule_id
  left join pg_catalog.pg_class c on c.oid = due.view_oid and c.relkind = 'm'
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace`

// viewColumns is what the choice of a method needs of a view, from c and n. Usable by CONCURRENTLY is a valid, immediate
// unique index on columns only and without a predicate.
const viewColumns = `
       coalesce(c.oid, 0)::bigint, coalesce(n.nspname, '')::text, coalesce(c.relname, '')::text,
       coalesce(c.relispopulated, false),
       exists (select
                 from pg_catalog.pg_index i
                where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
                  and i.indpred is null and i.indexprs is null),
       coalesce(pg_catalog.has_database_privilege(c.relowner, pg_catalog.current_database(), 'TEMP'), false)`

const usualColumn = `
       case when $5::boolean then (
         select percentile_cont(0.5) within group (order by extract(epoch from e.ended_at - e.started_at)::float8)
           from (select e.started_at, e.ended_at
                   from mvsched.materialized_view_refresh_schedule_execution e
                  where e.view_name = execution.view_name and e.status = 'succeeded'
                  order by e.id desc
                  limit 20) e) end`

const defaultWindow = 100

// Claim settles what has ended and claims up to opts.Limit due views, in one round trip. Nothing due is no error. Use
// it on the connection that is going to refresh.
func (s *Store) Claim(ctx context.Context, opts ClaimOptions) ([]Claim, error) {
	ctx, cancel := withDeadline(ctx, "claiming")
	defer cancel()
	var claims []Claim
	err := s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(settleSQL)
		batch.Queue(claimSQL, s.now(), opts.Due, opts.Limit, opts.Worker, opts.Usual, cmp.Or(opts.Window, defaultWindow+opts.Limit)).Query(collect(&claims, scanClaim))
	})
	if err != nil {
		return nil, fmt.Errorf("claiming: %w", err)
	}
	return claims, nil
}

// claimViewSQL claims one view out of turn, whether it is scheduled or not, and does not move its slot. The schedule's
// row is touched only where nobody holds it: then the end of this run is settled into it like any other.
const claimViewSQL = `
with view as materialized (
  select $1::bigint::oid as oid
), schedule as materialized (
  select s.*
    from mvsched.materialized_view_refresh_schedule s
   where s.id = $8::bigint
), execution as (
  insert into mvsched.materialized_view_refresh_schedule_execution as e
         (materialized_view_refresh_schedule_id, view_name, view_oid, trigger, worker)
  select schedule.id, mvsched.view_name(view.oid), view.oid, 'manual', $4::text
    from view
    left join schedule on true
   where mvsched.view_name(view.oid) is not null
  on conflict (view_oid) where status = 'running' do nothing
  returning e.id, e.view_oid, e.view_name
), free as materialized (
  select s.id
    from mvsched.materialized_view_refresh_schedule s
    join schedule on schedule.id = s.id
   where s.open_execution_id is null
     for no key update of s skip locked
), note as (
  update mvsched.materialized_view_refresh_schedule s
     set open_execution_id = execution.id
    from execution, free
   where s.id = free.id
)
select execution.id, schedule.id, execution.view_name, null::timestamptz, 1,
       coalesce($2::float8, extract(epoch from schedule.maximum_execution_duration)::float8, 1800),
       coalesce($3::float8, extract(epoch from schedule.lock_timeout)::float8),
       coalesce($6::text, schedule.strategy, 'auto'), coalesce($7::text, schedule.search_path), ` + viewColumns + `,
       false, ` + usualColumn + `
  from execution
  left join schedule on true
  join pg_catalog.pg_class c on c.oid = execution.view_oid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace`

// ClaimView claims one view, due or not, scheduled or not, paused or not, without moving its schedule. Settings given
// override the schedule's for this run (Timeout, LockTimeout, Strategy, SearchPath). It returns nil when the view is
// being refreshed already, and ErrNoView or ErrNotAView in a *ViewError when it is none.
func (s *Store) ClaimView(ctx context.Context, view ViewName, settings Settings, opts ClaimOptions) (*Claim, error) {
	ctx, cancel := withDeadline(ctx, "claiming")
	defer cancel()
	found, err := s.describe(ctx, view)
	switch {
	case err != nil:
		return nil, fmt.Errorf("claiming %q: %w", view, err)
	case found.problem != nil:
		return nil, found.problem
	}
	var claims []Claim
	err = s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(settleSQL)
		batch.Queue(claimViewSQL, found.oid, seconds(settings.Timeout), seconds(settings.LockTimeout), opts.Worker,
			opts.Usual, settings.Strategy, settings.SearchPath, found.scheduleID).Query(collect(&claims, scanClaim))
	})
	if err != nil {
		return nil, fmt.Errorf("claiming %q: %w", view, err)
	}
	if len(claims) == 0 {
		return nil, nil //nolint:nilnil // documented: busy is no error
	}
	return &claims[0], nil
}

func scanClaim(row pgx.CollectableRow) (c Claim, err error) {
	var timeout float64
	var lockTimeout, usual *float64
	var oid int64
	err = row.Scan(&c.ExecutionID, &c.ScheduleID, &c.View, &c.ScheduledAt, &c.Attempt, &timeout, &lockTimeout,
		&c.Strategy, &c.SearchPath, &oid, &c.Schema, &c.Name, &c.Populated, &c.UniqueIndex, &c.OwnerTemp,
		&c.Renamed, &usual)
	c.Timeout, c.LockTimeout, c.Usual = duration(timeout), durationOrNil(lockTimeout), durationOrNil(usual)
	c.OID = uint32(oid) //nolint:gosec // an OID, widened by the query
	return c, err
}

const followRenameSQL = `
update mvsched.materialized_view_refresh_schedule s
   set materialized_view_name = mvsched.view_name(s.view_oid)
 where s.id in (select s.id
                  from mvsched.materialized_view_refresh_schedule s
                 where s.id = $1 and s.database_identity = mvsched.database_identity()
                   and mvsched.view_name(s.view_oid) is not null
                   for update skip locked)
   and not exists (select
                     from mvsched.materialized_view_refresh_schedule other
                    where other.materialized_view_name = mvsched.view_name(s.view_oid))`

// FollowRename writes the present name of a schedule's view into the schedule, so that a dump carries that one. It
// leaves the row alone when somebody holds it, or when another schedule still bears the name.
func (s *Store) FollowRename(ctx context.Context, scheduleID int64) error {
	ctx, cancel := withDeadline(ctx, "following a rename")
	defer cancel()
	err := s.send(ctx, func(batch *pgx.Batch) { batch.Queue(followRenameSQL, scheduleID) })
	if err != nil {
		return fmt.Errorf("following a rename: %w", err)
	}
	return nil
}
