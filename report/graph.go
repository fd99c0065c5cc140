package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/mvsched/mvsched/schedule"
)

// The formats of a graph besides JSON.
const (
	Text    Format = "text"
	Mermaid Format = "mermaid"
	Dot     Format = "dot"
)

// Graph writes what reads what.
func (p Printer) Graph(g schedule.Graph) error {
	var buf bytes.Buffer
	switch p.Format {
	case JSON:
		return writeGraphJSON(p.W, g)
	case Mermaid:
		drawMermaid(&buf, g)
	case Dot:
		drawDot(&buf, g)
	default:
		drawTree(&buf, g, p.branches())
	}
	_, err := p.W.Write(buf.Bytes())
	return err
}

type graphJSON struct {
	Views []string   `json:"views"`
	Edges []edgeJSON `json:"edges"`
}

type edgeJSON struct {
	Parent string `json:"parent"`
	Child  string `json:"child"`
}

func writeGraphJSON(w io.Writer, g schedule.Graph) error {
	j := graphJSON{Views: append([]string{}, g.Views...), Edges: []edgeJSON{}}
	for _, e := range g.Edges {
		j.Edges = append(j.Edges, edgeJSON(e))
	}
	return encodeJSON(w, j)
}

// branches are what a tree is drawn with.
type branches struct{ child, last, past, elsewhere string }

func (p Printer) branches() branches {
	if p.ASCII && p.Width > 0 { // what goes elsewhere than to a terminal looks the same everywhere
		return branches{"|- ", "`- ", "|  ", p.ellipsis()}
	}
	return branches{"├─ ", "└─ ", "│  ", "…"}
}

// drawTree writes a tree a root. What stands below a view is drawn where the view is met first; elsewhere it is "name …",
// which also ends cycles.
func drawTree(buf *bytes.Buffer, g schedule.Graph, drawing branches) {
	children := g.Children()
	drawn := map[string]bool{}
	var draw func(view, lead, below string)
	draw = func(view, lead, below string) {
		buf.WriteString(lead + label(view))
		if drawn[view] {
			buf.WriteString(" " + drawing.elsewhere + "\n")
			return
		}
		buf.WriteString("\n")
		drawn[view] = true
		for i, child := range children[view] {
			if i < len(children[view])-1 {
				draw(child, below+drawing.child, below+drawing.past)
			} else {
				draw(child, below+drawing.last, below+"   ")
			}
		}
	}
	for _, root := range g.Roots() {
		draw(root, "", "")
	}
	for _, cycle := range g.Cycles() {
		labels := make([]string, len(cycle))
		for i, view := range cycle {
			labels[i] = label(view)
		}
		fmt.Fprintf(buf, "cycle: %s\n", strings.Join(labels, ", "))
	}
}

// Mermaid reads entities, #35; for #, and would take the rest for markup: HTML, Markdown between backticks, \n.
var mermaidText = strings.NewReplacer(
	`"`, "#quot;", "#", "#35;", "&", "#amp;", "<", "#lt;", ">", "#gt;", "`", "#96;", `\`, "#92;",
)

func drawMermaid(buf *bytes.Buffer, g schedule.Graph) {
	ids := make(map[string]string, len(g.Views))
	buf.WriteString("graph TD\n")
	for i, view := range g.Views {
		ids[view] = fmt.Sprintf("n%d", i)
		fmt.Fprintf(buf, "  %s[\"%s\"]\n", ids[view], mermaidText.Replace(label(view)))
	}
	for _, e := range g.Edges {
		fmt.Fprintf(buf, "  %s --> %s\n", ids[e.Parent], ids[e.Child])
	}
}

var dotText = strings.NewReplacer(`"`, `\"`, `\`, `\\`)

func drawDot(buf *bytes.Buffer, g schedule.Graph) {
	quoted := func(view string) string { return `"` + dotText.Replace(label(view)) + `"` }
	buf.WriteString("digraph mvsched {\n  rankdir=LR;\n  node [shape=box];\n")
	for _, view := range g.Views {
		fmt.Fprintf(buf, "  %s;\n", quoted(view))
	}
	for _, e := range g.Edges {
		fmt.Fprintf(buf, "  %s -> %s;\n", quoted(e.Parent), quoted(e.Child))
	}
	buf.WriteString("}\n")
}

// label is a name that cannot command a terminal, nor begin a line of its own.
func label(view string) string { return clean(OneLine(view)) }
