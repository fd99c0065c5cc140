package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/internal/alert"
	"github.com/mvsched/mvsched/schedule"
)

// The variables for what is a secret: everybody on the machine can read a command line.
const (
	envNotifyURL    = "MVSCHED_NOTIFY_URL"
	envNotifySecret = "MVSCHED_NOTIFY_SECRET" //nolint:gosec // its name
	envPingURL      = "MVSCHED_PING_URL"
)

// maxSecret bounds what is read of a file that should have a line.
const maxSecret = 4096

// notifyFlags say who is to be told how views stand.
type notifyFlags struct {
	cmd        *cobra.Command
	urls       []string
	format     string
	secretFile string
	interval   string
	pingURL    string
}

func addNotifyFlags(cmd *cobra.Command) *notifyFlags {
	f := &notifyFlags{cmd: cmd}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.urls, "notify-url", nil, "tell this URL (POST) when the alert state of a view changes; may be given several times, or as "+envNotifyURL)
	flags.StringVar(&f.format, "notify-format", string(alert.JSON), "what the URLs get: json, or slack")
	flags.StringVar(&f.secretFile, "notify-secret-file", "", "sign what they get (HMAC-SHA256) with the secret in this file, or in "+envNotifySecret)
	flags.StringVar(&f.interval, "notify-interval", "", "look so often for what changes without a refresh, such as data that gets too old (default 30s)")
	flags.StringVar(&f.pingURL, "ping-url", "", "every minute, GET this URL when nothing is critical, and URL/fail when something is; or as "+envPingURL)
	return f
}

// notices is who is to be told.
type notices struct {
	hooks    []*alert.Hook
	interval time.Duration
	pingURL  string // "" for nobody
}

// read reads flags and variables. What is wrong is told without the URL.
func (f *notifyFlags) read(getenv func(string) string) (n notices, err error) {
	n = notices{interval: alert.DefaultInterval, pingURL: getenv(envPingURL)}
	if !slices.Contains(alert.Formats(), alert.Format(f.format)) {
		return n, &usageError{problem: fmt.Sprintf("--notify-format: there is no format %q", f.format), hint: "use json or slack"}
	}
	if f.cmd.Flags().Changed("ping-url") {
		n.pingURL = f.pingURL
	}
	urls := strings.Fields(getenv(envNotifyURL))
	if f.cmd.Flags().Changed("notify-url") {
		urls = f.urls
	}
	interval, err := durationFlag(f.cmd.Flags().Changed("notify-interval"), "notify-interval", f.interval, schedule.Day)
	if err != nil {
		return n, err
	}
	if interval != nil {
		n.interval = *interval
	}
	secret, err := f.secret(getenv)
	if err != nil {
		return n, err
	}
	for i, url := range urls {
		if slices.Contains(urls[:i], url) {
			return n, &usageError{problem: "the same URL is to be notified twice"}
		}
		hook, err := alert.NewHook(url, alert.Format(f.format), secret)
		if err != nil {
			return n, urlError("notify-url", err)
		}
		n.hooks = append(n.hooks, hook)
	}
	if n.pingURL != "" {
		if _, err := alert.NewPinger(n.pingURL, nil, nil); err != nil {
			return n, urlError("ping-url", err)
		}
	}
	for _, flag := range []string{"notify-format", "notify-secret-file", "notify-interval"} {
		if f.cmd.Flags().Changed(flag) && len(urls) == 0 {
			return n, &usageError{problem: "--" + flag + " is for --notify-url", hint: "name the URL with it or in " + envNotifyURL + ", or leave it out"}
		}
	}
	return n, nil
}

func urlError(flag string, err error) error {
	return &usageError{problem: fmt.Sprintf("--%s: %v (it is not shown here)", flag, err), hint: "write for example https://hooks.example/T0/secret"}
}

// secret reads the key of the signatures, without the line's end; nil: none is given.
func (f *notifyFlags) secret(getenv func(string) string) ([]byte, error) {
	if f.secretFile == "" {
		return []byte(getenv(envNotifySecret)), nil
	}
	file, err := os.Open(f.secretFile)
	if err != nil {
		return nil, &usageError{problem: "--notify-secret-file: " + err.Error()}
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	if err != nil {
		return nil, &usageError{problem: "--notify-secret-file: " + err.Error()}
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 || len(text) > maxSecret {
		return nil, &usageError{problem: fmt.Sprintf("--notify-secret-file: %q has no secret of 1 to %d bytes", f.secretFile, maxSecret)}
	}
	return text, nil
}

// connections is how many telling needs beside the refreshes.
func (n notices) connections() int {
	if len(n.hooks) > 0 || n.pingURL != "" {
		return 1
	}
	return 0
}

// begin starts telling, which goes on until ctx ends or silence is called. It wants to hear what has ended. Of a bug it
// tells failed.
func (n notices) begin(ctx context.Context, store *schedule.Store, log *slog.Logger, failed func(error)) (ended func(schedule.Execution), silence func()) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	alerter := &alert.Alerter{Store: store, Log: log, Hooks: n.hooks, Interval: n.interval}
	guard := func(do func() error) func() {
		return func() {
			if err := schedule.Guarded(do); err != nil {
				failed(err)
			}
		}
	}
	running.Go(guard(func() error { return alerter.Run(ctx) }))
	if n.pingURL != "" {
		if pinger, err := alert.NewPinger(n.pingURL, store, log); err == nil { // it was one when the flags were read
			running.Go(guard(func() error { pinger.Run(ctx, alert.PingInterval); return nil }))
		}
	}
	return alerter.Ended, func() {
		stop()
		running.Wait()
	}
}
