package main

import (
	"net"
	"strings"
	"testing"
	"time"
)

func TestZonesAreKnown(t *testing.T) {
	for _, zone := range strings.Fields(zones) {
		if _, err := time.LoadLocation(zone); err != nil {
			t.Error(err)
		}
	}
}

// A shell is not kept waiting by a server that takes the connection and says nothing.
func TestCompletionGivesUp(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	silent, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	p := processes{TB: t, dsn: "postgres://" + silent.Addr().String() + "/none?connect_timeout=3600"}
	for _, args := range [][]string{{"add", ""}, {"run", "--queue", ""}} {
		if got := string(p.run([]int{0}, append([]string{"__complete"}, args...)...)); got != ":4\n" {
			t.Errorf("%s: %q", args, got)
		}
	}
}
