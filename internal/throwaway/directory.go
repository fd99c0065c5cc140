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

const (
	prefix   = "mvsched-pg-"
	lockName = "owner.lock" // locked as long as the owner lives
	keepName = "keep"       // there if the server may outlive its owner

	// maxSocketPath is the shortest limit of all systems, that of macOS.
	maxSocketPath = 103
)

// directory holds everything of one server.
type directory struct {
	path string
	lock *os.File
}

// newDirectory makes a directory in the first suitable place, with data and
// socket directories that only the account can enter.
func newDirectory(acc account, base string) (*directory, error) {
	places := bases()
	if base != "" {
		places = []string{base}
	}
	var errs []error
	for _, place := range places {
		d, err := lockedDirectory(acc, place)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, sub := range []string{"data", "s"} {
			path := filepath.Join(d.path, sub)
			if err = os.Mkdir(path, 0o700); err == nil {
				err = acc.own(path)
			}
			if err != nil {
				return nil, errors.Join(fmt.Errorf("make a directory for the server: %w", err), d.remove())
			}
		}
		return d, nil
	}
	return nil, fmt.Errorf("no place for a server: %w", errors.Join(errs...))
}

// bases lists where servers are put: memory if there is enough of it, else
// disk. The last is for a TMPDIR that is too long for a socket path, or closed
// to the account of the server.
func bases() []string {
	places := []string{os.TempDir(), "/tmp"}
	if places[0] == places[1] {
		places = places[1:]
	}
	if dir := memoryDir(); dir != "" {
		places = append([]string{dir}, places...)
	}
	return places
}

// lockedDirectory makes a directory that sweepers leave alone.
func lockedDirectory(acc account, base string) (*directory, error) {
	if acc.drop && !acc.canEnter(base) {
		return nil, fmt.Errorf("%q is closed to the account of the server", base)
	}
	for {
		path, err := os.MkdirTemp(base, prefix)
		if err != nil {
			return nil, err
		}
		if len(filepath.Join(path, "s", ".s.PGSQL.65535")) > maxSocketPath {
			return nil, errors.Join(fmt.Errorf("%q is too long for a socket path", base), os.Remove(path))
		}
		d, ok, err := lockDirectory(path)
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(path))
		}
		if !ok {
			continue // a sweeper was there between making and locking
		}
		// The account must get through to its own directories in here.
		if err := os.Chmod(path, 0o711); err != nil {
			return nil, errors.Join(err, d.remove())
		}
		return d, nil
	}
}

// lockDirectory locks the directory, unless a sweeper has it.
func lockDirectory(path string) (d *directory, ok bool, err error) {
	name := filepath.Join(path, lockName)
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		// The lock is worth something only if the file is still there.
		var mine, there os.FileInfo
		if mine, err = lock.Stat(); err == nil {
			there, err = os.Stat(name)
		}
		if err == nil && os.SameFile(mine, there) {
			return &directory{path: path, lock: lock}, true, nil
		}
	}
	_ = lock.Close() // nothing was written
	if err == nil || errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("lock %q: %w", name, err)
}

// markKept makes sweepers leave the directory alone for good.
func (d *directory) markKept() error {
	if err := os.WriteFile(filepath.Join(d.path, keepName), nil, 0o600); err != nil {
		return fmt.Errorf("mark the server as kept: %w", err)
	}
	return nil
}

// remove removes the directory and gives up the lock.
func (d *directory) remove() error {
	return errors.Join(removeTree(d.path), d.lock.Close())
}

// removeTree removes the directory, the lock last: a sweeper that finds no
// lock takes a directory for new. It repeats itself for a while, because the
// children of a killed program go on writing until they notice.
func removeTree(path string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var err error
	for deadline := time.Now().Add(stopLimit / 2); ; <-tick.C {
		if err = os.RemoveAll(dataDir(path)); err == nil {
			if err = os.RemoveAll(path); err == nil {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove the directory of the server: %w", err)
		}
	}
}
