package schedule

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Activity is what workers do, over all views, by hand or by schedule.
type Activity struct {
	Running       int            // executions that are open
	Workers       int            // processes that have one
	OldestRunning *time.Duration // since the first of them was claimed; nil: none is open
	LastHour      []Ended        // one for each way to end, always in the same order
}

// Ended sums the executions that ended in such a way.
type Ended struct {
	Status Status
	Count  int64
	Took   time.Duration // together, from claim to end
}

const runningSQL = `
select count(*), count(distinct e.worker), extract(epoch from max(clock_timestamp() - e.started_at))::float8
  from mvsched.materialized_view_refresh_schedule_execution e
 where e.status = 'running'`

// The last hour: so much of the history is always there, whatever retention says (it keeps an hour at the least), so the
// numbers go up and down with what happens, and not with what is deleted. And it is an index scan over few rows.
const lastHourSQL = `
select ended.status, count(e.id), coalesce(extract(epoch from sum(e.ended_at - e.started_at)), 0)::float8
  from unnest($2::text[]) with ordinality as ended (status, place)
  left join mvsched.materialized_view_refresh_schedule_execution e
    on e.status = ended.status and e.ended_at > coalesce($1::timestamptz, now()) - interval '1 hour'
 group by ended.status, ended.place
 order by ended.place`

// endings are the ways for an execution to end, in the order in which they are told.
func endings() []string {
	return []string{string(Succeeded), string(Skipped), string(Failed), string(TimedOut), string(Cancelled), string(Abandoned)}
}

// Activity is as Store.Activity says, as of the snapshot. Of a last hour with more runs than a snapshot keeps it knows those.
func (s Snapshot) Activity() (a Activity) {
	workers := map[string]bool{}
	ended := map[Status]Ended{}
	for _, e := range s.Runs {
		if e.EndedAt != nil {
			if s.At.Sub(*e.EndedAt) < time.Hour {
				sum := ended[e.Status]
				ended[e.Status] = Ended{Status: e.Status, Count: sum.Count + 1, Took: sum.Took + e.EndedAt.Sub(e.StartedAt)}
			}
			continue
		}
		a.Running++
		if e.Worker != nil {
			workers[*e.Worker] = true
		}
		if since := s.At.Sub(e.StartedAt); a.OldestRunning == nil || since > *a.OldestRunning {
			a.OldestRunning = &since
		}
	}
	a.Workers = len(workers)
	for _, name := range endings() {
		sum := ended[Status(name)]
		sum.Status = Status(name)
		a.LastHour = append(a.LastHour, sum)
	}
	return a
}

// Activity tells what workers do, and did within the last hour.
func (s *Store) Activity(ctx context.Context) (a Activity, err error) {
	ctx, cancel := withDeadline(ctx, "reading the activity")
	defer cancel()
	var oldest *float64
	err = s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(runningSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&a.Running, &a.Workers, &oldest) })
		batch.Queue(lastHourSQL, s.now(), endings()).Query(collect(&a.LastHour, func(row pgx.CollectableRow) (e Ended, err error) {
			var took float64
			err = row.Scan(&e.Status, &e.Count, &took)
			e.Took = duration(took)
			return e, err
		}))
	})
	if err != nil {
		return Activity{}, fmt.Errorf("reading the activity: %w", err)
	}
	a.OldestRunning = elapsedOrNil(oldest)
	return a, nil
}
