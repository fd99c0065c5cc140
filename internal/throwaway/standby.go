//go:build linux || darwin || freebsd

package throwaway

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// MakeStandby makes a hot standby of the server: it restarts with what it holds, in recovery, waiting for the changes of a
// primary that there is not. For tests; whoever is connected is thrown out. The function pg_promote ends it.
func (s *Server) MakeStandby(ctx context.Context) error {
	if err := s.halt(syscall.SIGINT); err != nil {
		return err
	}
	signal := filepath.Join(s.dataDir(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return fmt.Errorf("tell postgres to be a standby: %w", err)
	}
	if err := s.account.own(signal); err != nil {
		return err
	}
	return s.launch(ctx, &Options{TCP: s.tcp})
}

// Restart does what pg_ctl restart does, in mode fast or, without a checkpoint, immediate. For tests.
func (s *Server) Restart(ctx context.Context, immediate bool) error {
	how := syscall.SIGINT
	if immediate {
		how = syscall.SIGQUIT
	}
	if err := s.halt(how); err != nil {
		return err
	}
	return s.launch(ctx, &Options{TCP: s.tcp})
}

// halt ends the postmaster, and leaves everything else of the server in place.
func (s *Server) halt(how syscall.Signal) error {
	if err := s.process.cmd.Process.Signal(how); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	select {
	case <-s.process.done:
		return nil
	case <-time.After(stopLimit):
		return fmt.Errorf("stop postgres: it did not end within %s", stopLimit)
	}
}
