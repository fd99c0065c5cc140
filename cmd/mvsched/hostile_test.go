package main

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/pgtest"
)

var (
	hostileRuns = flag.Int("hostile", 16, "how many runs against a server that lies")
	hostileSeed = flag.Uint64("hostile-seed", 1, "the seed of the first of them")
)

// What a command may take against a server that lies: a few of its calls that each come to their deadline.
const (
	hostileTime   = 45 * time.Second
	hostileMemory = 512 << 20
)

// hostileCommands are those of which each speaks another part of the protocol.
var hostileCommands = []string{
	"run", "run -j 1", "refresh v", "status", "status -o json", "check", "history", "list", "why v", "plan", "graph", "doctor", "add w --every 5m", "set v --every 1h",
	"pause v", "cancel v", "prune", "init", "serve", "run --dry-run", "remove v",
}

// A server may answer what it will: every command ends, in time and with a documented exit code that is no bug's, without a
// panic, in bounded memory, and writes nothing that commands a terminal; and the database is as whole as before.
func TestServerThatLies(t *testing.T) {
	t.Parallel()
	all := lies()
	slices.SortFunc(all, func(a, b lie) int { return cmp.Compare(a.name, b.name) })
	struck := make(chan bool, *hostileRuns)
	t.Run("seeds", func(t *testing.T) {
		for i := range uint64(*hostileRuns) {
			seed := *hostileSeed + i
			r := rand.New(rand.NewPCG(seed, 0))
			lie, command, at, repeats := all[r.IntN(len(all))], hostileCommands[r.IntN(len(hostileCommands))], r.IntN(64), r.IntN(4) == 0
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				t.Parallel()
				struck <- lieTo(t, command, lie, at, repeats, seed)
			})
		}
	})
	close(struck)
	count := 0
	for hit := range struck {
		if hit {
			count++
		}
	}
	t.Logf("%d of %d runs met a lie", count, *hostileRuns)
	if count < *hostileRuns/3 {
		t.Errorf("only %d of %d runs met a lie", count, *hostileRuns)
	}
}

// lieTo runs one command against one lie, and reports whether it came to that.
func lieTo(t *testing.T, command string, lie lie, at int, repeats bool, seed uint64) (struck bool) {
	t.Helper()
	db := pgtest.NewDB(t)
	for _, view := range []string{"v", "w"} {
		db.Exec("create materialized view public." + view + " as select 1 as id")
		db.Exec("create unique index on public." + view + " (id)")
	}
	db.Schedule("public.v", "1 hour")
	db.Exec("update mvsched.materialized_view_refresh_schedule set maximum_execution_duration = '2 seconds'")
	what := fmt.Sprintf("mvsched %s, server %s at message %d (repeats: %v)", command, lie.name, at, repeats)

	l := newLiar(t, pgtest.DSN(t), lie, at, repeats, seed)
	host, port, err := net.SplitHostPort(l.address)
	if err != nil {
		t.Fatal(err)
	}
	dsn := withParameters(pgtest.Direct(pgtest.DSN(t)), []string{"host=" + host, "port=" + port, "sslmode=disable", "password=s3cr3t"})
	args := append(strings.Fields(command), "-v")
	if args[0] == "serve" {
		args = append(args, "--grace", "1s")
	}
	limit := hostileTime
	if strings.Contains(lie.name, "53300") {
		limit += time.Minute // to wait for a free connection
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "mvsched", append(args, "-d", dsn)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // it shows where it hangs
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if args[0] == "serve" {
		go func() {
			select {
			case <-l.struck:
			case <-time.After(5 * time.Second): // it may not come so far
			}
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}()
	}
	peak := peakMemory(cmd.Process.Pid)
	began := time.Now()
	_ = cmd.Wait()
	code := cmd.ProcessState.ExitCode()
	allowed := []int{exitDone, exitFailed, exitUsage, exitUnavailable, exitSchema}
	if args[0] == "serve" {
		allowed = append(allowed, exitStopped)
	}
	if lie.plausible {
		allowed = append(allowed, exitBug) // it cannot be told from one
	}
	switch {
	case ctx.Err() != nil:
		t.Errorf("%s: not over after %s\n%.30000s", what, limit, out.String())
	case !slices.Contains(allowed, code):
		t.Errorf("%s: exit code %d after %s\n%.4000s", what, code, time.Since(began), out.String())
	case strings.Contains(out.String(), "goroutine ") || strings.Contains(out.String(), "s3cr3t"):
		t.Errorf("%s: a panic, or a secret\n%.4000s", what, out.String())
	case commandsTerminal.Match(out.Bytes()):
		t.Errorf("%s: raw control characters: %.2000q", what, out.String())
	}
	if bytes := peak(); bytes > hostileMemory {
		t.Errorf("%s: %d MB of memory", what, bytes>>20)
	}

	p := processes{t, pgtest.DSN(t)}
	p.run([]int{exitDone}, "init", "-q")
	p.run([]int{exitDone}, "refresh", "w", "-q", "--allow-superuser")
	db.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule_execution where (status = 'running') <> (ended_at is null)`)
	select {
	case <-l.struck:
		return true
	default:
		return false
	}
}

// commandsTerminal is what must not reach a terminal.
var commandsTerminal = regexp.MustCompile(`[\x00-\x08\x0b-\x1f\x7f]`)

// peakMemory follows how much memory a process has had at the most, in bytes, until the returned function is called. Its
// resource usage does not tell: that begins with the memory of whoever started it, here of all the tests.
func peakMemory(pid int) (stop func() int) {
	done, peak := make(chan struct{}), make(chan int)
	go func() {
		most := 0
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // of Linux alone; when it has ended, nothing
			if _, line, ok := strings.Cut(string(status), "VmHWM:"); ok {
				var kB int
				if _, err := fmt.Sscan(line, &kB); err == nil {
					most = max(most, kB<<10)
				}
			}
			select {
			case <-done:
				peak <- most
				return
			case <-tick.C:
			}
		}
	}()
	return func() int {
		close(done)
		return <-peak
	}
}
