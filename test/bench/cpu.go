package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc (USER_HZ, 100 on every Linux that Go runs on).
const tick = 10 * time.Millisecond

// process is what /proc/PID/stat tells.
type process struct {
	pid, parent   int
	own, children time.Duration // processor time; of the children that have been waited for
}

func readProcess(pid int) (process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	// The second field is the name in parentheses, which may hold anything.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
	fields := strings.Fields(rest) // from the third on
	number := func(i int) time.Duration {
		n, _ := strconv.ParseInt(fields[i-3], 10, 64) // the kernel writes numbers
		return time.Duration(n)
	}
	return process{
		pid: pid, parent: int(number(4)), own: (number(14) + number(15)) * tick, children: (number(16) + number(17)) * tick,
	}, nil
}

// title is what the process calls itself; "" when it is gone.
func (p process) title() string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid)) // as above
	return strings.Trim(string(text), "\x00 ")
}

// children are the processes that a process has started.
func children(of int) []process {
	found, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	var all []process
	for _, dir := range found {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if p, err := readProcess(pid); err == nil && p.parent == of { // it may be gone by now
			all = append(all, p)
		}
	}
	return all
}

// meter tells how much processor time the server spends on what comes between newMeter and read: that of the backends,
// which is the postmaster's once they are gone, and of pg_cron's launcher, which stays.
type meter struct {
	postmaster int
	spent      time.Duration
}

func (b *bench) newMeter(ctx context.Context) (*meter, error) {
	pid, err := b.postmaster(ctx)
	if err != nil {
		return nil, err
	}
	m := &meter{postmaster: pid}
	m.spent, err = m.sum(ctx)
	return m, err
}

// read waits until the backends are gone.
func (m *meter) read(ctx context.Context) (time.Duration, error) {
	spent, err := m.sum(ctx)
	return spent - m.spent, err
}

func (m *meter) sum(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		var launcher time.Duration
		var backends []string
		for _, child := range children(m.postmaster) {
			title := child.title()
			switch {
			case strings.Contains(title, "pg_cron launcher"):
				launcher += child.own
			case title == "", strings.Contains(title, "[local]"): // without a title it is about to go
				backends = append(backends, title)
			}
		}
		if len(backends) <= 1 { // the administrator's
			p, err := readProcess(m.postmaster)
			return p.own + p.children + launcher, err
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return 0, fmt.Errorf("backends stay: %q: %w", backends, err)
		}
	}
}

// pause waits a while, unless the context ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
