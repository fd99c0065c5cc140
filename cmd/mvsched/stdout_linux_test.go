package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/report"
)

// Whatever prints ends well when nobody reads it, and says so when it could not be written: in every format, without a
// panic, and without hanging.
func TestStdoutThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	db := pgtest.NewDB(t)
	db.Exec(`create materialized view public.v as select 1 as id`)
	db.Exec(`create unique index on public.v (id)`)
	db.Exec(`create materialized view public.w as select id from public.v`)
	db.Exec(`create unique index on public.w (id)`)
	p := processes{TB: t, dsn: pgtest.DSN(t)}
	p.run([]int{0}, "add", "--all", "--every", "1d")
	p.run([]int{0}, "run", "-q", "--allow-superuser")
	db.Exec(`create materialized view public.due as select 1 as id`)
	p.run([]int{0}, "add", "due", "--every", "1d")

	lists, status := report.ListFormats(), report.StatusFormats()
	for command, formats := range map[string][]report.Format{
		"list": lists, "status": status, "history": lists, "run --dry-run": lists, "refresh v --allow-superuser": lists, "doctor": lists,
		"plan": lists, "plan --runs": lists, "why v": lists, "graph": {"text", "mermaid", "dot", "json"}, "check": {"text"},
		"version": {"table", "json"}, "prune": {"table", "json"}, "init --print": {"table"}, "--help": {"table"}, "docs man": {"table"},
		"completion bash": {"table"},
	} {
		for _, format := range formats {
			t.Run(command+" -o "+string(format), func(t *testing.T) {
				t.Parallel()
				p := processes{TB: t, dsn: p.dsn}
				args := append(strings.Fields(command), "-o", string(format))
				done, full := []int{exitDone}, []int{exitOutput}
				switch {
				case command == "doctor":
					done = []int{exitDone, exitFailed} // it has found something
				case command == "check":
					done, full = []int{checkOK, checkWarning}, []int{checkUnknown, checkWarning}
				case command == "prune" && format == "table":
					full = []int{exitOutput, exitDone} // nothing to say
				}
				reader, writer, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				_ = reader.Close()
				p.into(writer, done, args)
				disk, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				p.into(disk, full, args)
				p.into(nil, done, args)
			})
		}
	}
}

// into runs the program with that as stdout; nil: without any.
func (p processes) into(stdout *os.File, codes []int, args []string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	name, args := "mvsched", append([]string{"-d", p.dsn}, args...)
	if stdout == nil {
		name, args = "sh", append([]string{"-c", `exec mvsched "$@" >&-`, "sh"}, args...)
	} else {
		defer func() { _ = stdout.Close() }()
	}
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if stdout != nil {
		cmd.Stdout = stdout
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.Fatal(err)
	}
	said := stderr.String()
	if code := cmd.ProcessState.ExitCode(); !slices.Contains(codes, code) || strings.Contains(said, "goroutine") {
		p.Errorf("%s: exit code %d, want %v\n%s", describeOutput(stdout), code, codes, said)
	}
}

func describeOutput(stdout *os.File) string {
	if stdout == nil {
		return "closed"
	}
	return fmt.Sprintf("%q", stdout.Name())
}
