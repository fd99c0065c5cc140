package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// bytesPerRow is about what a row of the big view takes.
const bytesPerRow = 136

// measureBig compares one refresh of a big view, in which nothing has changed, by mvsched's process with a bare one.
func (b *bench) measureBig(ctx context.Context, out io.Writer) (err error) {
	rows := b.bigMB * 1024 * 1024 / bytesPerRow
	err = b.exec(ctx, notDue,
		fmt.Sprintf(`create table public.big_base as select g as id, repeat(md5(g::text), 3) as words from generate_series(1, %d) g`, rows),
		`analyze public.big_base`,
		`create materialized view public.big as select id, words from public.big_base`,
		`create unique index on public.big (id)`, `analyze public.big`,
		`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
			values ('public.big', '1 day', now() + interval '1 day')`)
	if err != nil {
		return err
	}
	var size float64
	if err := b.admin.QueryRow(ctx, `select pg_relation_size('public.big') / 1048576.0`).Scan(&size); err != nil {
		return err
	}
	if err := b.exec(ctx, `alter database `+database+` set log_min_duration_statement = 0`); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, b.exec(ctx, `alter database `+database+` reset log_min_duration_statement`))
	}()
	var memory []float64 // the most that mvsched's process had, in MiB
	run := func(ctx context.Context) error {
		cmd := b.command(ctx, b.server.DSN(database), "run", "-q")
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			return err
		}
		most := make(chan float64)
		go func() { most <- watchMemory(cmd.Process.Pid) }()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("mvsched run: %w: %s", err, said.String())
		}
		memory = append(memory, <-most)
		return nil
	}
	if err := b.exec(ctx, `update mvsched.materialized_view_refresh_schedule set next_run_at = now() where materialized_view_name = 'public.v1'`); err != nil {
		return err
	}
	if err := run(ctx); err != nil { // of a view of one row, to compare the memory
		return err
	}
	ways := []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"bare", func(ctx context.Context) error {
			conn, err := pgx.Connect(ctx, b.server.DSN(database))
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close(ctx) }()                                                                        // it has done its work
			_, err = conn.Exec(ctx, `refresh materialized view concurrently public.big`, pgx.QueryExecModeSimpleProtocol) // as psql
			return err
		}},
		{"mvsched `run`", run},
	}
	wall, cpu, beside := make([][]float64, len(ways)), make([][]float64, len(ways)), make([][]float64, len(ways))
	for round := range b.rounds + 1 {
		for turn := range ways {
			i := (turn + round) % len(ways)
			if err := b.exec(ctx, `update mvsched.materialized_view_refresh_schedule set next_run_at = now() where materialized_view_name = 'public.big'`); err != nil {
				return err
			}
			logged, err := os.Stat(b.server.LogFile())
			if err != nil {
				return err
			}
			m, err := b.newMeter(ctx)
			if err != nil {
				return err
			}
			began := time.Now()
			if err := ways[i].do(ctx); err != nil {
				return err
			}
			took := time.Since(began)
			spent, err := m.read(ctx)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(b.server.LogFile())
			if err != nil {
				return err
			}
			itself, err := refreshTime(string(text[logged.Size():]))
			if err != nil {
				return err
			}
			if round > 0 { // the first fills caches
				wall[i], cpu[i] = append(wall[i], took.Seconds()), append(cpu[i], spent.Seconds())
				beside[i] = append(beside[i], 100*(took-itself).Seconds()/itself.Seconds())
			}
		}
	}
	lines := [][]string{{"", "wall, s", "of bare", "server CPU, s", "of bare", "beside the statement and its commit, % of them", "target"}}
	for i, w := range ways {
		target := "–"
		if i > 0 {
			target = "≤ 0.5 % more (of 1 GB)"
		}
		lines = append(lines, []string{
			w.name, fmt.Sprintf("%.2f", median(wall[i])), spread("%.3f", ratios(wall[i], wall[0])),
			fmt.Sprintf("%.2f", median(cpu[i])), spread("%.3f", ratios(cpu[i], cpu[0])), spread("%.3f", beside[i]), target,
		})
	}
	lines = append(lines,
		[]string{"the process's memory at the most, MiB", fmt.Sprintf("%.1f", slices.Max(memory[1:])), "", "", "", "", "–"},
		[]string{"with a view of one row", fmt.Sprintf("%.1f", memory[0]), "", "", "", "", "the same"})
	table(out, fmt.Sprintf("One view of %.0f MB, refreshed concurrently, nothing changed", size), lines)
	return nil
}

// watchMemory returns the most that a process has had, in MiB, when it has ended. The kernel's account of a child that has been
// waited for does not tell: it begins with what its parent had.
func watchMemory(pid int) (most float64) {
	for {
		now, err := memoryOf(pid, "VmHWM:")
		if err != nil {
			return most
		}
		most = max(most, now)
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // nothing tells that it has grown
	}
}

// A statement with what it took, and the session, in the server's log.
var loggedStatement = regexp.MustCompile(`\[(\d+)\] LOG:  duration: ([0-9.]+) ms  (?:statement|execute [^:]*): (refresh materialized view|commit)`)

// refreshTime is how long a refresh and its commit took, by the server's log: alone, they are what a bare refresh is. All
// else of a process's time is what it adds; so whatever else the machine does in that minute hardly disturbs it.
func refreshTime(log string) (took time.Duration, err error) {
	var session string
	for _, match := range loggedStatement.FindAllStringSubmatch(log, -1) {
		ms, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			return 0, err
		}
		switch {
		case match[3] != "commit":
			session, took = match[1], time.Duration(ms*float64(time.Millisecond))
		case match[1] == session:
			return took + time.Duration(ms*float64(time.Millisecond)), nil
		}
	}
	if took == 0 {
		return 0, errors.New("the server's log has no refresh")
	}
	return took, nil
}
