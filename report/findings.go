package report

import (
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
		{head: "FIX", cell: func(f schedule.Finding) string { return orDash(pasteable(f.Fix)) }},
	}
	if p.Format == Table && tooWide(p, columns, findings) {
		return p.findingBlocks(findings)
	}
	return list(p, findings, toFindingJSON, columns)
}

// findingBlocks is for a terminal that is too narrow for a table.
func (p Printer) findingBlocks(findings []schedule.Finding) error {
	var blocks []paragraph
	for _, f := range findings {
		head := p.paint(string(f.Severity)) + ": " + f.Check
		if f.View != "" {
			head += " " + OneLine(clean(f.View))
		}
		blocks = append(blocks, paragraph{head: head, text: []string{f.Message}, pasted: "fix", paste: f.Fix})
	}
	return p.paragraphs(blocks)
}

// paragraph is a row for a terminal that is too narrow for a table whose cells nobody may shorten.
type paragraph struct {
	head   string // as it is written
	text   []string
	pasted string // what there is to paste
	paste  *string
}

// paragraphs writes them with what is to be pasted alone on a line, and whole.
func (p Printer) paragraphs(all []paragraph) error {
	const indent = "  "
	var b strings.Builder
	for i, one := range all {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.head + "\n")
		for _, text := range one.text {
			for _, line := range wrap(OneLine(clean(text)), max(p.Width-len(indent), minShortened)) {
				b.WriteString(indent + line + "\n")
			}
		}
		if paste := pasteable(one.paste); paste != nil {
			b.WriteString(indent + one.pasted + ": " + *paste + "\n")
		}
	}
	_, err := p.W.Write([]byte(b.String()))
	return err
}

// pasteable is what would be read as it is meant; nil: people are shown something else, for it has characters that command
// a terminal.
func pasteable(s *string) *string {
	if s != nil && OneLine(clean(*s)) != *s {
		return nil
	}
	return s
}
