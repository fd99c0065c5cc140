package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/schedule"
)

// How claims are timed: by so many workers, so many a second altogether. More than the processors can do would measure
// how long claims wait for one.
const (
	claimWorkers   = 50
	claimsASecond  = 100
	claimTarget    = "≤ 2 ms"
	heldClaimBatch = 20
)

// measureClaim times claims among very many schedules and executions, with statistics from before they were there, and
// again while a transaction is open that began before many claims.
func (b *bench) measureClaim(ctx context.Context, out io.Writer) (err error) {
	views := min(b.schedules, 2000)
	s, err := b.newScale(ctx, views, "autovacuum=off")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.exec(ctx, `analyze`); err != nil { // of empty tables: the statistics are stale from here on
		return err
	}
	due := b.held + 2*(b.samples+claimWorkers) + 1000
	if due > b.schedules {
		return fmt.Errorf("%d claims of %d schedules", due, b.schedules)
	}
	began := time.Now()
	if err := s.schedule(ctx, b.schedules, due); err != nil {
		return err
	}
	if err := s.history(ctx, b.schedules, b.executions); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "filled in %s\n", time.Since(began).Round(time.Second))

	scans, err := s.sequentialScans(ctx)
	if err != nil {
		return err
	}
	before, err := s.timedClaims(ctx, claimWorkers, b.samples, claimsASecond)
	if err != nil {
		return err
	}
	release, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	began = time.Now()
	if err := s.claimMany(ctx, b.held); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d claims in %s\n", b.held, time.Since(began).Round(time.Second))
	held, err := s.timedClaims(ctx, claimWorkers, b.samples, claimsASecond)
	if err != nil {
		return err
	}
	after, err := s.sequentialScans(ctx)
	if err != nil {
		return err
	}
	difference := func(table string) string { return strconv.FormatInt(after[table]-scans[table], 10) }
	table(out, fmt.Sprintf("A claim among %d schedules and %d executions, %d workers, in the server's time, with statistics of empty tables",
		b.schedules, b.executions, claimWorkers), [][]string{
		{"", "p50", "p99", "target for p99"},
		{"nothing else going on", milliseconds(before, 50), milliseconds(before, 99), claimTarget},
		{fmt.Sprintf("with a transaction held open since before %d claims", b.held), milliseconds(held, 50), milliseconds(held, 99), claimTarget},
		{"sequential scans of the schedules meanwhile", difference("materialized_view_refresh_schedule"), "", "0"},
		{"of the executions", difference("materialized_view_refresh_schedule_execution"), "", "0"},
	})
	return nil
}

// claimMany has workers claim as fast as they can.
func (s *scale) claimMany(ctx context.Context, n int) error {
	conns, err := s.open(ctx, 8, "")
	if err != nil {
		return err
	}
	defer closeAll(conns)
	var left atomic.Int64
	left.Store(int64(n))
	return each(conns, func(_ int, conn *pgx.Conn) error {
		for left.Load() > 0 {
			claimed, err := s.claimAndEnd(ctx, conn, heldClaimBatch)
			if err != nil {
				return err
			}
			left.Add(-int64(claimed))
		}
		return nil
	})
}

// sequentialScans counts those of the tables that grow, by sessions that have ended.
func (s *scale) sequentialScans(ctx context.Context) (map[string]int64, error) {
	if err := s.settled(ctx); err != nil {
		return nil, err
	}
	// What filled the tables is counted, too, once its session has ended.
	_ = s.admin.Close(ctx)
	admin, err := pgx.Connect(ctx, s.server.DSN("postgres"))
	if err != nil {
		return nil, err
	}
	s.admin = admin
	if err := s.settled(ctx); err != nil {
		return nil, err
	}
	rows, err := s.admin.Query(ctx, `select t.relname::text, t.seq_scan from pg_catalog.pg_stat_all_tables t
		where t.schemaname = 'mvsched' and t.relname in ('materialized_view_refresh_schedule', 'materialized_view_refresh_schedule_execution')`)
	if err != nil {
		return nil, err
	}
	scans := map[string]int64{}
	var table string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&table, &n}, func() error {
		scans[table] = n
		return nil
	})
	return scans, err
}

// settled waits until the sessions of workers are gone, who report what they have counted with their end.
func (s *scale) settled(ctx context.Context) error {
	for {
		var n int
		err := s.admin.QueryRow(ctx, `select pg_catalog.count(*) from pg_catalog.pg_stat_activity a
			where a.backend_type = 'client backend' and a.pid <> pg_catalog.pg_backend_pid() and a.state <> 'idle in transaction'`).Scan(&n)
		if err != nil || n == 0 {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

const bouncerConfig = `
[databases]
* = host='%[1]s' port=%[2]d

[pgbouncer]
listen_port = 6432
unix_socket_dir = %[1]s
pool_mode = transaction
max_client_conn = %[3]d
default_pool_size = 40
auth_type = trust
auth_user = postgres
auth_query = select $1, ''
log_connections = 0
log_disconnections = 0
`

// bouncer puts PgBouncer before the server and returns what a connection string needs to go through it.
func (s *scale) bouncer(ctx context.Context, clients int) (string, error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/pgbouncer") // not in the PATH of everybody
	}
	if err != nil {
		return "", err
	}
	to, err := pgx.ParseConfig(s.server.DSN("postgres"))
	if err != nil {
		return "", err
	}
	const through = " port=6432" // in a connection string the last one counts
	config := filepath.Join(s.server.Dir(), "pgbouncer.ini")
	text := fmt.Sprintf(bouncerConfig, to.Host, to.Port, clients+100)
	if err := errors.Join(os.WriteFile(config, []byte(text), 0o600), os.Chmod(config, 0o644)); err != nil { // the account of the server reads it
		return "", err
	}
	return through, s.server.Accompany(ctx, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, s.server.DSN("postgres")+through)
		if err != nil {
			return err
		}
		return errors.Join(conn.Ping(ctx), conn.Close(ctx))
	}, program, "-q", config)
}

// measureClaimers has very many claim at once, through a transaction pooler.
func (b *bench) measureClaimers(ctx context.Context, out io.Writer) (err error) {
	s, err := b.newScale(ctx, b.claimers, "autovacuum=off")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.schedule(ctx, b.claimers, b.claimers); err != nil {
		return err
	}
	times, err := s.claimTimes()
	if err != nil {
		return err
	}
	if err := s.exec(ctx, logAllOfBase); err != nil { // sessions behind a pooler are not ours to set
		return err
	}
	through, err := s.bouncer(ctx, b.claimers)
	if err != nil {
		return err
	}
	conns, err := s.open(ctx, b.claimers, through)
	if err != nil {
		return err
	}
	defer closeAll(conns)
	began := time.Now()
	err = each(conns, func(_ int, conn *pgx.Conn) error {
		for {
			claims, err := schedule.NewStore(conn).Claim(ctx, schedule.ClaimOptions{Worker: "bench", Limit: 1, Settled: true})
			if err != nil || len(claims) == 0 {
				return err
			}
		}
	})
	took := time.Since(began)
	if err != nil {
		return err
	}
	var claimed, distinct int
	err = s.admin.QueryRow(ctx, `select pg_catalog.count(*), pg_catalog.count(distinct e.view_oid::bigint)
		from mvsched.materialized_view_refresh_schedule_execution e`).Scan(&claimed, &distinct)
	if err != nil {
		return err
	}
	if claimed != b.claimers || distinct != claimed {
		return fmt.Errorf("%d claims of %d views, of which %d were due", claimed, distinct, b.claimers)
	}
	all, err := times()
	if err != nil {
		return err
	}
	table(out, fmt.Sprintf("%d claimers at once through PgBouncer, of %d due views", b.claimers, b.claimers), [][]string{
		{"", "measured", "target"},
		{"due views that were claimed once", fmt.Sprint(claimed), "all"},
		{"a claim, in the server's time: p50", milliseconds(all, 50), claimTarget},
		{"p99", milliseconds(all, 99), "–"},
		{"all of it", took.Round(time.Millisecond).String(), "–"},
	})
	return nil
}
