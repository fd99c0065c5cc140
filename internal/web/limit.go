package web

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// limited is a listener with so many connections at a time. Who comes then takes the place of the one that has been idle for
// longest: on which nobody who may read waits for an answer, or follows. Where there is none, it waits outside.
type limited struct {
	net.Listener
	most       int
	sendBuffer int
	freed      chan struct{} // a place may be free
	closed     chan struct{}
	once       sync.Once

	mu   sync.Mutex
	open int
	idle []*place // since when, in this order
}

func newLimited(l net.Listener, most, sendBuffer int) *limited {
	return &limited{Listener: l, most: most, sendBuffer: sendBuffer, freed: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(l.sendBuffer) // only a matter of memory
	}
	p := &place{Conn: conn, among: l}
	for !l.admit(p) {
		select {
		case <-l.freed:
		case <-l.closed:
			_ = conn.Close() // it was never served
			return nil, net.ErrClosed
		}
	}
	return p, nil
}

// admit gives a connection a place, if need be another one's.
func (l *limited) admit(p *place) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == l.most {
		if len(l.idle) == 0 {
			return false
		}
		_ = l.idle[0].closeLocked() // whoever it is finds that out
	}
	l.open++
	l.idle = append(l.idle, p)
	return true
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// place is a connection that gives its place back.
type place struct {
	net.Conn
	among *limited
	left  bool
}

func (p *place) Close() error {
	p.among.mu.Lock()
	defer p.among.mu.Unlock()
	return p.closeLocked()
}

func (p *place) closeLocked() error {
	if !p.left {
		p.left = true
		p.among.open--
		p.rise()
		select {
		case p.among.freed <- struct{}{}:
		default:
		}
	}
	return p.Conn.Close()
}

func (p *place) rise() {
	p.among.idle = slices.DeleteFunc(p.among.idle, func(other *place) bool { return other == p })
}

// hold keeps the place until rest, or the end.
func (p *place) hold() (rest func()) {
	p.among.mu.Lock()
	defer p.among.mu.Unlock()
	p.rise()
	return func() {
		p.among.mu.Lock()
		defer p.among.mu.Unlock()
		if !p.left {
			p.among.idle = append(p.among.idle, p)
		}
	}
}

type placeKey struct{}

// withPlace is for http.Server.ConnContext.
func withPlace(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, placeKey{}, conn)
}

// holdPlace keeps the place of a request that is let in.
func holdPlace(r *http.Request) (rest func()) {
	if p, ok := r.Context().Value(placeKey{}).(*place); ok {
		return p.hold()
	}
	return func() {}
}

func acceptsGzip(r *http.Request) bool {
	for coding := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(weight), "q="), 64)
			return err != nil || q > 0
		}
	}
	return false
}
