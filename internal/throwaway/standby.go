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
// primary that there is not. For tests; whoever is connected is thrown out.
func (s *Server) MakeStandby(ctx context.Context) error {
	if err := s.process.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	select {
	case <-s.process.done:
	case <-time.After(stopLimit):
		return fmt.Errorf("stop postgres: it did not end within %s", stopLimit)
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
