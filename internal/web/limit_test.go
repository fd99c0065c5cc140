package web_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/web"
)

func TestSlowRequestsAreCut(t *testing.T) {
	s := newSite(t, web.Options{}).serve()
	for name, begins := range map[string]string{
		"a header that does not end": "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
		"nothing":                    "",
		"a huge header":              "GET / HTTP/1.1\r\nHost: localhost\r\nX-Huge: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(s.URL(), "http://"), "/"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, begins) // which may be cut off already
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if os.IsTimeout(err) || strings.HasPrefix(string(answer), "HTTP/1.1 200") {
			t.Errorf("%s: %q %v", name, answer, err)
		}
	}
}

// Who may not read takes no place from those who may: neither from who comes, nor from who is there.
func TestIdleConnectionsGiveWay(t *testing.T) {
	const token, most = "correct-horse-battery-staple", 8
	s := newSite(t, web.Options{Token: token})
	s.MakeNarrow(most)
	s.serve()
	s.view("a", "1 hour")
	f := s.follow("Authorization", "Bearer "+token)
	s.await("the page comes", func() bool { return f.sees("public.a") })
	var last net.Conn
	for range 3 * most {
		conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(s.URL(), "http://"), "/"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 12)
		if _, err := io.ReadFull(conn, first); err != nil || string(first) != "HTTP/1.1 200" {
			t.Fatalf("%q %v", first, err)
		}
		last = conn // and it stays
	}
	if status, _, _ := s.get("/api/status", "Authorization", "Bearer "+token); status != http.StatusOK {
		t.Errorf("who comes with the token: %d", status)
	}
	s.view("b", "1 hour")
	s.await("who followed still does", func() bool { return f.sees("public.b") })
	if _, err := io.WriteString(last, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(last)
	if err != nil || !strings.Contains(string(answer), "HTTP/1.1 401") {
		t.Errorf("who has no token is not sent away: %q %v", answer, err)
	}
}

// Who announces a body and keeps it back would be waited for, and hold a place among the readers meanwhile.
func TestRequestsHaveNoBody(t *testing.T) {
	s := newSite(t, web.Options{}).serve()
	for _, body := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
		dialer := net.Dialer{Timeout: 5 * time.Second}
		conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimSuffix(strings.TrimPrefix(s.URL(), "http://"), "/"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\n"+body+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 12)
		if _, err := io.ReadFull(conn, first); err != nil || string(first) != "HTTP/1.1 400" {
			t.Errorf("%s: %q %v", body, first, err)
		}
	}
}
