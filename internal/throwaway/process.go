//go:build linux || darwin || freebsd

package throwaway

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
)

// process is a child in a process group of its own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once it has been waited for
	err  error         // of Wait; valid once done is closed
}

// startProcess starts the command from a thread that lives as long as the
// child: Linux sends the parent-death signal when the thread ends that forked,
// and the runtime may end threads at any time.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

// result returns how the process ended, also if that was well.
func (p *process) result() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// killGroup kills the process and those of its children that stayed with it.
func (p *process) killGroup() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // fails only if all are gone
}

// childAttr puts a child where a Ctrl-C at the terminal does not reach it,
// because its end is up to us. A child to be kept leaves the session as well.
func childAttr(keep bool) *syscall.SysProcAttr {
	if keep {
		return &syscall.SysProcAttr{Setsid: true}
	}
	a := &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(a, syscall.SIGQUIT)
	return a
}
