package refresh

import (
	"regexp"
	"strings"
)

// literals are the constants of an SQL text: strings of each kind, also one that is cut off, bit strings and numbers. A
// quoted identifier is taken whole, so that what is in it is none.
var literals = regexp.MustCompile(`(?s)"(?:[^"]|"")*"?` +
	`|[eE]'(?:[^'\\]|\\.|'')*'?` +
	`|'(?:[^']|'')*'?` +
	`|\$\$.*?(?:\$\$|$)` +
	`|\$[A-Za-z_]\w*\$.*` + // Go's expressions cannot look for the same tag again: the rest goes
	`|--[^\n]*|/\*.*?(?:\*/|$)` +
	`|\b\d[\w.]*`)

// maxQuery bounds what a record keeps of another session's query, in characters.
const maxQuery = 200

// withoutLiterals makes somebody's query fit for a record that others may read: constants, which may be secrets or
// personal, become ?, comments go, and it is one line of bounded length.
func withoutLiterals(query string) string {
	query = literals.ReplaceAllStringFunc(query, func(s string) string {
		switch {
		case s[0] == '"':
			return s
		case strings.HasPrefix(s, "--"), strings.HasPrefix(s, "/*"):
			return " "
		default:
			return "?"
		}
	})
	runes := []rune(strings.Join(strings.Fields(query), " "))
	if len(runes) > maxQuery {
		return string(runes[:maxQuery-2]) + "..."
	}
	return string(runes)
}
