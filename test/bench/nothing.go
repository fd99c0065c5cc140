package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"
)

// startsPerRound is how often each program is started in a round: its time is short, and a start is easily disturbed.
const startsPerRound = 20

// measureNothing compares whole processes that find nothing to do.
func (b *bench) measureNothing(ctx context.Context, out io.Writer) error {
	one := filepath.Join(b.dir, "selectone")
	if text, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", one, "./selectone").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, text)
	}
	programs := []struct {
		name    string
		command func(dsn string) *exec.Cmd
	}{
		{"`psql -Xc 'select 1'`", func(dsn string) *exec.Cmd { return exec.CommandContext(ctx, "psql", "-Xc", "select 1", dsn) }},
		{"pgx: connect, `select 1`", func(dsn string) *exec.Cmd {
			cmd := b.command(ctx, dsn)
			cmd.Path, cmd.Args = one, []string{one}
			return cmd
		}},
		{"mvsched `run`", func(dsn string) *exec.Cmd { return b.command(ctx, dsn, "run") }},
	}
	if err := b.exec(ctx, notDue); err != nil {
		return err
	}
	wall, cpu := make([][]float64, len(programs)), make([][]float64, len(programs))
	serverCPU := make([]float64, len(programs))
	for range b.rounds {
		for i, p := range programs {
			m, err := b.newMeter(ctx)
			if err != nil {
				return err
			}
			for range startsPerRound {
				cmd := p.command(b.server.DSN(database))
				began := time.Now()
				if text, err := cmd.CombinedOutput(); err != nil {
					return fmt.Errorf("%s: %w: %s", p.name, err, text)
				}
				wall[i] = append(wall[i], time.Since(began).Seconds()*1000)
				used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
				cpu[i] = append(cpu[i], used.Seconds()*1000)
			}
			spent, err := m.read(ctx)
			if err != nil {
				return err
			}
			serverCPU[i] += spent.Seconds() * 1000 / float64(b.rounds*startsPerRound)
		}
	}
	rows := [][]string{{"", "wall, ms", "of `psql`", "target", "its CPU, ms", "server CPU, ms", "connections", "round trips once connected", "statements"}}
	var bars []bar
	for i, p := range programs {
		c, err := b.count(ctx)
		if err != nil {
			return err
		}
		text, err := p.command(c.dsn).CombinedOutput()
		if closed := c.close(); err == nil {
			err = closed
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %s", p.name, err, text)
		}
		share := median(ratios(wall[i], wall[0]))
		target := "–"
		if i == len(programs)-1 {
			target = "≤ 1.0, 1 connection, ≤ 3 round trips"
		}
		rows = append(rows, []string{
			p.name, fmt.Sprintf("%.1f", median(wall[i])), fmt.Sprintf("%.2f", share), target, fmt.Sprintf("%.1f", median(cpu[i])),
			fmt.Sprintf("%.1f", serverCPU[i]), fmt.Sprint(c.connections.Load()), fmt.Sprint(c.trips.Load()), fmt.Sprint(c.statements.Load()),
		})
		bars = append(bars, bar{p.name, share})
	}
	table(out, "Nothing is due: a whole process", rows)
	return b.plot("nothing.svg", "Nothing is due: wall time of a whole process, psql = 1 (less is better)", bars)
}

// notDue makes nothing due.
const notDue = `update mvsched.materialized_view_refresh_schedule set next_run_at = pg_catalog.now() + interval '1 day'`
