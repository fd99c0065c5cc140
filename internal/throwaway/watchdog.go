//go:build linux || darwin || freebsd

package throwaway

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// watchdogScript waits for a word from us. If it gets none, we have died: it
// ends the postmaster, waits until that has removed its pid file, and removes
// the directory. All waits are bounded. Only the directory tells which process
// the postmaster is, so the watchdog can start before it.
const watchdogScript = `
dir=$1 pidfile=$1/data/postmaster.pid
read -r word
[ "$word" = dismissed ] && exit
read -r pid <"$pidfile"
case $pid in 0|1|*[!0-9]*) pid=;; esac # initdb's server writes a negative number
[ -n "$pid" ] && kill -QUIT "$pid"
n=0
while [ -n "$pid" ] && [ -e "$pidfile" ] && kill -0 "$pid" && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done
n=0
until rm -rf "$dir" && [ ! -e "$dir" ] || [ $n -ge 50 ]; do sleep 0.1; n=$((n+1)); done
`

// watchdog is a shell that outlives us for a moment if we are killed.
type watchdog struct {
	process *process
	pipe    io.WriteCloser
}

// startWatchdog lets a watchdog guard the directory. Should there be no shell,
// Sweep has to do its work, later.
func startWatchdog(dir string) (*watchdog, error) {
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "mvsched-watchdog", dir) //nolint:noctx // it outlives us
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to survive a Ctrl-C
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("open a pipe to the watchdog: %w", err)
	}
	p, err := startProcess(cmd)
	if err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return &watchdog{process: p, pipe: pipe}, nil
}

// dismiss ends the watchdog without making it act.
func (w *watchdog) dismiss() error {
	_, writeErr := io.WriteString(w.pipe, "dismissed\n")
	closeErr := w.pipe.Close()
	<-w.process.done
	for _, err := range []error{writeErr, closeErr} {
		// It may have been gone before, and whoever waits for it closes the
		// pipe too, as soon as it has heard us.
		if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
			return fmt.Errorf("dismiss the watchdog: %w", err)
		}
	}
	return nil
}
