package report_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func drawGraph(t *testing.T, format report.Format, g schedule.Graph) string {
	t.Helper()
	var buf bytes.Buffer
	if err := (report.Printer{W: report.NewCleanWriter(&buf), Format: format}).Graph(g); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func TestGraphAsText(t *testing.T) {
	edges := func(names ...string) (edges []schedule.Edge) {
		for _, name := range names {
			parent, child, _ := strings.Cut(name, ">")
			edges = append(edges, schedule.Edge{Parent: parent, Child: child})
		}
		return edges
	}
	for name, test := range map[string]struct {
		graph schedule.Graph
		want  string
	}{
		"nothing":   {schedule.Graph{}, ""},
		"no edges":  {schedule.Graph{Views: []string{"a", "b"}}, "a\nb\n"},
		"a chain":   {schedule.Graph{Views: []string{"a", "b", "c"}, Edges: edges("a>b", "b>c")}, "a\n└─ b\n   └─ c\n"},
		"a diamond": {schedule.Graph{Views: []string{"a", "b", "c", "d", "e"}, Edges: edges("a>b", "a>c", "b>d", "c>d", "d>e")}, "a\n├─ b\n│  └─ d\n│     └─ e\n└─ c\n   └─ d …\n"},
		"two roots": {schedule.Graph{Views: []string{"a", "b", "c"}, Edges: edges("a>c", "b>c")}, "a\n└─ c\nb\n└─ c …\n"},
		"a cycle":   {schedule.Graph{Views: []string{"a", "b", "c"}, Edges: edges("a>b", "b>a", "b>c")}, "a\n└─ b\n   ├─ a …\n   └─ c\ncycle: a, b\n"},
		"of itself": {schedule.Graph{Views: []string{"a"}, Edges: edges("a>a")}, "a\n└─ a …\ncycle: a\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := drawGraph(t, report.Text, test.graph); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// What a view is called is text in every format: it ends no string, begins no line, and is no markup.
func TestGraphOfHostileNames(t *testing.T) {
	const evil = "public.\"o'x\"\"]\n\x1b[2J<script>\\"
	g := schedule.Graph{Views: []string{"public.a", evil}, Edges: []schedule.Edge{{Parent: "public.a", Child: evil}}}

	for format, want := range map[report.Format]string{
		report.Text: `public.a
└─ public."o'x""]\n\u001b[2J<script>\
`,
		report.Mermaid: `graph TD
  n0["public.a"]
  n1["public.#quot;o'x#quot;#quot;]#92;n#92;u001b[2J#lt;script#gt;#92;"]
  n0 --> n1
`,
		report.Dot: `digraph mvsched {
  rankdir=LR;
  node [shape=box];
  "public.a";
  "public.\"o'x\"\"]\\n\\u001b[2J<script>\\";
  "public.a" -> "public.\"o'x\"\"]\\n\\u001b[2J<script>\\";
}
`,
	} {
		if got := drawGraph(t, format, g); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", format, got, want)
		}
	}

	text := drawGraph(t, report.JSON, g)
	if strings.Contains(text, "\x1b") {
		t.Errorf("a control character in %q", text)
	}
	var got, want any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	want = map[string]any{
		"views": []any{"public.a", evil}, "edges": []any{map[string]any{"parent": "public.a", "child": evil}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v\nwant\n%v", got, want)
	}
}

func TestGraphOfNothingAsJSON(t *testing.T) {
	if got, want := drawGraph(t, report.JSON, schedule.Graph{}), "{\n  \"views\": [],\n  \"edges\": []\n}\n"; got != want {
		t.Errorf("%q", got)
	}
}

// On a terminal that may know nothing else a tree is drawn in ASCII.
func TestGraphInASCII(t *testing.T) {
	g := schedule.Graph{Views: []string{"a", "b", "c", "d"}, Edges: []schedule.Edge{
		{Parent: "a", Child: "b"}, {Parent: "a", Child: "c"}, {Parent: "b", Child: "d"}, {Parent: "c", Child: "d"},
	}}
	var out strings.Builder
	err := report.Printer{W: &out, Format: report.Text, Width: 80, ASCII: true}.Graph(g)
	if want := "a\n|- b\n|  `- d\n`- c\n   `- d ...\n"; err != nil || out.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out.String(), want)
	}
}
