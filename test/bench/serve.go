package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	sparseGap = 50 * time.Millisecond // between two views that come due one after the other
	idleTime  = 2 * time.Minute       // for which an idle server is watched
)

// measureServe looks at a server with free workers, and at one that has nothing to do.
func (b *bench) measureServe(ctx context.Context, out io.Writer) error {
	delays, err := b.startDelays(ctx)
	if err != nil {
		return err
	}
	statements, memory, err := b.idle(ctx)
	if err != nil {
		return err
	}
	table(out, "`serve`", [][]string{
		{"", "measured", "target"},
		{fmt.Sprintf("start delay with free workers, of %d views, one each %s: p50", len(delays), sparseGap), fmt.Sprintf("%.1f ms", median(delays)), "–"},
		{"p99", fmt.Sprintf("%.1f ms", percentile(delays, 99)), "≤ 20 ms"},
		{"idle: statements a minute", fmt.Sprintf("%.1f", statements), "≤ 2"},
		{"idle: resident memory", fmt.Sprintf("%.1f MiB", memory), "≤ 25 MiB"},
	})
	return nil
}

// startDelays are how long after its slot each of many views was claimed, in milliseconds.
func (b *bench) startDelays(ctx context.Context) (delays []float64, err error) {
	if err := b.exec(ctx, notDue); err != nil {
		return nil, err
	}
	server, err := b.serve(ctx, b.server.DSN(database), "-j", "8")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	since, err := b.lastExecution(ctx)
	if err != nil {
		return nil, err
	}
	err = b.exec(ctx, fmt.Sprintf(`update mvsched.materialized_view_refresh_schedule s
		set next_run_at = pg_catalog.now() + interval '1 second' + n * interval '%d milliseconds'
		from (select id, row_number() over (order by id) as n from mvsched.materialized_view_refresh_schedule) o where o.id = s.id`, sparseGap.Milliseconds()))
	if err != nil {
		return nil, err
	}
	for n := 0; n < b.views; {
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
		if n, _, _, err = b.records(ctx, since); err != nil {
			return nil, err
		}
	}
	rows, err := b.admin.Query(ctx, `select extract(epoch from started_at::pg_catalog.timestamptz - scheduled_at::pg_catalog.timestamptz)::float8 * 1000
		from mvsched.materialized_view_refresh_schedule_execution where id > $1`, since)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var ms float64
		if err := rows.Scan(&ms); err != nil {
			return nil, err
		}
		delays = append(delays, ms)
	}
	return delays, rows.Err()
}

// idle watches a server with nothing to do: its statements a minute, and its memory in MiB.
func (b *bench) idle(ctx context.Context) (statements, memory float64, err error) {
	if err := b.exec(ctx, notDue); err != nil {
		return 0, 0, err
	}
	c, err := b.count(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	server, err := b.serve(ctx, c.dsn, "-j", "8")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	watch := idleTime
	if b.quick {
		watch = 2 * time.Second
	}
	if err := pause(ctx, 5*time.Second); err != nil { // what it does at its start is not idleness
		return 0, 0, err
	}
	before := c.statements.Load()
	if err := pause(ctx, watch); err != nil {
		return 0, 0, err
	}
	statements = float64(c.statements.Load()-before) / watch.Minutes()
	memory, err = resident(server.cmd.Process.Pid)
	return statements, memory, err
}

// resident is a process's memory in MiB.
func resident(pid int) (float64, error) { return memoryOf(pid, "VmRSS:") }

// memoryOf is what the system tells of a process's memory under this heading, in MiB.
func memoryOf(pid int, heading string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, heading); ok {
			kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kB / 1024, err
		}
	}
	return 0, errors.New("the system tells no memory of a process")
}
