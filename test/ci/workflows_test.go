package ci_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type workflow struct {
	Name        string
	On          yaml.Node
	Permissions map[string]string
	Jobs        map[string]struct {
		RunsOn         string            `yaml:"runs-on"`
		TimeoutMinutes int               `yaml:"timeout-minutes"`
		Permissions    map[string]string // none: those of the workflow
		Steps          []struct {
			Uses, Run string
			With      map[string]any
		}
	}
}

var pinned = regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`)

// A tag can be moved to other code; a commit cannot. What a pull request runs may read, and no more.
func TestWorkflowsArePinnedAndReadOnly(t *testing.T) {
	names, err := filepath.Glob("../../.github/workflows/*")
	if err != nil || len(names) < 2 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var w workflow
		decoder := yaml.NewDecoder(strings.NewReader(string(text)))
		decoder.KnownFields(true)
		if err := decoder.Decode(&w); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(w.Permissions) != 1 || w.Permissions["contents"] != "read" {
			t.Errorf("%s: permissions %v", name, w.Permissions)
		}
		if strings.Contains(string(text), "${{") || strings.Contains(string(text), "pull_request_target") {
			t.Errorf("%s: something of the event reaches the workflow", name)
		}
		for id, job := range w.Jobs {
			if job.Permissions != nil || job.TimeoutMinutes == 0 || strings.Contains(job.RunsOn, "latest") || len(job.Steps) == 0 {
				t.Errorf("%s: job %s: %+v", name, id, job)
			}
			for _, step := range job.Steps {
				if (step.Uses == "") == (step.Run == "") || step.Uses != "" && !pinned.MatchString(step.Uses) {
					t.Errorf("%s: job %s: %q is not pinned to a commit", name, id, step.Uses)
				}
				if strings.HasPrefix(step.Uses, "actions/checkout@") && step.With["persist-credentials"] != false {
					t.Errorf("%s: job %s: the token stays in the working copy", name, id)
				}
				if target, ok := strings.CutPrefix(step.Run, "make "); ok {
					if out, err := exec.CommandContext(t.Context(), "make", "-C", "../..", "-n", target).CombinedOutput(); err != nil {
						t.Errorf("%s: %s: %v\n%s", name, step.Run, err, out)
					}
				}
			}
		}
	}
}

// The bill of materials has every module that go.mod requires for the program itself.
func TestSBOM(t *testing.T) {
	program := filepath.Join(t.TempDir(), "mvsched")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../..", "-trimpath", "-o", program, "./cmd/mvsched")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := exec.CommandContext(t.Context(), "go", "run", "./sbom", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		BOMFormat, SpecVersion string
		Metadata               struct{ Component struct{ Name string } }
		Components             []struct {
			Name, Version, PURL string
			Properties          []struct{ Name, Value string }
		}
	}
	if err := json.Unmarshal(text, &bill); err != nil || bill.BOMFormat != "CycloneDX" || bill.Metadata.Component.Name != "github.com/mvsched/mvsched" {
		t.Fatalf("%v\n%s", err, text)
	}
	found := map[string]bool{}
	for _, c := range bill.Components {
		found[c.Name] = true
		if c.PURL != "pkg:golang/"+c.Name+"@"+c.Version || c.Name != "std" && (len(c.Properties) != 1 || !strings.HasPrefix(c.Properties[0].Value, "h1:")) {
			t.Errorf("%+v", c)
		}
	}
	for _, name := range []string{"std", "github.com/jackc/pgx/v5", "github.com/spf13/cobra", "github.com/robfig/cron/v3", "github.com/olekukonko/tablewriter"} {
		if !found[name] {
			t.Errorf("%s is missing", name)
		}
	}
	if found["github.com/rogpeppe/go-internal"] {
		t.Error("what only tests need is in the program")
	}
}
