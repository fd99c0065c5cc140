package report

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
)

// cleanWriter is the one place where what leaves the program is made harmless.
type cleanWriter struct{ w io.Writer }

// NewCleanWriter returns a writer that passes text on with everything in it that could command a terminal made visible:
// control characters other than newline and tab, C1 controls, bidirectional controls and malformed UTF-8 become \uXXXX.
// So does the first character of what the logs of CI services take for a command. In JSON, where all these can stand inside
// strings only, that is also their escape. Each Write takes whole characters, and begins a line.
func NewCleanWriter(w io.Writer) io.Writer { return cleanWriter{w} }

func (c cleanWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(c.w, clean(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Clean is what a clean writer makes of s.
func Clean(s string) string { return clean(s) }

// GitHub and others take a line that begins with ::, and ##[ or ##word[ anywhere, for a command.
var (
	lineCommand = regexp.MustCompile(`(?m)^([\s\p{Z}]*)::`)
	markCommand = regexp.MustCompile(`##([A-Za-z]*)\[`)
)

func clean(s string) string {
	if strings.Contains(s, "::") {
		s = lineCommand.ReplaceAllString(s, `$1\u003a:`)
	}
	if strings.Contains(s, "##") {
		s = markCommand.ReplaceAllString(s, `\u0023#$1[`)
	}
	if !strings.ContainsFunc(s, commands) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if r == utf8.RuneError && strings.HasPrefix(s[i:], string(utf8.RuneError)) || !commands(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r) // malformed UTF-8 shows as \ufffd
		}
	}
	return b.String()
}

// commands reports whether r may move, recolour, reorder or break what a terminal or a log shows.
func commands(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < 0x20, r >= 0x7f && r <= 0x9f, r == utf8.RuneError:
		return true
	case r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
		return true
	}
	return false
}

var oneLine = strings.NewReplacer("\r\n", `\n`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

// OneLine is text without line breaks and tabs, so that it cannot pass for a line or a column of its own.
func OneLine(s string) string { return oneLine.Replace(s) }
