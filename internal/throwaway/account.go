//go:build linux || darwin || freebsd

package throwaway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who the server runs as.
type account struct {
	uid, gid int
	name     string
	drop     bool // we are root, it is not
}

func (a account) String() string { return fmt.Sprintf("%s (uid %d)", a.name, a.uid) }

// serverAccount returns our own account, or as root the first that is fit for
// a server: who called sudo, postgres, nobody. It must be known by name, or
// initdb refuses it.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	lookups := []func() (*user.User, error){
		func() (*user.User, error) { return user.LookupId(os.Getenv("SUDO_UID")) },
		func() (*user.User, error) { return user.Lookup("postgres") },
		func() (*user.User, error) { return user.Lookup("nobody") },
	}
	for _, lookup := range lookups {
		u, err := lookup()
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(u.Uid)
		gid, gidErr := strconv.Atoi(u.Gid)
		if uidErr == nil && gidErr == nil && uid > 0 { // uid -2 is how some systems print nobody's
			return account{uid: uid, gid: gid, name: u.Username, drop: true}, nil
		}
	}
	return account{}, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")
}

// credential makes a child run as the account, without our groups.
func (a account) credential() *syscall.Credential {
	if !a.drop {
		return nil
	}
	return &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)} //nolint:gosec // ids have 32 bits
}

// own hands the file to the account.
func (a account) own(path string) error {
	if !a.drop {
		return nil
	}
	if err := os.Chown(path, a.uid, a.gid); err != nil {
		return a.explain(path, err)
	}
	return nil
}

// explain says what an error means that comes from being root only in part, or
// from leaving root.
func (a account) explain(path string, err error) error {
	switch {
	case a.drop && errors.Is(err, syscall.EPERM):
		return fmt.Errorf("PostgreSQL does not run as root, and this container or sandbox does not let root run it as %s; start this as an ordinary user: %w", a, err)
	case a.drop && errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the server would run as %s, who may not use %q; install PostgreSQL where every user may read it, or start this as an ordinary user: %w", a, path, err)
	}
	return err
}

// canEnter reports whether the modes of the directory and those above it let
// the account through.
func (a account) canEnter(dir string) bool {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		var st syscall.Stat_t
		if syscall.Stat(dir, &st) != nil {
			return false
		}
		x := fs.FileMode(0o001)
		switch {
		case int(st.Uid) == a.uid:
			x = 0o100
		case int(st.Gid) == a.gid:
			x = 0o010
		}
		if fs.FileMode(st.Mode)&x == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// cacheIsShared reports whether the cache must suit more accounts than ours.
func cacheIsShared() bool { return os.Geteuid() == 0 }
