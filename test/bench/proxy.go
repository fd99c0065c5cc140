package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// counter is a way to the server that counts what clients send. Times are never measured through it.
type counter struct {
	connections, statements, trips atomic.Int64 // trips: Sync and Query, each of which waits for an answer

	listener net.Listener
	server   string // its socket
	dsn      string // through us
	wg       sync.WaitGroup
}

// count opens such a way.
func (b *bench) count(ctx context.Context) (*counter, error) {
	config, err := pgx.ParseConfig(b.server.DSN(database))
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf(".s.PGSQL.%d", config.Port)
	dir, err := os.MkdirTemp(b.dir, "s")
	if err != nil {
		return nil, err
	}
	c := &counter{
		server: filepath.Join(config.Host, name),
		dsn:    fmt.Sprintf("host=%s port=%d user=%s dbname=%s", dir, config.Port, config.User, database),
	}
	if c.listener, err = new(net.ListenConfig).Listen(ctx, "unix", filepath.Join(dir, name)); err != nil {
		return nil, err
	}
	c.wg.Go(func() {
		for {
			client, err := c.listener.Accept()
			if err != nil {
				return // closed
			}
			c.wg.Go(func() { c.carry(ctx, client) })
		}
	})
	return c, nil
}

// close ends it once the clients are gone.
func (c *counter) close() error {
	err := c.listener.Close()
	c.wg.Wait()
	return err
}

// carry carries one connection's bytes both ways.
func (c *counter) carry(ctx context.Context, client net.Conn) {
	server, err := new(net.Dialer).DialContext(ctx, "unix", c.server)
	if err != nil {
		_ = client.Close() // which tells it
		return
	}
	c.connections.Add(1)
	c.wg.Go(func() {
		_, _ = io.Copy(client, server) // until one of them hangs up
		_ = client.Close()
	})
	_ = c.forward(server, client) // likewise
	_ = server.Close()
}

// forward carries what the client sends, message by message.
func (c *counter) forward(server io.Writer, client io.Reader) error {
	for first := true; ; first = false {
		header := make([]byte, 5)
		if first { // the start-up has no type
			header = header[:4]
		}
		if _, err := io.ReadFull(client, header); err != nil {
			return err
		}
		switch {
		case first:
		case header[0] == 'Q':
			c.statements.Add(1)
			c.trips.Add(1)
		case header[0] == 'E': // Execute
			c.statements.Add(1)
		case header[0] == 'S': // Sync
			c.trips.Add(1)
		}
		if _, err := server.Write(header); err != nil {
			return err
		}
		length := binary.BigEndian.Uint32(header[len(header)-4:])
		if length < 4 {
			return errors.New("no message of the protocol")
		}
		if _, err := io.CopyN(server, client, int64(length)-4); err != nil {
			return err
		}
	}
}
