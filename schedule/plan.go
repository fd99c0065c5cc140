package schedule

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Outlook is what a worker sees when it has tended the schedules.
type Outlook struct {
	Now       time.Time       // the database's clock
	Due       int             // claimable schedules, counted up to the number asked for
	Passed    int64           // entries of the index on what is due that led nowhere; 0 where the server does not count (track_counts)
	FirstDue  *Position       // where in their order the first of what is due stands; where nothing is, the instant of the look
	MadeDue   *time.Time      // the earliest instant at which the ends that it settled have made a schedule due; nil: they have not
	Held      bool            // something due waits for an ancestor
	Waiting   bool            // something due waits for an ancestor that is running or has just ended, or for room (settings.max_concurrent_refreshes)
	LookAgain *time.Duration  // until something of the round may be claimed that waits for a retry or a second look; nil: nothing
	Next      []time.Duration // until the next schedules become due, the first of them, in this order
	Ripe      *time.Duration  // until requests are to be answered; nil: there are none
	Changed   int             // so many schedules have just got a slot, since what they read has changed
	Watching  bool            // there are schedules whose sources have to be looked at for changes
	Open      bool            // an execution is running, or has ended and is still to be settled
	Unbegun   *time.Duration  // until the first claim is given up whose refresh has not begun; nil: none is within a few seconds
	Abandoned []Execution     // runs found dead and recorded as such just now
	Moved     []Moved         // schedules whose view was not where it had been
	Suspended []Suspended     // schedules that nobody can plan, suspended just now
	Unplanned bool            // schedules are left without a slot, since somebody holds their rows
	PruneDue  bool            // the history has not been trimmed for an hour
	Scattered bool            // the schedules' table has much more room than it needs, and we may compact it
}

// Moved says that a schedule's view was found under another OID than the stored one.
type Moved struct {
	View     string
	Found    bool // false: there is no such view; its run will say so
	Restored bool // the database is another than the one in which the OID was stored
}

// TendOptions say what a worker looks at.
type TendOptions struct {
	Round  *time.Time // the instant that a one-shot began: it stops at what was due then; nil: what is due now
	Queues []string   // nil: all
	Limit  int        // count so many claimable schedules at the most
	Since  *Position  // look there for what is due, and behind it; nil: from its beginning
	Look   bool       // also look whether anything has changed for the schedules that wait for that
	Again  bool       // there will be more looks: what has changed need not wait for what else is to be planned
}

// requestsSQL makes views due that somebody has asked for (mvsched.request_refresh). A request that comes after a calm
// is answered at once. Those that follow one another without a pause, each within the debounce, wait until there is one,
// but not for longer than at_most_every after the start of the last refresh. A cron is planned first: what jitter had
// refreshed before its slot would otherwise get that slot again.
const requestsSQL = `
with pending as materialized (
  select r.materialized_view_refresh_schedule_id as id, min(r.requested_at) as first, max(r.requested_at) as last
    from mvsched.materialized_view_refresh_request r
   group by 1
), ripe as materialized (
  select s.id
    from pending
    join mvsched.materialized_view_refresh_schedule s using (id)
   where s.open_execution_id is null
     and coalesce(s.next_run_at > coalesce($1::timestamptz, now()), s.cron is null)
     and s.next_run_reason is distinct from 'retry'
     -- In a time zone that the server does not know, too: the claim suspends it.
     and coalesce(mvsched.in_window(greatest(coalesce($1::timestamptz, clock_timestamp()), ` + requestRipeSQL + `), s.window_start, s.window_end, s.timezone), '-infinity')
         <= coalesce($1::timestamptz, clock_timestamp())
     for no key update of s skip locked
)
update mvsched.materialized_view_refresh_schedule s
   set next_run_at = coalesce($1::timestamptz, now()),
       next_run_offset = coalesce(coalesce($1::timestamptz, now()) - mvsched.slot(s.next_run_at, s.next_run_offset, null), interval '0'),
       next_run_reason = 'request'
  from ripe
 where s.id = ripe.id`

// requestRipeSQL is when the requests in pending are to be answered.
const requestRipeSQL = `greatest(
         s.last_attempted_at + s.at_most_every,
         case when coalesce(pending.first > s.requested_at + coalesce(s.debounce, interval '500 milliseconds'), true) then pending.first
              else least(pending.last + coalesce(s.debounce, interval '500 milliseconds'),
                         s.last_attempted_at + coalesce(s.at_most_every, interval '10 seconds')) end)`

// planSQL gives every unplanned schedule its next slot: a new one is due at once (for a one-shot: since it began), one
// with a changed interval an interval after its last attempt, one with a delay so long after its last end. One after
// parents is due when something that it reads got new data since; mostly that is settled with the end of that refresh,
// but not where the refresh was by hand and without a schedule, or where somebody held a row. A row that somebody is
// editing is left to the next look, and it is told whether one was; the lock on the others, held to the end of the statement, is
// the fence against an edit in between. What SQL cannot compute is planned by the program (planByClock).
const planSQL = `
with candidate as materialized (
  select s.id
    from mvsched.materialized_view_refresh_schedule s
   where s.next_run_at is null
     and (s.last_attempted_at is null
          or s.refresh_interval is not null
          or s.refresh_delay is not null and s.open_execution_id is null
          or s.after_parents and s.view_oid in (
               select n.view
                 from mvsched.newer_parents(array(
                        select x.view_oid
                          from mvsched.materialized_view_refresh_schedule x
                         where x.after_parents and x.next_run_at is null and x.open_execution_id is null)) n))
), unplanned as materialized (
  select s.id, s as schedule
    from mvsched.materialized_view_refresh_schedule s
   where s.id = any (array(select candidate.id from candidate order by candidate.id limit 10000))
     and s.next_run_at is null
     and (s.last_attempted_at is null or s.refresh_interval is not null or s.open_execution_id is null)
     for no key update skip locked -- and what is locked is its last version, which somebody may just have written
), slotted as materialized (
  select unplanned.id, unplanned.schedule, greatest(
           least($2::timestamptz, coalesce($1::timestamptz, now())),
           (schedule).last_attempted_at + make_interval(secs => extract(epoch from (schedule).refresh_interval)::float8),
           case when (schedule).refresh_delay is not null then (
             select e.ended_at + make_interval(secs => extract(epoch from (schedule).refresh_delay)::float8)
               from mvsched.materialized_view_refresh_schedule_execution e
              where e.materialized_view_refresh_schedule_id = unplanned.id and e.trigger <> 'manual'
              order by e.id desc
              limit 1) end) as slot
    from unplanned
), planned as (
  update mvsched.materialized_view_refresh_schedule s
     set next_run_at = case when s.last_attempted_at is null
                            then coalesce(mvsched.in_window(slotted.slot, s.window_start, s.window_end, s.timezone), slotted.slot) else p.next_run_at end,
         next_run_offset = case when s.last_attempted_at is null then interval '0' else p.next_run_offset end,
         next_run_reason = null
    from slotted
   cross join lateral mvsched.planned(slotted.schedule, slotted.slot) p
   where s.id = slotted.id
)
select exists (select from candidate where candidate.id not in (select unplanned.id from unplanned))`

// changesSQL makes views due whose sources have changed since their last refresh, or that have not been refreshed for
// max_staleness: not everything can be seen. The counters in a fingerprint come late, so a change that follows a refresh
// closely is mostly one that this has seen already; hence the pause between two of them. Of a table with materialized
// columns no guess is needed: it is looked whether there are rows to be materialized. Where a run has found some and done
// none, since somebody holds them or a function leaves them out, the next one has a minute.
const changesSQL = `
with watched as materialized (
  select s.id, s.debounce
    from mvsched.materialized_view_refresh_schedule s
    left join lateral (
          select e.fingerprint, e.refreshed_at
            from mvsched.materialized_view_refresh_schedule_execution e
           where e.view_oid = s.view_oid and e.data_as_of is not null
           order by e.id desc
           limit 1
        ) known on true
   where s.on_change and s.next_run_at is null and s.open_execution_id is null
     and s.paused_at is null and s.suspended_at is null
     and ($2::text[] is null or s.queue = any ($2)) -- what another run notices may be too late for the round of the one that serves it
     and s.last_attempted_at + coalesce(s.at_most_every, case
           when s.kind <> 'columns' then interval '10 seconds'
           when (select e.rows_inserted
                   from mvsched.materialized_view_refresh_schedule_execution e
                  where e.materialized_view_refresh_schedule_id = s.id
                  order by e.id desc
                  limit 1) = 0 then interval '1 minute'
           else interval '1 second' end)
         <= coalesce($1::timestamptz, now())
     and case s.kind
         when 'columns' then mvsched.has_work(s.id, s.view_oid)
         else coalesce(known.refreshed_at + s.max_staleness <= coalesce($1::timestamptz, now()), true)
              or mvsched.fingerprint(s.view_oid, mvsched.group_views(s.refresh_group)) <> coalesce(known.fingerprint, '') end
   limit 1000
     for no key update of s skip locked
), noticed as materialized (
  -- One instant for all, so that those that read one another go in order; and not before it was seen: that takes its time.
  select coalesce($1::timestamptz, clock_timestamp()) as now
    from (select count(*) from watched) counted
), changed as (
  update mvsched.materialized_view_refresh_schedule s
     set next_run_at = coalesce(planned.next_run_at, slot.at), next_run_offset = coalesce(planned.next_run_offset, interval '0'),
         next_run_reason = null
    from watched
   cross join noticed
   cross join lateral (select noticed.now + coalesce(watched.debounce, interval '0') as at) slot
    left join lateral (
          select p.next_run_at, p.next_run_offset
            from mvsched.materialized_view_refresh_schedule x
           cross join lateral mvsched.planned(x, slot.at) p
           where x.id = watched.id and num_nonnulls(x.jitter, x.window_start) > 0
        ) planned on true
   where s.id = watched.id
  returning noticed.now, s.next_run_at <= noticed.now as due
)
select count(*), count(*) filter (where changed.due), max(changed.now), coalesce($1::timestamptz, clock_timestamp()) from changed`

// notice adds to a look what has been found to be changed behind it.
func (o *Outlook) notice(row pgx.Row) error {
	var due int
	var now *time.Time
	var over time.Time
	err := row.Scan(&o.Changed, &due, &now, &over)
	o.Due += due
	for i := range o.Next { // they were counted before that look, which may have taken a while
		o.Next[i] -= over.Sub(o.Now)
	}
	if now != nil {
		o.Now = *now
	}
	return err
}

// locateSQL finds the views of due schedules whose stored OID does not count: it was stored in another database (a
// restore), or its view has been dropped and created again. Where the catalog has changed, locateIdleSQL finds those whose OID is used
// before they are due: to see that something that they read has changed, to refresh them with their group, and since a table is a
// materialization by its OID alone.
const (
	locateSQL = lostSQL + `
     and s.next_run_at <= coalesce($1::timestamptz, now()) and s.next_run_at >= coalesce($2::timestamptz, '-infinity')
     and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null` + foundSQL

	locateIdleSQL = lostSQL + idleSQL + foundSQL

	locateOneSQL = lostSQL + `
     and s.id = $1` + foundSQL

	idleSQL = `
     and (s.next_run_at is null or s.refresh_group is not null or s.kind <> 'view')`

	// Somebody held their rows.
	idleLostSQL = lostSQL + idleSQL + `
)
select exists (select from lost)`

	lostSQL = `
with here as materialized (
  select mvsched.database_identity() as identity
), lost as materialized (
  select s.id, s.database_identity, s.view_oid
    from mvsched.materialized_view_refresh_schedule s, here
   where (s.database_identity is distinct from here.identity
          or s.view_oid is not null
             and not exists (select from pg_catalog.pg_class c where c.oid = s.view_oid and mvsched.can_be(c.relkind, s.kind))
          or s.view_oid is null
             and mvsched.resolve_view(null, null, s.materialized_view_name, here.identity) is not null
          or s.kind = 'merge' and s.merge_source_oid is distinct from mvsched.resolve_source(s.merge_source_oid, s.merge_source))`

	foundSQL = `
   limit 10000
     for no key update of s skip locked
)
update mvsched.materialized_view_refresh_schedule s
   set view_oid = mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, here.identity),
       merge_source_oid = case when s.kind = 'merge' then
         mvsched.resolve_source(case when s.database_identity = here.identity then s.merge_source_oid end, s.merge_source) end,
       database_identity = here.identity
  from lost, here
 where s.id = lost.id
returning case when s.kind = 'merge' and s.view_oid = lost.view_oid then s.merge_source else s.materialized_view_name end,
          s.view_oid is not null and (s.kind <> 'merge' or s.merge_source_oid is not null),
          lost.database_identity is not null and lost.database_identity <> here.identity`
)

// outlookSQL counts without a lock: a row that somebody holds counts as due, and the claim will skip it. An execution
// whose row no transaction ever locked (xmax 0) has not begun; one that will be given up within seconds is worth
// waiting for.
const outlookSQL = `
with clock as materialized (
  select coalesce($3::timestamptz, clock_timestamp()) as now,
         pg_stat_get_xact_tuples_returned('mvsched.materialized_view_refresh_schedule_due'::regclass) as read_before
), served as materialized (
  select unnest(coalesce($4::text[], mvsched.queues())) as queue
), due as materialized (
  select s.*
    from clock, served
   cross join lateral (
          select s.id, s.kind, s.view_oid, s.database_identity, mvsched.slot(s.next_run_at, s.next_run_offset, s.next_run_reason) as slot,
                 s.next_run_at, s.refresh_group
            from mvsched.materialized_view_refresh_schedule s
           where s.queue = served.queue and s.next_run_at <= clock.now
             and (s.next_run_at, s.id) >= (coalesce($5::timestamptz, '-infinity'), coalesce($6::bigint, 0))
             and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null
             and ($1::timestamptz is null or s.next_run_at <= $1::timestamptz
                  or s.next_run_reason in ('retry', 'second_look') and s.next_run_at - s.next_run_offset <= $1::timestamptz)
           order by s.next_run_at, s.id
           limit 10000
        ) s
), waiting as materialized (
  select due.id, bool_or(a.because <> 'due') as for_an_end
    from due
    join mvsched.materialized_view_graph g on g.view_oid = due.view_oid
   cross join lateral mvsched.awaited(due.view_oid, due.slot, $1::timestamptz, (select now from clock), $4::text[]) a
   where cardinality(g.ancestors) > 0 and due.refresh_group is null
   group by due.id
  union all
  -- A group waits as one, in its first slot, for what any of it reads.
  select unnest(one.ids), one.for_an_end
    from (select together.ids, bool_or(a.because <> 'due') as for_an_end
            from (select due.refresh_group, array_agg(due.id) as ids, min(due.slot) as slot
                    from due
                   where due.refresh_group is not null
                   group by due.refresh_group) together
           cross join lateral (
                  select array_agg(s.view_oid) as views
                    from mvsched.materialized_view_refresh_schedule s
                   where s.refresh_group = together.refresh_group and s.paused_at is null and s.suspended_at is null) members
           cross join lateral unnest(members.views) member (view_oid)
           cross join lateral mvsched.awaited(member.view_oid, together.slot, $1::timestamptz, (select now from clock), $4::text[]) a
           where a.view_oid <> all (members.views)
             and not exists (select
                               from mvsched.materialized_view_graph above
                              where above.view_oid = a.view_oid and above.ancestors && members.views)
           group by together.ids) one
), running as materialized (
  select count(*) as executions,
         extract(epoch from min(coalesce(e.batch_at, e.started_at) + e.start_grace)
           filter (where (e.xmax::text = '0' or e.batch_at is not null) and coalesce(e.batch_at, e.started_at) + e.start_grace < clock_timestamp() + interval '4 seconds')
           - clock_timestamp())::float8 as unbegun
    from mvsched.materialized_view_refresh_schedule_execution e
   where e.status = 'running'
), room as materialized (
  select coalesce(running.executions < settings.max_concurrent_refreshes, true) as any
    from running
    left join mvsched.settings on settings.singleton
)
select clock.now, coalesce(first.next_run_at, clock.now), coalesce(first.id, 0),
       greatest(0, pg_stat_get_xact_tuples_returned('mvsched.materialized_view_refresh_schedule_due'::regclass) - clock.read_before
         - (select count(*) from due)),
       case when room.any then
         (select count(*)
            from (select
                    from due
                   where not exists (select
                                       from mvsched.materialized_view_refresh_schedule_execution e
                                      where e.status = 'running' and e.view_oid = due.view_oid and e.lane = 0)
                     and due.id not in (select waiting.id from waiting)
                   limit $2) claimable)
           + (select count(*) from mvsched.free_lanes($4::text[]))
         else 0 end,
       exists (select from waiting),
       coalesce((select bool_or(waiting.for_an_end) from waiting), false) or not room.any and exists (select from due),
       (select extract(epoch from min(s.next_run_at) - clock.now)::float8
          from served
          join mvsched.materialized_view_refresh_schedule s using (queue)
         where s.next_run_reason in ('retry', 'second_look')
           and s.next_run_at > clock.now and s.next_run_at < clock.now + interval '20 seconds' -- later ones are for the next run
           and ($1::timestamptz is null or s.next_run_at - s.next_run_offset <= $1::timestamptz)
           and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null),
       array(select extract(epoch from s.next_run_at - clock.now)::float8
               from served
              cross join lateral (
                     select s.next_run_at
                       from mvsched.materialized_view_refresh_schedule s
                      where s.queue = served.queue and s.next_run_at > clock.now
                        and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null
                      order by s.next_run_at
                      limit 64) s
              order by s.next_run_at
              limit 64),
       (select extract(epoch from min(mvsched.in_window(greatest(clock.now, ` + requestRipeSQL + `), s.window_start, s.window_end, s.timezone)) - clock.now)::float8
          from (select r.materialized_view_refresh_schedule_id as id, min(r.requested_at) as first, max(r.requested_at) as last
                  from mvsched.materialized_view_refresh_request r
                 group by 1) pending
          join mvsched.materialized_view_refresh_schedule s using (id)
         where s.paused_at is null and s.suspended_at is null and s.open_execution_id is null
           and coalesce(s.next_run_at > clock.now, true) and s.next_run_reason is distinct from 'retry'),
       exists (select
                 from mvsched.materialized_view_refresh_schedule s
                where s.on_change and s.next_run_at is null and s.paused_at is null and s.suspended_at is null),
       running.executions > 0
         or exists (select from mvsched.materialized_view_refresh_schedule s where s.open_execution_id is not null),
       running.unbegun,
       coalesce((select c.sign <> mvsched.catalog_sign() from mvsched.catalog_state c), true),
       exists (` + unplannedByClockSQL + `),
       exists (select
                 from due
                where due.database_identity is distinct from (select mvsched.database_identity())
                   or due.view_oid is not null
                      and not exists (select from pg_catalog.pg_class c where c.oid = due.view_oid and mvsched.can_be(c.relkind, due.kind))),
       coalesce((select coalesce(st.pruned_at < clock_timestamp() - interval '1 hour', true) from mvsched.settings st), false),
       ` + scatteredSQL + `
  from running, room, clock
  left join lateral (select due.next_run_at, due.id from due order by due.next_run_at, due.id limit 1) first on true`

// A view that is missing where it was, and whose row is held, is mostly being found by another worker right now. As long
// as it is not, what reads it does not know to wait for it. But somebody else may hold the row.
const (
	locatePatience = 300 * time.Millisecond
	locateInterval = 10 * time.Millisecond
)

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Tend does what is to be done before a claim, in one round trip: it rescues dead runs, settles ended ones into their
// schedules, plans the unplanned and finds views that have moved; then it looks how much is due. Where the catalog has
// changed, it works out anew what reads what; what SQL cannot plan, it plans here. Any worker may do this at any time;
// rows that another one is busy with are skipped.
func (s *Store) Tend(ctx context.Context, opts TendOptions) (Outlook, error) {
	ctx, cancel := withDeadline(ctx, "looking after the schedules")
	defer cancel()

	due := opts.Round
	if due == nil {
		due = s.now()
	}
	var outlook Outlook
	var madeDue *time.Time
	var held bool // somebody holds the state of the catalog
	impatient := time.Now().Add(locatePatience)
	for tries := 0; tries < 3; tries++ {
		var stale, unplanned, lost bool
		sinceAt, sinceID := opts.Since.parts()
		err := s.send(ctx, func(batch *pgx.Batch) {
			batch.Queue(rescueSQL).Query(collect(&outlook.Abandoned, ScanExecution))
			batch.Queue(settleSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&madeDue) })
			commitSoFar(batch) // a claim passes over what it finds being settled
			batch.Queue(planSQL, s.now(), due).QueryRow(func(row pgx.Row) error { return row.Scan(&outlook.Unplanned) })
			batch.Queue(requestsSQL, s.now())
			batch.Queue(locateSQL, s.now(), sinceAt).Query(collect(&outlook.Moved, scanMoved))
			batch.Queue(outlookSQL, opts.Round, opts.Limit, s.now(), opts.Queues, sinceAt, sinceID).QueryRow(func(row pgx.Row) error {
				var lookAgain, ripe, unbegun *float64
				var next []float64
				var first Position
				err := row.Scan(&outlook.Now, &first.DueAt, &first.ScheduleID, &outlook.Passed, &outlook.Due, &outlook.Held, &outlook.Waiting, &lookAgain, &next, &ripe,
					&outlook.Watching, &outlook.Open, &unbegun, &stale, &unplanned, &lost, &outlook.PruneDue, &outlook.Scattered)
				outlook.LookAgain, outlook.Ripe, outlook.Next = durationOrNil(lookAgain), durationOrNil(ripe), nil
				outlook.Unbegun, outlook.FirstDue = durationOrNil(unbegun), &first
				for _, seconds := range next {
					outlook.Next = append(outlook.Next, duration(seconds))
				}
				return err
			})
			if opts.Look { // last, and by itself: what it makes due can begin at once
				commitSoFar(batch)
				batch.Queue(changesSQL, s.now(), opts.Queues).QueryRow(outlook.notice)
			}
		})
		outlook.Unplanned = outlook.Unplanned || unplanned
		opts.Look = opts.Look && stale // it takes longest: once will do, but by what a changed catalog says
		if madeDue != nil {
			outlook.MadeDue = madeDue
		}
		stale = stale && !held
		if err == nil && opts.Again && outlook.Changed > 0 && !stale {
			return outlook, nil
		}
		if err == nil && stale {
			var moved []Moved
			moved, held, err = s.arrange(ctx, true)
			outlook.Moved = append(outlook.Moved, moved...)
		}
		if err == nil && unplanned {
			var suspended []Suspended
			suspended, err = s.planByClock(ctx)
			outlook.Suspended = append(outlook.Suspended, suspended...)
		}
		if err != nil {
			return Outlook{}, fmt.Errorf("looking after the schedules: %w", err)
		}
		switch {
		case madeDue != nil && opts.Since != nil && madeDue.Before(opts.Since.DueAt):
			opts.Since = nil
		case lost && time.Now().Before(impatient) && pause(ctx, locateInterval):
			tries--
		case !stale && !unplanned:
			return outlook, nil
		}
	}
	return outlook, nil
}

func scanMoved(row pgx.CollectableRow) (m Moved, err error) {
	err = row.Scan(&m.View, &m.Found, &m.Restored)
	return m, err
}

// collect returns a callback for a batch that appends the rows to dest.
func collect[T any](dest *[]T, scan pgx.RowToFunc[T]) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, scan)
		*dest = append(*dest, found...)
		return err
	}
}

const dueSQL = `
select coalesce(mvsched.view_name(v.oid), s.materialized_view_name),
       case when s.next_run_at <= coalesce($1::timestamptz, now()) then s.next_run_at else asked.since end
  from mvsched.materialized_view_refresh_schedule s
 cross join (select mvsched.database_identity() as identity offset 0) here
 cross join lateral (
        select mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, here.identity) as oid offset 0) v
 cross join lateral (
        select min(r.requested_at) as since
          from mvsched.materialized_view_refresh_request r
         where r.materialized_view_refresh_schedule_id = s.id) asked
 where (s.next_run_at <= coalesce($1::timestamptz, now()) or asked.since is not null
        or s.next_run_at is null and (s.last_attempted_at is null or s.refresh_interval is not null))
   and s.open_execution_id is null
   and s.paused_at is null and s.suspended_at is null
   and mvsched.in_window(coalesce($1::timestamptz, now()), s.window_start, s.window_end, s.timezone) <= coalesce($1::timestamptz, now())
   and not exists (select
                     from mvsched.materialized_view_refresh_schedule_execution e
                    where e.status = 'running' and e.view_oid = v.oid and e.lane = 0)
   and ($3::text[] is null or s.queue = any ($3::text[]))
 order by coalesce(s.next_run_at, now()) - make_interval(mins => s.priority), s.id
 limit nullif($2::integer, 0)`

// Due is one view that a worker would claim now.
type Due struct {
	View        string
	ScheduledAt *time.Time // nil: new, or changed, and not planned yet
}

// Due returns what a worker of these queues (nil: of all) would claim now, at most limit views, and changes nothing.
func (s *Store) Due(ctx context.Context, queues []string, limit int) ([]Due, error) {
	ctx, cancel := withDeadline(ctx, "reading what is due")
	defer cancel()
	return read(ctx, s, "reading what is due", func(row pgx.CollectableRow) (d Due, err error) {
		err = row.Scan(&d.View, &d.ScheduledAt)
		return d, err
	}, dueSQL, s.now(), limit, queues)
}
