package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy stands between one worker and the server.
type proxy struct {
	worker   *worker
	socket   string // the server's
	listener net.Listener
	armory   *armory
	delay    atomic.Int64 // of every message to the server, in nanoseconds

	mu    sync.Mutex
	links map[*link]struct{}
}

func newProxy(w *worker, socket string, armory *armory) (*proxy, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{worker: w, socket: socket, listener: listener, armory: armory, links: map[*link]struct{}{}}
	go p.accept()
	return p, nil
}

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.serve(client)
	}
}

// close hangs up on everybody.
func (p *proxy) close() {
	_ = p.listener.Close()
	p.hangUp()
}

func (p *proxy) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut()
	}
}

// heal ends what holds messages.
func (p *proxy) heal() {
	p.delay.Store(0)
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if l.dark.Load() {
			l.cut()
		}
	}
}

// link is one connection of the worker, with its counterpart at the server.
type link struct {
	proxy          *proxy
	client, server net.Conn
	dark           atomic.Bool   // nothing passes any more
	deaf           atomic.Bool   // the worker is gone for the server's answers, which does not know that
	over           chan struct{} // closed by cut
	cutOnce        sync.Once
	pid            atomic.Uint32 // of the backend
	execution      atomic.Int64  // the one that was claimed last over this connection
	ready          atomic.Bool   // the startup is over

	mu      sync.Mutex
	batches []purpose // sent to the server, and not answered yet
}

// cut resets both connections.
func (l *link) cut() {
	l.cutOnce.Do(func() {
		if tcp, ok := l.client.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = l.client.Close()
		_ = l.server.Close()
		close(l.over)
	})
}

// hold waits, unless the link ends before.
func (l *link) hold(d time.Duration) {
	select {
	case <-l.over:
	case <-time.After(d):
	}
}

// serve forwards one connection.
func (p *proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	startup, err := readStartup(client)
	if err != nil {
		return
	}
	server, err := net.DialTimeout("unix", p.socket, time.Second)
	if err != nil {
		if tcp, ok := client.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		return
	}
	l := &link{proxy: p, client: client, server: server, over: make(chan struct{})}
	p.mu.Lock()
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		l.cut()
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	if binary.BigEndian.Uint32(startup[4:]) == codeCancel {
		_, _ = server.Write(startup)
		_, _ = io.Copy(client, server)
		return
	}
	if l.hit(connecting, startup) {
		return
	}
	if _, err := server.Write(startup); err != nil {
		return
	}
	go l.fromServer()
	l.fromClient()
	if l.deaf.Load() || l.dark.Load() {
		<-l.over
	}
}

// fromClient forwards what the worker sends, batch by batch.
func (l *link) fromClient() {
	r := bufio.NewReader(l.client)
	var batch [][]byte
	kind := other
	for {
		message, err := readMessage(r)
		if err != nil {
			if !l.deaf.Load() && !l.dark.Load() {
				l.flushLast(batch)
				l.cut()
			}
			return
		}
		batch = append(batch, message)
		switch message[0] {
		case 'P':
			if p := purposeOf(statement(message)); p != other {
				kind = p
			}
		case 'B':
			if kind == toRefresh {
				l.noteExecution(message)
			}
		case 'Q':
			kind = purposeOf(cstring(message[5:]))
		}
		if message[0] != 'S' && message[0] != 'Q' && message[0] != 'X' && l.ready.Load() {
			continue
		}
		if d := l.proxy.delay.Load(); d > 0 {
			l.hold(time.Duration(d))
		}
		if !l.sendOn(batch, kind) {
			return
		}
		batch, kind = nil, other
	}
}

// flushLast gives the server what a worker has sent that died in the middle of a batch, as the kernel would.
func (l *link) flushLast(batch [][]byte) {
	for _, message := range batch {
		_, _ = l.server.Write(message)
	}
}

// sendOn gives the server one batch.
func (l *link) sendOn(batch [][]byte, kind purpose) bool {
	if l.dark.Load() {
		return false
	}
	all := join(batch)
	if last := batch[len(batch)-1][0]; last == 'S' || last == 'Q' {
		l.mu.Lock()
		l.batches = append(l.batches, kind)
		l.mu.Unlock()
	}
	if kind == toRefresh {
		half := join(batch[:min(len(batch), 8)]) // begin and begin_refresh, each of four messages
		if f := l.proxy.armory.take(halfSent); f != nil {
			if !l.write(half) {
				f.miss()
				return false
			}
			return !f.strike(l, all[len(half):]) && l.write(all[len(half):])
		}
		if at := afterCommit(batch); at < len(batch)-1 { // not of a batch of rows, which the Sync alone follows
			if f := l.proxy.armory.take(committed, settleSent); f != nil {
				return l.sendInTwo(f, join(batch[:at]), join(batch[at:]))
			}
		}
	}
	if !l.write(all) {
		return false
	}
	switch kind {
	case toTend:
		return !l.hit(tendSent, nil)
	case toClaim:
		return !l.hit(claimSent, nil)
	case toRefresh:
		if l.hit(sent, nil) {
			return false
		}
		return !l.hit(refreshing, nil)
	case toRollBack:
		return !l.hit(rollbackSent, nil)
	case toRecord:
		return !l.hit(recordSent, nil)
	}
	return true
}

// sendInTwo sends a refresh up to its commit, and what settles it only when others see that it has committed. The fault
// strikes before that or behind it; where the refresh fails or takes long, it hits nothing.
func (l *link) sendInTwo(f *fault, refresh, settle []byte) bool {
	if !l.write(refresh) {
		f.miss()
		return false
	}
	if !f.episode.awaitSuccess(l) {
		f.miss()
		return l.write(settle)
	}
	if f.phase == committed {
		return !f.strike(l, settle) && l.write(settle)
	}
	if !l.write(settle) {
		f.miss()
		return false
	}
	return !f.strike(l, nil)
}

func (l *link) write(bytes []byte) bool {
	_, err := l.server.Write(bytes)
	return err == nil
}

// fromServer forwards the answers, each whole: up to ReadyForQuery.
func (l *link) fromServer() {
	r := bufio.NewReaderSize(l.server, 1<<16)
	var answer []byte
	claimed, wrong, done := false, false, false
	for {
		message, err := readMessage(r)
		if err != nil {
			if len(answer) > 0 && !l.deaf.Load() && !l.dark.Load() {
				_, _ = l.client.Write(answer) // such as its last words
			}
			if !l.dark.Load() {
				l.cut()
			}
			return
		}
		answer = append(answer, message...)
		switch message[0] {
		case 'K':
			l.pid.Store(binary.BigEndian.Uint32(message[5:]))
		case 'D':
			if l.waitingFor() == toClaim && l.noteClaim(message) {
				claimed = true
			}
		case 'C':
			done = done || cstring(message[5:]) == "COMMIT"
		case 'E':
			wrong = true
		}
		if message[0] != 'Z' && l.ready.Load() && l.waiting() {
			continue
		}
		first := message[0] == 'Z' && !l.ready.Load()
		if message[0] == 'Z' {
			if first {
				if l.hit(connected, answer) {
					return
				}
			} else if l.hit(l.answerOf(claimed, wrong, done, message[5]), answer) {
				return
			}
		}
		if l.dark.Load() {
			<-l.over
			return
		}
		if !l.deaf.Load() {
			if _, err := l.client.Write(answer); err != nil && !l.deaf.Load() {
				l.cut()
				return
			}
		}
		if message[0] == 'Z' {
			kind := l.answeredNow(first)
			l.ready.Store(true)
			if kind == toRefresh && done && l.hit(answered, nil) {
				return
			}
			claimed, wrong, done = false, false, false
		}
		answer = nil
	}
}

// answerOf says which phase it is when the answer to the oldest batch is complete; "" for none of interest.
func (l *link) answerOf(claimed, wrong, done bool, status byte) phase {
	switch kind := l.waitingFor(); {
	case kind == toCheck:
		return schemaChecked
	case kind == toTend && !wrong:
		return tendAnswered
	case kind == toClaim && claimed:
		return claimCommitted
	case kind == toRefresh && done:
		return settled
	case kind == toRefresh && status == 'E':
		return failed
	case kind == toRecord && status == 'T':
		return failureEnded
	}
	return ""
}

func (l *link) waitingFor() purpose {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.batches) == 0 {
		return other
	}
	return l.batches[0]
}

func (l *link) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.batches) > 0
}

func (l *link) answeredNow(startup bool) purpose {
	l.mu.Lock()
	defer l.mu.Unlock()
	if startup || len(l.batches) == 0 {
		return other
	}
	kind := l.batches[0]
	l.batches = l.batches[1:]
	return kind
}

// hit lets a fault strike that is armed for this phase, and reports whether it has ended the link. Held is what is to be
// forwarded next.
func (l *link) hit(at phase, held []byte) bool {
	if at == "" {
		return false
	}
	f := l.proxy.armory.take(at)
	return f != nil && f.strike(l, held)
}
