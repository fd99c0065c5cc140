package main

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// What systemd hears of a server: a real socket, as it makes one.
func TestServeTellsSystemd(t *testing.T) {
	for name, path := range map[string]string{
		"socket": filepath.Join(t.TempDir(), "notify"), "abstract_socket": "@mvsched-test-" + filepath.Base(t.TempDir()) + time.Now().Format("150405.000000"),
	} {
		t.Run(name, func(t *testing.T) {
			socket := path
			if socket[0] == '@' {
				socket = "\x00" + socket[1:]
			}
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			heard := func() string {
				buf := make([]byte, 100)
				n, err := conn.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				return string(buf[:n])
			}

			environ := map[string]string{"MVSCHED_DATABASE_URL": pgtest.DirectDSN(t), "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000"}
			a := newApp(environment{stdout: io.Discard, stderr: io.Discard, getenv: func(name string) string { return environ[name] }})
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- runServe(ctx, a, serveOptions{jobs: 1}) }()

			first := heard()
			for first == "WATCHDOG=1" { // the two do not wait for each other
				first = heard()
			}
			if first != "READY=1" {
				t.Errorf("heard %q first", first)
			}
			for range 2 {
				if got := heard(); got != "WATCHDOG=1" {
					t.Errorf("heard %q while it served", got)
				}
			}
			stop()
			last := heard()
			for last == "WATCHDOG=1" {
				last = heard()
			}
			if last != "STOPPING=1" {
				t.Errorf("heard %q at the end", last)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
