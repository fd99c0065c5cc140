package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// snippetLine is a line of a snippet that runs mvsched: of YAML, of a Jenkinsfile, or of a shell.
var snippetLine = regexp.MustCompile(`(?m)^\s*(?:- )?(?:run: |sh ')?(mvsched (?:[^'\n]|'[^'\n]*' )*?)'?$`)

// What docs/ci.md tells a build to run does run.
func TestSnippetsForCI(t *testing.T) {
	t.Parallel()
	db := pgtest.NewDB(t)
	db.Exec(`create schema cinema`)
	db.Exec(`create materialized view cinema.venue_view as select 1 as id`)
	db.Schedule("cinema.venue_view", "5 minutes")
	dir := t.TempDir()
	annotation := "#!/bin/sh\nexec cat >annotation\n"
	if err := os.WriteFile(filepath.Join(dir, "buildkite-agent"), []byte(annotation), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "public"), 0o755); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, block := range fencedBlock.FindAllString(readPages(t)[filepath.Join("docs", "ci.md")], -1) {
		for _, line := range snippetLine.FindAllStringSubmatch(block, -1) {
			cmd := exec.CommandContext(t.Context(), "sh", "-ec", line[1])
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "DATABASE_URL="+pgtest.DSN(t), "GITHUB_STEP_SUMMARY=summary.md", "PATH="+dir+":"+os.Getenv("PATH"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", line[1], err, out)
			}
			lines++
		}
	}
	if want := 13; lines != want {
		t.Errorf("%d lines, want %d: is one not recognised?", lines, want)
	}
	for name, want := range map[string]string{
		"summary.md": "| VIEW |", "annotation": "| VIEW |", "views.xml": "<testcase", "public/views.json": "schemaVersion", "public/views.svg": "<svg", "views.html": "<main",
	} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}
