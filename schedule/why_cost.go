package schedule

import (
	"fmt"
	"strings"
)

// refreshCost is what the last successes of a view took and changed.
type refreshCost struct {
	Concurrent int      // how many were concurrent
	Takes      *float64 // seconds: their median
	Changed    *float64 // the median share of its rows that they wrote; nil: not known
	Plain      *float64 // seconds: the median of the plain ones
}

// changedShare is the part of a view's rows that a concurrent refresh has inserted or deleted, of those before or after it,
// whichever are more.
const changedShare = `greatest(e.rows_inserted, e.rows_deleted)::float8 / nullif(e.rows_kept + greatest(e.rows_inserted, e.rows_deleted), 0)`

const whyCostSQL = whyScheduleSQL + `
select count(*) filter (where e.method = 'concurrently'),
       percentile_cont(0.5) within group (order by e.seconds) filter (where e.method = 'concurrently'),
       percentile_cont(0.5) within group (order by e.changed),
       percentile_cont(0.5) within group (order by e.seconds) filter (where e.method = 'plain')
  from it
 cross join lateral (
         select e.method, extract(epoch from e.ended_at - e.started_at)::float8 as seconds, ` + changedShare + ` as changed
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.materialized_view_refresh_schedule_id = it.id and e.status = 'succeeded'
          order by e.id desc
          limit 50
       ) e`

// reason says it in a sentence; false where there has been no concurrent refresh.
func (c refreshCost) reason() (Reason, bool) {
	if c.Concurrent == 0 || c.Takes == nil {
		return Reason{}, false
	}
	var message strings.Builder
	fmt.Fprintf(&message, "its concurrent refreshes take %s", FormatSpan(duration(*c.Takes)))
	if c.Changed != nil {
		fmt.Fprintf(&message, " and write %s of its rows", percent(*c.Changed))
	}
	if c.Plain != nil {
		fmt.Fprintf(&message, "; plain ones took %s", FormatSpan(duration(*c.Plain)))
	}
	return Reason{Code: WhyCost, Message: message.String()}, true
}

// percent is a share for people.
func percent(share float64) string {
	switch p := 100 * share; {
	case p == 0:
		return "none"
	case p < 1:
		return "less than 1%"
	default:
		return fmt.Sprintf("%.0f%%", p)
	}
}
