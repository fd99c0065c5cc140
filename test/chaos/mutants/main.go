// Command mutants breaks mvsched in the ways that matter, one after the other, in a copy of the source, and has the tests
// try it that ought to notice. Each mutant has to compile, its schema has to install, and the tests have to be green
// without it: then a red one is a mutant killed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// edit replaces a text, which stands in the file exactly once.
type edit struct{ file, from, to string }

// mutant is a way to break mvsched, and the tests that have to notice.
type mutant struct {
	name  string
	edits []edit
	pkg   string
	tests string // as for go test -run

	sampled bool // the tests try it
}

const testLimit = 3 * time.Minute

func main() {
	only := flag.String("run", "", "only mutants whose name contains this")
	source := flag.String("source", "../..", "the source of mvsched")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	score, of, err := try(ctx, *source, func(m mutant) bool { return strings.Contains(m.name, *only) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	fmt.Printf("\n%d of %d mutants killed\n", score, of)
	if score != of || of == 0 {
		os.Exit(1)
	}
}

func try(ctx context.Context, source string, wanted func(mutant) bool) (killed, all int, err error) {
	dir, err := os.MkdirTemp("", "mvsched-mutants-")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := copyTree(source, dir); err != nil {
		return 0, 0, err
	}
	fmt.Println("| mutant | killed by | after |\n|---|---|---:|")
	green := map[string]bool{}
	for _, m := range mutants {
		if !wanted(m) {
			continue
		}
		all++
		if tests := m.pkg + " " + m.tests; !green[tests] {
			if out, err := goTest(ctx, dir, m.pkg, m.tests); err != nil {
				return killed, all, fmt.Errorf("%s is not green without a mutant: %w\n%s", tests, err, out)
			}
			green[tests] = true
		}
		began := time.Now()
		verdict, err := m.try(ctx, dir)
		if err != nil {
			return killed, all, fmt.Errorf("mutant %q: %w", m.name, err)
		}
		if verdict != "" {
			killed++
		} else {
			verdict = "**SURVIVES** " + m.tests
		}
		fmt.Printf("| %s | %s | %.0f s |\n", m.name, verdict, time.Since(began).Seconds())
	}
	return killed, all, nil
}

// try returns the test that has failed; "" when none has.
func (m mutant) try(ctx context.Context, dir string) (verdict string, err error) {
	originals := map[string]string{}
	defer func() {
		for file, text := range originals {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
		}
	}()
	schema := false
	for _, e := range m.edits {
		name := filepath.Join(dir, e.file)
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if _, seen := originals[e.file]; !seen {
			originals[e.file] = string(text)
		}
		if n := strings.Count(string(text), e.from); n != 1 {
			return "", fmt.Errorf("%s has this %d times: %s", e.file, n, e.from)
		}
		changed := strings.Replace(string(text), e.from, e.to, 1)
		if err := os.WriteFile(name, []byte(changed), 0o600); err != nil {
			return "", err
		}
		schema = schema || strings.HasSuffix(e.file, ".sql")
	}
	vet := exec.CommandContext(ctx, "go", "build", "./...")
	vet.Dir = dir
	if out, err := vet.CombinedOutput(); err != nil {
		return "", fmt.Errorf("it does not compile: %w\n%s", err, out)
	}
	if schema {
		if out, err := goTest(ctx, dir, "./schedule", "^TestInstall$/^does_it_once$"); err != nil {
			return "", fmt.Errorf("its schema cannot be installed: %w\n%s", err, out)
		}
	}
	out, err := goTest(ctx, dir, m.pkg, m.tests)
	if err == nil {
		return "", nil
	}
	for line := range strings.SplitSeq(out, "\n") {
		if test, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "); ok {
			test, _, _ = strings.Cut(test, " ")
			verdict = test // the innermost comes last
		}
	}
	if verdict == "" && strings.Contains(out, "panic: test timed out") {
		verdict = m.tests + " (hangs)"
	}
	if verdict == "" {
		return "", fmt.Errorf("no test failed, but: %w\n%s", err, out)
	}
	return "`" + verdict + "`", nil
}

func goTest(ctx context.Context, dir, pkg, tests string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", pkg, "-run", tests, "-count=1", "-v", "-failfast", "-timeout", testLimit.String())
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err == nil && !strings.Contains(string(out), "--- PASS: ") {
		err = errors.New("there is no such test")
	}
	return string(out), err
}

// copyTree copies the source, without what is built or fetched.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); relative != "." && (name == "bin" || name == "test" || strings.HasPrefix(name, ".")) {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, relative), 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, relative), text, 0o600)
	})
}
