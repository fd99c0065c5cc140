package schedule

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Claim is the right to refresh one view once. Its execution is visible to everybody as running; the refresh has to
// begin within the schedule's start grace (3 s at first), or the claim is given up.
type Claim struct {
	ExecutionID int64
	ClaimedAt   time.Time // its started_at: what tells it from another that got its id after a crash took this one back
	ScheduleID  *int64    // nil: the view is not scheduled
	View        string    // canonical name, for people
	ScheduledAt *time.Time
	Attempt     int
	Timeout     time.Duration
	LockTimeout *time.Duration // nil: the default of the method
	Strategy    Strategy
	SearchPath  *string
	Parameters  *string // JSON: the server's settings for the refresh, of which the database has approved

	Materialization Materialization
	Whole           bool // of a merge table: all rows, not only those in its window
	BatchRows       int  // of columns: how many rows the first batch has
	Lane            int  // of columns: 0, or one beside the first of the same drain
	Lanes           int  // of columns: how many there may be

	// Group is what it is refreshed with, in one transaction: the claims of a group come together, in the order in which
	// they are to be refreshed. "": by itself.
	Group string

	// What the catalog said at the claim. OID is 0 when there is no such view any more.
	OID         uint32
	Schema      string
	Name        string
	Populated   bool
	UniqueIndex bool // one that REFRESH … CONCURRENTLY can use
	OwnerTemp   bool // the owner may create temporary tables, as CONCURRENTLY has to
	Renamed     bool // the schedule still bears the view's former name

	Usual *time.Duration // median of the last successes, when it was asked for and there are any

	// FirstDue is where in the order of what is due the first schedule was that could be claimed, or somebody held; nil for a
	// claim out of turn.
	FirstDue *Position

	// Passed is how many entries of the index on what is due led nowhere on the way; 0 where the server does not count
	// (track_counts).
	Passed int64

	// Skipped is why the execution ended with its claim (ReasonUnchanged, ReasonUpstreamFailed); "": it is to be run.
	Skipped string
}

// ClaimOptions say who claims what.
type ClaimOptions struct {
	Worker string     // for people: host and process
	Limit  int        // as many as can begin now: one for each idle connection; a group is claimed as a whole
	Queues []string   // nil: all
	Round  *time.Time // claim what was due at this instant, as one slot; nil: what is due now
	Usual  bool       // also look up Claim.Usual
	// Settled says that whoever claims has nothing left to settle.
	Settled bool
	Since   *Position // begin there, in the order of what is due; nil: at its beginning
	Force   bool      // of ClaimView: also when nothing has changed
	Whole   bool      // of ClaimView: all rows of a merge table, not only those in its window
}

// Position is a place in the order in which schedules become due. See mvsched.claim in schema.sql for what it is good for.
type Position struct {
	DueAt      time.Time
	ScheduleID int64
}

// parts are its columns; nil for none.
func (p *Position) parts() (dueAt *time.Time, id *int64) {
	if p == nil {
		return nil, nil
	}
	return &p.DueAt, &p.ScheduleID
}

func positionOf(dueAt *time.Time, id *int64) *Position {
	if dueAt == nil || id == nil {
		return nil
	}
	return &Position{*dueAt, *id}
}

// claimSQL: how a claim is made, and why it is safe, is told beside mvsched.claim in schema.sql. A claim that a crash of
// the server takes back is harmless: the slot is due again, and a refresh that committed meanwhile has written the log
// behind it to disk too. So the claim need not wait for the disk. (Its id is taken back as well: see ClaimedAt.)
const claimSQL = `
select ` + claimColumns + `
  from mvsched.claim($1, $2, $3, $4, $5, $6, $7, $8) c`

const claimColumns = `
       c.execution_id, c.claimed_at, c.schedule_id, c.view_name, c.scheduled_at, c.attempt, c.time_limit, c.lock_limit, c.strategy,
       c.search_path, c.settings, c.view_oid, c.schema_name, c.relation_name, c.populated, c.unique_index, c.owner_temp, c.renamed, c.usual,
       c.skipped, c.kind, c.whole, c.batch_rows, c.lane, c.lanes, c.refresh_group, c.first_due_at, c.first_due_id,
       coalesce(c.passed, 0)`

const asyncCommitSQL = `set local synchronous_commit = off`

// Claim settles what has ended, unless it is settled already, and claims up to opts.Limit due views, in one round trip. Nothing due is no error.
func (s *Store) Claim(ctx context.Context, opts ClaimOptions) ([]Claim, error) {
	ctx, cancel := withDeadline(ctx, "claiming")
	defer cancel()
	sinceAt, sinceID := opts.Since.parts()
	var claims []Claim
	err := s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(asyncCommitSQL)
		if !opts.Settled {
			batch.Queue(settleSQL)
			commitSoFar(batch) // other claims are to see it at once
			batch.Queue(asyncCommitSQL)
		}
		batch.Queue(claimSQL, opts.Worker, opts.Limit, opts.Queues, opts.Round, s.now(), opts.Usual, sinceAt, sinceID).
			Query(collect(&claims, scanClaim))
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
), look as materialized (
  -- In this order: a session that ends in between has reported its counters by the time that they are read.
  select clock_timestamp() as at, mvsched.nobody_else_here() as sure, mvsched.fingerprint(view.oid) as fingerprint
    from view, schedule
   where schedule.skip_unchanged or schedule.on_change
), unchanged as materialized (
  select known.refreshed_at, greatest(known.data_as_of, least(look.at, mvsched.data_of_parents(view.oid))) as data_as_of
    from look, view, schedule, mvsched.refreshable v
   cross join lateral (
          select e.fingerprint, e.refreshed_at, e.data_as_of
            from mvsched.materialized_view_refresh_schedule_execution e
           where e.view_oid = v.oid and e.data_as_of is not null
           order by e.id desc
           limit 1
        ) known
   where not $9::boolean and not $10::boolean and schedule.skip_unchanged and v.oid = view.oid and v.populated and known.fingerprint = look.fingerprint
     and known.refreshed_at > now() - schedule.max_staleness and look.sure
     and not exists (select from mvsched.materialized_view_refresh_schedule_execution e
                      where e.status = 'running' and e.view_oid = view.oid)
), execution as (
  insert into mvsched.materialized_view_refresh_schedule_execution as e
         (materialized_view_refresh_schedule_id, view_name, view_oid, trigger, worker, fingerprint, started_at,
          status, reason, ended_at, data_as_of, refreshed_at)
  select schedule.id, mvsched.view_name(view.oid), view.oid, 'manual', $4::text, look.fingerprint, coalesce(look.at, clock_timestamp()),
         case when unchanged.refreshed_at is null then 'running' else 'skipped' end, case when unchanged.refreshed_at is not null then 'unchanged' end,
         case when unchanged.refreshed_at is not null then look.at end, unchanged.data_as_of, unchanged.refreshed_at
    from view
    left join schedule on true
    left join look on true
    left join unchanged on true
   where mvsched.view_name(view.oid) is not null and mvsched.free_runs() > 0
  on conflict (view_oid, lane) where status = 'running' do nothing
  returning e.id, e.started_at, e.view_oid, e.view_name, e.reason
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
select execution.id, execution.started_at, schedule.id, execution.view_name, null::timestamptz, 1,
       coalesce($2::float8, extract(epoch from schedule.maximum_execution_duration)::float8, 1800),
       coalesce($3::float8, extract(epoch from schedule.lock_timeout)::float8),
       coalesce($6::text, schedule.strategy, 'auto'), coalesce($7::text, schedule.search_path), schedule.settings::text,
       v.oid::bigint, v.schema_name::text, v.relation_name::text, v.populated, v.unique_index, v.owner_temp, false,
       case when $5::boolean then mvsched.usual_seconds(execution.view_name) end, execution.reason,
       v.kind, $10::boolean or schedule.merge_window is null or coalesce(schedule.next_full_at <= now(), false),
       coalesce(schedule.batch_rows::integer, 0), 0, coalesce(schedule.lanes::integer, 1),
       null::text, null::timestamptz, null::bigint, 0::bigint
  from execution
  left join schedule on true
  join mvsched.refreshable v on v.oid = execution.view_oid`

// ClaimView claims one view, due or not, scheduled or not, paused or not, without moving its schedule. Where the schedule
// says so and, without Force, nothing has changed, it is skipped; what cannot be told at one look is refreshed. Settings given
// override the schedule's for this run (Timeout, LockTimeout, Strategy, SearchPath). It returns nil when the view is
// being refreshed already, or as many as settings.max_concurrent_refreshes allows are, and ErrNoView or ErrNotAView in a *ViewError when it is none.
func (s *Store) ClaimView(ctx context.Context, view ViewName, settings Settings, opts ClaimOptions) (*Claim, error) {
	ctx, cancel := withDeadline(ctx, "claiming")
	defer cancel()
	found, err := s.find(ctx, view)
	switch {
	case err != nil:
		return nil, fmt.Errorf("claiming %s: %w", view, err)
	case found.problem != nil:
		return nil, found.problem
	}
	var claims []Claim
	err = s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(settleSQL)
		batch.Queue(claimViewSQL, found.oid, seconds(settings.Timeout), seconds(settings.LockTimeout), opts.Worker,
			opts.Usual, settings.Strategy, settings.SearchPath, found.scheduleID, opts.Force, opts.Whole).Query(collect(&claims, scanClaim))
	})
	if err != nil {
		return nil, fmt.Errorf("claiming %s: %w", view, err)
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
	var skipped, group *string
	var firstDueAt *time.Time
	var firstDueID *int64
	err = row.Scan(&c.ExecutionID, &c.ClaimedAt, &c.ScheduleID, &c.View, &c.ScheduledAt, &c.Attempt, &timeout, &lockTimeout,
		&c.Strategy, &c.SearchPath, &c.Parameters, &oid, &c.Schema, &c.Name, &c.Populated, &c.UniqueIndex, &c.OwnerTemp,
		&c.Renamed, &usual, &skipped, &c.Materialization, &c.Whole, &c.BatchRows, &c.Lane, &c.Lanes,
		&group, &firstDueAt, &firstDueID, &c.Passed)
	c.FirstDue = positionOf(firstDueAt, firstDueID)
	if skipped != nil {
		c.Skipped = *skipped
	}
	if group != nil {
		c.Group = *group
	}
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

const skipViewSQL = `
insert into mvsched.materialized_view_refresh_schedule_execution as e
       (materialized_view_refresh_schedule_id, view_name, view_oid, trigger, worker, status, reason, error_message, ended_at)
values ($1, $2, $3::bigint::oid, 'manual', $4, 'skipped', $5, $6, clock_timestamp())
returning ` + ExecutionColumns + ``

// SkipView records that a view was not refreshed because another one, which it reads, was to be first and failed.
func (s *Store) SkipView(ctx context.Context, view ViewName, failed string, opts ClaimOptions) (execution Execution, err error) {
	ctx, cancel := withDeadline(ctx, "recording a skip")
	defer cancel()
	found, err := s.describe(ctx, view)
	switch {
	case err != nil:
		return Execution{}, fmt.Errorf("recording the skip of %s: %w", view, err)
	case found.problem != nil:
		return Execution{}, found.problem
	}
	err = s.transaction(ctx, func(tx pgx.Tx) (err error) {
		execution, err = one(ctx, tx, "recording a skip", skipViewSQL, found.scheduleID, found.name, found.oid, opts.Worker,
			ReasonUpstreamFailed, failed+" failed")
		return err
	})
	return execution, err
}
