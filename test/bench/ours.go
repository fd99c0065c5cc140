package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// makeDue makes every view due.
func (b *bench) makeDue(ctx context.Context) error {
	return b.exec(ctx, `update mvsched.materialized_view_refresh_schedule set next_run_at = pg_catalog.now()`,
		`vacuum mvsched.materialized_view_refresh_schedule`)
}

// lastExecution is the last before a burst.
func (b *bench) lastExecution(ctx context.Context) (id int64, err error) {
	err = b.admin.QueryRow(ctx, `select coalesce(pg_catalog.max(id), 0) from mvsched.materialized_view_refresh_schedule_execution`).Scan(&id)
	return id, err
}

// records tells how many executions since have succeeded, and between which instants.
func (b *bench) records(ctx context.Context, since int64) (n int, first, last time.Time, err error) {
	var from, to *time.Time
	err = b.admin.QueryRow(ctx, `select pg_catalog.count(*), pg_catalog.min(started_at)::pg_catalog.timestamptz, pg_catalog.max(ended_at)::pg_catalog.timestamptz
		from mvsched.materialized_view_refresh_schedule_execution where id > $1 and status = 'succeeded'`, since).Scan(&n, &from, &to)
	if err == nil && n > 0 {
		first, last = *from, *to
	}
	return n, first, last, err
}

// warm opens so many connections.
func warm(ctx context.Context, pool *pgxpool.Pool, n int) error {
	var conns []*pgxpool.Conn
	defer func() {
		for _, conn := range conns {
			conn.Release()
		}
	}()
	for range n {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		conns = append(conns, conn)
	}
	return nil
}

// work has a worker refresh everything, over connections that are open already.
func (b *bench) work(ctx context.Context, workers int) (call, claims time.Duration, err error) {
	if err := b.makeDue(ctx); err != nil {
		return 0, 0, err
	}
	since, err := b.lastExecution(ctx)
	if err != nil {
		return 0, 0, err
	}
	pool, err := b.pool(ctx, workers)
	if err != nil {
		return 0, 0, err
	}
	defer pool.Close()
	if err := warm(ctx, pool, workers+1); err != nil {
		return 0, 0, err
	}
	worker := &refresh.Worker{Pool: pool, Store: schedule.NewStore(pool), Jobs: workers, Name: "bench"}
	began := time.Now()
	executions, err := worker.RunDue(ctx)
	call = time.Since(began)
	if err != nil {
		return 0, 0, err
	}
	n, first, last, err := b.records(ctx, since)
	if err == nil && (n != b.views || len(executions) != n) {
		err = fmt.Errorf("%d refreshes of %d", n, b.views)
	}
	return call, last.Sub(first), err
}

// burstRunDue is the call of the library, all of it.
func (b *bench) burstRunDue(ctx context.Context, workers int) (time.Duration, error) {
	call, _, err := b.work(ctx, workers)
	return call, err
}

// burstClaims is the same from the first claim to the last record.
func (b *bench) burstClaims(ctx context.Context, workers int) (time.Duration, error) {
	_, claims, err := b.work(ctx, workers)
	return claims, err
}

// command is the program, on our database.
func (b *bench) command(ctx context.Context, dsn string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.binary, args...)
	cmd.Env = []string{"MVSCHED_DATABASE_URL=" + dsn, "PATH=/usr/bin:/bin"}
	return cmd
}

// burstProcess is `mvsched run`, from its start to its exit.
func (b *bench) burstProcess(ctx context.Context, workers int) (time.Duration, error) {
	if err := b.makeDue(ctx); err != nil {
		return 0, err
	}
	since, err := b.lastExecution(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	out, err := b.command(ctx, b.server.DSN(database), "run", "-q", "-j", strconv.Itoa(workers)).CombinedOutput()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("mvsched run: %w: %s", err, out)
	}
	n, _, _, err := b.records(ctx, since)
	if err == nil && n != b.views {
		err = fmt.Errorf("%d refreshes of %d", n, b.views)
	}
	return took, err
}

// server is a `mvsched serve` that is ready.
type server struct {
	cmd  *exec.Cmd
	said bytes.Buffer
}

// end asks it to stop, and waits for its exit.
func (s *server) end() error {
	err := errors.Join(s.cmd.Process.Signal(syscall.SIGTERM), s.cmd.Wait())
	if err != nil {
		err = fmt.Errorf("mvsched serve: %w: %s", err, s.said.String())
	}
	return err
}

// kill has it die on the spot.
func (s *server) kill() error {
	err := s.cmd.Process.Kill()
	_ = s.cmd.Wait() // says that it was killed
	return err
}

// serve starts `mvsched serve` and returns once it says that it is ready, as it says to systemd.
func (b *bench) serve(ctx context.Context, dsn string, flags ...string) (_ *server, err error) {
	socket := filepath.Join(b.dir, "notify")
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, heard.Close(), os.Remove(socket)) }()
	s := &server{cmd: b.command(ctx, dsn, append([]string{"serve"}, flags...)...)}
	s.cmd.Env = append(s.cmd.Env, "NOTIFY_SOCKET="+socket)
	s.cmd.Stdout, s.cmd.Stderr = &s.said, &s.said
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := heard.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, errors.Join(err, s.end())
	}
	message := make([]byte, 1024)
	for {
		n, err := heard.Read(message)
		if err != nil {
			return nil, fmt.Errorf("serve does not become ready: %w", errors.Join(err, s.end()))
		}
		if strings.Contains(string(message[:n]), "READY=1") {
			return s, nil
		}
	}
}

// burstServe is from the instant at which all views become due to the last record.
func (b *bench) burstServe(ctx context.Context, workers int) (took time.Duration, err error) {
	since, err := b.lastExecution(ctx)
	if err != nil {
		return 0, err
	}
	server, err := b.serve(ctx, b.server.DSN(database), "-j", strconv.Itoa(workers))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	var instant time.Time
	err = b.admin.QueryRow(ctx, `with due as (
			update mvsched.materialized_view_refresh_schedule set next_run_at = pg_catalog.now() + interval '1 second' returning next_run_at)
		select pg_catalog.min(next_run_at)::pg_catalog.timestamptz from due`).Scan(&instant)
	if err != nil {
		return 0, err
	}
	for {
		n, _, last, err := b.records(ctx, since)
		if err != nil || n == b.views {
			return last.Sub(instant), err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return 0, fmt.Errorf("%d refreshes of %d: %w", n, b.views, err)
		}
	}
}
