package web

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// limited is a listener with so many connections at a time; who comes then waits outside.
type limited struct {
	net.Listener
	sendBuffer int
	places     chan struct{}
	closed     chan struct{}
	once       sync.Once
}

func newLimited(l net.Listener, most, sendBuffer int) *limited {
	return &limited{Listener: l, sendBuffer: sendBuffer, places: make(chan struct{}, most), closed: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(l.sendBuffer) // only a matter of memory
	}
	return &place{Conn: conn, free: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// place is a connection that gives its place back.
type place struct {
	net.Conn
	free func()
}

func (p *place) Close() error {
	p.free()
	return p.Conn.Close()
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
