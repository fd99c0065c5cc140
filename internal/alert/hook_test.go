package alert_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/alert"
	"github.com/mvsched/mvsched/schedule"
)

// secretPath is in every URL here, and must not be in anything that is said.
const secretPath = "/T0/s3cr3t"

var at = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func example() schedule.Alert {
	return schedule.Alert{
		ID: "0b5ee5b4-0000-4000-8000-000000000001", Database: "shop", View: `cinema."<!channel> a|b"`, State: schedule.StateFailing,
		Severity: "critical", PreviousState: schedule.StateLate, Since: at, Message: "failing: failed: <b> & `x`", Attempt: 1,
	}
}

func newHook(t *testing.T, url string, format alert.Format) *alert.Hook {
	t.Helper()
	hook, err := alert.NewHook(url+secretPath, format, []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	return hook
}

func server(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

func TestPost(t *testing.T) {
	type request struct {
		method, path, kind, signature string
		body                          map[string]any
		text                          []byte
	}
	got := make(chan request, 1)
	s := server(t, func(_ http.ResponseWriter, r *http.Request) {
		seen := request{method: r.Method, path: r.URL.Path, kind: r.Header.Get("Content-Type"), signature: r.Header.Get(alert.SignatureHeader)}
		seen.text, _ = io.ReadAll(r.Body)
		if err := json.Unmarshal(seen.text, &seen.body); err != nil {
			t.Error(err)
		}
		got <- seen
	})
	repeated := example()
	repeated.Repeated = true
	long := example()
	long.Message = strings.Repeat("ü", 5000)
	for name, test := range map[string]struct {
		format alert.Format
		alert  schedule.Alert
		want   map[string]any
	}{
		"json": {alert.JSON, example(), map[string]any{
			"id": "0b5ee5b4-0000-4000-8000-000000000001", "database": "shop", "view": `cinema."<!channel> a|b"`, "state": "failing",
			"severity": "critical", "previous_state": "late", "since": "2026-11-21T10:00:00Z", "repeated": false, "message": "failing: failed: <b> & `x`",
		}},
		"slack": {alert.Slack, example(), map[string]any{
			"text":   "CRITICAL: cinema.\"&lt;!channel&gt; a|b\" in database shop is failing: failed: &lt;b&gt; &amp; `x` (was late)",
			"mrkdwn": false, "unfurl_links": false,
		}},
		"slack, a day later": {alert.Slack, repeated, map[string]any{
			"text":   "CRITICAL: cinema.\"&lt;!channel&gt; a|b\" in database shop is still failing: failed: &lt;b&gt; &amp; `x` (since 2026-11-21 10:00 UTC)",
			"mrkdwn": false, "unfurl_links": false,
		}},
		"a long message": {alert.Slack, long, map[string]any{
			"text":   "CRITICAL: cinema.\"&lt;!channel&gt; a|b\" in database shop is " + strings.Repeat("ü", 1000) + "… (was late)",
			"mrkdwn": false, "unfurl_links": false,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := newHook(t, s.URL, test.format).Post(t.Context(), test.alert); err != nil {
				t.Fatal(err)
			}
			r := <-got
			if r.method != http.MethodPost || r.path != secretPath || r.kind != "application/json" || r.signature != alert.Sign([]byte("key"), r.text) {
				t.Errorf("%+v", r)
			}
			if !reflect.DeepEqual(r.body, test.want) {
				t.Errorf("%v\nwant\n%v", r.body, test.want)
			}
		})
	}
	t.Run("nothing in it commands a terminal", func(t *testing.T) {
		hostile := example()
		hostile.View = "public.\"a\u009b31m\u202eb\""
		if err := newHook(t, s.URL, alert.JSON).Post(t.Context(), hostile); err != nil {
			t.Fatal(err)
		}
		if r := <-got; r.body["view"] != hostile.View || strings.ContainsAny(string(r.text), "\u009b\u202e") {
			t.Errorf("%q", r.text)
		}
	})
	t.Run("an unsigned one", func(t *testing.T) {
		hook, err := alert.NewHook(s.URL, alert.JSON, nil)
		if err == nil {
			err = hook.Post(t.Context(), example())
		}
		if r := <-got; err != nil || r.signature != "" {
			t.Errorf("%v, %+v", err, r)
		}
	})
}

func TestSign(t *testing.T) {
	// RFC 4231, test case 2.
	want := "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
	if got := alert.Sign([]byte("Jefe"), []byte("what do ya want for nothing?")); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestPostThatFails(t *testing.T) {
	reached := make(chan string, 10)
	other := server(t, func(_ http.ResponseWriter, r *http.Request) { reached <- r.URL.Path })
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string // "" for success
	}{
		"an error": {func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, r.URL.String(), http.StatusInternalServerError)
		}, "the answer was 500 Internal Server Error"},
		"another host": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}, "the answer was 307 Temporary Redirect"},
		"a GET instead": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == secretPath {
				http.Redirect(w, r, "/login", http.StatusFound)
			}
		}, "the answer was 302 Found"},
		"the same host": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == secretPath {
				http.Redirect(w, r, "/new", http.StatusPermanentRedirect)
			} else if body, _ := io.ReadAll(r.Body); r.Header.Get(alert.SignatureHeader) != alert.Sign([]byte("key"), body) {
				http.Error(w, "", http.StatusForbidden)
			}
		}, ""},
		"round in circles": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, "the answer was 307 Temporary Redirect"},
		"nowhere": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://[::1"+r.URL.Path)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "the answer leads nowhere"},
		"no answer": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not see that nobody waits any more
			<-r.Context().Done()
		}, "Timeout exceeded"},
		"an endless answer": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, ""},
		"an answer that never ends": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			hook := newHook(t, server(t, test.handler).URL, alert.JSON)
			if name == "no answer" || name == "an answer that never ends" {
				hook.SetTimeout(50 * time.Millisecond)
			}
			err := hook.Post(t.Context(), example())
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %s", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("it shows the URL: %v", err)
			}
		})
	}
	if len(reached) > 0 {
		t.Errorf("another host was told: %s", <-reached)
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	if err := newHook(t, closed.URL, alert.JSON).Post(t.Context(), example()); err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestURLs(t *testing.T) {
	for _, url := range []string{"", "hooks.example/x", "ftp://hooks.example/x", "https:///x", "http://:80/x", "https://hooks.example/%zz", "file:///etc/passwd"} {
		if _, err := alert.NewHook(url, alert.JSON, nil); !errors.Is(err, alert.ErrURL) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestBackoff(t *testing.T) {
	for attempt, want := range map[int]time.Duration{1: 15 * time.Second, 2: 30 * time.Second, 8: 32 * time.Minute, 9: time.Hour, 64: time.Hour, 1e6: time.Hour} {
		if got := alert.Backoff(attempt, errors.New("no answer")); got != want {
			t.Errorf("after attempt %d: %s, want %s", attempt, got, want)
		}
	}
	for header, want := range map[string]time.Duration{"120": 2 * time.Minute, "86400": time.Hour, "1": 15 * time.Second, "-5": 15 * time.Second, "soon": 15 * time.Second} {
		s := server(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(http.StatusTooManyRequests)
		})
		err := newHook(t, s.URL, alert.JSON).Post(t.Context(), example())
		if got := alert.Backoff(1, err); got != want {
			t.Errorf("Retry-After: %s: %s, want %s", header, got, want)
		}
	}
}

// What answers may be no web server, and send back what it was sent.
func TestWhoEchoesIsNotQuoted(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			request := make([]byte, 4096)
			n, _ := conn.Read(request)
			_, _ = conn.Write(request[:n])
			_ = conn.Close()
		}
	}()
	err = newHook(t, "http://"+listener.Addr().String(), alert.JSON).Post(t.Context(), example())
	if err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Error(err)
	}
}
