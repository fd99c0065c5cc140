//go:build !(linux || darwin || freebsd)

package throwaway

import (
	"context"
	"fmt"
	"runtime"
)

// instance is empty: no server ever runs here.
type instance struct{}

// Start fails: throw-away servers need Unix sockets, signals and file locks.
func Start(context.Context, Options) (*Server, error) {
	return nil, fmt.Errorf("throw-away PostgreSQL servers are not supported on %s: use a server of your own (--database-url)", runtime.GOOS)
}

// Sweep has nothing to remove.
func Sweep() error { return nil }

// StopCommand returns nothing, as there is no server to stop.
func (s *Server) StopCommand() string { return "" }

// Accompany does nothing, as there is no server to accompany.
func (s *Server) Accompany(context.Context, func(context.Context) error, string, ...string) error {
	return nil
}

// MakeStandby does nothing, as there is no server to restart.
func (s *Server) MakeStandby(context.Context) error { return nil }

// Restart does nothing, as there is no server to restart.
func (s *Server) Restart(context.Context, bool) error { return nil }

func (s *Server) stop() error { return nil }

// cacheIsShared reports whether the cache must suit more accounts than ours.
func cacheIsShared() bool { return false }
