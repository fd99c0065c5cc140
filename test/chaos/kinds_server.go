package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// backendFaults happen to the server's processes one by one.
func backendFaults() []*kind {
	return []*kind{
		{name: "pg_terminate_backend", weight: 6, phases: withBackend, strike: terminate},
		{name: "pg_cancel_backend", weight: 4, phases: withBackend, strike: cancelBackend},
		{name: "backend stopped, 0.1 to 4 s", weight: 1, phases: withBackend, strike: stopBackend},
	}
}

// serverFaults take the whole server away for a while.
func serverFaults() []*kind {
	return []*kind{
		{name: "backend kill -9, crash recovery", weight: 4, phases: withBackend, strike: killBackend},
		{name: "server stopped (immediate), started", weight: 2, phases: withBackend, strike: restart(true)},
		{name: "server restarted (fast)", weight: 2, phases: withBackend, strike: restart(false)},
		{name: "server frozen, 0.2 to 4 s", weight: 2, phases: withBackend, strike: freezeServer},
		{name: "failover: read-only standby, then promoted", weight: 1, phases: withBackend, strike: failover},
	}
}

func terminate(f *fault, l *link, _ []byte) (bool, error) {
	return false, f.episode.signalBackend(l, "pg_terminate_backend")
}

func cancelBackend(f *fault, l *link, _ []byte) (bool, error) {
	return false, f.episode.signalBackend(l, "pg_cancel_backend")
}

func (e *episode) signalBackend(l *link, function string) error {
	var done bool
	err := e.ask(`select pg_catalog.`+function+`(pid) from pg_catalog.pg_stat_activity where pid = $1`, []any{int32(l.pid.Load())}, &done)
	if err == nil && !done {
		err = errors.New("there is no such backend")
	}
	return err
}

// stopBackend stops one server process, as an overloaded or swapping machine does.
func stopBackend(f *fault, l *link, _ []byte) (bool, error) {
	pid := int(l.pid.Load())
	f.episode.serverLock.RLock()
	defer f.episode.serverLock.RUnlock()
	if err := f.episode.isBackend(pid); err != nil {
		return false, err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return false, err
	}
	f.episode.laterOrAtTheEnd(f.between(100*time.Millisecond, 4*time.Second), func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	return false, nil
}

// isBackend makes sure that a process is a child of the postmaster: the only ones that get signals.
func (e *episode) isBackend(pid int) error {
	postmaster, err := e.postmaster()
	if err != nil {
		return err
	}
	parent, err := parentOf(pid)
	if err == nil && parent != postmaster {
		err = fmt.Errorf("process %d is none of the server's", pid)
	}
	return err
}

func (e *episode) postmaster() (int, error) {
	text, err := os.ReadFile(filepath.Join(e.server.Dir(), "data", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}

func parentOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0, errors.New("no such line")
	}
	return strconv.Atoi(fields[1])
}

// A fault of the whole server is alone, and returns when the server takes writes again.
func (e *episode) alone(do func(ctx context.Context) error) error {
	e.serverLock.Lock()
	defer e.serverLock.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := do(ctx); err != nil {
		e.noteTrouble(err)
		return err
	}
	e.awaitWrites(ctx)
	e.noteServerBack()
	return nil
}

func killBackend(f *fault, l *link, _ []byte) (bool, error) {
	pid := int(l.pid.Load())
	return false, f.episode.alone(func(ctx context.Context) error {
		if err := f.episode.isBackend(pid); err != nil {
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return err
		}
		// Crash recovery begins when the postmaster hears of it.
		for ctx.Err() == nil && f.episode.isBackend(pid) == nil {
			f.episode.pause(5 * time.Millisecond)
		}
		f.episode.pause(20 * time.Millisecond)
		return nil
	})
}

func restart(immediate bool) func(*fault, *link, []byte) (bool, error) {
	return func(f *fault, _ *link, _ []byte) (bool, error) {
		return false, f.episode.alone(func(ctx context.Context) error { return f.episode.server.Restart(ctx, immediate) })
	}
}

func failover(f *fault, _ *link, _ []byte) (bool, error) {
	return false, f.episode.alone(func(ctx context.Context) error {
		if err := f.episode.server.MakeStandby(ctx); err != nil {
			return err
		}
		f.episode.pause(f.between(100*time.Millisecond, 1500*time.Millisecond))
		var promoted bool
		for ctx.Err() == nil && !promoted {
			_ = f.episode.ask(`select pg_catalog.pg_promote(true, 30)`, nil, &promoted)
		}
		return ctx.Err()
	})
}

// freezeServer stops all of its processes, and lets them go on.
func freezeServer(f *fault, _ *link, _ []byte) (bool, error) {
	return false, f.episode.alone(func(context.Context) error {
		postmaster, err := f.episode.postmaster()
		if err != nil {
			return err
		}
		frozen := []int{postmaster}
		if err := syscall.Kill(postmaster, syscall.SIGSTOP); err != nil {
			return err
		}
		entries, err := os.ReadDir("/proc")
		for _, entry := range entries {
			pid, notNumber := strconv.Atoi(entry.Name())
			if notNumber != nil {
				continue
			}
			if parent, gone := parentOf(pid); gone == nil && parent == postmaster && syscall.Kill(pid, syscall.SIGSTOP) == nil {
				frozen = append(frozen, pid)
			}
		}
		f.episode.pause(f.between(200*time.Millisecond, 4*time.Second))
		for _, pid := range frozen {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
		return err
	})
}

// awaitWrites waits until the server takes writes.
func (e *episode) awaitWrites(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := pgx.Connect(ctx, e.server.DSN(e.database))
		if err == nil {
			_, err = conn.Exec(ctx, `insert into chaos.beat default values`)
			_ = conn.Close(ctx)
			if err == nil {
				return
			}
		}
		e.pause(5 * time.Millisecond)
	}
}
