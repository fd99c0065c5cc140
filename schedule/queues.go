package schedule

import (
	"context"

	"github.com/jackc/pgx/v5"
)

const queuesSQL = `select distinct s.queue from mvsched.materialized_view_refresh_schedule s order by s.queue`

// Queues returns the queues that any schedule has, by name.
func (s *Store) Queues(ctx context.Context) ([]string, error) {
	ctx, cancel := withDeadline(ctx, "reading the queues")
	defer cancel()
	return read(ctx, s, "reading the queues", pgx.RowTo[string], queuesSQL)
}

// Interval arithmetic on times of the day: what is left of the day when the window is closed, also over midnight.
const windowedLagsSQL = `
select coalesce(mvsched.view_name(s.view_oid), s.materialized_view_name)
  from mvsched.materialized_view_refresh_schedule s
 where ($1::bigint[] is null or s.id = any ($1::bigint[]))
   and s.max_lag < case when s.window_start > s.window_end then s.window_start - s.window_end
                        else s.window_start - s.window_end + interval '24 hours' end
 order by 1`

// WindowedLags returns which of these views (nil: of all) have a target, max_lag, that is shorter than the time in which
// their window lets no refresh begin: that cannot be kept.
func (s *Store) WindowedLags(ctx context.Context, views []ViewName) ([]string, error) {
	ctx, cancel := withDeadline(ctx, "comparing targets with windows")
	defer cancel()
	ids, err := s.scheduleIDs(ctx, views)
	if err != nil {
		return nil, err
	}
	return read(ctx, s, "comparing targets with windows", pgx.RowTo[string], windowedLagsSQL, ids)
}
