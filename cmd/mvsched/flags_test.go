package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// flagUse is a flag of a command that works on a database.
type flagUse struct{ command, flag string }

// flagUses leaves out what does not stop at the connection, which nobody answers, or reads and opens things elsewhere.
func flagUses() (all []flagUse) {
	apart := []string{"demo", "docs", "completion", "help", "version", "init", "bug", "__complete"}
	leave := []string{"database-url", "listen", "token-file", "insecure", "help", "print", "yes", "notify-url", "notify-secret-file", "ping-url"}
	for _, cmd := range newTestRootCmd().Commands() {
		if slices.Contains(apart, cmd.Name()) {
			continue
		}
		visit := func(flag *pflag.Flag) {
			if !slices.Contains(leave, flag.Name) {
				all = append(all, flagUse{cmd.Name(), flag.Name})
			}
		}
		cmd.LocalFlags().VisitAll(visit)
		cmd.InheritedFlags().VisitAll(visit)
		all = append(all, flagUse{cmd.Name(), ""})
	}
	return all
}

// The law: whatever is given to a flag, or as a view, is wrong use, or the command goes on to the connection, where nobody is; it
// never is a bug, and nothing that was typed comes out raw.
func FuzzCommandLine(f *testing.F) {
	for i, value := range []string{
		"", "0", "-1", "1", "5m", "1 month", "infinity", "178000000 years", "* * * * *", "TZ= * * * * *", "Mars/Phobos", "v", "a.b.c", `"x`, "x; drop table y",
		"\x1b[2J", "::error::x", "json", "default=4,heavy=1", "a=b", "search_path=x", "22:00-06:00", "24:00-00:00", "99999999999999999999", "%s%n", "é\u202e", "skip", strings.Repeat("x", 64),
	} {
		f.Add(uint16(i*7), value)
	}
	uses := flagUses()
	if len(uses) < 50 {
		f.Fatalf("%d flags", len(uses))
	}
	f.Fuzz(func(t *testing.T, n uint16, value string) {
		if strings.ContainsRune(value, 0) {
			return // no argument of a program has one
		}
		use := uses[int(n)%len(uses)]
		args := []string{use.command, "-d", "host=127.0.0.1 port=1", "--every=5m", "v"}
		switch {
		case !slices.Contains([]string{"add", "set"}, use.command):
			args = slices.Delete(args, 3, 4)
		case slices.Contains([]string{"cron", "after", "after-parents", "on-change", "max-lag", "every"}, use.flag):
			args = slices.Delete(args, 3, 4)
		}
		if use.flag == "" {
			args[len(args)-1] = value
			args = slices.Insert(args, len(args)-1, "--")
		} else {
			args = append(args, "--"+use.flag+"="+value)
		}
		var out bytes.Buffer
		code := run(args, environment{stdin: strings.NewReader(""), stdout: &out, stderr: &out, getenv: func(string) string { return "" }})
		wrong := []int{exitUsage, exitUnavailable}
		if use.command == checkName {
			wrong = []int{exitUnavailable} // it is UNKNOWN
		}
		if !slices.Contains(wrong, code) || commandsTerminal.Match(out.Bytes()) {
			t.Fatalf("%q: exit code %d\n%q", args, code, out.String())
		}
	})
}
