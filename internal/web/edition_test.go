package web_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/web"
)

func TestWhoWaitsForALook(t *testing.T) {
	s := newSite(t, web.Options{})
	s.view("a", "1 hour")
	s.serve()
	s.await("the first look waits for nobody", func() bool { return s.statements.seen.Load() == 1 })
	if status, body, _ := s.get("/"); status != http.StatusOK || !strings.Contains(body, "public.a") {
		t.Fatalf("the first page: %d %s", status, body)
	}
	s.view("b", "1 hour")
	release := s.Hold(`lock table mvsched.schema_version in access exclusive mode`) // no look gets past it
	const old = `<p id="mvsched-notice"`

	s.Age(2 * time.Second)
	status, page, _ := s.get("/")
	if status != http.StatusOK || !strings.Contains(page, "public.a") || strings.Contains(page, old) {
		t.Errorf("a person who need not wait: %d %s", status, page)
	}
	s.await("the next edition is asked for", func() bool { return s.statements.seen.Load() == 2 })
	f := s.follow()
	s.await("what follows is the same content", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return strings.HasPrefix(f.body, `<main id="mvsched">`) && strings.HasSuffix(f.body, "</main>") && strings.Contains(page, f.body)
	})
	if status, _, _ := s.get("/metrics"); status != http.StatusServiceUnavailable {
		t.Errorf("a machine did not wait: %d", status)
	}

	s.Age(time.Minute)
	if status, page, _ := s.get("/"); status != http.StatusOK || !strings.Contains(page, old) {
		t.Errorf("a page of a minute ago that is not called old: %d %s", status, page)
	}
	release()
	s.await("the next edition comes", func() bool { return f.sees("public.b") })
}
