package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/mvsched/mvsched/internal/throwaway"
)

// need is what a theme takes beside a server. Who asks for such a theme gets it; the others go without.
type need int

const (
	nothing   need = iota
	aPooler        // PgBouncer
	clocks         // to set; it takes gcc
	disks          // small ones; it takes root
	aStandby       // it takes pg_basebackup
	networks       // of several hosts; it takes root
	endurance      // a count of goroutines, built in, and all the time in one episode
	crowded        // many connections
)

// site is what an episode is in: the server, and what stands around it.
type site struct {
	dir    string // for files
	server *throwaway.Server
	binary string  // of mvsched
	pooler *pooler // nil: none
	clock  *clock  // the server's; nil: right
	disk   *disk   // where the episodes' databases are; nil: beside the others
	wal    *disk   // nil: beside the others
	hosts  []*host // each for a worker; nil: all are on the server's
}

// build starts everything, for a theme's need. Whether it succeeds or not, close is to be called.
func (s *site) open(ctx context.Context, binary string, needs need, say func(string)) (err error) {
	if s.dir, err = os.MkdirTemp("", "mvsched-chaos-"); err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil { // the server is somebody else
		return err
	}
	if s.binary = binary; binary == "" {
		overlay := ""
		if needs == clocks || needs == endurance {
			if overlay, err = overlayFor(ctx, s.dir); err != nil {
				return err
			}
		}
		if s.binary, err = build(ctx, s.dir, overlay); err != nil {
			return err
		}
	}
	var settings []string
	switch needs {
	case clocks:
		if s.clock, err = serverClock(ctx, s.dir); err != nil {
			return err
		}
	case crowded:
		settings = []string{crowdConnections}
	case networks:
		settings = []string{"listen_addresses=*"}
	}
	if s.server, err = startServer(ctx, settings, say); err != nil {
		return err
	}
	switch needs {
	case disks:
		err = s.makeDisks(ctx)
	case aPooler:
		s.pooler, err = newPooler(ctx, s.server)
	case networks:
		err = s.makeHosts(ctx)
	}
	if err != nil {
		return err
	}
	return install(ctx, s.server, s.binary)
}

// close ends everything and removes it.
func (s *site) close() {
	if s.pooler != nil && s.pooler.process != nil {
		_ = s.pooler.end(os.Kill)
	}
	for _, h := range s.hosts {
		h.close()
	}
	if s.server != nil {
		if err := s.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the server:", err)
		}
	}
	for _, d := range []*disk{s.disk, s.wal} {
		if d != nil {
			_ = syscall.Unmount(d.path, syscall.MNT_DETACH)
		}
	}
	_ = os.RemoveAll(s.dir)
}

// envInside is set for the process that has mounts and networks of its own.
const envInside = "CHAOS_INSIDE"

// inside runs this program again with mounts and networks of its own, which are gone when it ends. It reports whether that
// was necessary, and how it went.
func inside(ctx context.Context, needs need) (done bool, err error) {
	if needs != disks && needs != networks || os.Getenv(envInside) != "" {
		return false, nil
	}
	if os.Geteuid() != 0 {
		return true, errors.New("small disks and several hosts take root: mounts and networks are made for them")
	}
	self, err := os.Executable()
	if err != nil {
		return true, err
	}
	script := `mount --make-rprivate / && ip link set lo up && exec "$0" "$@"`
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--net", "sh", "-c", script, self}, os.Args[1:]...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	runtime.LockOSThread() // with the thread that starts it, it ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	return true, cmd.Run()
}

// file is a place for a file of the site.
func (s *site) file(name string) string { return filepath.Join(s.dir, name) }
