package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// crowds are how many workers refresh what is due, in how many processes of `mvsched run`.
var crowds = []struct {
	processes, jobs int
	killed          bool // one of the processes after the other, every half second
}{{1, 1, false}, {2, 5, false}, {2, 25, false}, {2, 25, true}, {4, 50, false}}

// crowdConnections let two hundred workers in, each with a place for another connection.
const crowdConnections = "max_connections=600"

// crowd has many views due at once, refreshed by few workers and by many, and looks whether each was refreshed exactly once,
// how late, and whether claiming them still goes by an index.
func crowd(ctx context.Context, o options) (string, error) {
	var s site
	defer s.close()
	if err := s.open(ctx, o.binary, crowded, func(string) {}); err != nil {
		return "", err
	}
	const database = "crowd"
	err := execute(ctx, s.server, "postgres", `create database crowd template `+template, `alter database crowd owner to worker`)
	if err != nil {
		return "", err
	}
	var statements []string
	for i := 0; i < o.crowd; i += 50 { // each in a transaction of its own: a server has so many locks
		statements = append(statements, fmt.Sprintf(`do $$ begin
			for i in %d..%d loop
				execute format('create materialized view chaos.crowd%%s as select 1 as id', i);
				execute format('alter materialized view chaos.crowd%%s owner to worker', i);
				insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
				values (format('chaos.crowd%%s', i), '1 day', now() + '1 day');
			end loop; end $$`, i, min(i+50, o.crowd)-1))
	}
	if err := execute(ctx, s.server, database, append(statements, `analyze`)...); err != nil {
		return "", err
	}
	conn, err := pgx.Connect(ctx, s.server.DSN(database))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	var b strings.Builder
	fmt.Fprintf(&b, "%s views due at once, PostgreSQL %s\n\n| workers | processes | killed | seconds | views/s | begun after, p50 | p99 | max, s | lock busy | refreshed not exactly once | rows read by scans of the schedules, a claim |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
		thousands(o.crowd), s.server.Version())
	var wrong error
	for _, c := range crowds {
		line, err := crowdRound(ctx, conn, &s, o.crowd, c.processes, c.jobs, c.killed)
		if err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("%d workers: %w", c.processes*c.jobs, err))
		}
		b.WriteString(line)
	}
	return b.String(), wrong
}

const (
	crowdDueSQL  = `update mvsched.materialized_view_refresh_schedule set next_run_at = clock_timestamp() returning next_run_at`
	crowdScanSQL = `select seq_tup_read from pg_catalog.pg_stat_user_tables where relid = 'mvsched.materialized_view_refresh_schedule'::regclass`
	crowdPaceSQL = `
select count(*), count(*) filter (where e.reason = 'lock_busy'), coalesce(max(lag[1]), 0), coalesce(max(lag[2]), 0), coalesce(max(lag[3]), 0)
  from (select percentile_cont(array[0.5, 0.99, 1]) within group (order by extract(epoch from started_at - scheduled_at)::float8)
          from mvsched.materialized_view_refresh_schedule_execution where id > $1 and status = 'succeeded') x (lag),
       mvsched.materialized_view_refresh_schedule_execution e
 where e.id > $1`
	crowdMissingSQL = `
select exists (
  select from mvsched.materialized_view_refresh_schedule s
   where not exists (select from mvsched.materialized_view_refresh_schedule_execution e
                      where e.materialized_view_refresh_schedule_id = s.id and e.id > $1 and e.status = 'succeeded'))`
	crowdWrongSQL = `
select count(*) from mvsched.materialized_view_refresh_schedule s
 where (select count(*) from mvsched.materialized_view_refresh_schedule_execution e
         where e.materialized_view_refresh_schedule_id = s.id and e.id > $1 and e.status = 'succeeded') <> 1`
)

func crowdRound(ctx context.Context, conn *pgx.Conn, s *site, views, processes, jobs int, killed bool) (string, error) {
	var before, scansBefore, scans int64
	err := errors.Join(
		conn.QueryRow(ctx, `select coalesce(max(id), 0) from mvsched.materialized_view_refresh_schedule_execution`).Scan(&before),
		conn.QueryRow(ctx, crowdScanSQL).Scan(&scansBefore))
	if err != nil {
		return "", err
	}
	if _, err := conn.Exec(ctx, crowdDueSQL); err != nil {
		return "", err
	}
	began := time.Now()
	kills := 0
	for missing := true; missing && ctx.Err() == nil; { // a lock that was not to be had is tried for again after seconds
		n, err := crowdRun(ctx, s, processes, jobs, killed && kills == 0)
		if err != nil {
			return "", err
		}
		kills += n
		if err := conn.QueryRow(ctx, crowdMissingSQL, before).Scan(&missing); err != nil {
			return "", err
		}
	}
	took := time.Since(began)
	var claims, busy, bad int64
	var p50, p99, longest float64
	if err := errors.Join(
		conn.QueryRow(ctx, crowdPaceSQL, before).Scan(&claims, &busy, &p50, &p99, &longest),
		conn.QueryRow(ctx, crowdWrongSQL, before).Scan(&bad),
		conn.QueryRow(ctx, crowdScanSQL).Scan(&scans)); err != nil {
		return "", err
	}
	line := fmt.Sprintf("| %d | %d | %d | %.1f | %.0f | %.1f | %.1f | %.1f | %d | %d | %.1f |\n", processes*jobs, processes, kills, took.Seconds(),
		float64(views)/took.Seconds(), p50, p99, longest, busy, bad, float64(scans-scansBefore)/float64(max(claims, 1)))
	if bad > 0 {
		err = fmt.Errorf("%d views were not refreshed exactly once", bad)
	}
	return line, err
}

// crowdRun lets the processes run until nothing is due. One that is killed begins anew, until there is one that ends by itself.
func crowdRun(ctx context.Context, s *site, processes, jobs int, killed bool) (kills int, err error) {
	var all sync.WaitGroup
	var mu sync.Mutex
	for i := range processes {
		all.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				limit, cancel := context.WithTimeout(ctx, 20*time.Minute)
				if killed && round < 4 {
					limit, cancel = context.WithTimeout(ctx, time.Duration(i+round+1)*500*time.Millisecond)
				}
				cmd := exec.CommandContext(limit, s.binary, "run", "-j", fmt.Sprint(jobs))
				cmd.Env = []string{"PATH=/usr/bin:/bin", "MVSCHED_DATABASE_URL=" + s.server.DSN("crowd") + " user=worker"}
				out, failed := cmd.CombinedOutput()
				over := limit.Err() == nil
				cancel()
				mu.Lock()
				if !over {
					kills++
				} else if failed != nil && cmd.ProcessState.ExitCode() != 1 { // 1: not all has gone well, such as a lock
					err = errors.Join(err, fmt.Errorf("%w: %s", failed, tail(string(out))))
				}
				mu.Unlock()
				if over {
					return
				}
			}
		})
	}
	all.Wait()
	return kills, err
}
