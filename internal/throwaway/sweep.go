//go:build linux || darwin || freebsd

package throwaway

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lockless is how long a directory without a lock is taken for one that is
// just being made.
const lockless = time.Minute

// Sweep ends the servers whose owner has died and removes their directories.
// It touches neither those of other users nor those that are to be kept.
func Sweep() error {
	var errs []error
	for _, base := range bases() {
		errs = append(errs, sweep(base))
	}
	return errors.Join(errs...)
}

func sweep(base string) error {
	dirs, err := filepath.Glob(filepath.Join(base, prefix+"*"))
	if err != nil {
		return fmt.Errorf("sweep %q: %w", base, err)
	}
	var errs []error
	for _, dir := range dirs {
		if err := sweepDirectory(dir); err != nil {
			errs = append(errs, fmt.Errorf("sweep %q: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

func sweepDirectory(dir string) error {
	// The places are open to everyone, so the name alone proves nothing. What
	// we own has been made by us: nobody else can put files into it.
	info, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() {
		return nil
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if time.Since(info.ModTime()) < lockless {
			return nil
		}
	case err != nil:
		return err
	default:
		defer func() { _ = lock.Close() }() // nothing was written
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return nil // the owner lives, or another sweeper is at it
		}
	}
	// Only now is this final: the owner sets the mark while it holds the lock.
	if _, err := os.Lstat(filepath.Join(dir, keepName)); err == nil {
		return nil
	}
	endPostmaster(dataDir(dir))
	return removeTree(dir)
}

// endPostmaster ends the postmaster of the data directory, if there is one,
// and waits for its end.
func endPostmaster(data string) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil || pid <= 1 {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, signal := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGKILL} {
		if !isPostmaster(pid, data) {
			return
		}
		_ = syscall.Kill(pid, signal) // if it fails, the process is gone
		for deadline := time.Now().Add(stopLimit); isPostmaster(pid, data) && time.Now().Before(deadline); {
			<-tick.C
		}
	}
}
