package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// markdownLimit is how long Markdown gets, in bytes. GitHub drops a step's summary, and Buildkite an annotation, of more
// than 1 MiB; what is left is for the text that others put around it.
const markdownLimit = 1_000_000

// writeMarkdown writes rows as one table of GitHub's Markdown, and as many of them as there is room for.
func writeMarkdown[T any](w io.Writer, limit int, all []column[T], rows []T) error {
	columns := shown(all, rows)
	var buf bytes.Buffer
	for _, c := range columns {
		buf.WriteString("| " + markdownText(c.head) + " ")
	}
	buf.WriteString("|\n")
	for _, c := range columns {
		if c.right {
			buf.WriteString("| ---: ")
		} else {
			buf.WriteString("| --- ")
		}
	}
	buf.WriteString("|\n")
	for i, row := range rows {
		var line strings.Builder
		for _, c := range columns {
			line.WriteString("| " + markdownText(c.cell(row)) + " ")
		}
		line.WriteString("|\n")
		more := fmt.Sprintf("\n… %d more\n", len(rows)-i)
		if buf.Len()+line.Len()+len(more) > limit {
			buf.WriteString(more)
			break
		}
		buf.WriteString(line.String())
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// markdownText is text that Markdown shows as it is, in a cell or a line. Entities, unlike backslashes, mean the same to
// every reader of tables: a pipe that is none divides no cells.
func markdownText(s string) string {
	s = exact(s)
	var b strings.Builder
	var before rune
	for i, r := range s {
		after, _ := utf8.DecodeRuneInString(s[i+utf8.RuneLen(r):])
		if markup(s[:i], before, r, after, i+utf8.RuneLen(r) == len(s)) {
			b.WriteString(entity(r))
		} else {
			b.WriteRune(r)
		}
		before = r
	}
	return b.String()
}

// markup reports whether r, between these, could be read as markup, as a link, a mention, a formula or an emoji.
func markup(text string, before, r, after rune, last bool) bool {
	switch r {
	case '\\', '`', '*', '[', ']', '<', '>', '&', '|', '~', '$', '@', '#':
		return true
	case '_': // within a word it is a letter
		return !isWord(before) || last || !isWord(after)
	case ':': // as in "error: text" and 10:30:00
		return !last && after != ' ' && (!isDigit(before) || !isDigit(after))
	case '.':
		return len(text) >= 3 && strings.EqualFold(text[len(text)-3:], "www")
	case ' ': // at the edges it would be cut off
		return text == "" || last
	default:
		return false
	}
}

func entity(r rune) string {
	switch r {
	case '<':
		return "&lt;"
	case '>':
		return "&gt;"
	case '&':
		return "&amp;"
	default:
		return fmt.Sprintf("&#%d;", r)
	}
}

func isDigit(r rune) bool { return r >= '0' && r <= '9' }

func isWord(r rune) bool { return isDigit(r) || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
