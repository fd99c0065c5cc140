//go:build linux || darwin || freebsd

package throwaway

import (
	"context"
	"path/filepath"
	"syscall"
)

// Accompany starts another program that goes with the server, such as a
// pooler, and returns once connect succeeds. It runs as the account of the
// server, and prints into a log beside the server's. Stop kills it first, and
// complains if it has ended on its own; if we die before, the kernel kills it
// (Linux only). So it had better be one process with nothing to lose.
func (s *Server) Accompany(ctx context.Context, connect func(context.Context) error, program string, args ...string) error {
	attr := childAttr(false)
	dieWithParent(attr, syscall.SIGKILL)
	p, err := s.execTo(filepath.Join(s.dir, filepath.Base(program)+".log"), program, args, attr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := s.await(ctx, p, connect); err != nil {
		p.killGroup()
		<-p.done
		return err
	}
	s.others = append(s.others, p)
	return nil
}
