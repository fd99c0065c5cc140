//go:build linux || darwin || freebsd

package throwaway

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestSweep(t *testing.T) {
	t.Run("removes what a killed owner left", func(t *testing.T) {
		base := testBase(t)
		h := startHelper(t, base, false)
		killWatchdog(t, h)
		h.kill()
		if !exists(h.dir) {
			t.Fatal("there is nothing to sweep")
		}
		mustSweep(t, base)
		if exists(h.dir) {
			t.Error("the directory is still there")
		}
	})

	t.Run("ends a server that outlived its owner", func(t *testing.T) {
		base := testBase(t)
		h := startHelper(t, base, true) // no watchdog, no signal from the kernel
		h.kill()
		if err := os.Remove(filepath.Join(h.dir, keepName)); err != nil {
			t.Fatal(err)
		}
		if !runs(h.postmaster) {
			t.Fatal("the postmaster did not outlive its owner")
		}
		mustSweep(t, base)
		if exists(h.dir) {
			t.Error("the directory is still there")
		}
		if runs(h.postmaster) {
			t.Error("the postmaster still runs")
		}
	})

	t.Run("leaves live and kept servers alone", func(t *testing.T) {
		base := testBase(t)
		live := start(t, Options{base: base})
		kept := startHelper(t, base, true)
		kept.kill()
		mustSweep(t, base)
		query(t, live.DSN("postgres"), "select 'still there'")
		query(t, (&Server{dir: kept.dir, port: 5432}).DSN("postgres"), "select 'still there'")
	})

	t.Run("leaves a directory that is just being made", func(t *testing.T) {
		base := testBase(t)
		dir := filepath.Join(base, prefix+"1")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		mustSweep(t, base)
		if !exists(dir) {
			t.Error("the directory is gone")
		}
		old := time.Now().Add(-2 * lockless)
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
		mustSweep(t, base)
		if exists(dir) {
			t.Error("the directory is still there although nobody came back to it")
		}
	})
}

func mustSweep(t *testing.T, base string) {
	t.Helper()
	if err := sweep(base); err != nil {
		t.Fatal(err)
	}
}

func killWatchdog(t *testing.T, h *helper) {
	t.Helper()
	if err := syscall.Kill(h.watchdog, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the watchdog ends", func() bool { return !runs(h.watchdog) })
}
