package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// A connection to another machine that is not encrypted is noted, once a command, by what it is and not by what was asked for.
func TestAnUnencryptedConnectionIsNoted(t *testing.T) {
	for name, c := range map[string]struct {
		sslmode string
		remote  string // who the server seems to be
		tls     bool   // the server can
		want    string
	}{
		"fallen_back":             {"prefer", "10.1.2.3", false, "note: the connection to 10.1.2.3:5432 is not encrypted: who is on the way can read and change what it carries; sslmode=verify-full is safe\n"},
		"disabled":                {"disable", "2001:db8::1", false, "note: the connection to [2001:db8::1]:5432 is not encrypted: who is on the way can read and change what it carries; sslmode=verify-full is safe\n"},
		"encrypted":               {"prefer", "10.1.2.3", true, ""},
		"on_this_machine":         {"prefer", "127.0.0.1", false, ""},
		"on_this_machine_as_IPv6": {"prefer", "::1", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr strings.Builder
			a := newApp(environment{stdin: strings.NewReader(""), stdout: io.Discard, stderr: &stderr, getenv: func(string) string { return "" }})
			a.databaseURL = withParameters(pgtest.Direct(pgtest.DSN(t)), []string{"host=127.0.0.1", "sslmode=" + c.sslmode})
			config, err := a.configure(1)
			if err != nil {
				t.Fatal(err)
			}
			front := newFront(t, c.tls)
			config.ConnConfig.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", front)
				return farAway{conn, &net.TCPAddr{IP: net.ParseIP(c.remote), Port: 5432}}, err
			}
			for range 2 {
				pool, err := pgxpool.NewWithConfig(t.Context(), config)
				if err != nil {
					t.Fatal(err)
				}
				err = pool.Ping(t.Context())
				pool.Close()
				if err != nil {
					t.Fatal(err)
				}
			}
			if stderr.String() != c.want {
				t.Errorf("%q, want %q", stderr.String(), c.want)
			}
		})
	}
}

// farAway is a connection to this machine that says it leads elsewhere.
type farAway struct {
	net.Conn
	remote net.Addr
}

func (c farAway) RemoteAddr() net.Addr { return c.remote }

// newFront stands before the test's server, and ends TLS or refuses it.
func newFront(t *testing.T, encrypts bool) (address string) {
	t.Helper()
	config, err := pgx.ParseConfig(pgtest.Direct(pgtest.DSN(t)))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				network, address := pgconn.NetworkAddress(config.Host, config.Port)
				server, err := net.Dial(network, address)
				if err != nil {
					return
				}
				defer func() { _ = server.Close() }()
				request := make([]byte, 8) // for TLS
				if _, err := io.ReadFull(conn, request); err != nil {
					return
				}
				switch {
				case request[4] != 0x04: // it is a startup message
					_, err = server.Write(request)
				case encrypts:
					_, err = conn.Write([]byte("S"))
					conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}})
				default:
					_, err = conn.Write([]byte("N"))
				}
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(server, conn)
					_ = server.Close()
				}()
				_, _ = io.Copy(conn, server)
			}()
		}
	}()
	return listener.Addr().String()
}
