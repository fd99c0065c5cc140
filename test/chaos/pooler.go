package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/throwaway"
)

const poolerConfig = `
[databases]
* = host='%[1]s' port=5432

[pgbouncer]
listen_port = 6432
unix_socket_dir = %[1]s
pool_mode = transaction
max_client_conn = 500
default_pool_size = 30
server_login_retry = 0
auth_type = trust
auth_user = postgres
admin_users = postgres
auth_query = select $1, ''
log_connections = 0
log_disconnections = 0
`

// pooler is PgBouncer in transaction mode, in one process after the other.
type pooler struct {
	server  *throwaway.Server
	program string
	config  string

	mu      sync.Mutex
	process *os.Process
	ended   chan struct{}
}

func newPooler(ctx context.Context, server *throwaway.Server) (*pooler, error) {
	program, err := exec.LookPath("/usr/sbin/pgbouncer")
	if err != nil {
		program, err = exec.LookPath("pgbouncer")
	}
	if err != nil {
		return nil, fmt.Errorf("PgBouncer is not installed: %w", err)
	}
	p := &pooler{server: server, program: program, config: filepath.Join(server.Dir(), "pgbouncer.ini")}
	text := fmt.Sprintf(poolerConfig, filepath.Join(server.Dir(), "s"))
	if err := errors.Join(os.WriteFile(p.config, []byte(text), 0o600), os.Chmod(p.config, 0o644)); err != nil {
		return nil, err
	}
	return p, p.start(ctx)
}

func (p *pooler) socket() string { return filepath.Join(p.server.Dir(), "s", ".s.PGSQL.6432") }

// start starts a process, as the account that the server runs as, and waits until it answers.
func (p *pooler) start(ctx context.Context) error {
	owner, err := os.Stat(filepath.Join(p.server.Dir(), "data"))
	if err != nil {
		return err
	}
	account := owner.Sys().(*syscall.Stat_t)
	started := make(chan error)
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread() // the child dies with the thread that started it
		cmd := exec.Command(p.program, "-q", p.config)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if os.Geteuid() == 0 {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: account.Uid, Gid: account.Gid}
		}
		err := cmd.Start()
		p.mu.Lock()
		p.process, p.ended = cmd.Process, ended
		p.mu.Unlock()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, p.server.DSN("postgres")+" port=6432")
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("PgBouncer does not answer: %w", err)
		case <-ended:
			return errors.New("PgBouncer has ended at once")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end ends the process with a signal, and waits until it is gone.
func (p *pooler) end(s os.Signal) error {
	p.mu.Lock()
	process, ended := p.process, p.ended
	p.mu.Unlock()
	if err := process.Signal(s); err != nil {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("PgBouncer does not end")
	}
}

// poolerFaults happen to PgBouncer.
func poolerFaults() []*kind {
	return []*kind{
		{name: "PgBouncer kill -9, started again", weight: 4, phases: withBackend, strike: restartPooler(syscall.SIGKILL)},
		{name: "PgBouncer ended and started again", weight: 1, phases: withBackend, strike: restartPooler(syscall.SIGQUIT)},
		{name: "PgBouncer frozen, 0.1 to 3 s", weight: 1, phases: withBackend, strike: freezePooler},
		{name: "PgBouncer PAUSE, 0.1 to 3 s, RESUME", weight: 4, phases: withBackend, strike: pausePooler("PAUSE")},
		{name: "PgBouncer KILL, 0.1 to 3 s, RESUME", weight: 4, phases: withBackend, strike: pausePooler("KILL")},
	}
}

func restartPooler(s os.Signal) func(*fault, *link, []byte) (bool, error) {
	return func(f *fault, _ *link, _ []byte) (bool, error) {
		return false, f.episode.alone(func(ctx context.Context) error {
			if err := f.episode.pooler.end(s); err != nil {
				return err
			}
			f.episode.pause(f.between(0, time.Second))
			return f.episode.pooler.start(ctx)
		})
	}
}

func freezePooler(f *fault, _ *link, _ []byte) (bool, error) {
	return false, f.episode.alone(func(context.Context) error {
		p := f.episode.pooler
		if err := p.process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		f.episode.pause(f.between(100*time.Millisecond, 3*time.Second))
		return p.process.Signal(syscall.SIGCONT)
	})
}

// pausePooler lets nobody through for a while. PAUSE waits for what is under way; KILL ends it.
func pausePooler(how string) func(*fault, *link, []byte) (bool, error) {
	return func(f *fault, _ *link, _ []byte) (bool, error) {
		e := f.episode
		return false, e.alone(func(ctx context.Context) error {
			// PAUSE waits for what is under way, and with it for us, who hold a message of that: nobody waits for its answer.
			waiting, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() { _ = e.pooler.tell(waiting, how+" "+e.database) }()
			e.pause(f.between(100*time.Millisecond, 3*time.Second))
			return e.insist(func() error { return e.pooler.tell(ctx, "RESUME "+e.database) })
		})
	}
}

// tell gives a command at PgBouncer's console.
func (p *pooler) tell(ctx context.Context, command string) error {
	conn, err := pgx.Connect(ctx, p.server.DSN("pgbouncer")+" port=6432 default_query_exec_mode=simple_protocol")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.PgConn().Exec(ctx, command).ReadAll()
	return err
}
