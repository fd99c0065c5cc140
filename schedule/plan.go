package schedule

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Outlook is what a worker sees when it has tended the schedules.
type Outlook struct {
	Now       time.Time      // the database's clock
	Due       int            // claimable schedules, counted up to the number asked for
	Held      bool           // something due waits for an ancestor
	Waiting   bool           // something due waits for an ancestor that is running or has just ended
	LookAgain *time.Duration // until something due may be claimed that has to wait for a retry or a second look; nil: nothing
	Unbegun   int            // claims whose refresh has not begun and whose grace ends within a few seconds
	Abandoned []Execution    // runs found dead and recorded as such just now
	Moved     []Moved        // schedules whose view was not where it had been
	PruneDue  bool           // the history has not been trimmed for an hour
}

// Moved says that a schedule's view was found under another OID than the stored one.
type Moved struct {
	View     string
	Found    bool // false: there is no such view; its run will say so
	Restored bool // the database is another than the one in which the OID was stored
}

// planSQL gives every unplanned schedule its next slot: a new one is due at once (for a one-shot: since it began), one
// with a changed interval an interval after its last attempt. One without a clock is due when something that it reads
// got new data since; mostly that is settled with the end of that refresh, but not where the refresh was by hand and
// without a schedule, or where somebody held a row. A row that somebody is editing is left to the next look; the lock on the others,
// held to the end of the statement, is the fence against an edit in between.
const planSQL = `
with unplanned as materialized (
  select s.id
    from mvsched.materialized_view_refresh_schedule s
   where s.next_run_at is null
     and (not s.after_parents or s.last_attempted_at is null or exists (
            select
              from mvsched.materialized_view_graph g
             cross join lateral unnest(g.parents) parent (oid)
             cross join lateral (
                    select e.status, e.ended_at
                      from mvsched.materialized_view_refresh_schedule_execution e
                     where e.view_oid = parent.oid and e.data_as_of is not null
                     order by e.id desc
                     limit 1
                  ) data
             where g.view_oid = s.view_oid and data.status = 'succeeded' and data.ended_at > s.last_attempted_at))
   order by s.id
   limit 10000
     for no key update skip locked
)
update mvsched.materialized_view_refresh_schedule s
   set next_run_at = least('9999-12-31 00:00+00', greatest(
         least($2::timestamptz, coalesce($1::timestamptz, now())),
         s.last_attempted_at + make_interval(secs => extract(epoch from s.refresh_interval)::float8)))
  from unplanned
 where s.id = unplanned.id`

// locateSQL finds the views of due schedules whose stored OID does not count: it was stored in another database (a
// restore), or its view has been dropped and created again. Only due ones: nobody else is going to use the OID.
const locateSQL = `
with here as materialized (
  select mvsched.database_identity() as identity
), lost as materialized (
  select s.id, s.database_identity
    from mvsched.materialized_view_refresh_schedule s, here
   where s.next_run_at <= coalesce($1::timestamptz, now())
     and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null
     and (s.database_identity is distinct from here.identity
          or s.view_oid is not null
             and not exists (select from pg_catalog.pg_class c where c.oid = s.view_oid and c.relkind = 'm')
          or s.view_oid is null
             and mvsched.resolve_view(null, null, s.materialized_view_name, here.identity) is not null)
   limit 10000
     for no key update of s skip locked
)
update mvsched.materialized_view_refresh_schedule s
   set view_oid = mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, here.identity),
       database_identity = here.identity
  from lost, here
 where s.id = lost.id
returning s.materialized_view_name, s.view_oid is not null,
          lost.database_identity is not null and lost.database_identity <> here.identity`

// outlookSQL counts without a lock: a row that somebody holds counts as due, and the claim will skip it. An execution
// whose row no transaction ever locked (xmax 0) has not begun; one that will be given up within seconds is worth
// waiting for.
const outlookSQL = `
with clock as materialized (
  select coalesce($3::timestamptz, clock_timestamp()) as now
), due as (
  select s.id, s.view_oid, s.next_run_at, greatest(s.retry_at, s.look_again_at) as not_before
    from mvsched.materialized_view_refresh_schedule s
   where s.next_run_at <= coalesce($1::timestamptz, (select now from clock))
     and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null
), held as materialized (
  select count(*) > 0 as held, coalesce(bool_or(a.because <> 'due'), false) as waiting
    from due
    join mvsched.materialized_view_graph g on g.view_oid = due.view_oid
   cross join lateral mvsched.awaited(due.view_oid, due.next_run_at, $1::timestamptz, (select now from clock)) a
   where cardinality(g.ancestors) > 0
)
select now(),
       (select count(*)
          from (select
                  from due
                  left join mvsched.materialized_view_graph g on g.view_oid = due.view_oid
                 where coalesce(due.not_before <= (select now from clock), true)
                   and not exists (select
                                     from mvsched.materialized_view_refresh_schedule_execution e
                                    where e.status = 'running' and e.view_oid = due.view_oid)
                   and case when cardinality(g.ancestors) > 0
                            then not exists (select from mvsched.awaited(due.view_oid, due.next_run_at, $1::timestamptz, (select now from clock)))
                            else true end
                 limit $2) claimable),
       held.held, held.waiting,
       (select extract(epoch from min(due.not_before) - clock_timestamp())::float8 from due
         where due.not_before > (select now from clock)
           and due.not_before < (select now from clock) + interval '1 minute'), -- later ones are somebody's own doing
       (select count(*)
          from mvsched.materialized_view_refresh_schedule_execution e
         where e.status = 'running' and e.xmax::text = '0'
           and e.started_at + e.start_grace < clock_timestamp() + interval '4 seconds'),
       (select c.sign <> mvsched.catalog_sign() from mvsched.catalog_state c),
       coalesce((select coalesce(st.pruned_at < clock_timestamp() - interval '1 hour', true) from mvsched.settings st), false)
  from held`

// Tend does what is to be done before a claim, in one round trip: it rescues dead runs, settles ended ones into their
// schedules, plans the unplanned and finds views that have moved; then it looks how much is due, counting up to limit.
// Where the catalog has changed, it works out anew what reads what. A round is the instant that a one-shot began: it
// stops at what was due then. Any worker may do this at any time; rows that another one is busy with are skipped.
func (s *Store) Tend(ctx context.Context, round *time.Time, limit int) (Outlook, error) {
	ctx, cancel := withDeadline(ctx, "looking after the schedules")
	defer cancel()

	due := round
	if due == nil {
		due = s.now()
	}
	var outlook Outlook
	for range 2 {
		var stale bool
		err := s.send(ctx, func(batch *pgx.Batch) {
			batch.Queue(rescueSQL).Query(collect(&outlook.Abandoned, ScanExecution))
			batch.Queue(settleSQL)
			batch.Queue(planSQL, s.now(), due)
			batch.Queue(locateSQL, s.now()).Query(collect(&outlook.Moved, scanMoved))
			batch.Queue(outlookSQL, due, limit, s.now()).QueryRow(func(row pgx.Row) error {
				var lookAgain *float64
				err := row.Scan(&outlook.Now, &outlook.Due, &outlook.Held, &outlook.Waiting, &lookAgain, &outlook.Unbegun, &stale, &outlook.PruneDue)
				outlook.LookAgain = durationOrNil(lookAgain)
				return err
			})
		})
		if err == nil && stale {
			err = s.arrange(ctx)
		}
		if err != nil {
			return Outlook{}, fmt.Errorf("looking after the schedules: %w", err)
		}
		if !stale {
			break
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
select coalesce(mvsched.view_name(v.oid), s.materialized_view_name), s.next_run_at
  from mvsched.materialized_view_refresh_schedule s
 cross join (select mvsched.database_identity() as identity offset 0) here
 cross join lateral (
        select mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, here.identity) as oid offset 0) v
 where (s.next_run_at is null or s.next_run_at <= coalesce($1::timestamptz, now()))
   and s.paused_at is null and s.suspended_at is null
   and not exists (select
                     from mvsched.materialized_view_refresh_schedule_execution e
                    where e.status = 'running' and e.view_oid = v.oid)
 order by coalesce(s.next_run_at, now()) - make_interval(mins => s.priority), s.id
 limit nullif($2::integer, 0)`

// Due is one view that a worker would claim now.
type Due struct {
	View        string
	ScheduledAt *time.Time // nil: new, or changed, and not planned yet
}

// Due returns what a worker would claim now, at most limit views, and changes nothing.
func (s *Store) Due(ctx context.Context, limit int) ([]Due, error) {
	ctx, cancel := withDeadline(ctx, "reading what is due")
	defer cancel()
	return read(ctx, s, "reading what is due", func(row pgx.CollectableRow) (d Due, err error) {
		err = row.Scan(&d.View, &d.ScheduledAt)
		return d, err
	}, dueSQL, s.now(), limit)
}
