package web_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/internal/web"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// site is a status page of a database, which counts what it asks of it.
type site struct {
	*pgtest.DB
	*web.Server
	dsn        string
	statements *counter
	stop       context.CancelFunc
	done       chan struct{}
	err        error
}

// counter counts statements, and remembers when they were sent.
type counter struct {
	seen atomic.Int64

	mu   sync.Mutex
	sent []time.Time
}

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.seen.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, time.Now())
	return ctx
}

// closest is the shortest time between two statements that followed one another.
func (c *counter) closest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	closest := time.Hour
	for i := 1; i < len(c.sent); i++ {
		closest = min(closest, c.sent[i].Sub(c.sent[i-1]))
	}
	return closest
}

func (c *counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// newSite makes a page that is not served yet.
func newSite(t *testing.T, options web.Options) *site {
	t.Helper()
	address, err := web.ParseAddress("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{DB: pgtest.NewDB(t), dsn: pgtest.DirectDSN(t), statements: &counter{}, done: make(chan struct{})}
	options.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	if s.Server, err = web.Listen(t.Context(), address, options); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) pool(jobs int) *pgxpool.Pool {
	s.Helper()
	config, err := pgxpool.ParseConfig(s.dsn)
	if err != nil {
		s.Fatal(err)
	}
	refresh.ConfigurePool(config, jobs)
	config.ConnConfig.RuntimeParams["application_name"] = "mvsched"
	if jobs == 0 {
		config.ConnConfig.Tracer = s.statements
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(pool.Close)
	return pool
}

// serve serves the page until the test ends.
func (s *site) serve() *site {
	s.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	store := schedule.NewStore(s.pool(0))
	go func() {
		defer close(s.done)
		s.err = s.Serve(ctx, store, "shop")
	}()
	s.Cleanup(func() {
		stop()
		<-s.done
		if s.err != nil {
			s.Error(s.err)
		}
	})
	return s
}

// refreshes runs a worker that serves, until the test ends, and returns when it is ready.
func (s *site) refreshes() *site {
	s.Helper()
	pool := s.pool(2)
	worker := &refresh.Worker{Pool: pool, Store: schedule.NewStore(pool), Jobs: 2, Name: "test", Log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		if err := worker.Serve(ctx, refresh.Serving{
			Ready: func() { close(ready) },
			Told:  s.Told,
		}); err != nil {
			s.Error(err)
		}
	}()
	s.Cleanup(func() {
		stop()
		<-done
	})
	<-ready
	return s
}

// view makes a view that is due, or, with a slot that is far, is not.
func (s *site) view(name, next string) {
	s.Helper()
	s.Exec(`create materialized view public.` + name + ` as select 1 as id`)
	s.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
		values ($1, '1 day', now() + $2::text::interval)`, "public."+name, next)
}

// get asks for a page; header has names and values in turn, and Host is the one of the request.
func (s *site) get(path string, header ...string) (status int, body string, reply http.Header) {
	s.Helper()
	return s.ask(http.MethodGet, path, header...)
}

func (s *site) ask(method, path string, header ...string) (status int, body string, reply http.Header) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	response, err := client().Do(s.request(ctx, method, path, header...))
	if err != nil {
		s.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.Fatal(err)
	}
	return response.StatusCode, string(text), response.Header
}

func client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
}

func (s *site) request(ctx context.Context, method, path string, header ...string) *http.Request {
	s.Helper()
	request, err := http.NewRequestWithContext(ctx, method, s.URL()+strings.TrimPrefix(path, "/"), nil)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			request.Host = header[i+1]
		}
		request.Header.Set(header[i], header[i+1])
	}
	return request
}

// follower follows the page.
type follower struct {
	site   *site
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	events int
	body   string // of the last event with that name
	notice string
	flash  string
}

// follow opens the events and reads them until the test ends.
func (s *site) follow(header ...string) *follower {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := client()
	c.Transport = &http.Transport{DisableKeepAlives: true}                      // with compression, as browsers do
	response, err := c.Do(s.request(ctx, http.MethodGet, "/events", header...)) //nolint:bodyclose // when it has been read
	if err != nil {
		s.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		s.Fatalf("events: %s, %s", response.Status, response.Header)
	}
	f := &follower{site: s, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		defer response.Body.Close()
		f.read(response.Body)
	}()
	s.Cleanup(f.leave)
	return f
}

func (f *follower) leave() {
	f.cancel()
	<-f.ended
}

func (f *follower) read(from io.Reader) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 64<<20)
	var name string
	var data []string
	for lines.Scan() {
		line := lines.Text()
		field, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "" && name != "":
			f.mu.Lock()
			f.events++
			text := strings.Join(data, "\n")
			switch name {
			case "body":
				f.body = text
			case "ended":
				f.flash = text
			default:
				f.notice = text
			}
			f.mu.Unlock()
			name, data = "", nil
		case field == "event":
			name = value
		case field == "data" || field == "data:":
			data = append(data, value)
		}
	}
}

// sees reports whether the last body that came has the text in it.
func (f *follower) sees(text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Contains(f.body, text)
}

// hasEnded is what was last told of what has ended.
func (f *follower) hasEnded() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flash
}

func (f *follower) told() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.notice
}

func (s *site) await(what string, cond func() bool) {
	s.Helper()
	pgtest.WaitFor(s, s.Context(), what, cond)
}

// smallBuffer has a connection take little that nobody reads.
func smallBuffer(_, _ string, conn syscall.RawConn) error {
	var set error
	err := conn.Control(func(fd uintptr) { set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048) })
	return errors.Join(err, set)
}
