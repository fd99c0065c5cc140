package web_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/internal/web"
	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// printed is what the command line prints of it.
func (s *site) printed(format report.Format, what string) string {
	s.Helper()
	var buf bytes.Buffer
	store := schedule.NewStore(s.Pool)
	printer := report.Printer{W: report.NewCleanWriter(&buf), Format: format}
	var err error
	switch what {
	case "history":
		var executions []schedule.Execution
		if executions, err = store.History(s.Context(), schedule.HistoryFilter{Limit: 50}); err == nil {
			err = printer.Executions(executions, false)
		}
	default:
		var standings []schedule.Standing
		if standings, err = store.Status(s.Context(), nil); err == nil && what == "status" {
			err = printer.Status(standings)
		}
		if err == nil && what == "metrics" {
			var activity schedule.Activity
			if activity, err = store.Activity(s.Context()); err == nil {
				err = printer.Metrics(standings, activity)
			}
		}
	}
	if err != nil {
		s.Fatal(err)
	}
	return buf.String()
}

// The age is another one a moment later, whoever prints it.
var age = regexp.MustCompile(`("age_seconds": |mvsched_view_age_seconds\{.*\} |mvsched_executions_oldest_running_seconds )[0-9.]+`)

func TestWhatIsShown(t *testing.T) {
	s := newSite(t, web.Options{}).serve()
	s.view("a", "0 s")
	s.view(`"<script>alert(1)</script>"`, "1 hour")
	s.refreshes()
	s.Await("succeeded", `select last_status from mvsched.status where view_name = 'public.a'`)
	for path, printed := range map[string]func() string{
		"/api/status":  func() string { return s.printed(report.JSON, "status") },
		"/api/history": func() string { return s.printed(report.JSON, "history") },
		"/metrics":     func() string { return s.printed(report.Prometheus, "metrics") },
		"/badge.svg":   func() string { return s.printed(report.BadgeSVG, "status") },
	} {
		s.await(path+" is what the command line prints", func() bool { // once the edition of before is a second old
			status, body, _ := s.get(path)
			return status == http.StatusOK && age.ReplaceAllString(body, "$1") == age.ReplaceAllString(printed(), "$1")
		})
	}
	var list []map[string]any
	if _, body, _ := s.get("/api/status"); json.Unmarshal([]byte(body), &list) != nil || len(list) != 2 {
		t.Errorf("no list of two: %s", body)
	}
	for _, path := range []string{"/", "/api/history"} {
		_, plain, _ := s.get(path)
		status, body, reply := s.get(path, "Accept-Encoding", "br;q=1, gzip;q=0.5")
		unzip, err := gzip.NewReader(strings.NewReader(body))
		if status != http.StatusOK || reply.Get("Content-Encoding") != "gzip" || reply.Get("Vary") != "Accept-Encoding" || err != nil {
			t.Fatalf("%s, zipped: %d %v %v", path, status, reply, err)
		}
		if body, err := io.ReadAll(unzip); err != nil || !strings.HasPrefix(string(body), plain[:10]) || len(body) < len(plain)/2 {
			t.Errorf("%s, unzipped: %v %s", path, err, body)
		}
		if _, body, reply := s.get(path, "Accept-Encoding", "gzip;q=0"); reply.Get("Content-Encoding") != "" || body[:10] != plain[:10] {
			t.Errorf("%s, not to be zipped: %v", path, reply)
		}
	}
	for path, want := range map[string]string{"/healthz": "alive\n", "/readyz": "ready\n"} {
		if status, body, _ := s.get(path); status != http.StatusOK || body != want {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	if status, body, reply := s.get("/live.js"); status != http.StatusOK || !strings.Contains(body, "EventSource") ||
		reply.Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Errorf("live.js: %d %v", status, reply)
	}
	status, body, reply := s.get("/")
	if status != http.StatusOK || strings.Contains(body, "<script>alert") || !strings.Contains(body, `<script src="live.js" defer>`) {
		t.Errorf("the page: %d %s", status, body)
	}
	if !strings.Contains(reply.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; style-src 'sha256-") ||
		reply.Get("X-Content-Type-Options") != "nosniff" || reply.Get("Cache-Control") != "no-store" ||
		reply.Get("Referrer-Policy") != "no-referrer" || reply.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers: %v", reply)
	}
	for _, path := range []string{"/nothing", "/api", "/api/status/", "//", "/../", "/index.html"} {
		if status, _, _ := s.get(path); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch, "BREW"} {
		if status, _, reply := s.ask(method, "/"); status != http.StatusMethodNotAllowed || reply.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %v", method, status, reply)
		}
	}
	for _, path := range []string{"/", "/events", "/metrics"} {
		if status, body, _ := s.ask(http.MethodHead, path); status != http.StatusOK || body != "" {
			t.Errorf("HEAD %s: %d %s", path, status, body)
		}
	}
}

func TestWhoMayRead(t *testing.T) {
	t.Run("on_this_machine_who_calls_it_by_its_name", func(t *testing.T) {
		s := newSite(t, web.Options{}).serve()
		for host, want := range map[string]int{
			"localhost": 200, "LOCALHOST:1": 200, "127.0.0.1:80": 200, "127.1.2.3": 200, "[::1]:8080": 200, "[::1]": 200,
			"evil.example": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example:80": 403, "10.0.0.1": 403, "[::2]": 403,
		} {
			if status, _, _ := s.get("/", "Host", host); status != want {
				t.Errorf("%s: %d, want %d", host, status, want)
			}
		}
	})

	t.Run("who_has_the_token", func(t *testing.T) {
		const token = "correct-horse-battery-staple"
		s := newSite(t, web.Options{Token: token}).serve()
		for _, path := range []string{"/", "/events", "/live.js", "/metrics", "/badge.svg", "/api/status", "/api/history", "/nothing"} {
			for _, header := range []string{"", "Bearer ", "Bearer wrong", "Bearer " + token + "x", "Basic " + token} {
				status, body, reply := s.get(path, "Authorization", header)
				if status != http.StatusUnauthorized || strings.Contains(body, token) || reply.Get("WWW-Authenticate") == "" {
					t.Errorf("%s with %q: %d %s", path, header, status, body)
				}
			}
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			if status, _, _ := s.get(path); status != http.StatusOK {
				t.Errorf("%s: %d", path, status)
			}
		}
		if status, _, _ := s.get("/metrics", "Authorization", "Bearer "+token, "Host", "mv.example"); status != http.StatusOK {
			t.Errorf("with the token: %d", status)
		}
		if status, _, reply := s.get("/?token=wrong"); status != http.StatusUnauthorized || reply.Get("Set-Cookie") != "" {
			t.Errorf("a wrong token: %d %v", status, reply)
		}
		if status, _, _ := s.get("/api/status?token=" + token); status != http.StatusUnauthorized {
			t.Errorf("a token in an address that stays: %d", status)
		}

		status, body, reply := s.get("/?token=" + token)
		cookie := reply.Get("Set-Cookie")
		if status != http.StatusOK || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") ||
			strings.Contains(cookie+body, token) || !strings.Contains(body, `url=./`) {
			t.Fatalf("the first visit: %d %v %s", status, reply, body)
		}
		cookie, _, _ = strings.Cut(cookie, ";")
		for _, path := range []string{"/", "/live.js", "/api/history"} {
			if status, _, _ := s.get(path, "Cookie", cookie); status != http.StatusOK {
				t.Errorf("%s with the cookie: %d", path, status)
			}
		}
		if status, _, _ := s.get("/", "Cookie", cookie+"0"); status != http.StatusUnauthorized {
			t.Errorf("with another cookie: %d", status)
		}
		f := s.follow("Cookie", cookie)
		s.await("events come", func() bool { return f.sees("mvsched") })
	})
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"8080": "127.0.0.1:8080 here", ":8080": "127.0.0.1:8080 here", "localhost:0": "127.0.0.1:0 here", "[::1]:1": "[::1]:1 here",
		"127.9.9.9:1": "127.9.9.9:1 here", "[::ffff:127.0.0.1]:1": "[::ffff:127.0.0.1]:1 here",
		"0.0.0.0:1": "0.0.0.0:1", "[::]:1": "[::]:1", "db.example:1": "db.example:1", "10.0.0.1:1": "10.0.0.1:1",
		"": "", ":": "", "x": "", "1:2:3": "", ":http": "", ":65536": "", ":-1": "", ":+1": "", "127.0.0.1": "", "http://x:1": "", ":01": "",
	} {
		address, err := web.ParseAddress(text)
		got := address.String()
		if address.Loopback() {
			got += " here"
		}
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("%q: %q (%v), want %q", text, got, err, want)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Run("a_refresh_is_seen_when_it_has_committed", func(t *testing.T) {
		s := newSite(t, web.Options{}).serve().refreshes()
		s.await("it hears", s.Hears)
		s.view("a", "1 hour")
		f := s.follow()
		s.await("the page comes", func() bool { return f.sees("public.a") && f.sees("never") })
		s.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
		s.await("the refresh is seen", func() bool { return f.sees("fresh") && !f.sees(">never<") })
		var seen, committed time.Time
		seen = time.Now()
		if err := s.Pool.QueryRow(t.Context(), `select max(ended_at) from mvsched.materialized_view_refresh_schedule_execution`).Scan(&committed); err != nil {
			t.Fatal(err)
		}
		t.Logf("seen %v after its end", seen.Sub(committed))
	})

	t.Run("that_it_has_ended_is_told_without_a_look", func(t *testing.T) {
		s := newSite(t, web.Options{}).serve().refreshes()
		s.await("it hears", s.Hears)
		s.view("a", "1 hour")
		s.view(`"<b>"`, "1 hour")
		f := s.follow()
		s.await("the page comes", func() bool { return f.sees("public.a") && f.sees("&lt;b&gt;") })
		release := s.Hold(`lock table mvsched.schema_version in access exclusive mode`) // no look gets past it
		for _, strange := range []string{`{}`, `[`, `{"execution":9,"view":"public.a","status":"running"}`, `{"execution":9,"view":"public.c","status":"failed"}`} {
			s.Exec(`select pg_notify('mvsched', $1)`, strange)
		}
		s.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
			(materialized_view_refresh_schedule_id, view_name, view_oid, status, started_at, ended_at, method, data_as_of, refreshed_at)
			select id, materialized_view_name, view_oid, 'succeeded', now(), now(), 'plain', now(), now()
			  from mvsched.materialized_view_refresh_schedule where materialized_view_name ~ '<b>'`)
		const ended = `[{"view":"public.\"\u003cb\u003e\"","status":"succeeded"}]`
		s.await("it is told", func() bool { return f.hasEnded() == ended })
		if !f.sees("never") || f.sees(">fresh<") {
			t.Error("it looked")
		}
		release()
		s.await("the rest is seen", func() bool { return f.sees(">fresh<") && f.told() == "" })
		if got := f.hasEnded(); got != ended {
			t.Errorf("told again of what is seen: %s", got)
		}
	})

	t.Run("two_hundred_readers_cost_one_query_a_second_and_none_none", func(t *testing.T) {
		s := newSite(t, web.Options{}).serve()
		s.view("a", "1 hour")
		s.await("the first look is taken", func() bool { return s.statements.seen.Load() > 0 })
		if n := s.statements.seen.Load(); n != 1 {
			t.Errorf("%d statements before anybody looks", n)
		}
		began := time.Now()
		var followers []*follower
		for range 200 {
			followers = append(followers, s.follow())
		}
		all := func(text string) func() bool {
			return func() bool {
				for _, f := range followers {
					if !f.sees(text) {
						return false
					}
				}
				return true
			}
		}
		s.await("everybody sees a view", all("public.a"))
		for _, name := range []string{"b", "c", "d", "e"} {
			s.view(name, "1 hour") // not told of: it polls
			s.Told(false, &schedule.End{Execution: 1 << 40, View: "public." + name, Status: schedule.Succeeded})
			s.get("/")
			s.get("/metrics")
			s.await("everybody sees another one", all("public."+name))
		}
		if closest := s.statements.closest(); closest < time.Second {
			t.Errorf("two statements within %v", closest)
		}
		t.Logf("%d statements in %v for 200 readers", s.statements.seen.Load(), time.Since(began))

		for _, f := range followers {
			f.leave()
		}
		s.await("nobody follows any more", func() bool { return s.Watchers() == 0 })
		s.get("/api/status") // what was under way is over
		quiet := s.statements.seen.Load()
		for range 100 {
			s.Told(true, &schedule.End{Execution: 1 << 40, View: "public.a", Status: schedule.Succeeded})
		}
		s.await("the next one who looks asks again", func() bool {
			s.get("/api/status")
			return s.statements.seen.Load() > quiet
		})
		if n := s.statements.seen.Load(); n != quiet+1 {
			t.Errorf("%d statements that nobody asked for", n-quiet-1)
		}
	})

	t.Run("a_reader_who_stalls_is_dropped_and_the_others_go_on", func(t *testing.T) {
		s := newSite(t, web.Options{})
		s.MakeSmall(2*time.Second, 16<<10)
		s.serve()
		s.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
			select format('public.a_view_that_is_not_there_%s', g), '1 hour' from generate_series(1, 500) g`)
		f := s.follow()
		s.await("one reads", func() bool { return f.sees("a_view_that_is_not_there_500") })

		dialer := net.Dialer{Timeout: 5 * time.Second, Control: smallBuffer}
		conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimSuffix(strings.TrimPrefix(s.URL(), "http://"), "/"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 12)
		if _, err := io.ReadFull(conn, first); err != nil || string(first) != "HTTP/1.1 200" {
			t.Fatalf("%q %v", first, err)
		}
		// It reads no more.
		s.await("two follow, then one", func() bool { return s.Watchers() == 1 })
		s.view("one_more", "1 hour")
		s.await("the other one goes on", func() bool { return f.sees("one_more") })
	})

	t.Run("behind_a_pooler_it_asks", func(t *testing.T) {
		t.Setenv(pgtest.EnvPooler, "pgbouncer")
		s := newSite(t, web.Options{})
		s.dsn = pgtest.DSN(t)
		s.serve().refreshes()
		s.view("a", "1 hour")
		f := s.follow()
		s.await("the page comes", func() bool { return f.sees("public.a") && f.sees("never") })
		s.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
		s.await("the refresh is seen", func() bool { return f.sees("fresh") && !f.sees(">never<") })
		if s.Hears() {
			t.Error("it thinks that it hears")
		}
	})
}

func TestWithoutTheDatabase(t *testing.T) {
	s := newSite(t, web.Options{})
	s.view("a", "1 hour")
	admin, err := pgx.Connect(t.Context(), s.dsn+" dbname=postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close(context.Background()) })
	name := s.Pool.Config().ConnConfig.Database
	open := func(allow string) {
		t.Helper()
		s.Pool.Reset()
		for _, sql := range []string{
			`alter database ` + pgx.Identifier{name}.Sanitize() + ` allow_connections ` + allow,
			`select pg_terminate_backend(pid) from pg_stat_activity where datname = '` + name + `'`,
		} {
			if _, err := admin.Exec(context.Background(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() { open("true") })

	open("false")
	s.serve()
	for path, want := range map[string]int{"/": 503, "/metrics": 503, "/api/status": 503, "/readyz": 503, "/badge.svg": 503, "/healthz": 200} {
		status, body, _ := s.get(path)
		if status != want || strings.Contains(body, name) {
			t.Errorf("before it was ever there, %s: %d %s", path, status, body)
		}
	}
	open("true")
	s.await("it is ready", func() bool { status, _, _ := s.get("/readyz"); return status == http.StatusOK })
	f := s.follow()
	s.await("the page comes", func() bool { return f.sees("public.a") })
	if f.told() != "" {
		t.Errorf("a notice: %s", f.told())
	}

	open("false")
	s.await("readers are told", func() bool { return strings.Contains(f.told(), "as of "+time.Now().UTC().Format(time.DateOnly)) })
	for path, want := range map[string]int{"/metrics": 503, "/api/status": 503, "/api/history": 503, "/readyz": 503, "/badge.svg": 503, "/healthz": 200} {
		status, body, _ := s.get(path)
		if status != want || strings.Contains(body, name) {
			t.Errorf("when it is gone, %s: %d %s", path, status, body)
		}
	}
	status, body, _ := s.get("/")
	if status != http.StatusOK || !strings.Contains(body, "public.a") || !strings.Contains(body, `<p id="mvsched-notice" role="status">`) ||
		!strings.Contains(body, "The database does not answer. What stands here is old: as of ") {
		t.Errorf("the page when it is gone: %d %s", status, body)
	}

	open("true")
	s.await("it is ready again, and nobody is told of anything", func() bool {
		status, _, _ := s.get("/readyz")
		return status == http.StatusOK && f.told() == ""
	})
	s.Exec(`drop schema mvsched cascade`)
	s.await("the schema is missed", func() bool {
		status, body, _ := s.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "not installed")
	})
}

func TestTheEnd(t *testing.T) {
	s := newSite(t, web.Options{})
	s.view("a", "1 hour")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	before := runtime.NumGoroutine()
	s.serve()
	var bodies []io.ReadCloser
	for range 20 {
		response, err := client.Do(s.request(context.Background(), http.MethodGet, "/events")) //nolint:bodyclose // below
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, response.Body)
	}
	idle, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(s.URL(), "http://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	s.await("they follow", func() bool { return s.Watchers() == 20 })
	s.stop()
	<-s.done
	for _, body := range bodies {
		if _, err := io.Copy(io.Discard, body); os.IsTimeout(err) {
			t.Error(err)
		}
		body.Close()
	}
	if n := s.Watchers(); n != 0 {
		t.Errorf("%d still follow", n)
	}
	s.await("no goroutine is left but those of the pool", func() bool { return runtime.NumGoroutine() <= before+3 })
	if _, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(s.URL(), "http://"), "/")); err == nil {
		t.Error("it still listens")
	}
	if !reflect.DeepEqual(s.err, nil) {
		t.Error(s.err)
	}
}

// A bug ends the page, with its stack, and not the refreshes of the process.
func TestABugIsTold(t *testing.T) {
	s := newSite(t, web.Options{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), nil, "shop") }()                 // without a store
	response, err := client().Do(s.request(t.Context(), http.MethodGet, "/")) // which has it look
	if err == nil {
		response.Body.Close()
	}
	if err := <-done; !errors.Is(err, schedule.ErrBug) || !strings.Contains(err.Error(), "feeder.go:") {
		t.Errorf("%v", err)
	}
}
