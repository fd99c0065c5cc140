package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// grace is what workers are told to give their refreshes when they are stopped.
const grace = 2 * time.Second

// stopLimit is I9's and L4's: from SIGTERM to exit.
const stopLimit = grace + 5*time.Second

// secret is the workers' password. The server asks for none; it is there to be looked for in what they print.
const secret = "hunter2-must-not-be-seen"

// worker is one process of mvsched after the other: when one ends, the next begins.
type worker struct {
	episode *episode
	name    string
	args    []string
	proxy   *proxy
	host    *host  // nil: the server's, and the way to it is the proxy
	clock   *clock // nil: right

	mu       sync.Mutex
	cmd      *exec.Cmd
	exited   chan struct{} // of cmd
	signals  int           // that cmd was sent
	quit     bool          // it was told to print where it is
	stopped  time.Time     // when it was first told to end in a way that it can answer
	frozen   int
	thawed   time.Time
	output   bytes.Buffer
	retiring bool
}

// keep runs the worker until the context ends.
func (w *worker) keep(ctx context.Context) {
	// A child that is to die with us dies with the thread that started it.
	runtime.LockOSThread()
	for ctx.Err() == nil {
		err := w.start()
		if errors.Is(err, errRetiring) {
			return
		}
		if err != nil {
			w.episode.lose(fmt.Errorf("worker %s cannot be started: %w", w.name, err))
			return
		}
		w.ended(w.cmd.Wait())
	}
}

var errRetiring = errors.New("it is to end for good")

func (w *worker) start() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.retiring {
		return errRetiring
	}
	w.output.Reset()
	w.signals, w.quit, w.stopped, w.frozen, w.thawed = 0, false, time.Time{}, 0, time.Time{}
	cmd, address := exec.Command(w.episode.binary, w.args...), fmt.Sprintf("127.0.0.1:%d", w.proxy.port())
	if w.host != nil {
		cmd = exec.Command("nsenter", w.host.enter(w.episode.binary, w.args)...)
		address = w.host.address(0) + ":5432"
	}
	cmd.Env = []string{
		"PATH=/usr/bin:/bin",
		fmt.Sprintf("MVSCHED_DATABASE_URL=postgres://worker:%s@%s/%s?sslmode=disable&application_name=%s",
			secret, address, w.episode.database, w.name),
		"CHAOS_GOROUTINES=" + w.goroutinesFile(),
	}
	if w.clock != nil {
		cmd.Env = append(cmd.Env, envClock+"="+w.clock.file)
	}
	cmd.Stdout, cmd.Stderr = &lockedWriter{w}, &lockedWriter{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	w.cmd, w.exited = cmd, make(chan struct{})
	return nil
}

// goroutinesFile is where a process says how many goroutines it has, when it was built to.
func (w *worker) goroutinesFile() string { return w.episode.file(w.name + ".goroutines") }

// lockedWriter keeps the first of what a worker prints.
type lockedWriter struct{ w *worker }

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.w.output.Len() < 1<<20 {
		l.w.output.Write(p)
	}
	return len(p), nil
}

// ended looks at how a process has ended, and waits a moment before the next.
func (w *worker) ended(err error) {
	w.mu.Lock()
	close(w.exited)
	code := w.cmd.ProcessState.ExitCode() // -1: by a signal
	text, signals, quit, stopped := w.output.String(), w.signals, w.quit, w.stopped
	if !w.thawed.IsZero() && w.thawed.After(stopped) {
		stopped = w.thawed
	}
	frozen := w.frozen > 0
	w.cmd = nil
	w.mu.Unlock()

	e := w.episode
	e.countExit(w.args[0], code)
	say := func(invariant, problem string) {
		e.violate(invariant, "%s (%s): %s; %v; it said: %s", w.name, strings.Join(w.args, " "), problem, err, tail(text))
	}
	if strings.Contains(text, secret) {
		say("I8", "printed its password")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) && !quit {
		say("I8", "printed a control byte")
	}
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && code == -1
	switch {
	case killed && signals == 0:
		say("L1", "died by itself")
	case killed || quit:
	case code == 70 || strings.Contains(text, "panic:") || strings.Contains(text, "report it"):
		say("L3", "found a bug")
	case code == 2 || code == 4 || code == 74:
		say("L3", fmt.Sprintf("ended with %d", code))
	case signals == 0 && w.args[0] == "serve" && code != 3:
		say("L3", fmt.Sprintf("ended with %d, told by nobody", code))
	case signals > 0 && !frozen && !stopped.IsZero():
		took := time.Since(stopped)
		e.noteStop(took)
		if took > stopLimit {
			say("L4", fmt.Sprintf("took %s to end", took))
		}
	}
	if code == 3 {
		e.pause(100 * time.Millisecond) // as a service manager does
	}
	if w.args[0] == "run" {
		e.pause(50 * time.Millisecond)
	}
}

func tail(text string) string {
	if len(text) > 1500 {
		text = "…" + text[len(text)-1500:]
	}
	return strings.TrimSpace(text)
}

var errNoProcess = errors.New("there is no process just now")

// signal sends a signal that is to end it.
func (w *worker) signal(s os.Signal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cmd == nil {
		return errNoProcess
	}
	if err := w.cmd.Process.Signal(s); err != nil {
		return err
	}
	w.signals++
	w.quit = w.quit || s == syscall.SIGQUIT
	if w.stopped.IsZero() && (s == syscall.SIGTERM || s == syscall.SIGINT) {
		w.stopped = time.Now()
	}
	return nil
}

// hangUpEnds makes SIGHUP end the processes that are started from now on. Under nohup it is ignored, and so it is in all who
// are started from there: a worker that was sent one would seem to take for ever to end.
func hangUpEnds() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // what is handled is the default again in a child
}

// kill kills it and waits until it is dead.
func (w *worker) kill() error {
	if err := w.signal(syscall.SIGKILL); err != nil {
		return err
	}
	w.mu.Lock()
	exited := w.exited
	w.mu.Unlock()
	select {
	case <-exited:
		return nil
	case <-time.After(5 * time.Second):
		return errors.New("it does not die")
	}
}

// freeze stops the process, and lets it go on later.
func (w *worker) freeze(d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cmd == nil {
		return errNoProcess
	}
	cmd := w.cmd
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	w.frozen++
	time.AfterFunc(d, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		_ = cmd.Process.Signal(syscall.SIGCONT)
		if w.cmd == cmd {
			w.frozen--
			w.thawed = time.Now()
		}
	})
	return nil
}

// thaw lets it go on now.
func (w *worker) thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cmd != nil {
		_ = w.cmd.Process.Signal(syscall.SIGCONT)
		w.frozen, w.thawed = 0, time.Now()
	}
}

// retire ends the worker for good, with SIGTERM and then, if it has to be, by force.
func (w *worker) retire() {
	w.thaw()
	w.mu.Lock()
	w.retiring = true
	exited := w.exited
	w.mu.Unlock()
	if w.signal(syscall.SIGTERM) != nil {
		return
	}
	select {
	case <-exited:
	case <-time.After(stopLimit + time.Second):
		_ = w.kill() // which is noted as too late
	}
}
