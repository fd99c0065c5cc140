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
// only then.
const bloatSQL = `
select mvsched.view_name(c.oid), n.nspname::text, c.relname::text, clock_timestamp(), coalesce(s.vacuum, 'auto'),
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
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join mvsched.materialized_view_refresh_schedule s on s.id = $2::bigint
 cross join lateral (select current_setting('server_version_num')::integer as version) server
 cross join lateral (
        select server.version < 150000 as is_late, $3::boolean as is_plain, $4::bigint as inserted, $5::bigint as deleted
      ) refresh
 cross join lateral (
        select greatest(c.reltuples, 0)::bigint as rows,
               case when c.relpages > 0 then c.relpages
                    else pg_relation_size(c.oid) / current_setting('block_size')::bigint end::bigint as pages
      ) catalog
 where c.oid = $1::bigint::oid and c.relkind = 'm'`

// Refreshed is a view with what its refresh has just done.
type Refreshed struct {
	OID        uint32
	ScheduleID *int64
	Plain      bool
	Inserted   int64 // 0 for plain
	Deleted    int64 // 0 for plain
}

// Bloat looks at a view that has just been refreshed; nil when it is gone.
func (s *Store) Bloat(ctx context.Context, r Refreshed) (*Bloat, error) {
	ctx, cancel := withDeadline(ctx, "looking for dead rows")
	defer cancel()
	found, err := read(ctx, s, "looking for dead rows", func(row pgx.CollectableRow) (b Bloat, err error) {
		var next *float64
		err = row.Scan(&b.View, &b.Schema, &b.Name, &b.At, &b.Mode, &next, &b.Dead, &b.Live, &b.Modified,
			&b.NeverAnalyzed, &b.Pages, &b.VisiblePages)
		b.NextRunIn = durationOrNil(next)
		return b, err
	}, bloatSQL, int64(r.OID), r.ScheduleID, r.Plain, r.Inserted, r.Deleted)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
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
