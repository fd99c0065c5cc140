package refresh

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// answer is a connection on which everything has been said.
type answer struct {
	net.Conn
	said  io.Reader
	piece int // so much is read at a time
}

func (a answer) Read(p []byte) (int, error)  { return a.said.Read(p[:min(len(p), a.piece)]) }
func (a answer) Write(p []byte) (int, error) { return len(p), nil }

// listen is what the guard lets through of an answer to so many statements.
func listen(said []byte, statements, piece int) ([]byte, error) {
	conn, _ := guarded(nil, nil, answer{said: bytes.NewReader(said), piece: piece}) //nolint:staticcheck // it needs no context
	_, _ = conn.Write([]byte{0, 0, 0, 8, 0, 3, 0, 0})
	for range statements {
		_, _ = conn.Write([]byte{'S', 0, 0, 0, 4})
	}
	return io.ReadAll(conn)
}

func messages(all ...pgproto3.BackendMessage) (said []byte) {
	for _, message := range all {
		said, _ = message.Encode(said) // there is nothing in them that cannot be encoded
	}
	return said
}

func TestGuard(t *testing.T) {
	ready, done, columns := &pgproto3.ReadyForQuery{TxStatus: 'I'}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.RowDescription{}
	row, failed := &pgproto3.DataRow{}, &pgproto3.ErrorResponse{Code: "57014"}
	began := messages(&pgproto3.AuthenticationOk{}, ready)
	for name, c := range map[string]struct {
		said []byte
		good bool
	}{
		"an_answer":                     {messages(columns, row, done, ready), true},
		"an_error_in_a_result":          {messages(columns, row, failed, ready), true},
		"a_description":                 {messages(&pgproto3.ParameterDescription{}, columns, ready), true},
		"nothing_asked":                 {messages(&pgproto3.NotificationResponse{}, &pgproto3.NoticeResponse{}), true},
		"a_result_that_does_not_end":    {messages(columns, row, ready), false},
		"ready_twice":                   {messages(done, ready, ready), false},
		"no_such_message":               {[]byte{'x', 0, 0, 0, 4}, false},
		"a_length_that_is_none":         {[]byte{'D', 0, 0, 0, 3}, false},
		"a_gigabyte_announced":          {[]byte{'D', 0x3f, 0xff, 0xff, 0xff}, false},
		"a_message_beyond_what_is_sane": {append([]byte{'N', 0x09, 0, 0, 0}, make([]byte, 100)...), false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := listen(append(began[:len(began):len(began)], c.said...), 1, 8192)
			if c.good && (err != nil || len(got) != len(began)+len(c.said)) || !c.good && !errors.Is(err, ErrProtocol) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestGuardEndsAnAnswerThatDoesNotEnd(t *testing.T) {
	notice := messages(&pgproto3.NoticeResponse{Message: string(make([]byte, 1<<20))})
	var said []io.Reader
	for range maxAnswer>>20 + 1 {
		said = append(said, bytes.NewReader(notice))
	}
	conn, _ := guarded(nil, nil, answer{said: io.MultiReader(said...), piece: 1 << 20}) //nolint:staticcheck // it needs no context
	if n, err := io.Copy(io.Discard, conn); !errors.Is(err, ErrProtocol) || n > maxAnswer {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// The laws: what comes through is the beginning of what was said, and the pieces in which it comes make no difference.
func FuzzGuard(f *testing.F) {
	f.Add(messages(&pgproto3.AuthenticationOk{}, &pgproto3.ReadyForQuery{}, &pgproto3.RowDescription{}, &pgproto3.DataRow{}, &pgproto3.CommandComplete{}, &pgproto3.ReadyForQuery{}), uint8(1), uint8(7))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), uint8(0), uint8(3))
	f.Fuzz(func(t *testing.T, said []byte, statements, piece uint8) {
		whole, wrong := listen(said, int(statements), len(said)+1)
		pieces, wrongToo := listen(said, int(statements), int(piece)+1)
		if !bytes.HasPrefix(said, whole) || !bytes.HasPrefix(said, pieces) || (wrong == nil) != (wrongToo == nil) || wrong != nil && wrong.Error() != wrongToo.Error() {
			t.Fatalf("%d bytes and %v; in pieces %d and %v", len(whole), wrong, len(pieces), wrongToo)
		}
		if wrong == nil && len(whole) != len(said) || len(pieces) < len(whole) || len(pieces) > len(whole)+4 {
			t.Fatalf("%d of %d bytes, in pieces %d", len(whole), len(said), len(pieces))
		}
	})
}
