//go:build linux || darwin || freebsd

package throwaway

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// stop ends whatever has been started so far. The directory goes before the
// watchdog: should we be killed in between, there is still somebody to do it.
func (s *Server) stop() error {
	var errs []error
	for _, p := range s.others {
		select {
		case <-p.done: // whoever relied on it should know
			errs = append(errs, fmt.Errorf("%s ended on its own: %w%s", filepath.Base(p.cmd.Path), p.result(), p.logTail()))
		default:
			p.killGroup()
			<-p.done
		}
	}
	if s.process != nil {
		errs = append(errs, s.process.end())
	}
	errs = append(errs, s.directory.remove())
	if s.watchdog != nil {
		errs = append(errs, s.watchdog.dismiss())
	}
	return errors.Join(errs...)
}

// end stops the postmaster without a checkpoint (immediate shutdown).
func (p *process) end() error {
	select {
	case <-p.done:
		return nil // it ended on its own, which is no fault of stopping
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop postgres: %w", err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopLimit):
	}
	p.killGroup()
	<-p.done
	return fmt.Errorf("stop postgres: it did not end within %s and was killed", stopLimit)
}

// StopCommand returns a shell line that does what Stop does, for a server that
// outlives us.
func (s *Server) StopCommand() string {
	dir, pidFile := quoteShell(s.dir), quoteShell(filepath.Join(s.dataDir(), "postmaster.pid"))
	line := fmt.Sprintf(`kill -QUIT "$(head -n 1 %[2]s)" && while test -e %[2]s; do sleep 0.1; done; rm -rf %[1]s`, dir, pidFile)
	if s.account.drop && os.Getenv("SUDO_UID") != "" {
		return "sudo sh -c " + quoteShell(line)
	}
	return line
}
