package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// disk is a small one, in memory.
type disk struct{ path string }

// smallSpace is the tablespace that is on a small disk.
const smallSpace = "small"

// makeDisks puts the server's log of changes on one, and makes a tablespace on the other.
func (s *site) makeDisks(ctx context.Context) error {
	owner, err := os.Stat(filepath.Join(s.server.Dir(), "data"))
	if err != nil {
		return err
	}
	account := owner.Sys().(*syscall.Stat_t)
	for name, d := range map[string]**disk{"space": &s.disk, "wal": &s.wal} {
		made := &disk{path: s.file(name)}
		options := fmt.Sprintf("size=192m,mode=0700,uid=%d,gid=%d", account.Uid, account.Gid)
		err := errors.Join(os.Mkdir(made.path, 0o755), syscall.Mount("tmpfs", made.path, "tmpfs", 0, options))
		if err != nil {
			return fmt.Errorf("a small disk: %w", err)
		}
		*d = made
	}
	if err := execute(ctx, s.server, "postgres",
		fmt.Sprintf(`create tablespace %s location '%s'`, smallSpace, s.disk.path),
		`grant create on tablespace `+smallSpace+` to public`,
		`alter system set max_wal_size = '32MB'`, // few segments that wait to be used again
		`alter system set min_wal_size = '2MB'`); err != nil {
		return err
	}
	return s.server.RestartAfter(ctx, false, func() error {
		here, there := filepath.Join(s.server.Dir(), "data", "pg_wal"), filepath.Join(s.wal.path, "pg_wal")
		if err := os.CopyFS(there, os.DirFS(here)); err != nil {
			return err
		}
		err := filepath.WalkDir(there, func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, int(account.Uid), int(account.Gid)), os.Chmod(path, 0o700))
		})
		return errors.Join(err, os.RemoveAll(here), os.Symlink(there, here))
	})
}

// fill leaves no room on the disk, until the function that it returns is called.
func (d *disk) fill() (free func(), err error) {
	f, err := os.Create(filepath.Join(d.path, "ballast"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	at := int64(0)
	for piece := int64(1 << 20); piece >= 1<<12; { // smaller ones when there is no room for a large one
		if syscall.Fallocate(int(f.Fd()), 0, at, piece) == nil {
			at += piece
		} else {
			piece /= 2
		}
	}
	return func() { _ = os.Remove(f.Name()) }, nil
}

func storageFaults() []*kind {
	return []*kind{
		{name: "disk full: tables and indexes, 0.5 to 4 s", weight: 3, phases: withBackend, strike: fillSpace},
		{name: "disk full: log of changes, the server goes down", weight: 2, phases: withBackend, strike: fillWAL},
	}
}

// refusal is what the server logs when a worker is refused room; the writer may be too, which hits nothing.
var refusal = regexp.MustCompile(`\|chaos[^|]*\|53100\|`)

// fillSpace hits when a worker is refused room.
func fillSpace(f *fault, _ *link, _ []byte) (bool, error) {
	e := f.episode
	return false, e.alone(func(context.Context) error {
		mark := e.logSize()
		free, err := e.disk.fill()
		if err != nil {
			return err
		}
		defer free()
		e.laterOrAtTheEnd(5*time.Second, free) // should we get stuck
		e.pause(f.between(500*time.Millisecond, 4*time.Second))
		if !refusal.MatchString(e.logSince(mark)) {
			return errors.New("nobody has noticed")
		}
		return nil
	})
}

// fillWAL hits when the server goes down, which happens once nothing can be written any more. It is started again when there
// is room.
func fillWAL(f *fault, _ *link, _ []byte) (bool, error) {
	e := f.episode
	return false, e.alone(func(ctx context.Context) error {
		mark := e.logSize()
		free, err := e.wal.fill()
		if err != nil {
			return err
		}
		defer free()
		conn, err := pgx.Connect(ctx, e.server.DSN("postgres"))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		for began := time.Now(); err == nil && time.Since(began) < 10*time.Second; {
			_, err = conn.Exec(ctx, `select pg_catalog.pg_switch_wal() from (select pg_catalog.pg_logical_emit_message(true, 'ballast', repeat('x', 100000))) m`)
		}
		if !strings.Contains(e.logSince(mark), "PANIC") {
			return errors.New("the server goes on")
		}
		e.pause(f.between(0, 2*time.Second))
		free()
		return e.server.Restart(ctx, true)
	})
}

func (e *episode) logSize() int64 {
	info, err := os.Stat(e.server.LogFile())
	if err != nil {
		return 0
	}
	return info.Size()
}

// logSince is what the server has logged since.
func (e *episode) logSince(mark int64) string {
	text, err := os.ReadFile(e.server.LogFile())
	if err != nil || int64(len(text)) < mark {
		return ""
	}
	return string(text[mark:])
}
