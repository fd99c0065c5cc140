package schedule

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// An update leaves a row on its page where there is room, and plain VACUUM gives back only pages at the end of a table. So
// while a transaction that is open for long keeps what is dead from being removed, the schedules' table grows, and when that
// has ended it stays as long as it was: whatever reads all schedules, such as the status, reads all of it, for good.

// scatteredSQL reports whether the schedules have much more room than they need, by what the last VACUUM has found: fewer than
// four rows on a page, of about thirty that there is room for. Where there are so many rows or pages (64 MB) that it would be
// noticed, writing them anew is left to people, as it is where we may not.
const scatteredSQL = `(
  select c.relpages > 64 + c.reltuples / 4 and c.reltuples < 20000 and c.relpages < 8192 and pg_has_role(c.relowner, 'usage')
    from pg_catalog.pg_class c
   where c.oid = 'mvsched.materialized_view_refresh_schedule'::regclass)`

// compactableSQL adds whether most of that room is free, since what is dead and cannot be removed yet would be written anew as
// well, and whether somebody is at the table: the server would log a warning for each time that it is not to be had.
const compactableSQL = `
select ` + scatteredSQL + ` and pg_stat_get_dead_tuples(c.oid) < 4 * c.relpages,
       exists (select
                 from pg_catalog.pg_locks l
                where l.locktype = 'relation' and l.relation = c.oid
                  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database()))
  from pg_catalog.pg_class c
 where c.oid = 'mvsched.materialized_view_refresh_schedule'::regclass`

// It does not wait for the table's lock, or all that comes after it would queue behind it.
const compactSQL = `vacuum (full, skip_locked) mvsched.materialized_view_refresh_schedule`

// How long it may be tried and how often, since somebody may be quicker; and how often it is looked whether nobody is at the
// table, and how far apart: claims are for a millisecond each.
const (
	compactTime  = 2 * time.Second
	compactTries = 3
	compactLooks = 20
	compactPause = 20 * time.Millisecond
)

// Compact writes the schedules' table anew, without the room that it does not need; unless somebody is always at it, or an open
// transaction keeps what is dead from being removed: then the next one may. See Outlook.Scattered for when that is due.
func (s *Store) Compact(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, compactTime)
	defer cancel()
	tries := 0
	for range compactLooks {
		var compactable, busy bool
		err := s.send(ctx, func(batch *pgx.Batch) {
			batch.Queue(compactableSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&compactable, &busy) })
		})
		if err == nil && !compactable {
			return nil
		}
		if err == nil && !busy {
			if tries++; tries > compactTries {
				return nil
			}
			_, err = s.db.Exec(ctx, compactSQL)
		}
		if err != nil {
			return fmt.Errorf("compacting the schedules: %w", err)
		}
		if !pause(ctx, rand.N(compactPause)) { //nolint:gosec // jitter
			return nil
		}
	}
	return nil
}
