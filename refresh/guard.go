package refresh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrProtocol means that what answers does not keep to PostgreSQL's protocol.
var ErrProtocol = errors.New("the server does not keep to PostgreSQL's protocol")

// What a server may answer to what it was asked, in bytes. The longest answers are those of history and status: a million
// executions are less. What nobody asks for, notifications, may come to so much in a minute.
const (
	maxAnswer  = 256 << 20
	maxMessage = 128 << 20 // the error of a view may be that long
)

// guard stands between a connection and pgx, which trusts its server: it allocates whatever length a message announces,
// waits without a deadline for the end of a result that is over (after ReadyForQuery nothing is watched), panics when a
// ReadyForQuery comes that it did not ask for, and collects rows for as long as they come. The guard lets through what follows
// the outline of the protocol; what stands in the messages is pgx's matter.
type guard struct {
	net.Conn

	awaited atomic.Int64 // messages ReadyForQuery that are still to come
	length  atomic.Int64 // of the answer so far

	sent     outline
	received outline
	open     bool // a result has begun, and not ended
	describe bool // the next RowDescription is of a statement, and no result
	since    time.Time
	broken   error
}

// guarded is pgconn's AfterNetConnect.
func guarded(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
	g := &guard{Conn: conn, sent: outline{startup: true}}
	g.awaited.Store(1) // that of the start
	return g, nil
}

// NetConn is what it guards.
func (g *guard) NetConn() net.Conn { return g.Conn }

func (g *guard) Write(p []byte) (int, error) {
	g.length.Store(0)
	_, _ = g.sent.follow(p, func(letter byte, _ uint32) error {
		if strings.IndexByte("SQF", letter) >= 0 { // Sync, Query, FunctionCall
			g.awaited.Add(1)
		}
		return nil
	})
	return g.Conn.Write(p)
}

func (g *guard) Read(p []byte) (int, error) {
	if g.broken != nil {
		return 0, g.broken
	}
	if now := time.Now(); now.Sub(g.since) > time.Minute {
		g.since = now
		g.length.Store(0)
	}
	n, err := g.Conn.Read(p)
	if g.length.Add(int64(n)) > maxAnswer {
		g.broken = fmt.Errorf("%w: its answer does not end", ErrProtocol)
		return 0, g.broken
	}
	good, wrong := g.received.follow(p[:n], g.check)
	if wrong != nil {
		g.broken = fmt.Errorf("%w: %w", ErrProtocol, wrong)
		return good, nil // what came before is still to be heard: it may be the server's reason
	}
	return n, err
}

// check looks at the beginning of a message from the server.
func (g *guard) check(letter byte, length uint32) error {
	switch {
	case strings.IndexByte("123ACDEGHIKNRSTVWZcdnstv", letter) < 0:
		return fmt.Errorf("there is no message %q", letter)
	case length < 4 || length > maxMessage:
		return fmt.Errorf("a message of %d bytes", length)
	}
	switch letter {
	case 't':
		g.describe = true
	case 'T':
		g.open = !g.describe
		g.describe = false
	case 'D':
		g.open = true
	case 'C', 'E', 'I', 's':
		g.open = false
	case 'Z':
		if g.open || g.awaited.Add(-1) < 0 {
			return errors.New("it is ready for the next statement before this one has ended")
		}
	}
	return nil
}

// outline follows a stream of messages: a letter, a length that counts itself, a body.
type outline struct {
	startup bool // the first message has no letter
	head    []byte
	body    int64 // what is left of it
}

// follow calls begins for each message that begins here. When that objects, it returns how much came before.
func (o *outline) follow(p []byte, begins func(letter byte, length uint32) error) (good int, err error) {
	for at := 0; at < len(p); {
		if o.body > 0 {
			skip := min(o.body, int64(len(p)-at))
			o.body -= skip
			at += int(skip)
			continue
		}
		if len(o.head) == 0 {
			good = at
			if o.startup {
				o.head, o.startup = append(o.head, 0), false
			}
		}
		o.head = append(o.head, p[at])
		at++
		if len(o.head) < 5 {
			continue
		}
		length := binary.BigEndian.Uint32(o.head[1:])
		if err := begins(o.head[0], length); err != nil {
			return good, err
		}
		o.head, o.body = o.head[:0], int64(length)-4
	}
	return len(p), nil
}
