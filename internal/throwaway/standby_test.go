//go:build linux || darwin || freebsd

package throwaway

import (
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What is asked of the postmaster here waits for its clients, of whom one stays.
func TestHaltEndsAServerThatDoesNotEnd(t *testing.T) {
	s := start(t, Options{})
	conn, err := pgx.Connect(t.Context(), s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	if err := halt(s.process, syscall.SIGTERM, time.Millisecond); err != nil {
		t.Error(err)
	}
	if err := s.Restart(t.Context(), true); err != nil {
		t.Error(err)
	}
	query(t, s.DSN("postgres"), "select 'it is back'")
}
