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
	Rows                float64 // of the catalog; negative: never counted
	Pages, VisiblePages int64
}

// bloatSQL asks by the OID, so that a view that was renamed since its refresh is found, and one that is gone is no row.
//
// Up to 14 the counters of the refresh reach the statistics collector half a second late at best, so what it deleted is
// added; from 15 on refresh_succeeded has them flushed at the commit. The catalog has no page count after a plain refresh
// of a view without an index, and pg_relation_size takes a lock, so that is asked for only then.
const bloatSQL = `
select mvsched.view_name(c.oid), n.nspname::text, c.relname::text, clock_timestamp(), coalesce(s.vacuum, 'auto'),
       extract(epoch from s.next_run_at - clock_timestamp())::float8,
       greatest(pg_stat_get_dead_tuples(c.oid)
         + case when current_setting('server_version_num')::integer < 150000 then $3::bigint else 0 end, 0),
       greatest(pg_stat_get_live_tuples(c.oid), 0), greatest(pg_stat_get_mod_since_analyze(c.oid), 0),
       c.reltuples::float8,
       case when c.relpages > 0 then c.relpages
            else pg_relation_size(c.oid) / current_setting('block_size')::bigint end::bigint,
       c.relallvisible::bigint
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join mvsched.materialized_view_refresh_schedule s on s.id = $2::bigint
 where c.oid = $1::bigint::oid and c.relkind = 'm'`

// Bloat looks at a view that has just been refreshed; nil when it is gone.
func (s *Store) Bloat(ctx context.Context, oid uint32, scheduleID *int64, deleted int64) (*Bloat, error) {
	ctx, cancel := withDeadline(ctx, "looking for dead rows")
	defer cancel()
	found, err := read(ctx, s, "looking for dead rows", func(row pgx.CollectableRow) (b Bloat, err error) {
		var next *float64
		err = row.Scan(&b.View, &b.Schema, &b.Name, &b.At, &b.Mode, &next, &b.Dead, &b.Live, &b.Modified,
			&b.Rows, &b.Pages, &b.VisiblePages)
		b.NextRunIn = durationOrNil(next)
		return b, err
	}, bloatSQL, int64(oid), scheduleID, deleted)
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
