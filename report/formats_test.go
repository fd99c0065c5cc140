package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// The laws: whatever a view is called and an error says, every format is text that commands nothing; what programs read
// reads back as what it was; and nothing becomes a row, a column or a tag that is none.
func FuzzFormats(f *testing.F) {
	for _, s := range []string{"public.v", "=1+1", "a|b", "a\nb", "<script>alert(1)</script>", "]]>", `"`, "\x1b[31m", "::error::x", "&amp;", "a,b", "\u202e", "`x`", "\\", "{{.}}", "@x", "\ufffe"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, view, message string) {
		if !utf8.ValidString(view) || !utf8.ValidString(message) || strings.ContainsRune(view+message, 0) || view == "" {
			return // no text of PostgreSQL is like that
		}
		e := succeeded(view)
		e.Status, e.ErrorMessage = schedule.Failed, &message
		s := standing(view)
		s.State, s.Last = schedule.StateFailing, &e
		for _, format := range append(report.ListFormats(), report.JUnit, report.Prometheus) {
			var out, status bytes.Buffer
			p := report.Printer{W: report.NewCleanWriter(&status), Format: format}
			if err := p.Status([]schedule.Standing{s}); err != nil {
				t.Fatal(err)
			}
			if format != report.JUnit && format != report.Prometheus {
				p.W = report.NewCleanWriter(&out)
				if err := p.Executions([]schedule.Execution{e}, false); err != nil {
					t.Fatal(err)
				}
			}
			for _, text := range []string{out.String(), status.String()} {
				if !utf8.ValidString(text) || strings.ContainsFunc(text, forbidden) || commandLine.MatchString(text) {
					t.Fatalf("%s: %q", format, text)
				}
			}
			switch format {
			case report.JSON:
				var back []struct {
					View         string
					ErrorMessage string `json:"error_message"`
				}
				if err := json.Unmarshal(out.Bytes(), &back); err != nil || len(back) != 1 || back[0].View != view || back[0].ErrorMessage != message {
					t.Fatalf("%v: %s", err, out.String())
				}
			case report.JSONLines:
				if strings.Count(out.String(), "\n") != 1 || !json.Valid(out.Bytes()) {
					t.Fatal(out.String())
				}
			case report.CSV:
				rows, err := csv.NewReader(&out).ReadAll()
				if err != nil || len(rows) != 2 {
					t.Fatalf("%v: %q", err, rows)
				}
				for _, field := range rows[1] {
					if field != "" && strings.ContainsRune("=+@\t\r", rune(field[0])) {
						t.Fatalf("a formula: %q", rows[1])
					}
				}
			case report.Table:
				if lines := strings.Count(status.String(), "\n"); lines != 2 {
					t.Fatalf("%d lines: %s", lines, status.String())
				}
			case report.Markdown:
				if lines := strings.Count(status.String(), "\n"); lines != 3 || strings.Contains(status.String(), "<script") {
					t.Fatalf("%d lines: %s", lines, status.String())
				}
			case report.JUnit:
				if cases := elements(t, &status, "testcase"); cases != 1 {
					t.Fatalf("%d cases", cases)
				}
			default: // what is printed, and not read
			}
		}
	})
}

// elements reads XML to its end and counts the elements of a name.
func elements(t *testing.T, r io.Reader, name string) (count int) {
	t.Helper()
	decoder := xml.NewDecoder(r)
	for {
		token, err := decoder.Token()
		switch {
		case errors.Is(err, io.EOF):
			return count
		case err != nil:
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == name {
			count++
		}
	}
}
