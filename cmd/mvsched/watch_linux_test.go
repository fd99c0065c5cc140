package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// terminal is a program on a pseudo-terminal.
type terminal struct {
	testing.TB
	keyboard *os.File
	cmd      *exec.Cmd

	mu   sync.Mutex
	text bytes.Buffer
	read chan struct{} // closed when the program has ended, and all is read
}

func newTerminal(t testing.TB, columns, lines uint16, name string, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slave.Close() }()
	s := &terminal{TB: t, keyboard: master, read: make(chan struct{})}
	s.resize(columns, lines)
	s.cmd = exec.Command(name, args...)
	s.cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TERM=xterm", "NO_COLOR=", "CLICOLOR_FORCE=")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	go func() {
		defer close(s.read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			if err != nil { // EIO: nobody writes any more
				return
			}
		}
	}()
	return s
}

func (s *terminal) resize(columns, lines uint16) {
	s.Helper()
	if err := unix.IoctlSetWinsize(int(s.keyboard.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: lines, Col: columns}); err != nil {
		s.Fatal(err)
	}
}

func (s *terminal) written() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shown is the last page that is drawn completely.
func (s *terminal) shown() string {
	pages := strings.Split(s.written(), homeScreen)
	for i := len(pages) - 1; i > 0; i-- {
		if page, _, whole := strings.Cut(pages[i], restOfPage); whole {
			return strings.NewReplacer(restOfLine, "", "\r\n", "\n", "\x1b[32m", "", "\x1b[34m", "", "\x1b[0m", "").Replace(page)
		}
	}
	return ""
}

func (s *terminal) await(what string, is func(page string) bool) {
	s.Helper()
	defer func() {
		if s.Failed() {
			s.Logf("it shows\n%s", s.shown())
		}
	}()
	pgtest.WaitFor(s, s.Context(), what, func() bool { return is(s.shown()) })
}

// exits waits for the end of the program.
func (s *terminal) exits(codes ...int) {
	s.Helper()
	<-s.read
	_ = s.cmd.Wait()
	if got := s.cmd.ProcessState.ExitCode(); !slices.Contains(codes, got) {
		s.Errorf("exit code %d, want one of %d: %q", got, codes, s.written())
	}
}

// A watch shows what happens, fits the terminal whatever becomes of it, and leaves it as it was.
func TestWatch(t *testing.T) {
	t.Parallel()
	db := pgtest.NewDB(t)
	p := processes{TB: t, dsn: pgtest.DSN(t)}
	db.Exec(`create materialized view public.v as select 1 as id`)
	db.Exec(`create materialized view public.a_view_with_quite_a_long_name_for_a_terminal as select 1 as id`)
	for i := range 8 {
		db.Exec(fmt.Sprintf(`create materialized view public.w%d as select 1 as id`, i))
	}
	p.run([]int{0}, "add", "--all", "--every", "1h")
	s := newTerminal(t, 80, 24, "mvsched", "-d", p.dsn, "status", "--watch")
	s.await("a first page", func(page string) bool {
		return strings.HasPrefix(page, "views: 10, ") && strings.Count(page, "public.") == 10
	})

	p.run([]int{0}, "run", "-q", "--allow-superuser")
	s.await("the refreshes that have ended", func(page string) bool { return strings.HasPrefix(page, "views: 10, 10 fresh\n") })

	release := db.Hold(`select from public.v`)
	refreshing := make(chan struct{})
	go func() {
		defer close(refreshing)
		p.run([]int{0}, "refresh", "v", "-q", "--strategy", "plain", "--lock-timeout", "1m", "--allow-superuser")
	}()
	s.await("who is in the way", func(page string) bool {
		return strings.HasPrefix(page, "views: 10, 1 running, 9 fresh\n") && strings.Contains(strings.Join(strings.Fields(page), " "), "waits for")
	})
	s.resize(60, 8)
	s.await("a page of 60 times 8 with what is running on it", func(page string) bool {
		lines := strings.Split(page, "\n")
		for _, line := range lines {
			if columns := len([]rune(line)); columns > 60 {
				return false
			}
		}
		return len(lines) == 8 && strings.Contains(page, "running") && lines[7] == "…"
	})
	release()
	<-refreshing
	s.await("the end of the refresh", func(page string) bool { return strings.HasPrefix(page, "views: 10, 10 fresh\n") })

	db.Exec(`alter schema mvsched rename to gone`)
	s.await("that something is wrong", func(page string) bool {
		return strings.HasPrefix(page, "error: ") && strings.Contains(page, "public.v")
	})
	db.Exec(`alter schema gone rename to mvsched`)
	s.await("that all is well again", func(page string) bool { return strings.HasPrefix(page, "views: 10, ") })

	if _, err := io.WriteString(s.keyboard, "\x03"); err != nil {
		t.Fatal(err)
	}
	s.exits(0)
	if text := s.written(); !strings.Contains(text, "\x1b[34mrunning\x1b[0m") {
		t.Error("there are no colours")
	} else if !strings.HasPrefix(text, enterScreen) || !strings.HasSuffix(text, leaveScreen) {
		t.Errorf("the terminal is not left as it was: %q", text)
	}
}

// Whatever ends a watch, or stops it for a while, the terminal is left as it was.
func TestWatchLeavesTheTerminal(t *testing.T) {
	t.Run("at_a_second_signal", func(t *testing.T) {
		t.Parallel()
		db := pgtest.NewDB(t)
		s := newTerminal(t, 80, 24, "mvsched", "-d", pgtest.DSN(t), "status", "--watch", "--interval", "1s")
		s.await("a first page", func(page string) bool { return strings.HasPrefix(page, "nothing is scheduled") })
		release := db.Hold(`lock table mvsched.materialized_view_refresh_schedule in access exclusive mode`)
		defer release()
		const waiting = `select count(*) from pg_stat_activity where datname = current_database() and application_name = 'mvsched' and wait_event_type = 'Lock'`
		db.Await("1", waiting)
		pid, err := strconv.Atoi(db.Value(`select pid from pg_stat_activity where datname = current_database() and application_name = 'mvsched' and wait_event_type = 'Lock'`))
		if err := errors.Join(err, syscall.Kill(pid, syscall.SIGSTOP)); err != nil { // so that it does not heed the first one's cancel
			t.Fatal(err)
		}
		defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
		if err := errors.Join(s.cmd.Process.Signal(syscall.SIGINT), s.cmd.Process.Signal(syscall.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		// Of two that wait at the same time, the system tells which one comes second.
		s.exits(128+int(syscall.SIGTERM), 128+int(syscall.SIGINT))
		if text := s.written(); !strings.HasSuffix(text, leaveScreen) {
			t.Errorf("the terminal is not left as it was: %q", text)
		}
	})

	t.Run("while_it_is_stopped", func(t *testing.T) {
		t.Parallel()
		pgtest.NewDB(t)
		s := newTerminal(t, 80, 24, "sh", "-m", "-c", `mvsched -d "$1" status --watch; echo stopped; fg`, "sh", pgtest.DSN(t))
		s.await("a first page", func(page string) bool { return strings.HasPrefix(page, "nothing is scheduled") })
		if _, err := io.WriteString(s.keyboard, "\x1a"); err != nil {
			t.Fatal(err)
		}
		pgtest.WaitFor(t, t.Context(), "it has stopped", func() bool { return strings.Contains(s.written(), "stopped\r\n") })
		before, after, _ := strings.Cut(s.written(), "stopped\r\n")
		if strings.Count(before, enterScreen) != 1 || strings.Count(before, leaveScreen) != 1 {
			t.Errorf("the terminal is not left as it was: %q", before)
		}
		pgtest.WaitFor(t, t.Context(), "it goes on", func() bool {
			_, after, _ = strings.Cut(s.written(), "stopped\r\n")
			return strings.Contains(after, enterScreen+homeScreen+"nothing is scheduled")
		})
		if _, err := io.WriteString(s.keyboard, "\x03"); err != nil {
			t.Fatal(err)
		}
		s.exits(0)
		if text := s.written(); !strings.HasSuffix(text, leaveScreen) {
			t.Errorf("the terminal is not left as it was: %q", text)
		}
	})
}

// What is said while refreshes are shown stays on the screen, and their lines do not.
func TestNotesStayAboveTheLiveLines(t *testing.T) {
	t.Parallel()
	db := pgtest.NewDB(t)
	p := processes{TB: t, dsn: pgtest.DSN(t)}
	db.Exec(`create materialized view public.v as select 1 as id`)
	release := db.Hold(`select from public.v`)
	s := newTerminal(t, 80, 24, "mvsched", "-d", p.dsn, "refresh", "v", "--strategy", "plain", "--lock-timeout", "1m", "--allow-superuser")
	await := func(what, text string) {
		t.Helper()
		pgtest.WaitFor(t, t.Context(), what, func() bool { return strings.Contains(s.written(), text) })
	}
	await("a line", "public.v  refreshing for")
	db.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (view_name, started_at) values ('public.lost', now() - interval '1 hour')`)
	const note = "note: public.lost: found a run whose worker is gone"
	await("a note", note)
	release()
	s.exits(0)
	if got := screenOf(s.written()); !strings.Contains(got, note) || strings.Contains(got, "refreshing for") {
		t.Errorf("on the screen is\n%s", got)
	}
}

var upAndClear = regexp.MustCompile("^\x1b\\[([0-9]+)A\x1b\\[J")

// screenOf is what remains of a text that goes up and clears what is below.
func screenOf(text string) string {
	var screen []string
	for line := range strings.Lines(text) {
		if match := upAndClear.FindStringSubmatch(line); match != nil {
			n, _ := strconv.Atoi(match[1])
			screen, line = screen[:max(len(screen)-n, 0)], line[len(match[0]):]
		}
		screen = append(screen, line)
	}
	return strings.Join(screen, "")
}
