package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	mixedServers = 2
	mixedWorkers = 4 // of each server
	mixedTables  = 10
	mixedWrites  = 2 * time.Second // from one write to the next, which is to another table
	mixedAlone   = 5 * time.Second // of one server, until there is another in the place of the killed one
	mixedLate    = 5 * time.Second // what became due so shortly before the end need not have begun
)

// kind is one of the kinds of schedules.
type kind int

const (
	every kind = iota
	jittered
	after
	cron
	parents
	changed
	lag
)

var kindNames = [...]string{
	every: "`--every`", jittered: "`--every` with `--jitter`", after: "`--after`", cron: "`--cron`", parents: "`--after-parents`",
	changed: "`--on-change`", lag: "`--max-lag`",
}

// kindTurn is in which order schedules have their kinds, over and over; so it has their shares, too.
var kindTurn = [...]kind{
	every, after, cron, every, parents, jittered, every, changed, lag, after,
	every, cron, every, parents, jittered, every, after, changed, every, lag,
}

// mixedSchedule is a view and its schedule.
type mixedSchedule struct {
	kind   kind
	view   string
	query  string
	values string // of refresh_interval, jitter, refresh_delay, cron, after_parents, on_change, max_lag and next_run_at, in SQL
	clock  clock
}

// mixedSchedules are so many of all kinds. What kinds have an interval is spread from the shortest to the longest, and begins at
// another instant each.
func mixedSchedules(n int, began time.Time, shorter int) []mixedSchedule {
	began = began.Truncate(time.Millisecond) // the database has no nanoseconds
	var all []mixedSchedule
	var parent string
	for i := range n {
		spread := func(from, to int) time.Duration {
			return (time.Duration(from)*time.Second + time.Duration((to-from)*1000*i/n)*time.Millisecond) / time.Duration(shorter)
		}
		s := mixedSchedule{kind: kindTurn[i%len(kindTurn)], view: fmt.Sprintf("public.m%d", i)}
		// In each turn of the kinds from another table on, so that no kind is always of the same.
		table := (i + i/len(kindTurn)) % mixedTables
		if s.query = fmt.Sprintf("select t.id, t.n from public.t%d t where t.id <= 20", table); i/len(kindTurn)%2 == 1 {
			s.query = fmt.Sprintf("select t.n %% 10 as id, pg_catalog.count(*) as n from public.t%d t group by 1", table)
		}
		switch s.kind {
		case every, jittered:
			s.clock.gap = spread(20, 90).Truncate(time.Millisecond)
			s.clock.first = began.Add((s.clock.gap * time.Duration(i) / time.Duration(n)).Truncate(time.Millisecond))
			jitter := "null"
			if parent = s.view; s.kind == jittered {
				jitter = "'4 seconds'"
			}
			s.values = fmt.Sprintf("%s, %s, null, null, false, false, null, '%s'", interval(s.clock.gap), jitter, s.clock.first.UTC().Format(time.RFC3339Nano))
		case after:
			s.values = fmt.Sprintf("null, null, %s, null, false, false, null, null", interval(spread(15, 60)))
		case cron:
			minutes := 1 + i/len(kindTurn)%2
			s.clock = clock{first: time.Unix(0, 0), gap: time.Duration(minutes) * time.Minute}
			s.values = fmt.Sprintf("null, null, null, '%s * * * *', false, false, null, null", [...]string{1: "*", 2: "*/2"}[minutes])
		case parents:
			s.query = "select p.id, p.n from " + parent + " p"
			s.values = "null, null, null, null, true, false, null, null"
		case changed:
			s.values = "null, null, null, null, false, true, null, null"
		case lag:
			s.values = fmt.Sprintf("null, null, null, null, false, false, %s, null", interval(spread(60, 120)))
		}
		all = append(all, s)
	}
	return all
}

// interval is a duration in SQL.
func interval(d time.Duration) string { return fmt.Sprintf("'%d milliseconds'", d.Milliseconds()) }

// measureMixed has two servers refresh views of schedules of all kinds, kills one of them in the middle, and looks at when
// each execution began, and whether each slot had one success.
func (b *bench) measureMixed(ctx context.Context, out io.Writer) (err error) {
	s, err := b.newScale(ctx, 0, "autovacuum=on")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	warmUp, shorter := time.Minute, 1
	if b.quick {
		warmUp, shorter = 2*time.Second, 3
	}
	schedules := mixedSchedules(b.mixed, time.Now(), shorter)
	if err := s.createMixed(ctx, schedules); err != nil {
		return err
	}
	times, err := s.serveMixed(ctx, warmUp)
	if err != nil {
		return err
	}
	executions, err := s.mixedExecutions(ctx, schedules)
	if err != nil {
		return err
	}
	v := judge(schedules, executions, times, mixedServers*mixedWorkers)
	table(out, fmt.Sprintf("%d `serve -j %d`, %d schedules of all kinds, %s, one killed in the middle", mixedServers, mixedWorkers, b.mixed, b.mixedFor), v.rows())
	return v.err()
}

// createMixed makes the tables, the views and the schedules.
func (s *scale) createMixed(ctx context.Context, schedules []mixedSchedule) error {
	for i := range mixedTables {
		err := s.exec(ctx, fmt.Sprintf(`create table public.t%d (id integer primary key, n integer not null)`, i),
			fmt.Sprintf(`insert into public.t%d select g, g from pg_catalog.generate_series(1, 100) g`, i))
		if err != nil {
			return err
		}
	}
	for _, m := range schedules {
		err := s.exec(ctx, fmt.Sprintf(`create materialized view %s as %s`, m.view, m.query),
			fmt.Sprintf(`create unique index on %s (id)`, m.view),
			fmt.Sprintf(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, jitter, refresh_delay, cron,
				after_parents, on_change, max_lag, next_run_at) values ('%s', %s)`, m.view, m.values))
		if err != nil {
			return err
		}
	}
	return s.exec(ctx, `analyze`)
}

// serveMixed serves for the time that is asked for, with one of the servers killed in the middle of it.
func (s *scale) serveMixed(ctx context.Context, warmUp time.Duration) (t mixedTimes, err error) {
	var servers []*server
	defer func() {
		for _, server := range servers {
			err = errors.Join(err, server.end())
		}
	}()
	start := func() error {
		server, err := s.serve(ctx, s.server.DSN("postgres"), "-j", strconv.Itoa(mixedWorkers))
		if err == nil {
			servers = append(servers, server)
		}
		return err
	}
	for range mixedServers {
		if err := start(); err != nil {
			return t, err
		}
	}
	writes := 0
	write := func(until time.Time) error {
		for left := time.Until(until); left > 0; left = time.Until(until) {
			if err := pause(ctx, min(mixedWrites, left)); err != nil {
				return err
			}
			if err := s.exec(ctx, fmt.Sprintf(`update public.t%d set n = n + 1 where id <= 5`, writes%mixedTables)); err != nil {
				return err
			}
			writes++
		}
		return nil
	}
	t.from = time.Now().Add(warmUp)
	end := t.from.Add(s.mixedFor)
	if err := write(t.from.Add(s.mixedFor / 2)); err != nil {
		return t, err
	}
	killed := servers[0]
	servers = servers[1:]
	t.killed = time.Now()
	if err := killed.kill(); err != nil {
		return t, err
	}
	if err := write(t.killed.Add(mixedAlone)); err != nil {
		return t, err
	}
	if err := start(); err != nil {
		return t, err
	}
	t.restored = time.Now()
	t.until = end.Add(-mixedLate)
	return t, write(end)
}

// mixedExecutions reads the history.
func (s *scale) mixedExecutions(ctx context.Context, schedules []mixedSchedule) ([]execution, error) {
	places := map[string]int{}
	for i, m := range schedules {
		places[m.view] = i
	}
	rows, err := s.admin.Query(ctx, `select e.view_name::text, e.status::text, e.attempt::integer, e.scheduled_at::pg_catalog.timestamptz,
		       e.started_at::pg_catalog.timestamptz, e.ended_at::pg_catalog.timestamptz
		  from mvsched.materialized_view_refresh_schedule_execution e order by e.id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e execution, err error) {
		var view string
		err = row.Scan(&view, &e.status, &e.attempt, &e.slot, &e.started, &e.ended)
		e.schedule = places[view]
		return e, err
	})
}

// rows are the table of a verdict.
func (v *verdict) rows() [][]string {
	number := strconv.Itoa
	delays := func(what string, n int, ms []float64, target string) []string {
		if len(ms) == 0 {
			return []string{what, number(n), "–", "–", "–", target}
		}
		return []string{what, number(n), fmt.Sprintf("%.1f", median(ms)), fmt.Sprintf("%.1f", percentile(ms, 99)), fmt.Sprintf("%.1f", percentile(ms, 100)), target}
	}
	rows := [][]string{
		{"", "number", "start delay, ms: p50", "p99", "greatest", "target"},
		delays("executions", v.executions, v.all, "–"),
	}
	for k, name := range kindNames {
		rows = append(rows, delays(name, v.kinds[k].executions, v.kinds[k].delays, "–"))
	}
	count := func(what string, n int, target string) []string { return []string{what, number(n), "", "", "", target} }
	rows = append(rows, delays("with free workers", len(v.free), v.free, "p99 ≤ 50 ms"))
	for k, name := range kindNames {
		if free := v.kinds[k].free; len(free) > 0 {
			rows = append(rows, delays("of these "+name, len(free), free, "–"))
		}
	}
	return append(rows,
		count("left out there: with one server alone", v.alone, "–"),
		count("executions that were no success", v.unsuccessful, "–"),
		count("slots with two successes", v.doubled, "0"),
		count("missed slots", v.missed, "0"),
		count("left running", v.running, "0"))
}
