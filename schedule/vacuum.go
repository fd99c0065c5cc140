package schedule

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// VacuumStatus is how a vacuum ended.
type VacuumStatus string

// The ways for a vacuum to end. Skipped: somebody held a lock on the view.
const (
	VacuumSucceeded VacuumStatus = "succeeded"
	VacuumSkipped   VacuumStatus = "skipped"
	VacuumCancelled VacuumStatus = "cancelled"
	VacuumFailed    VacuumStatus = "failed"
)

// Vacuum is one row of mvsched.materialized_view_vacuum: what was done for a view behind its refresh.
type Vacuum struct {
	ScheduleID   *int64
	View         string // canonical name
	OID          uint32
	Command      string // vacuum, vacuum analyze or analyze
	DeadRows     int64
	StartedAt    time.Time
	Status       VacuumStatus
	ErrorName    string // "" for none
	ErrorMessage string
	Worker       string
}

// Bloat is what the server knows of a view's dead rows and statistics, and what its schedule wants done about them.
type Bloat struct {
	OID                 uint32
	View, Schema, Name  string // View is the canonical name
	At                  time.Time
	Mode                VacuumMode
	NextRunIn           *time.Duration // nil: not scheduled, or not planned
	Dead, Live          int64
	Modified            int64
	NeverAnalyzed       bool // the catalog has no count of its rows
	Pages, VisiblePages int64
}

// bloatSQL asks by the OID, so that a view that was renamed since its refresh is found, and one that is gone is no row.
//
// From 15 on refresh_succeeded has the counters of the refresh flushed at its commit. Up to 14 they reach the statistics
// collector half a second late at best, so it counts what the refresh wrote, by its record, or for a plain one, which
// writes all rows, by the catalog, where that is more than the counters know. Together they would be too much once the
// counters have come; and what is too little now is seen behind the next refresh.
//
// The counters are lost in a crash; the catalog's count is not. Up to 13 it is 0 when nobody has counted yet. There is no
// page count after a plain refresh of a view without an index, and pg_relation_size takes a lock, so that is asked for
// only then, and not while somebody stands in its way: that would hold up the look at all others.
const bloatSQL = `
select c.oid::bigint, mvsched.view_name(c.oid, n.nspname, c.relname), n.nspname::text, c.relname::text, clock_timestamp(), coalesce(s.vacuum, 'auto'),
       extract(epoch from s.next_run_at - clock_timestamp())::float8,
       case when refresh.is_late and refresh.is_plain then 0
            else greatest(pg_stat_get_dead_tuples(c.oid), case when refresh.is_late then refresh.deleted end, 0) end,
       coalesce(nullif(case when refresh.is_late and refresh.is_plain then 0
                            else greatest(pg_stat_get_live_tuples(c.oid), 0) end, 0), catalog.rows),
       greatest(pg_stat_get_mod_since_analyze(c.oid), 0,
                case when refresh.is_late then case when refresh.is_plain then catalog.rows
                                                    else refresh.inserted + refresh.deleted end end),
       c.reltuples < 0 or c.reltuples = 0 and c.relpages = 0 and catalog.pages > 0 and server.version < 140000,
       catalog.pages, c.relallvisible::bigint
  from unnest($1::bigint[], $2::bigint[], $3::boolean[], $4::bigint[], $5::bigint[]) r (oid, schedule_id, is_plain, inserted, deleted)
  join pg_catalog.pg_class c on c.oid = r.oid::oid and c.relkind in ('m', 'r', 'p')
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join mvsched.materialized_view_refresh_schedule s on s.id = r.schedule_id
 cross join lateral (select current_setting('server_version_num')::integer as version) server
 cross join lateral (select server.version < 150000 as is_late, r.is_plain, r.inserted, r.deleted) refresh
 cross join lateral (
        select greatest(c.reltuples, 0)::bigint as rows,
               case when c.relpages > 0 then c.relpages
                    when exists (select
                                   from pg_catalog.pg_locks l
                                  where l.locktype = 'relation' and l.relation = c.oid and l.mode = 'AccessExclusiveLock') then 0
                    else pg_relation_size(c.oid) / current_setting('block_size')::bigint end::bigint as pages
      ) catalog`

// Refreshed is a view with what its refresh has just done.
type Refreshed struct {
	OID        uint32
	ScheduleID *int64
	Plain      bool
	Inserted   int64 // 0 for plain
	Deleted    int64 // 0 for plain
}

// Bloats looks at views that have just been refreshed, and returns what it finds by OID: those that are gone are left out.
func (s *Store) Bloats(ctx context.Context, views []Refreshed) (map[uint32]Bloat, error) {
	ctx, cancel := withDeadline(ctx, "looking for dead rows")
	defer cancel()
	var oids, inserted, deleted []int64
	var schedules []*int64
	var plain []bool
	for _, view := range views {
		oids, schedules = append(oids, int64(view.OID)), append(schedules, view.ScheduleID)
		plain, inserted, deleted = append(plain, view.Plain), append(inserted, view.Inserted), append(deleted, view.Deleted)
	}
	found, err := read(ctx, s, "looking for dead rows", scanBloat, bloatSQL, oids, schedules, plain, inserted, deleted)
	bloats := make(map[uint32]Bloat, len(found))
	for _, bloat := range found {
		bloats[bloat.OID] = bloat
	}
	return bloats, err
}

func scanBloat(row pgx.CollectableRow) (b Bloat, err error) {
	var oid int64
	var next *float64
	err = row.Scan(&oid, &b.View, &b.Schema, &b.Name, &b.At, &b.Mode, &next, &b.Dead, &b.Live, &b.Modified,
		&b.NeverAnalyzed, &b.Pages, &b.VisiblePages)
	b.OID, b.NextRunIn = uint32(oid), durationOrNil(next) //nolint:gosec // an OID, widened by the query
	return b, err
}

const recordVacuumSQL = `
insert into mvsched.materialized_view_vacuum
       (materialized_view_refresh_schedule_id, view_name, view_oid, command, dead_rows, started_at, ended_at, status,
        error_name, error_message, worker)
values ($1::bigint, $2::text, $3::bigint::oid, $4::text, $5::bigint, $6::timestamptz,
        greatest($6::timestamptz, clock_timestamp()), $7::text, nullif($8::text, ''), nullif($9::text, ''), $10::text)`

// RecordVacuum keeps how a vacuum ended.
func (s *Store) RecordVacuum(ctx context.Context, v Vacuum) error {
	ctx, cancel := withDeadline(ctx, "recording a vacuum")
	defer cancel()
	err := s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(recordVacuumSQL, v.ScheduleID, v.View, int64(v.OID), v.Command, v.DeadRows, v.StartedAt, v.Status,
			v.ErrorName, cut(v.ErrorMessage), v.Worker)
	})
	if err != nil {
		return fmt.Errorf("recording a vacuum: %w", err)
	}
	return nil
}
