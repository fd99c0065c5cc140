package web

import (
	"cmp"
	"context"
	_ "embed" // live.js
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// What slow and greedy clients may take.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
	maxConns      = 512
	maxWatchers   = 384 // of the connections; the others are for metrics and probes
	sendBuffer    = 256 << 10

	eventTimeout = 10 * time.Second // for a reader to take an event
	heartbeat    = 15 * time.Second // so that a proxy does not take silence for the end

	shutdownTimeout = 2 * time.Second
)

const (
	pathPage   = "/"
	pathAlive  = "/healthz"
	pathReady  = "/readyz"
	pathScript = "/live.js"
	pathEvents = "/events"
	pathBadge  = "/badge.svg"
)

// Options are what a server has to know.
type Options struct {
	Token string // "": none is asked for
	Log   *slog.Logger
}

// Server is the status page.
type Server struct {
	listener net.Listener
	options  Options
	local    bool
	feeder   *feeder
	page     report.PageOptions
	forms    map[string]form
	beat     frame

	// What a test makes small.
	eventTimeout time.Duration
	sendBuffer   int
	maxConns     int
}

// Listen takes the address, and answers nobody before Serve.
func Listen(ctx context.Context, address Address, options Options) (*Server, error) {
	config := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true}}
	listener, err := config.Listen(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	options.Log = cmp.Or(options.Log, slog.New(slog.DiscardHandler))
	beat, err := newFrame([]byte(":\n\n"))
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &Server{
		listener: listener, options: options, local: address.Loopback(), feeder: newFeeder(options.Log), beat: beat,
		eventTimeout: eventTimeout, sendBuffer: sendBuffer, maxConns: maxConns,
	}, nil
}

// URL is where the page is.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() + "/" }

// Close gives the address back; Serve does it itself.
func (s *Server) Close() error { return s.listener.Close() }

// Told is for refresh.Serving.
func (s *Server) Told(hears bool, ended *schedule.End) { s.feeder.tell(hears, ended) }

// Serve answers until ctx ends, or a bug (schedule.ErrBug) ends it: then who follows events is cut off at once, and other answers have two seconds to end.
func (s *Server) Serve(ctx context.Context, store *schedule.Store, database string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s.page = report.PageOptions{Database: database, Live: true}
	s.forms = forms(s.page)
	s.feeder.look, s.feeder.render = store.Snapshot, s.render

	server := &http.Server{
		Handler:           &guard{token: s.options.Token, localOnly: s.local && s.options.Token == "", next: http.HandlerFunc(s.answer)},
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ConnContext:    withPlace,
		ErrorLog:       slog.NewLogLogger(s.options.Log.Handler(), slog.LevelDebug),
	}
	var running sync.WaitGroup
	bugs := make(chan error, 2)
	for _, work := range []func(context.Context){s.feeder.run, s.feeder.flashes} {
		running.Go(func() {
			if err := schedule.Guarded(func() error { work(ctx); return nil }); err != nil {
				bugs <- err
				stop()
			}
		})
	}
	running.Go(func() {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if server.Shutdown(ending) != nil {
			_ = server.Close() // what is left has had its time
		}
	})
	err := server.Serve(newLimited(s.listener, s.maxConns, s.sendBuffer))
	stop()
	running.Wait()
	select {
	case err = <-bugs:
	default:
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("the status page: %w", err)
}

//go:embed live.js
var script []byte

// answer hangs up where a bug keeps it from answering: the headers may be on their way.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	if err := schedule.Guarded(func() error { s.route(w, r); return nil }); err != nil {
		s.options.Log.Error("cannot answer "+r.URL.Path, "because", err)
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; path {
	case pathAlive:
		send(w, "text/plain; charset=utf-8", []byte("alive\n"))
	case pathReady:
		s.ready(w, r)
	case pathScript:
		send(w, "text/javascript; charset=utf-8", script)
	case pathEvents:
		s.follow(w, r)
	default:
		form, known := s.forms[path]
		if !known {
			refuse(w, http.StatusNotFound, "there is no such page")
			return
		}
		s.show(w, r, form)
	}
}

func send(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body) // who does not read it has hung up
}

// ready tells whether the database answers, and has the schema that this program knows.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	switch ed := s.feeder.fresh(r.Context()); {
	case ed == nil:
		refuse(w, http.StatusServiceUnavailable, trouble(errNotNow))
	case ed.err != nil:
		refuse(w, http.StatusServiceUnavailable, trouble(ed.err))
	default:
		send(w, "text/plain; charset=utf-8", []byte("ready\n"))
	}
}

// show answers with one form of a fresh edition; where none is to be had, a person gets the last one, which says so. A person
// does not wait for one either while there is one that is good and a few seconds old.
func (s *Server) show(w http.ResponseWriter, r *http.Request, form form) {
	var ed *edition
	if form.old {
		ed = s.feeder.recent()
	}
	if ed == nil {
		ed = s.feeder.fresh(r.Context())
	}
	if ed == nil {
		ed = s.feeder.outdated()
		s.render(ed)
	}
	shown, err := ed.forms[r.URL.Path]()
	body := shown.plain
	if err == nil && acceptsGzip(r) {
		if body, err = shown.zipped(); err == nil {
			w.Header().Set("Content-Encoding", "gzip")
		}
	}
	w.Header().Set("Vary", "Accept-Encoding")
	switch {
	case err == nil:
		send(w, form.contentType, body)
	case errors.Is(err, errNotNow):
		if form.old {
			w.Header().Set("Refresh", "5")
		}
		refuse(w, http.StatusServiceUnavailable, trouble(cmp.Or(ed.err, err)))
	default:
		s.options.Log.Error("cannot show "+r.URL.Path, "because", err)
		refuse(w, http.StatusInternalServerError, "this page cannot be shown; the log of mvsched says why")
	}
}

// follow sends every edition, and in between what has ended, as long as the reader takes them.
func (s *Server) follow(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // a proxy is not to collect them
	if r.Method == http.MethodHead {
		return
	}
	if !s.feeder.watch() {
		header.Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, "too many follow this page already")
		return
	}
	defer s.feeder.leave()
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Time{}) != nil { // else the end of the time to read a request would end this
		return
	}
	pick := func(f frame) []byte { return f.plain }
	head := []byte("retry: 2000\n\n")
	if acceptsGzip(r) {
		header.Set("Content-Encoding", "gzip")
		header.Set("Vary", "Accept-Encoding")
		pick = func(f frame) []byte { return f.deflated }
		first, err := newFrame(head)
		if err != nil {
			return
		}
		head = append([]byte(gzipHeader), first.deflated...)
	}
	write := func(data []byte) bool {
		if control.SetWriteDeadline(time.Now().Add(s.eventTimeout)) != nil {
			return false
		}
		_, err := w.Write(data)
		return err == nil && control.Flush() == nil
	}
	if !write(head) {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	var sent *edition
	var told *frame
	for {
		ed, flash, next := s.feeder.now()
		if ed != nil && ed != sent {
			event, err := ed.event()
			if err != nil {
				s.options.Log.Error("cannot show an event", "because", err)
				return
			}
			if !write(pick(event)) {
				return
			}
			sent, told = ed, nil
		}
		if flash != nil && flash != told {
			if !write(pick(*flash)) {
				return
			}
			told = flash
		}
		select {
		case <-next:
		case <-beat.C:
			if !write(pick(s.beat)) {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}
