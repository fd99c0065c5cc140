package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Monitoring takes 70 for whatever it likes: also a bug is UNKNOWN.
func TestCheckWithABug(t *testing.T) {
	var stdout, stderr bytes.Buffer
	env := environment{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }}
	code := run([]string{"bug"}, env, func(a *app) *cobra.Command {
		cmd := &cobra.Command{Use: "bug"}
		cmd.RunE = a.command(cmd, func(context.Context, []string) error {
			a.monitors = true
			panic("the cat sat on the keyboard")
		})
		return cmd
	})
	if code != checkUnknown || stdout.String() != "MVSCHED UNKNOWN - a bug\n" || !strings.Contains(stderr.String(), "the cat sat") {
		t.Errorf("%d, %q, %q", code, stdout.String(), stderr.String())
	}
}
