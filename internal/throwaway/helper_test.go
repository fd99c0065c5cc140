//go:build linux || darwin || freebsd

package throwaway

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The environment of the helper process: the test binary itself, which then
// starts a server and waits to be killed.
const (
	envHelperBase = "THROWAWAY_HELPER_BASE"
	envHelperKeep = "THROWAWAY_HELPER_KEEP"
)

func TestMain(m *testing.M) {
	if base := os.Getenv(envHelperBase); base != "" {
		os.Exit(helperMain(base, os.Getenv(envHelperKeep) != ""))
	}
	os.Exit(m.Run())
}

func helperMain(base string, keep bool) int {
	s, err := Start(context.Background(), Options{base: base, Keep: keep, Fetch: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := s.Accompany(context.Background(), accept, "/bin/sleep", "1000"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, s.Dir(), s.process.cmd.Process.Pid, watchdogPid(s), s.others[0].cmd.Process.Pid)
	select {} // until killed
}

// accept is how one connects to a program that listens to nobody.
func accept(context.Context) error { return nil }

func watchdogPid(s *Server) int {
	if s.watchdog == nil {
		return 0
	}
	return s.watchdog.process.cmd.Process.Pid
}

// helper is a process that owns a server.
type helper struct {
	cmd                  *exec.Cmd
	dir                  string
	postmaster, watchdog int
	other                int // that accompanies the server
}

func startHelper(t *testing.T, base string, keep bool) *helper {
	t.Helper()
	h := &helper{cmd: exec.Command(os.Args[0])}
	h.cmd.Env = append(os.Environ(), envHelperBase+"="+base)
	if keep {
		h.cmd.Env = append(h.cmd.Env, envHelperKeep+"=yes")
	}
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.kill()
		if h.dir != "" {
			endPostmaster(dataDir(h.dir))
			_ = syscall.Kill(h.other, syscall.SIGKILL) // on Linux it is gone
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("helper says nothing: %v", err)
	}
	if _, err := fmt.Sscan(line, &h.dir, &h.postmaster, &h.watchdog, &h.other); err != nil {
		t.Fatalf("helper says %q: %v", line, err)
	}
	if !isPostmaster(h.postmaster, dataDir(h.dir)) {
		t.Fatalf("process %d of the helper is no postmaster", h.postmaster)
	}
	return h
}

// kill kills the helper the hard way and waits for it.
func (h *helper) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

// testBase makes a directory for servers that no other process sweeps. The
// one of t.TempDir is too long for socket paths, and closed to other accounts.
func testBase(t *testing.T) string {
	t.Helper()
	base, err := os.MkdirTemp("/tmp", "throwaway-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	return base
}

// start starts a server for the test.
func start(t *testing.T, o Options) *Server {
	t.Helper()
	if o.base == "" {
		o.base = testBase(t)
	}
	o.Fetch = true
	o.Notify = func(line string) { t.Log(line) }
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// eventually waits for the condition to hold.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// runs reports whether the process is there and not just a zombie.
func runs(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}

// uidOf returns the owner of the directory under /proc or elsewhere.
func uidOf(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

func children(t *testing.T, base string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(base, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
