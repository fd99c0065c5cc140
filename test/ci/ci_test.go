// Package ci_test reads the YAML of action.yml and of the pages, with a parser that is no dependency of the program.
package ci_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var yamlBlock = regexp.MustCompile("(?ms)^```ya?ml\n(.*?)^```")

func TestSnippetsAreYAML(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range append(pages, "../../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range yamlBlock.FindAllSubmatch(text, -1) {
			var value any
			if err := yaml.Unmarshal(block[1], &value); err != nil {
				t.Errorf("%s: %v\n%s", name, err, block[1])
			}
			found++
		}
	}
	if found < 4 {
		t.Errorf("%d snippets", found)
	}
}

type action struct {
	Name, Description string
	Inputs            map[string]struct{ Description, Default string }
	Runs              struct {
		Using string
		Steps []struct {
			Name, If, Shell, Run, Uses string
			Env                        map[string]string
		}
	}
}

// The steps of the action are run as GitHub would, with programs in place of go and mvsched that tell how they were called.
func TestAction(t *testing.T) {
	text, err := os.ReadFile("../../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	var a action
	decoder := yaml.NewDecoder(strings.NewReader(strings.Replace(string(text), "author: mvsched\n", "", 1)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&a); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, script := range map[string]string{
		"go":      "#!/bin/sh\nprintf '%s\\n' \"$@\" >>calls\n",
		"mvsched": "#!/bin/sh\nprintf '<%s>' \"$@\" \"$MVSCHED_DATABASE_URL\" >>calls\necho '| a table |'\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	expressions := strings.NewReplacer(
		"${{ runner.temp }}", dir, "${{ inputs.database-url }}", "postgres://secret",
		"${{ inputs.command }}", `refresh "Sales 2026".'"By Day"' $(touch evil) --force`,
	)
	for _, step := range a.Runs.Steps {
		if step.Uses != "" || step.Shell != "bash" {
			t.Errorf("%s: uses %q, shell %q", step.Name, step.Uses, step.Shell)
		}
		if strings.Contains(step.Run, "${{") {
			t.Errorf("%s: an input stands in the script itself, where it would be executed", step.Name)
		}
		cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step.Run)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "GITHUB_ACTION_PATH="+dir, "GITHUB_PATH="+dir+"/path", "GITHUB_STEP_SUMMARY="+dir+"/summary")
		for key, value := range step.Env {
			cmd.Env = append(cmd.Env, key+"="+expressions.Replace(value))
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", step.Name, err, out)
		}
	}
	for name, want := range map[string]string{
		"calls": "-C\n" + dir + "\ninstall\n-trimpath\n./cmd/mvsched\n" +
			`<refresh><Sales 2026."By Day"><$(touch><evil)><--force><postgres://secret>` + `<status><-o><markdown><postgres://secret>`,
		"path": dir + "/mvsched-bin\n", "summary": "| a table |\n",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %v %q, want %q", name, err, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "evil")); err == nil {
		t.Error("the command was expanded")
	}
}
