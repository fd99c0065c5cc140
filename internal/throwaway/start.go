//go:build linux || darwin || freebsd

package throwaway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// startLimit bounds the wait for the first connection.
	startLimit = 60 * time.Second
	// stopLimit bounds the wait for the postmaster, which itself gives its
	// children five seconds before it kills them.
	stopLimit = 10 * time.Second
	// portAttempts is how often another port is tried when somebody else took
	// the free one before the server could.
	portAttempts = 3
)

// defaultSettings make a server fast, not safe: what it holds is lost with the machine, not with its processes. So
// full_page_writes stays on: on a file system in memory, a process that is killed while it writes a page may leave half of it.
var defaultSettings = []string{
	"fsync=off",
	"synchronous_commit=off",
	"shared_buffers=64MB",
	"max_connections=100",
	// In files below the data directory: segments in /dev/shm would outlive a
	// killed postmaster, and containers have little room there.
	"dynamic_shared_memory_type=mmap",
}

// instance is the process of a server and what guards it.
type instance struct {
	account   account
	directory *directory
	process   *process // nil until the postmaster runs
	watchdog  *watchdog
	others    []*process // see Accompany
}

// Start starts a server and returns once it accepts connections. The context
// bounds the start only; afterwards the server runs until Stop. As root, the
// server runs as the user who called sudo, as postgres or as nobody, because
// PostgreSQL refuses root.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if err := Sweep(); err != nil {
		o.notify("removing what an earlier server left: %v", err)
	}
	acc, err := serverAccount()
	if err != nil {
		return nil, err
	}
	bin, err := programs(ctx, &o)
	if err != nil {
		return nil, err
	}
	d, err := newDirectory(acc, o.base)
	if err != nil {
		return nil, err
	}
	s := &Server{
		instance: instance{account: acc, directory: d},
		dir:      d.path,
		bin:      bin,
		port:     5432, // of the socket: nobody else uses this directory
		tcp:      o.TCP,
		settings: o.Settings,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if !o.Keep {
		if s.watchdog, err = startWatchdog(s.dir); err != nil {
			o.notify("no watchdog over the server: %v", err)
		}
	}
	if acc.drop {
		o.notify("running as root: the server runs as %s", acc)
	}
	if err := s.initdb(ctx, o.Keep); err != nil {
		return nil, err
	}
	if err := s.launch(ctx, &o); err != nil {
		return nil, err
	}
	if o.Keep {
		if err := d.markKept(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// programs returns the directory of the server programs, fetching them if
// that is needed and allowed.
func programs(ctx context.Context, o *Options) (string, error) {
	bin, version, err := find(ctx, o.Bin)
	var missing *NotFoundError
	if errors.As(err, &missing) && missing.fetchable && o.Fetch {
		major, _ := wantedMajor() // find has checked it
		if bin, missing.Err = Fetch(ctx, Versions[major], o.Notify); missing.Err == nil {
			version, err = probe(ctx, bin)
		}
	}
	if err != nil {
		return "", err
	}
	o.notify("using PostgreSQL %s in %s", version, bin)
	return bin, nil
}

// initdb creates the data directory. TCP connections need a password, as any
// user of the machine could open them; without TCP they are refused. For the
// Unix socket the mode of its directory is enough.
func (s *Server) initdb(ctx context.Context, keep bool) (err error) {
	args := []string{
		"-D", s.dataDir(), "-U", superuser, "-E", "UTF8", "--locale=C",
		"--no-sync", "--wal-segsize=1", "--auth-local=trust",
	}
	if s.tcp {
		s.password = rand.Text()
		file := filepath.Join(s.dir, "password") // where only we can put files
		if err := os.WriteFile(file, []byte(s.password+"\n"), 0o600); err != nil {
			return fmt.Errorf("write the password for initdb: %w", err)
		}
		defer func() { err = errors.Join(err, os.Remove(file)) }()
		if err := s.account.own(file); err != nil {
			return err
		}
		args = append(args, "--auth-host=scram-sha-256", "--pwfile="+file)
	} else {
		args = append(args, "--auth-host=reject")
	}
	p, err := s.exec(filepath.Join(s.bin, "initdb"), args, childAttr(keep))
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.killGroup()
		<-p.done
		return fmt.Errorf("initdb: %w", ctx.Err())
	}
	if p.err != nil {
		return fmt.Errorf("initdb: %w%s", p.err, p.logTail())
	}
	return nil
}

// launch starts the postmaster and waits until it accepts connections.
func (s *Server) launch(ctx context.Context, o *Options) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for attempt := 1; ; attempt++ {
		args := []string{"-D", s.dataDir(), "-k", s.socketDir()}
		settings := append([]string{"listen_addresses="}, defaultSettings...)
		if s.tcp {
			port, err := freePort(ctx)
			if err != nil {
				return err
			}
			s.port = port
			settings[0] = "listen_addresses=127.0.0.1"
		}
		args = append(args, "-p", fmt.Sprint(s.port))
		for _, setting := range append(settings, o.Settings...) {
			args = append(args, "-c", setting)
		}
		var err error
		if s.process, err = s.exec(filepath.Join(s.bin, "postgres"), args, childAttr(o.Keep)); err != nil {
			return err
		}
		err = s.ready(ctx)
		if err == nil {
			return nil
		}
		if attempt == portAttempts || !s.tcp || !strings.Contains(err.Error(), "Address already in use") {
			return err
		}
	}
}

// exec starts a program as the account of the server. Its output goes to the
// log.
func (s *Server) exec(program string, args []string, attr *syscall.SysProcAttr) (*process, error) {
	return s.execTo(s.LogFile(), program, args, attr)
}

func (s *Server) execTo(logFile, program string, args []string, attr *syscall.SysProcAttr) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	defer func() { _ = log.Close() }()    // the child has its own
	cmd := exec.Command(program, args...) //nolint:noctx // Stop ends it, no context does
	cmd.Dir = "/"                         // ours may be closed to the account of the server
	cmd.Env = serverEnv()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attr
	cmd.SysProcAttr.Credential = s.account.credential()
	p, err := startProcess(cmd)
	if err != nil {
		return nil, s.account.explain(cmd.Path, err)
	}
	return p, nil
}

// serverEnv is our environment without what would change the server: PGPORT,
// PGDATA and their like, and the language of the log.
func serverEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			env = append(env, kv)
		}
	}
	return append(env, "LC_ALL=C")
}

// ready waits for the first connection, and asks it for the version.
func (s *Server) ready(ctx context.Context) error {
	return s.await(ctx, s.process, func(ctx context.Context) error {
		version, err := s.ask(ctx)
		s.version, _, _ = strings.Cut(version, " ") // Debian appends its own
		return err
	})
}

// await waits until the program accepts connections.
func (s *Server) await(ctx context.Context, p *process, connect func(context.Context) error) error {
	name := filepath.Base(p.cmd.Path)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := connect(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended while starting: %w%s", name, p.result(), p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to accept connections: %w (last: %w)%s", name, ctx.Err(), err, p.logTail())
		}
	}
}

func (s *Server) ask(ctx context.Context) (version string, err error) {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }() // we have the answer
	err = conn.QueryRow(ctx, "show server_version").Scan(&version)
	return version, err
}

// freePort returns a port that was free a moment ago.
func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// logTail returns the last lines of the log, to append to an error.
func (p *process) logTail() string {
	const lines = 20
	text, err := os.ReadFile(p.cmd.Stdout.(*os.File).Name())
	if err != nil || len(text) == 0 {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "\nits log:\n  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
