package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// host is where a worker runs: a network namespace, with a cable to the server's. It is held by a process that waits.
type host struct {
	index  int
	holder *exec.Cmd
	macs   [2]string // of the cable's ends: the server's, the worker's

	mu   sync.Mutex
	dark bool
}

const hostCount = 3

// nowhere is an address that no card has: what is sent there is gone, and nobody says so.
const nowhere = "02:00:00:00:00:99"

func (h *host) near() string { return fmt.Sprintf("cable%d", h.index) }

// address is that of one end of the cable.
func (h *host) address(end int) string { return fmt.Sprintf("10.99.%d.%d", h.index, end+1) }

// makeHosts makes them, and lets their workers in at the server.
func (s *site) makeHosts(ctx context.Context) error {
	for i := range hostCount {
		h := &host{index: i}
		h.holder = exec.Command("unshare", "--net", "cat")
		if _, err := h.holder.StdinPipe(); err != nil { // which ends it when we die
			return err
		}
		if err := h.holder.Start(); err != nil {
			return err
		}
		s.hosts = append(s.hosts, h)
		if err := h.connect(ctx); err != nil {
			return fmt.Errorf("a host for worker %d: %w", i, err)
		}
	}
	hba, err := os.OpenFile(filepath.Join(s.server.Dir(), "data", "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = hba.Close() }()
	if _, err := hba.WriteString("host all worker 10.99.0.0/16 trust\n"); err != nil {
		return err
	}
	return execute(ctx, s.server, "postgres", `select pg_catalog.pg_reload_conf()`)
}

// connect lays the cable, once the holder has a network of its own.
func (h *host) connect(ctx context.Context) error {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	for {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.pid()))
		if err != nil {
			return err
		}
		if theirs != ours {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	for _, command := range []string{
		fmt.Sprintf("link add %s type veth peer name eth0 netns %d", h.near(), h.pid()),
		fmt.Sprintf("addr add %s/24 dev %s", h.address(0), h.near()),
		fmt.Sprintf("link set %s up", h.near()),
	} {
		if err := ip(ctx, command); err != nil {
			return err
		}
	}
	for _, command := range []string{"link set lo up", fmt.Sprintf("addr add %s/24 dev eth0", h.address(1)), "link set eth0 up"} {
		if err := h.ip(ctx, command); err != nil {
			return err
		}
	}
	for end, read := range []func() ([]byte, error){
		exec.CommandContext(ctx, "ip", "-brief", "link", "show", h.near()).Output,
		h.command(ctx, "ip", "-brief", "link", "show", "eth0").Output,
	} {
		text, err := read()
		if err != nil {
			return err
		}
		for _, word := range strings.Fields(string(text)) {
			if strings.Count(word, ":") == 5 {
				h.macs[end] = word
			}
		}
	}
	return nil
}

func (h *host) pid() int { return h.holder.Process.Pid }

// command is one that runs on the host.
func (h *host) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", h.enter(program, args)...)
}

// enter is what nsenter is told. It becomes the program, so the process stays the same.
func (h *host) enter(program string, args []string) []string {
	return append([]string{"--net=/proc/" + strconv.Itoa(h.pid()) + "/ns/net", program}, args...)
}

func ip(ctx context.Context, command string) error {
	return said("ip "+command, exec.CommandContext(ctx, "ip", strings.Fields(command)...))
}

func (h *host) ip(ctx context.Context, command string) error {
	return said("ip "+command, h.command(ctx, "ip", strings.Fields(command)...))
}

func said(what string, cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", what, err, out)
	}
	return nil
}

// lose makes everything that is sent disappear, in both directions, or lets it arrive again.
func (h *host) lose(dark bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dark = dark
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	near, far := h.macs[0], h.macs[1]
	if dark {
		near, far = nowhere, nowhere
	}
	if err := ip(ctx, fmt.Sprintf("neigh replace %s lladdr %s dev %s nud permanent", h.address(1), far, h.near())); err != nil {
		return err
	}
	return h.ip(ctx, fmt.Sprintf("neigh replace %s lladdr %s dev eth0 nud permanent", h.address(0), near))
}

func (h *host) isDark() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dark
}

func (h *host) close() {
	_ = h.holder.Process.Kill()
	_ = h.holder.Wait()
}

// lossFaults are there for workers on hosts of their own, which reach the server without a proxy: what both kernels do about
// a connection on which nothing is acknowledged any more is part of it.
func lossFaults() []*kind {
	return []*kind{{name: "silent network loss, 25 to 40 s", weight: 1, phases: unasked, strike: loseNetwork, within: 45 * time.Second}}
}

// What a worker is to be at when its network is lost, as conditions on its backends; the last: anything.
var moments = []string{
	`state = 'active' and query ~ '^refresh|mvsched\.(merge|materialize_batch)\('`,
	`state like 'idle in transaction%'`,
	`state = 'active'`,
	`true`,
}

func loseNetwork(f *fault, _ *link, _ []byte) (bool, error) {
	e := f.episode
	h := e.worker(f.victim).host
	bright := 0
	for _, other := range e.hosts {
		if other != h && !other.isDark() {
			bright++
		}
	}
	if h.isDark() || bright == 0 {
		e.pause(patience)
		return false, errors.New("somebody has to be left")
	}
	condition := moments[f.victim/7%len(moments)]
	began := time.Now()
	for {
		var pid int32
		err := e.ask(`select pid from pg_catalog.pg_stat_activity where datname = current_database() and application_name = $1 and `+
			condition+` order by random() limit 1`, []any{e.worker(f.victim).name}, &pid)
		if err == nil {
			if err = h.lose(true); err != nil {
				return false, err
			}
			f.found.at = e.now()
			e.laterOrAtTheEnd(f.between(25*time.Second, 40*time.Second), func() { _ = h.lose(false) })
			f.found.phase = e.lookAt(uint32(pid))
			if f.found.phase == "refreshing: just over" {
				f.found.phase = anyTime
			}
			_ = e.ask(`select l.id from chaos.ledger l where l.pid = $1 and l.op = 'INSERT' and l.after = 'running'
				and not exists (select from chaos.ledger m where m.id = l.id and m.op = 'UPDATE' and m.after <> 'running') order by l.seq desc limit 1`,
				[]any{pid}, &f.found.execution)
			return false, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) || time.Since(began) > patience || e.ctx.Err() != nil {
			return false, err
		}
		e.pause(time.Millisecond)
	}
}

// findStragglers cuts, when the workers are gone, the connections over which their hosts may have something to send still: a
// claim that was sent in the dark comes to the server later, and nobody hears the answer. Whoever comes next finds it, which
// is here one more worker.
func (e *episode) findStragglers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := execute(ctx, e.server, e.database, `select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity
		where datname = current_database() and application_name like 'chaos%'`)
	for left := -1; err == nil && left != 0; {
		cmd := exec.CommandContext(ctx, e.binary, "run")
		cmd.Env = []string{"MVSCHED_DATABASE_URL=" + e.server.DSN(e.database) + " user=worker application_name=chaos-last"}
		said, _ := cmd.CombinedOutput() // some views fail
		_ = e.ask(`select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'running'`, nil, &left)
		if ctx.Err() != nil {
			err = fmt.Errorf("%d executions are left; the last worker said: %s", left, said)
		}
	}
	return err
}
