package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mvsched/mvsched/internal/alert"
	"github.com/mvsched/mvsched/internal/pgtest"
)

// inbox is where alerts arrive.
type inbox struct {
	*httptest.Server
	mu  sync.Mutex
	got []string // "before>state severity"
}

func newInbox(t *testing.T, secret string) *inbox {
	t.Helper()
	in := &inbox{}
	in.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var m struct {
			State, Severity, View string
			Previous              string `json:"previous_state"`
		}
		if err := json.Unmarshal(body, &m); err != nil || m.View != "public.v" {
			t.Errorf("%s: %v", body, err)
		}
		if r.Header.Get(alert.SignatureHeader) != alert.Sign([]byte(secret), body) {
			t.Errorf("the signature is %q", r.Header.Get(alert.SignatureHeader))
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		in.got = append(in.got, m.Previous+">"+m.State+" "+m.Severity)
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *inbox) all() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.got)
}

// serve starts the daemon, and returns how to kill it; it also ends with the test.
func (p processes) serve(args ...string) (kill func()) {
	p.Helper()
	cmd := exec.Command("mvsched", append([]string{"-d", p.dsn, "serve"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if strings.Contains(stderr.String(), "s3cr3t") {
			p.Errorf("it shows the URL: %s", stderr.String())
		}
	})
	p.Cleanup(kill)
	return kill
}

// visited is what a page says, "" while nobody answers.
func visited(url string) string {
	response, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return string(text)
}

// Must-show: whoever is asked, and whoever is told, it is the same story.
func TestOneStory(t *testing.T) {
	t.Parallel()
	db := pgtest.NewDB(t)
	p := processes{TB: t, dsn: pgtest.DSN(t)}
	in := newInbox(t, "key")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func() func() {
		return p.serve("--allow-superuser", "--notify-url", in.URL+"/s3cr3t", "--notify-secret-file", secret, "--notify-interval", "1s")
	}
	db.Exec(`create table public.t as select 1 as n`)
	db.Exec(`create materialized view public.v as select 1 / n as x from public.t`)
	p.run([]int{0}, "add", "public.v", "--every", "2s", "--retries", "0", "--suspend-after", "2")
	kill := serve()
	serve()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	p.serve("--allow-superuser", "--listen", "127.0.0.1:"+port)

	var want []string
	story := func(state, severity string, code int, change string) {
		t.Helper()
		if change != "" {
			want = append(want, change)
		}
		pgtest.WaitFor(t, t.Context(), fmt.Sprintf("they say %q", want), func() bool { return len(in.all()) >= len(want) })
		if got := in.all(); !slices.Equal(got, want) {
			t.Fatalf("told %q, want %q", got, want)
		}
		if line := string(p.run([]int{code}, "check")); !strings.HasPrefix(line, "MVSCHED "+severity+" - 1 "+state) {
			t.Errorf("check says %s", line)
		}
		var standings []struct{ State string }
		if err := json.Unmarshal(p.run([]int{0}, "status", "-o", "json"), &standings); err != nil || len(standings) != 1 || standings[0].State != state {
			t.Errorf("status says %v, %v", standings, err)
		}
		verdict := map[int]string{0: "All is well", 2: "In trouble"}[code]
		for path, says := range map[string][]string{
			"":           {`<h1 class="`, ">" + verdict + "</h1>", `data-view="public.v" data-state="` + state + `"`, `data-count="` + state + `" value="1"`},
			"api/status": {`"state": "` + state + `"`},
			"metrics":    {`mvsched_view_state{view="public.v",state="` + state + `"} 1`},
		} {
			pgtest.WaitFor(t, t.Context(), fmt.Sprintf("/%s says %q", path, says), func() bool { // it may be a second old
				page := visited("http://127.0.0.1:" + port + "/" + path)
				return !slices.ContainsFunc(says, func(text string) bool { return !strings.Contains(page, text) })
			})
		}
		health := map[int]string{0: "0", 2: "2"}[code]
		metrics := string(p.run([]int{0}, "status", "-o", "prometheus"))
		for _, line := range []string{`mvsched_view_state{view="public.v",state="` + state + `"} 1`, `mvsched_view_health{view="public.v"} ` + health} {
			if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(line) + `$`).MatchString(metrics) {
				t.Errorf("no %s in\n%s", line, metrics)
			}
		}
	}

	// It is refreshed every two seconds, until somebody's session holds its row.
	db.Await("true", `select count(*) >= 2 from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'`)
	hold, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hold.Rollback(t.Context()) }()
	if _, err := hold.Exec(t.Context(), `select from mvsched.materialized_view_refresh_schedule for update`); err != nil {
		t.Fatal(err)
	}
	db.Await("late", `select state from mvsched.status`)
	story("late", "CRITICAL", checkCritical, "fresh>late critical")

	// It fails.
	db.Exec(`update public.t set n = 0`)
	if _, err := hold.Exec(t.Context(), `update mvsched.materialized_view_refresh_schedule set refresh_interval = '1 day', next_run_at = now()`); err != nil {
		t.Fatal(err)
	}
	if err := hold.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Await("failing", `select state from mvsched.status`)
	story("failing", "CRITICAL", checkCritical, "late>failing critical")

	// It fails again, and is given up on. One of the processes was killed, and another one began: neither tells it again.
	kill()
	serve()
	db.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
	db.Await("suspended", `select state from mvsched.status`)
	story("suspended", "CRITICAL", checkCritical, "failing>suspended critical")

	// It is mended.
	db.Exec(`update public.t set n = 1`)
	p.run([]int{0}, "resume", "public.v")
	db.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
	db.Await("fresh", `select state from mvsched.status`)
	story("fresh", "OK", checkOK, "suspended>fresh ok")
	db.Await("0", `select count(*) from mvsched.alert`)

	// Looks that find nothing new tell nothing.
	looked := db.Value(`select looked_at from mvsched.alert_target`)
	db.Await("true", `select looked_at > $1::timestamptz + interval '2 s' from mvsched.alert_target`, looked)
	story("fresh", "OK", checkOK, "")
}
