package schedule

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// An update leaves a row on its page where there is room, and plain VACUUM gives back only pages at the end of a table. So
// while a transaction that is open for long keeps what is dead from being removed, the schedules' table grows, and when that
// has ended it stays as long as it was: and whatever reads all schedules, such as the status, reads all of it, for good.

// scatteredSQL reports whether the schedules have much more room than they need, and so few rows that it takes no time to
// write them anew, by what the last VACUUM has found: fewer than four rows on a page, of about thirty that there is room for.
const scatteredSQL = `(
  select c.relpages > 64 + c.reltuples / 4 and c.reltuples < 20000 and pg_has_role(c.relowner, 'usage')
    from pg_catalog.pg_class c
   where c.oid = 'mvsched.materialized_view_refresh_schedule'::regclass)`

// removableSQL reports whether most of that room is free: what is dead and cannot be removed yet would be written anew as well.
const removableSQL = `
select pg_catalog.pg_stat_get_dead_tuples(c.oid) < 4 * c.relpages
  from pg_catalog.pg_class c
 where c.oid = 'mvsched.materialized_view_refresh_schedule'::regclass`

// Nobody waits for the lock, neither this statement nor what would queue behind it. With it, it takes milliseconds.
const compactSQL = `vacuum (full, skip_locked) mvsched.materialized_view_refresh_schedule`

// How often the lock is tried for, and how far apart: claims hold one for a millisecond each.
const (
	compactTries = 40
	compactPause = 20 * time.Millisecond
)

// Compact writes the schedules' table anew, without the room that it does not need; unless somebody is always at it, or an open
// transaction keeps what is dead from being removed: then the next one may. See Outlook.Scattered for when that is due.
func (s *Store) Compact(ctx context.Context) (err error) {
	ctx, cancel := withDeadline(ctx, "compacting the schedules")
	defer cancel()
	defer func() {
		if err != nil {
			err = fmt.Errorf("compacting the schedules: %w", err)
		}
	}()
	var removable, scattered bool
	if err := s.db.QueryRow(ctx, removableSQL).Scan(&removable); err != nil || !removable {
		return err
	}
	for range compactTries {
		if _, err := s.db.Exec(ctx, compactSQL); err != nil {
			return err
		}
		if err := s.db.QueryRow(ctx, `select `+scatteredSQL).Scan(&scattered); err != nil || !scattered {
			return err
		}
		if !pause(ctx, rand.N(compactPause)) { //nolint:gosec // jitter
			return context.Cause(ctx)
		}
	}
	return nil
}
