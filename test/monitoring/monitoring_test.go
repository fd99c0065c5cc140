// Package monitoring has what mvsched says to monitoring read by the tools that it is for: promtool and xmllint.
package monitoring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	docs = filepath.Join("..", "..", "docs")
	// golden is where the program's own tests keep what it prints.
	golden = filepath.Join("..", "..", "report", "testdata")
	rules  = filepath.Join(docs, "monitoring", "rules.yml")
	board  = filepath.Join(docs, "monitoring", "grafana.json")
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func tool(t *testing.T, input, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("no %s: apt-get install prometheus libxml2-utils", name)
	}
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
}

func TestMetrics(t *testing.T) {
	tool(t, read(t, filepath.Join(golden, "status.prom")), "promtool", "check", "metrics")
}

func TestRules(t *testing.T) {
	tool(t, "", "promtool", "check", "rules", "--lint=all", "--lint-fatal", rules)
	tool(t, "", "promtool", "test", "rules", "rules_test.yml")
}

func TestJUnit(t *testing.T) {
	tool(t, "", "xmllint", "--noout", "--nonet", "--schema", "junit.xsd", filepath.Join(golden, "status.junit.xml"))
}

func TestBadge(t *testing.T) {
	tool(t, "", "xmllint", "--noout", "--nonet", filepath.Join(golden, "status.badge.svg"))
}

var (
	family = regexp.MustCompile(`(?m)^# TYPE ([a-z_]+) `)
	metric = regexp.MustCompile(`\b(mvsched_[a-z_]+)\b`)
)

// families are the metrics that there are.
func families(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, match := range family.FindAllStringSubmatch(read(t, filepath.Join(golden, "status.prom")), -1) {
		names = append(names, match[1])
	}
	if len(names) < 15 {
		t.Fatalf("only %q", names)
	}
	return names
}

// What the rules, the dashboard and the page on monitoring speak of exists, and the page has all there is.
func TestMetricsAreTheSameEverywhere(t *testing.T) {
	names := families(t)
	page := read(t, filepath.Join(docs, "monitoring.md"))
	for source, text := range map[string]string{"the rules": read(t, rules), "the dashboard": read(t, board), "the page": page} {
		for _, match := range metric.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(names, match[1]) {
				t.Errorf("%s: there is no metric %s", source, match[1])
			}
		}
	}
	for _, name := range names {
		if !strings.Contains(page, "| `"+name+"`") {
			t.Errorf("the page does not tell what %s is", name)
		}
	}
}

// dashboard is what Grafana has to find in its JSON.
type dashboard struct {
	UID           string
	Title         string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type, Definition string
		}
	}
	Panels []struct {
		ID                       int
		Type, Title, Description string
		GridPos                  struct{ X, Y, W, H int }
		Datasource               struct{ Type, UID string }
		Targets                  []struct {
			Expr, RefID string
			Datasource  struct{ Type, UID string }
		}
	}
}

var variable = regexp.MustCompile(`\$\{?([a-z_]+)\}?`)

func TestDashboard(t *testing.T) {
	var d dashboard
	text := read(t, board)
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 || len(d.Panels) < 10 {
		t.Errorf("%s, %s, schema version %d, %d panels", d.UID, d.Title, d.SchemaVersion, len(d.Panels))
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
		if v.Type == "query" && !strings.HasPrefix(v.Definition, "label_values(") {
			t.Errorf("variable %s: %s", v.Name, v.Definition)
		}
	}
	for _, match := range variable.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(variables, match[1]) && match[1] != "__all" {
			t.Errorf("there is no variable %s", match[0])
		}
	}

	taken := map[[2]int]string{}
	ids := map[int]bool{}
	var expressions strings.Builder
	expressions.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for _, panel := range d.Panels {
		if panel.Title == "" || panel.Description == "" || ids[panel.ID] || panel.Datasource.UID != "${datasource}" {
			t.Errorf("panel %d %q", panel.ID, panel.Title)
		}
		ids[panel.ID] = true
		for x := panel.GridPos.X; x < panel.GridPos.X+panel.GridPos.W; x++ {
			for y := panel.GridPos.Y; y < panel.GridPos.Y+panel.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("%s lies over %q or the edge", panel.Title, other)
				}
				taken[[2]int{x, y}] = panel.Title
			}
		}
		if len(panel.Targets) == 0 {
			t.Errorf("%s shows nothing", panel.Title)
		}
		refs := map[string]bool{}
		for _, target := range panel.Targets {
			if target.Expr == "" || refs[target.RefID] || target.Datasource.Type != "prometheus" {
				t.Errorf("%s: target %q", panel.Title, target.RefID)
			}
			refs[target.RefID] = true
			quoted, err := json.Marshal(target.Expr) // a string of JSON is one of YAML
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&expressions, "      - record: panel:%d:%s\n        expr: %s\n", panel.ID, target.RefID, quoted)
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(expressions.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "", "promtool", "check", "rules", file)
}
