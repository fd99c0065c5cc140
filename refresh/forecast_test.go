package refresh_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// TestForecast compares what was foreseen with what a server with two places then does, a day's schedules in seconds. Where the machine
// itself has stood still meanwhile, that says nothing, and is done once more.
func TestForecast(t *testing.T) {
	for try := range 3 {
		var wrong []string
		var stood time.Duration
		t.Run(fmt.Sprint(try), func(t *testing.T) { wrong, stood = forecastAndServe(t) }) // a database of its own
		if stood < 100*time.Millisecond || len(wrong) == 0 {
			for _, what := range wrong {
				t.Error(what)
			}
			return
		}
		t.Logf("the machine stood still for %v: %v", stood, wrong)
	}
	t.Error("the machine stood still each time")
}

// standstill tells, when it is asked to end, for how long the machine or the server stood still.
func (b *bundle) standstill() (end func() time.Duration) {
	ctx, cancel := context.WithCancel(b.Context())
	longest := make(chan time.Duration, 1)
	go func() {
		var most time.Duration
		for ctx.Err() == nil {
			began := time.Now()
			if _, err := b.Pool.Exec(ctx, `select pg_sleep(0.01)`); err == nil {
				most = max(most, time.Since(began)-10*time.Millisecond)
			}
		}
		longest <- most
	}()
	return func() time.Duration {
		cancel()
		return <-longest
	}
}

func forecastAndServe(t *testing.T) (wrong []string, stood time.Duration) {
	t.Helper()
	const length = 10 * time.Second
	b := setupJobs(t, 2)
	errorf := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	intervals := map[string]time.Duration{}
	add := func(name string, took, interval time.Duration, spec, rest string) {
		b.Exec(fmt.Sprintf("create materialized view public.%s as select 1 as id from pg_sleep(%f) %s", name, took.Seconds(), rest))
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, vacuum, ` + spec)
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (materialized_view_refresh_schedule_id, view_name, view_oid,
			       status, method, scheduled_at, started_at, ended_at, data_as_of, refreshed_at)
			select s.id, s.materialized_view_name, s.view_oid, 'succeeded', 'plain', begun, begun, begun + make_interval(secs => $2), begun, begun
			  from mvsched.materialized_view_refresh_schedule s, generate_series(now() - interval '1 hour', now(), interval '3 minutes') begun
			 where s.materialized_view_name = $1`, "public."+name, (took + 15*time.Millisecond).Seconds())
		intervals["public."+name] = interval
	}
	const second = time.Second
	add("quick", 200*time.Millisecond, 2*second, `refresh_interval) values ('public.quick', 'never', '2 s')`, "")
	add("follow", 100*time.Millisecond, 2*second, `after_parents) values ('public.follow', 'never', true)`, "cross join public.quick")
	add("slow1", 2200*time.Millisecond, 4*second, `refresh_interval) values ('public.slow1', 'never', '4 s')`, "with no data")
	add("slow2", 2000*time.Millisecond, 4*second, `refresh_interval) values ('public.slow2', 'never', '4 s')`, "with no data")
	add("rest", 300*time.Millisecond, 2800*time.Millisecond, `refresh_delay) values ('public.rest', 'never', '2.5 s')`, "")
	add("fresh", 200*time.Millisecond, 3*second, `max_lag) values ('public.fresh', 'never', '3 s')`, "")
	// The slow ones come together, and there are two workers.
	b.Exec(`update mvsched.materialized_view_refresh_schedule s
		set last_attempted_at = now(), next_run_at = now() + case materialized_view_name when 'public.quick' then interval '1 s'
			when 'public.slow1' then interval '3.1 s' when 'public.slow2' then interval '3.2 s' when 'public.rest' then interval '1.7 s' end`)
	if _, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1}); err != nil { // what reads what
		t.Fatal(err)
	}

	forecast, err := b.store.Forecast(t.Context(), schedule.ForecastOptions{For: length, Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(length))
	defer cancel()
	end := b.standstill()
	if err := b.worker.Serve(ctx, refresh.Serving{Grace: 5 * second}); err != nil {
		t.Fatal(err)
	}
	stood = end()
	happened := map[string][]schedule.Execution{}
	executions, err := b.store.History(t.Context(), schedule.HistoryFilter{})
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]schedule.Execution{}
	for _, e := range executions {
		if e.StartedAt.Before(forecast.From) {
			if _, known := before[e.View]; !known {
				before[e.View] = e
			}
			continue
		}
		happened[e.View] = append([]schedule.Execution{e}, happened[e.View]...)
	}
	seen := map[string]int{}
	waited := 0
	for _, predicted := range forecast.Runs {
		i := seen[predicted.View]
		seen[predicted.View]++
		if predicted.ForWorker > 100*time.Millisecond {
			waited++
		}
		if i >= len(happened[predicted.View]) {
			if predicted.StartsAt.Before(forecast.Until.Add(-second / 2)) {
				errorf("%s did not start, %v after the beginning", predicted.View, predicted.StartsAt.Sub(forecast.From))
			}
			continue
		}
		off := happened[predicted.View][i].StartedAt.Sub(predicted.StartsAt)
		t.Logf("%-14s %8v %v", predicted.View, predicted.StartsAt.Sub(forecast.From).Round(time.Millisecond), off.Round(time.Millisecond))
		if off.Abs() > intervals[predicted.View]/10 {
			errorf("%s started %v beside the forecast", predicted.View, off)
		}
	}
	for view, runs := range happened {
		if len(runs) > seen[view]+1 || len(runs) == seen[view]+1 && runs[seen[view]].StartedAt.Before(forecast.Until.Add(-second/2)) {
			errorf("%s ran %d times, and %d were foreseen", view, len(runs), seen[view])
		}
	}
	if waited < 3 {
		errorf("only %d runs were to wait for a worker: the test is too easy", waited)
	}
	for _, v := range forecast.Views {
		if age := oldest(before[v.View], happened[v.View], forecast.Until); (age - *v.MaxAge).Abs() > intervals[v.View]/10 {
			errorf("the data of %s got %v old, foreseen was %v", v.View, age, *v.MaxAge)
		}
	}
	return wrong, stood
}

// oldest is how old a view's data got.
func oldest(before schedule.Execution, runs []schedule.Execution, until time.Time) (most time.Duration) {
	data := *before.DataAsOf
	for _, e := range runs {
		if e.DataAsOf != nil && e.EndedAt.Before(until) {
			most = max(most, e.EndedAt.Sub(data))
			data = *e.DataAsOf
		}
	}
	return max(most, until.Sub(data))
}
