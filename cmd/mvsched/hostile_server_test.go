package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// liar stands before a real server and passes everything on, but for the answer with one number: that becomes something
// that no server says. What follows on that connection is the truth again, where there still is one.
type liar struct {
	address string
	struck  chan struct{} // closed when it has lied

	server   []string // network and address
	lie      lie
	at       int64 // which message, counted over all connections
	repeats  bool  // every message from then on
	seen     atomic.Int64
	once     sync.Once
	over     chan struct{}
	previous atomic.Pointer[[]byte]
}

// lie writes something in place of a message and reports whether the connection goes on.
type lie struct {
	name      string
	plausible bool // another server, or another schema, might say that
	tell      func(l *liar, r *rand.Rand, to net.Conn, message []byte) (goesOn bool)
}

func newLiar(t *testing.T, dsn string, lie lie, at int, repeats bool, seed uint64) *liar {
	t.Helper()
	config, err := pgx.ParseConfig(pgtest.Direct(dsn))
	if err != nil {
		t.Fatal(err)
	}
	network, address := pgconn.NetworkAddress(config.Host, config.Port)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{
		address: listener.Addr().String(), struck: make(chan struct{}), server: []string{network, address},
		lie: lie, at: int64(at), repeats: repeats, over: make(chan struct{}),
	}
	var conns sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		close(l.over)
		conns.Wait()
	})
	conns.Go(func() {
		for n := uint64(0); ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { l.serve(conn, rand.New(rand.NewPCG(seed, n))) })
		}
	})
	return l
}

func (l *liar) serve(client net.Conn, r *rand.Rand) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial(l.server[0], l.server[1])
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	gone := make(chan struct{})
	go func() {
		select {
		case <-l.over:
		case <-gone:
		}
		_, _ = client.Close(), server.Close()
	}()
	go func() {
		_, _ = io.Copy(server, client)
		close(gone)
	}()
	for {
		message, err := readBackend(server)
		if err != nil {
			return
		}
		n := l.seen.Add(1) - 1
		if n != l.at && (n < l.at || !l.repeats) {
			if _, err := client.Write(message); err != nil {
				return
			}
			l.previous.Store(&message)
			continue
		}
		l.once.Do(func() { close(l.struck) })
		if !l.lie.tell(l, r, client, message) {
			return
		}
	}
}

// readBackend reads one message of a server: a letter, its length, its body.
func readBackend(r io.Reader) ([]byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	message := append(head, make([]byte, binary.BigEndian.Uint32(head[1:])-4)...)
	_, err := io.ReadFull(r, message[5:])
	return message, err
}

func send(to net.Conn, text []byte) bool {
	_, err := to.Write(text)
	return err == nil
}

func encode(message pgproto3.BackendMessage) []byte {
	text, err := message.Encode(nil)
	if err != nil {
		panic(err)
	}
	return text
}

// flood sends the same for ever.
func flood(to net.Conn, text []byte) bool {
	text = bytes.Repeat(text, max(1, 1<<16/len(text)))
	for send(to, text) {
	}
	return false
}

func (l *liar) hold() bool {
	<-l.over
	return false
}

const maxLength = 0x3ffffffe // of the body of a message, for pgx

// header is a message of which there is nothing else.
func header(letter byte, length uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{letter}, length)
}

func lies() (all []lie) {
	add := func(name string, tell func(l *liar, r *rand.Rand, to net.Conn, message []byte) bool) {
		plausible := slices.ContainsFunc([]string{"bits", "scrambles", "shortens", "row", "columns", "nothing", "end", "22012", "P0001", "ZZZZZ", "00000"},
			func(part string) bool { return strings.Contains(name, part) })
		all = append(all, lie{name, plausible, tell})
	}
	add("hangs up", func(*liar, *rand.Rand, net.Conn, []byte) bool { return false })
	add("falls silent", func(l *liar, _ *rand.Rand, _ net.Conn, _ []byte) bool { return l.hold() })
	add("leaves a message out", func(*liar, *rand.Rand, net.Conn, []byte) bool { return true })
	add("says it twice", func(_ *liar, _ *rand.Rand, to net.Conn, m []byte) bool {
		return send(to, append(m[:len(m):len(m)], m...))
	})
	add("says the one before again", func(l *liar, _ *rand.Rand, to net.Conn, m []byte) bool {
		if previous := l.previous.Load(); previous != nil {
			m = append((*previous)[:len(*previous):len(*previous)], m...)
		}
		return send(to, m)
	})
	add("stops within a message", func(_ *liar, r *rand.Rand, to net.Conn, m []byte) bool {
		send(to, m[:r.IntN(len(m))])
		return false
	})
	add("falls silent within a message", func(l *liar, r *rand.Rand, to net.Conn, m []byte) bool {
		send(to, m[:r.IntN(len(m))])
		return l.hold()
	})
	add("flips bits", func(_ *liar, r *rand.Rand, to net.Conn, m []byte) bool {
		m = bytes.Clone(m)
		for range 1 + r.IntN(8) {
			m[r.IntN(len(m))] ^= 1 << r.IntN(8)
		}
		return send(to, m)
	})
	add("scrambles the body", func(_ *liar, r *rand.Rand, to net.Conn, m []byte) bool {
		m = bytes.Clone(m)
		for i := 5; i < len(m); i++ {
			m[i] = byte(r.Uint32())
		}
		return send(to, m)
	})
	add("shortens the body", func(_ *liar, r *rand.Rand, to net.Conn, m []byte) bool {
		m = bytes.Clone(m[:5+r.IntN(len(m)-4)])
		binary.BigEndian.PutUint32(m[1:], uint32(len(m)-1))
		return send(to, m)
	})
	add("has another letter", func(_ *liar, r *rand.Rand, to net.Conn, m []byte) bool {
		m = bytes.Clone(m)
		m[0] = "RKSZCDTEN123AGHWdcfnsItvV\x00\xff"[r.IntN(27)]
		return send(to, m)
	})
	add("talks rubbish", func(_ *liar, r *rand.Rand, to net.Conn, _ []byte) bool {
		rubbish := make([]byte, 1+r.IntN(4096))
		for i := range rubbish {
			rubbish[i] = byte(r.Uint32())
		}
		return send(to, rubbish)
	})
	add("is a web server", func(_ *liar, _ *rand.Rand, to net.Conn, _ []byte) bool {
		send(to, []byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
		return false
	})
	for _, length := range []uint32{0, 3, 4, 1 << 31, 0xffffffff, maxLength, 600 << 20} {
		add(fmt.Sprintf("announces %d bytes", length), func(l *liar, _ *rand.Rand, to net.Conn, m []byte) bool {
			send(to, append(header(m[0], length), m[5:]...))
			return l.hold()
		})
	}
	add("sends what it announced, 1 GB", func(_ *liar, _ *rand.Rand, to net.Conn, m []byte) bool {
		send(to, header(m[0], maxLength))
		return flood(to, make([]byte, 1<<16))
	})
	for name, message := range map[string]pgproto3.BackendMessage{
		"notices":         &pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "\x1b[31mnotice"},
		"parameters":      &pgproto3.ParameterStatus{Name: "application_name", Value: "x"},
		"rows":            &pgproto3.DataRow{Values: [][]byte{[]byte("1"), nil, []byte("x")}},
		"notifications":   &pgproto3.NotificationResponse{PID: 1, Channel: "mvsched", Payload: "{"},
		"readiness":       &pgproto3.ReadyForQuery{TxStatus: 'I'},
		"ends":            &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")},
		"errors":          &pgproto3.ErrorResponse{Severity: "ERROR", Code: "XX000", Message: "no"},
		"copied data":     &pgproto3.CopyData{Data: []byte("x\n")},
		"authentications": &pgproto3.AuthenticationOk{},
	} {
		add("never stops sending "+name, func(_ *liar, _ *rand.Rand, to net.Conn, _ []byte) bool { return flood(to, encode(message)) })
	}
	add("repeats itself for ever", func(_ *liar, _ *rand.Rand, to net.Conn, m []byte) bool { return flood(to, m) })
	for _, code := range []string{"", "0", "42", "00000", "57P01", "57014", "25006", "53300", "42501", "40001", "3F000", "42P01", "55P03", "P0001", "ZZZZZ", "\x1b[2J\n", "22012", "08P01", "28P01"} {
		add(fmt.Sprintf("answers with error %q", code), func(_ *liar, _ *rand.Rand, to net.Conn, _ []byte) bool {
			return send(to, encode(&pgproto3.ErrorResponse{Severity: "ERROR", Code: code, Message: "\x1b[31mno\x00\n::error::no\xff"})) &&
				send(to, encode(&pgproto3.ReadyForQuery{TxStatus: 'E'}))
		})
	}
	add("ends with a fatal error of 8 MB", func(_ *liar, _ *rand.Rand, to net.Conn, _ []byte) bool {
		send(to, encode(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P01", Message: strings.Repeat("no ", 8<<20/3)}))
		return false
	})
	for name, message := range map[string]pgproto3.BackendMessage{
		"a password":           &pgproto3.AuthenticationCleartextPassword{},
		"an MD5 password":      &pgproto3.AuthenticationMD5Password{},
		"an unknown proof":     &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"ROT13"}},
		"SCRAM's first":        &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}},
		"SCRAM's second":       &pgproto3.AuthenticationSASLContinue{Data: []byte("r=,s=,i=0")},
		"SCRAM's end":          &pgproto3.AuthenticationSASLFinal{Data: []byte("v=")},
		"data to be copied in": &pgproto3.CopyInResponse{ColumnFormatCodes: []uint16{0}},
		"data to be copied":    &pgproto3.CopyOutResponse{ColumnFormatCodes: []uint16{0}},
		"both ways":            &pgproto3.CopyBothResponse{ColumnFormatCodes: []uint16{0}},
		"another protocol":     &pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: 9, UnrecognizedOptions: []string{"x"}},
		"another encoding":     &pgproto3.ParameterStatus{Name: "client_encoding", Value: "SJIS"},
		"other strings":        &pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "off"},
		"no more rows":         &pgproto3.PortalSuspended{},
		"65535 columns":        &pgproto3.RowDescription{Fields: make([]pgproto3.FieldDescription, 65535)},
		"no columns":           &pgproto3.RowDescription{},
		"nothing":              &pgproto3.EmptyQueryResponse{},
		"readiness":            &pgproto3.ReadyForQuery{TxStatus: 'I'},
		"odd readiness":        &pgproto3.ReadyForQuery{TxStatus: '?'},
		"the end":              &pgproto3.CommandComplete{CommandTag: []byte("REFRESH MATERIALIZED VIEW")},
		"another row":          &pgproto3.DataRow{Values: [][]byte{nil, nil, nil, nil, nil, nil, nil, nil}},
		"a row without":        &pgproto3.DataRow{},
	} {
		add("says instead: "+name, func(_ *liar, _ *rand.Rand, to net.Conn, _ []byte) bool { return send(to, encode(message)) })
		add("says first: "+name, func(_ *liar, _ *rand.Rand, to net.Conn, m []byte) bool {
			return send(to, append(encode(message), m...))
		})
	}
	return all
}
