//go:build linux || darwin || freebsd

package throwaway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestStart(t *testing.T) {
	t.Run("stop leaves no process and no directory", func(t *testing.T) {
		s := start(t, Options{})
		postmaster, watchdog := s.process.cmd.Process.Pid, watchdogPid(s)
		if !runs(postmaster) || !runs(watchdog) || !exists(s.Dir()) {
			t.Fatalf("postmaster, watchdog or directory missing: %d, %d, %q", postmaster, watchdog, s.Dir())
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		if runs(postmaster) {
			t.Error("the postmaster still runs")
		}
		if runs(watchdog) {
			t.Error("the watchdog still runs")
		}
		if exists(s.Dir()) {
			t.Error("the directory is still there")
		}
		if err := s.Stop(); err != nil {
			t.Errorf("second Stop: %v", err)
		}
	})

	t.Run("stop works although the watchdog was killed", func(t *testing.T) {
		s := start(t, Options{})
		if err := syscall.Kill(watchdogPid(s), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-s.watchdog.process.done
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if exists(s.Dir()) {
			t.Error("the directory is still there")
		}
	})

	t.Run("a setting overrides the default", func(t *testing.T) {
		s := start(t, Options{Settings: []string{"max_connections=17", "fsync=on"}})
		if got := query(t, s.DSN("postgres"), "select current_setting('max_connections') || current_setting('fsync') || current_setting('listen_addresses')"); got != "17on" {
			t.Errorf("settings are %q, want 17, on and no address", got)
		}
		if got := query(t, s.DSN("postgres"), "show full_page_writes"); got != "on" {
			t.Errorf("full_page_writes is %s: a killed process could leave half a page", got)
		}
		if got := query(t, s.DSN("postgres"), "show server_version"); !strings.HasPrefix(got, s.Version()) || s.Version() == "" {
			t.Errorf("Version is %q, the server says %q", s.Version(), got)
		}
	})

	t.Run("TCP needs the password", func(t *testing.T) {
		s := start(t, Options{TCP: true})
		if got := query(t, s.URL("postgres"), "select host(inet_server_addr())"); got != "127.0.0.1" {
			t.Errorf("connected to %q", got)
		}
		conn, err := pgx.Connect(t.Context(), strings.Replace(s.URL("postgres"), s.password, "wrong", 1))
		if err == nil {
			conn.Close(t.Context())
			t.Error("a wrong password was accepted")
		}
		query(t, s.DSN("postgres"), "select 'the socket works too'")
	})

	t.Run("as root the server is somebody else", func(t *testing.T) {
		s := start(t, Options{})
		data := uidOf(t, s.dataDir())
		if data == 0 {
			t.Error("the data directory belongs to root")
		}
		if os.Geteuid() != 0 && data != os.Geteuid() {
			t.Errorf("the data directory belongs to uid %d, not to us", data)
		}
		if runtime.GOOS == "linux" {
			if got := uidOf(t, filepath.Join("/proc", strconv.Itoa(s.process.cmd.Process.Pid))); got != data {
				t.Errorf("the server runs as uid %d, its data belong to %d", got, data)
			}
		}
	})

	t.Run("a failure leaves nothing and shows the log", func(t *testing.T) {
		base := testBase(t)
		_, err := Start(t.Context(), Options{base: base, Fetch: true, Settings: []string{"no_such_setting=1"}})
		if err == nil || !strings.Contains(err.Error(), `unrecognized configuration parameter "no_such_setting"`) {
			t.Errorf("error is %v", err)
		}
		if left := children(t, base); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	})

	t.Run("a cancelled context leaves nothing", func(t *testing.T) {
		base := testBase(t)
		ctx, cancel := context.WithCancel(t.Context())
		// The message about the programs is the last one before initdb.
		_, err := Start(ctx, Options{base: base, Fetch: true, Notify: func(line string) {
			if strings.HasPrefix(line, "using ") {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		if left := children(t, base); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

func TestKilledOwner(t *testing.T) {
	t.Run("leaves no postmaster and no directory", func(t *testing.T) {
		h := startHelper(t, testBase(t), false)
		h.kill()
		eventually(t, "the postmaster ends", func() bool { return !runs(h.postmaster) })
		eventually(t, "the directory is removed", func() bool { return !exists(h.dir) })
		eventually(t, "the watchdog ends", func() bool { return !runs(h.watchdog) })
	})

	t.Run("leaves no postmaster even without the watchdog", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			return // only Linux tells a child that its parent has died
		}
		h := startHelper(t, testBase(t), false)
		killWatchdog(t, h)
		h.kill()
		eventually(t, "the postmaster ends", func() bool { return !runs(h.postmaster) })
		eventually(t, "what accompanies it ends", func() bool { return !runs(h.other) })
		if !exists(h.dir) {
			t.Error("somebody removed the directory: the watchdog was not dead")
		}
	})

	t.Run("leaves a kept server, and the stop command ends it", func(t *testing.T) {
		base := testBase(t)
		h := startHelper(t, base, true)
		h.kill()
		s := &Server{dir: h.dir, port: 5432}
		query(t, s.DSN("postgres"), "select 'still there'")
		if out, err := exec.Command("/bin/sh", "-c", s.StopCommand()).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", s.StopCommand(), err, out)
		}
		eventually(t, "the postmaster ends", func() bool { return !runs(h.postmaster) })
		if left := children(t, base); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

func TestAccompany(t *testing.T) {
	t.Run("a program runs as the server does, until that is stopped", func(t *testing.T) {
		s := start(t, Options{})
		if err := s.Accompany(t.Context(), accept, "/bin/sleep", "1000"); err != nil {
			t.Fatal(err)
		}
		pid := s.others[0].cmd.Process.Pid
		if !runs(pid) {
			t.Error("it does not run")
		}
		if runtime.GOOS == "linux" {
			if got, want := uidOf(t, fmt.Sprintf("/proc/%d", pid)), uidOf(t, s.dataDir()); got != want {
				t.Errorf("it runs as uid %d, the server as %d", got, want)
			}
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if runs(pid) {
			t.Error("it still runs")
		}
	})

	t.Run("the end of a program before its time comes to light", func(t *testing.T) {
		s, err := Start(t.Context(), Options{base: testBase(t), Fetch: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Accompany(t.Context(), accept, "/bin/sh", "-c", "echo I crashed; exit 3"); err != nil {
			t.Fatal(err)
		}
		<-s.others[0].done
		err = s.Stop()
		if err == nil || !strings.Contains(err.Error(), "sh ended on its own: exit status 3") || !strings.Contains(err.Error(), "I crashed") {
			t.Errorf("error is %v", err)
		}
	})

	t.Run("a failure shows what the program said", func(t *testing.T) {
		s := start(t, Options{})
		refuse := func(context.Context) error { return errors.New("refused") }
		err := s.Accompany(t.Context(), refuse, "/bin/sh", "-c", "echo no such flag >&2; exit 3")
		if err == nil || !strings.Contains(err.Error(), "sh ended while starting: exit status 3") || !strings.Contains(err.Error(), "no such flag") {
			t.Errorf("error is %v", err)
		}
	})
}

// query returns the one value of the query.
func query(t *testing.T, dsn, sql string) (value string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}
