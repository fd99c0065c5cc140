package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

func refreshSQL(view int) string {
	return fmt.Sprintf("refresh materialized view concurrently public.v%d", view)
}

// connections opens so many, which end closes.
func (b *bench) connections(ctx context.Context, n int) (conns []*pgx.Conn, end func(), err error) {
	end = func() {
		for _, c := range conns {
			_ = c.Close(ctx) // it has done its work
		}
	}
	for range n {
		c, err := pgx.Connect(ctx, b.server.DSN(database))
		if err != nil {
			end()
			return nil, nil, err
		}
		conns = append(conns, c)
	}
	return conns, end, nil
}

// burstBare is the reference: nothing but REFRESH, on connections that are open already.
func (b *bench) burstBare(ctx context.Context, workers int) (time.Duration, error) {
	var next atomic.Int64
	return b.loops(ctx, workers, func(ctx context.Context, conn *pgx.Conn) (more bool, err error) {
		i := int(next.Add(1)) - 1
		if i >= b.views {
			return false, nil
		}
		_, err = conn.Exec(ctx, refreshSQL(i), pgx.QueryExecModeSimpleProtocol)
		return true, err
	})
}

var pgbenchTPS = regexp.MustCompile(`tps = ([0-9.]+)`)

// burstPgbench is pgbench's own time for the same, without its connecting.
func (b *bench) burstPgbench(ctx context.Context, workers int) (time.Duration, error) {
	script := filepath.Join(b.dir, "refresh.pgbench")
	text := fmt.Sprintf("\\set view :client_id + :n * %d\n\\set n :n + 1\nrefresh materialized view concurrently public.v:view;\n", workers)
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		return 0, err
	}
	each := b.views / workers
	out, err := exec.CommandContext(ctx, "pgbench", "-n", "-f", script, "-D", "n=0", "-c", strconv.Itoa(workers), "-j", strconv.Itoa(min(workers, 2)),
		"-t", strconv.Itoa(each), b.server.DSN(database)).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w: %s", err, out)
	}
	found := pgbenchTPS.FindSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("pgbench tells no tps: %s", out)
	}
	tps, err := strconv.ParseFloat(string(found[1]), 64)
	return time.Duration(float64(each*workers) / tps * float64(time.Second)), err
}

// burstPsql is what a crontab with a line for each view does, but for its starting all of them at once.
func (b *bench) burstPsql(ctx context.Context, workers int) (time.Duration, error) {
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i := range b.views {
		group.Go(func() error {
			out, err := exec.CommandContext(ctx, "psql", "-Xqc", refreshSQL(i), b.server.DSN(database)).CombinedOutput()
			if err != nil {
				return fmt.Errorf("psql: %w: %s", err, out)
			}
			return nil
		})
	}
	err := group.Wait()
	return time.Since(began), err
}

// lacks says why a contender cannot take part, or "".
func (b *bench) lacks(name string) string {
	program := map[string]string{"bare, `pgbench`": "pgbench", "cron, a `psql` for each view": "psql"}[name]
	if program != "" {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed"
		}
	}
	if name == "pg_cron" && !b.pgcron {
		return "it is not installed beside the server (Debian: postgresql-15-cron)"
	}
	return ""
}

// loops repeats a step on so many connections, which are open already, until each says that there is nothing more to do.
func (b *bench) loops(ctx context.Context, workers int, step func(context.Context, *pgx.Conn) (more bool, err error)) (time.Duration, error) {
	conns, end, err := b.connections(ctx, workers)
	if err != nil {
		return 0, err
	}
	defer end()
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for _, conn := range conns {
		group.Go(func() error {
			for {
				more, err := step(ctx, conn)
				if err != nil || !more {
					return err
				}
			}
		})
	}
	err = group.Wait()
	return time.Since(began), err
}
