package main

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// noteUnencrypted has the first connection to another machine that is not encrypted noted. It looks at the connection that was
// made: sslmode=prefer, which is what counts without an sslmode, ends in either.
func (a *app) noteUnencrypted(config *pgconn.Config) {
	var once sync.Once
	config.AfterConnect = func(_ context.Context, conn *pgconn.PgConn) error {
		if address := exposed(conn.Conn()); address != "" {
			once.Do(func() {
				a.note("the connection to %s is not encrypted: who is on the way can read and change what it carries; sslmode=verify-full is safe", address)
			})
		}
		return nil
	}
}

// exposed returns the address that a connection leads to when others could read along, else "".
func exposed(conn net.Conn) string {
	for {
		if _, encrypted := conn.(*tls.Conn); encrypted {
			return ""
		}
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = outer.NetConn()
	}
	remote, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || remote.IP.IsLoopback() {
		return ""
	}
	return remote.String()
}
