package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/alert"
	"github.com/mvsched/mvsched/refresh"
)

// A bug in what tells of alerts ends serve as a bug in a refresh does: the refreshes may end, and the exit code says so.
func TestABugBesideTheRefreshes(t *testing.T) {
	var stderr bytes.Buffer
	a := newApp(environment{stdout: io.Discard, stderr: &stderr, getenv: func(string) string { return "" }})
	hook, err := alert.NewHook("http://127.0.0.1:1/", alert.JSON, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, failed, outcome := a.beside(t.Context())
	n := notices{hooks: []*alert.Hook{hook}, interval: time.Minute}
	_, silence := n.begin(ctx, nil, slog.New(slog.DiscardHandler), failed) // without a store
	<-ctx.Done()
	silence()
	err = outcome(nil)
	if code := a.finish(err); code != exitBug || !errors.Is(err, refresh.ErrBug) {
		t.Errorf("%d: %v", code, err)
	}
	if text := stderr.String(); !strings.HasPrefix(text, "note: a bug") || !strings.Contains(text, "error: bug: runtime error") || !strings.Contains(text, "alert.go:") {
		t.Errorf("it says %q", text)
	}
}
