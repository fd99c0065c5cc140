// Package markdown has what mvsched prints as Markdown read by a real parser, which is no dependency of the program.
package markdown

import (
	"encoding/csv"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	east "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
)

// golden is where the program's own tests keep what it prints, each list in every format.
var golden = filepath.Join("..", "..", "report", "testdata")

// A list is one table (plan has two), with a row for every record of its CSV, and nothing in it is more than text: no
// markup, no link, no HTML.
func TestMarkdownIsOneTableOfText(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(golden, "*.md"))
	if err != nil || len(files) < 9 {
		t.Fatalf("%v, %d files", err, len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		t.Run(name, func(t *testing.T) {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tables := readTables(t, source)
			want := map[string]int{"plan": 2, "runs": 2}[name]
			if len(tables) != max(want, 1) {
				t.Fatalf("%d tables", len(tables))
			}
			records := readCSV(t, filepath.Join(golden, name+".csv"))
			if len(tables[0]) != len(records) {
				t.Fatalf("%d rows, and %d records", len(tables[0]), len(records))
			}
			head, key := "VIEW", "view"
			if name == "why" {
				head, key = "WHY", "message"
			}
			column, in := slices.Index(tables[0][0], head), slices.Index(records[0], key)
			for i, record := range records[1:] {
				want := strings.TrimPrefix(record[in], "'")
				if got := tables[0][i+1][column]; got != want && (got != "-" || want != "") {
					t.Errorf("%q, want %q", got, want)
				}
			}
		})
	}
}

func readTables(t *testing.T, source []byte) (tables [][][]string) {
	t.Helper()
	document := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	err := ast.Walk(document, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch node.Kind() {
		case east.KindTable:
			tables = append(tables, nil)
		case east.KindTableHeader, east.KindTableRow:
			last := &tables[len(tables)-1]
			*last = append(*last, nil)
		case east.KindTableCell:
			rows := tables[len(tables)-1]
			row := &rows[len(rows)-1]
			*row = append(*row, plain(node, source))
		case ast.KindDocument, ast.KindParagraph, ast.KindText, ast.KindString:
		default:
			t.Errorf("a %s: %s", node.Kind(), plain(node, source))
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

// plain is the text of a node as a browser shows it.
func plain(node ast.Node, source []byte) string {
	var b strings.Builder
	for child := node.FirstChild(); child != nil; child = child.NextSibling() {
		switch child := child.(type) {
		case *ast.Text:
			b.Write(child.Value(source))
		case *ast.String:
			b.Write(child.Value)
		}
	}
	return html.UnescapeString(b.String())
}

func readCSV(t *testing.T, name string) [][]string {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	records, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return records
}
