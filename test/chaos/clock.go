package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// A clock is how far somebody's wall clock is off. It is in a file, which those whose clock it is have in their memory: so
// it jumps for all of them at once, in the middle of whatever they do. Their monotonic clocks go on, as they do when a
// machine's clock is set.
//
// No tool jumps the wall clock of a statically linked program, nor does a namespace, and setting the machine's clock is not
// ours to do. So the workers are built from the same source with a standard library whose time.Now adds the offset, and
// the server is run with a library before libc that does.
type clock struct {
	file   string
	offset *atomic.Int64
}

func newClock(file string) (*clock, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(make([]byte, 8)); err != nil {
		return nil, err
	}
	if err := f.Chmod(0o644); err != nil { // whatever the umask
		return nil, err
	}
	memory, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &clock{file: file, offset: (*atomic.Int64)(unsafe.Pointer(&memory[0]))}, nil
}

// jump puts the clock forward, or back.
func (c *clock) jump(d time.Duration) { c.offset.Add(int64(d)) }

// now is what the clock shows; nobody's is right.
func (c *clock) now() time.Time {
	if c == nil {
		return time.Now()
	}
	return time.Now().Add(time.Duration(c.offset.Load()))
}

// envClock names the clock's file to whoever has it.
const envClock = "CHAOS_CLOCK"

var (
	//go:embed overlay/shift.go.txt
	shiftSource string
	//go:embed overlay/goroutines.go.txt
	goroutinesSource string
	//go:embed overlay/clock.c
	clockSource string
)

// nowCall is what stands in time.Now, and what is to stand there.
const nowCall, shiftedCall = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()", "func Now() Time {\n\tsec, nsec, mono := shifted(runtimeNow())"

// overlayFor writes an overlay for go build: what the program's clock needs, and a count of its goroutines.
func overlayFor(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	goTime := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	text, err := os.ReadFile(filepath.Join(goTime, "time.go"))
	if err != nil {
		return "", err
	}
	if strings.Count(string(text), nowCall) != 1 {
		return "", errors.New("time.Now of this Go is not as it is known here")
	}
	command, err := filepath.Abs(filepath.Join("..", "..", "cmd", "mvsched"))
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for target, source := range map[string]string{
		filepath.Join(goTime, "time.go"):           strings.Replace(string(text), nowCall, shiftedCall, 1),
		filepath.Join(goTime, "shift.go"):          shiftSource,
		filepath.Join(command, "goroutines_in.go"): goroutinesSource,
	} {
		file := filepath.Join(dir, filepath.Base(target))
		if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
			return "", err
		}
		replace[target] = file
	}
	text, err = json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// serverClock makes the clock of every server that is started from now on one of ours.
func serverClock(ctx context.Context, dir string) (*clock, error) {
	source, library := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so")
	if err := os.WriteFile(source, []byte(clockSource), 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("gcc, for the server's clock: %w: %s", err, out)
	}
	c, err := newClock(filepath.Join(dir, "clock"))
	if err != nil {
		return nil, err
	}
	return c, errors.Join(os.Chmod(library, 0o755), os.Setenv(envClock, c.file), os.Setenv("LD_PRELOAD", library))
}

// clockFaults set clocks. Those of the workers jump forward and back; the server's goes forward only, since afterwards the
// oracle has to tell by the server's log what came first.
func clockFaults() []*kind {
	return []*kind{
		{name: "worker's clock put forward, 1 s to 1 day", weight: 3, phases: onTheWay, strike: jumpWorker(1)},
		{name: "worker's clock put back, 1 s to 1 day", weight: 3, phases: onTheWay, strike: jumpWorker(-1)},
		{name: "server's clock put forward, 1 s to 2 h", weight: 1, phases: withBackend, strike: jumpServer},
	}
}

// between1sAnd picks a duration from a second up, short ones as often as long ones.
func (f *fault) between1sAnd(most time.Duration) time.Duration {
	d := time.Second
	for rest := f.chance * float64(17); rest > 0 && d < most; rest-- { // 2^17 seconds are a day and a half
		d += time.Duration(min(rest, 1) * float64(d))
	}
	return min(d, most)
}

func jumpWorker(direction time.Duration) func(*fault, *link, []byte) (bool, error) {
	return func(f *fault, l *link, _ []byte) (bool, error) {
		w := l.proxy.worker
		if err := w.has(w.clock); err != nil {
			return false, err
		}
		w.clock.jump(direction * f.between1sAnd(24*time.Hour))
		return false, nil
	}
}

func jumpServer(f *fault, l *link, _ []byte) (bool, error) {
	e := f.episode
	return false, e.alone(func(context.Context) error {
		if err := mapped(int(l.pid.Load()), e.clock.file); err != nil {
			return err
		}
		e.clock.jump(f.between1sAnd(2 * time.Hour))
		return nil
	})
}

// has makes sure that the worker's process goes by a clock.
func (w *worker) has(c *clock) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cmd == nil {
		return errNoProcess
	}
	return mapped(w.cmd.Process.Pid, c.file)
}

// mapped makes sure that a process has a file in its memory.
func mapped(pid int, file string) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err == nil && !strings.Contains(string(text), file) {
		err = fmt.Errorf("process %d has not mapped %s", pid, file)
	}
	return err
}
