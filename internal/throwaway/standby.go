//go:build linux || darwin || freebsd

package throwaway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// MakeStandby makes a hot standby of the server: it restarts with what it holds, in recovery, waiting for the changes of a
// primary that there is not. For tests; whoever is connected is thrown out. The function pg_promote ends it.
func (s *Server) MakeStandby(ctx context.Context) error {
	return s.RestartAfter(ctx, false, func() error { return s.signalStandby(s.dataDir()) })
}

// signalStandby makes the server that starts next in a data directory a standby.
func (s *Server) signalStandby(data string) error {
	signal := filepath.Join(data, "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return fmt.Errorf("tell postgres to be a standby: %w", err)
	}
	return s.account.own(signal)
}

// Restart does what pg_ctl restart does, in mode fast or, without a checkpoint, immediate. For tests.
func (s *Server) Restart(ctx context.Context, immediate bool) error {
	return s.RestartAfter(ctx, immediate, func() error { return nil })
}

// RestartAfter is Restart with something done while the server is down, which may have ended on its own before.
func (s *Server) RestartAfter(ctx context.Context, immediate bool, do func() error) error {
	how := syscall.SIGINT
	if immediate {
		how = syscall.SIGQUIT
	}
	if err := s.halt(how); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return s.launch(ctx, &Options{TCP: s.tcp, Settings: s.settings})
}

// A Standby follows a server, in a data directory of its own. For tests.
type Standby struct {
	server  *Server
	dir     string // beside the server's own; data and s are in it
	process *process
}

// NewStandby copies the server while it runs, with pg_basebackup, and starts a hot standby that follows it.
func (s *Server) NewStandby(ctx context.Context) (*Standby, error) {
	program := filepath.Join(s.bin, "pg_basebackup")
	if _, err := exec.LookPath(program); err != nil {
		return nil, fmt.Errorf("for a standby: %w", err)
	}
	b := &Standby{server: s, dir: filepath.Join(s.dir, "standby")}
	for _, dir := range []string{b.dir, filepath.Join(b.dir, "s")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make a directory for the standby: %w", err)
		}
		if err := s.account.own(dir); err != nil {
			return nil, err
		}
	}
	p, err := s.execTo(b.LogFile(), program, []string{
		"-h", s.socketDir(), "-p", fmt.Sprint(s.port), "-U", superuser, "-D", dataDir(b.dir),
		"--checkpoint=fast", "--wal-method=stream", "--no-sync", "--write-recovery-conf",
	}, childAttr(false))
	if err != nil {
		return nil, err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.killGroup()
		<-p.done
	}
	if p.err != nil {
		return nil, fmt.Errorf("pg_basebackup: %w", p.err)
	}
	args := []string{"-D", dataDir(b.dir), "-k", filepath.Join(b.dir, "s"), "-p", fmt.Sprint(s.port)}
	for _, setting := range append([]string{"listen_addresses="}, defaultSettings...) {
		args = append(args, "-c", setting)
	}
	if b.process, err = s.execTo(b.LogFile(), filepath.Join(s.bin, "postgres"), args, childAttr(false)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return b, s.await(ctx, b.process, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, b.DSN("postgres"))
		if err == nil {
			err = conn.Close(ctx)
		}
		return err
	})
}

// DSN is for connections to the standby; see Server.DSN.
func (b *Standby) DSN(database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s", quoteDSN(filepath.Join(b.dir, "s")), b.server.port, superuser, quoteDSN(database))
}

// LogFile is the path of the standby's own log.
func (b *Standby) LogFile() string { return b.dir + ".log" }

// TakeOver puts what the standby holds in the place of the server's data: the server ends as in a crash, and comes back as
// the standby, read-only. What the standby has not received is lost. The function pg_promote makes it the primary.
func (b *Standby) TakeOver(ctx context.Context) error {
	s := b.server
	return s.RestartAfter(ctx, true, func() error {
		if err := halt(b.process, syscall.SIGINT, stopLimit); err != nil {
			return err
		}
		if err := os.RemoveAll(s.dataDir()); err != nil {
			return fmt.Errorf("remove the data of the old primary: %w", err)
		}
		if err := os.Rename(dataDir(b.dir), s.dataDir()); err != nil {
			return fmt.Errorf("put the standby's data in place: %w", err)
		}
		return errors.Join(s.signalStandby(s.dataDir()), os.RemoveAll(b.dir))
	})
}

// Remove ends the standby and removes what it holds.
func (b *Standby) Remove() error {
	return errors.Join(halt(b.process, syscall.SIGQUIT, stopLimit), os.RemoveAll(b.dir))
}

// halt ends the postmaster, and leaves everything else of the server in place.
func (s *Server) halt(how syscall.Signal) error { return halt(s.process, how, stopLimit) }

// halt signals a postmaster to end. One that has not after a while, because somebody hangs or because the machine is busy,
// ends as in a crash: whoever wanted to start it again could not do that beside it, and the server would be gone for good.
func halt(p *process, how syscall.Signal, patience time.Duration) error {
	for _, attempt := range []struct {
		signal   syscall.Signal
		patience time.Duration
	}{{how, patience}, {syscall.SIGQUIT, stopLimit}} {
		if err := p.cmd.Process.Signal(attempt.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop postgres: %w", err)
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(attempt.patience):
		}
	}
	return fmt.Errorf("stop postgres: it did not end within %s", patience+stopLimit)
}
