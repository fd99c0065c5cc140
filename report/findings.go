package report

import (
	"fmt"
	"strings"

	"github.com/mvsched/mvsched/schedule"
)

// Findings writes what doctor has found. Nothing is shortened: a message must be readable, and a fix whole to be pasted.
func (p Printer) Findings(findings []schedule.Finding) error {
	columns := []column[schedule.Finding]{
		{head: "SEVERITY", cell: func(f schedule.Finding) string { return string(f.Severity) }, word: true},
		{head: "CHECK", cell: func(f schedule.Finding) string { return f.Check }},
		{head: "VIEW", cell: func(f schedule.Finding) string { return orNone(f.View) }},
		{head: "MESSAGE", cell: func(f schedule.Finding) string { return f.Message }},
		{head: "FIX", cell: func(f schedule.Finding) string { return orDash(f.Fix) }},
	}
	if p.Format == Table && tooWide(p, columns, findings) {
		return p.findingBlocks(findings)
	}
	return list(p, findings, toFindingJSON, columns)
}

// findingBlocks is for a terminal that is too narrow for a table: a paragraph a finding, its fix alone on a line.
func (p Printer) findingBlocks(findings []schedule.Finding) error {
	const indent = "  "
	var b strings.Builder
	for i, f := range findings {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s: %s", p.paint(string(f.Severity)), f.Check)
		if f.View != "" {
			b.WriteString(" " + OneLine(clean(f.View)))
		}
		b.WriteByte('\n')
		for _, line := range wrap(OneLine(clean(f.Message)), max(p.Width-len(indent), minShortened)) {
			b.WriteString(indent + line + "\n")
		}
		if f.Fix != nil {
			b.WriteString(indent + "fix: " + OneLine(clean(*f.Fix)) + "\n")
		}
	}
	_, err := p.W.Write([]byte(b.String()))
	return err
}
