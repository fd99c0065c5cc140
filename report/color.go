package report

import (
	"io"
	"strings"
)

// What words look like; a word always says it too.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	blue   = "\x1b[34m"
	faint  = "\x1b[2m"
	reset  = "\x1b[0m"
)

// tint is the colour of a state, of how a run ended, or of how bad a finding is; "" for none.
func tint(word string) string {
	switch word {
	case "missing", "suspended", "failing", "late", "failed", "timed_out", "abandoned", "error":
		return red
	case "never", "blocked", "cancelled", "warning":
		return yellow
	case "running":
		return blue
	case "fresh", "succeeded":
		return green
	case "paused", "skipped":
		return faint
	default:
		return ""
	}
}

// paint colours a word that has a colour, where there are any.
func (p Printer) paint(word string) string {
	color := tint(word)
	if !p.Color || color == "" {
		return word
	}
	return color + word + reset
}

// NewColorWriter is NewCleanWriter for tables with colours: these are let through, and nothing else is. The tables see to it that
// no text in them has any.
func NewColorWriter(w io.Writer) io.Writer { return colorWriter{w} }

type colorWriter struct{ w io.Writer }

func (c colorWriter) Write(p []byte) (int, error) {
	var b strings.Builder
	for line := range strings.Lines(string(p)) {
		for rest := line; rest != ""; {
			text, after, color := cutColor(rest)
			b.WriteString(clean(text) + color)
			rest = after
		}
	}
	if _, err := io.WriteString(c.w, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// withoutColor is a line as it was before it was painted.
func withoutColor(s string) string {
	var b strings.Builder
	for s != "" {
		var text string
		text, s, _ = cutColor(s)
		b.WriteString(text)
	}
	return b.String()
}

// cutColor is the text before the first colour, what comes behind that, and the colour itself.
func cutColor(s string) (before, after, color string) {
	at := len(s)
	for _, c := range []string{red, green, yellow, blue, faint, reset} {
		if i := strings.Index(s, c); i >= 0 && i < at {
			at, color = i, c
		}
	}
	return s[:at], s[at+len(color):], color
}
