package schedule

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// maxIdentifierBytes is PostgreSQL's NAMEDATALEN - 1. The server cuts a longer identifier silently, and REFRESH then
// goes to whichever view bears the name that is left.
const maxIdentifierBytes = 63

// ViewName names a materialized view. Schema is empty when the name is to be looked up in the search_path.
type ViewName struct {
	Schema string
	Name   string
}

// ParseViewName reads a name as SQL does: [schema.]view, each part either unquoted (letters, digits, _ and $; ASCII
// letters are folded to lower case) or in double quotes ("" stands for a quote). White space around the parts is
// allowed. It refuses, with an *InvalidError, what PostgreSQL would refuse, cut (more than 63 bytes) or misread (NUL,
// malformed UTF-8).
func ParseViewName(s string) (ViewName, error) {
	refuse := func(problem, hint string) (ViewName, error) {
		return ViewName{}, &InvalidError{What: "view name", Value: s, Problem: problem, Hint: hint}
	}
	const asInSQL = `write it as in SQL: venue_view, cinema.venue_view, "Sales 2026"."By Day"`
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return refuse("it is not valid UTF-8 text", "")
	}

	var parts []string
	rest := strings.Trim(s, sqlSpace)
	if rest == "" {
		return refuse("it is empty", asInSQL)
	}
	for {
		part, after, ok := cutIdentifier(rest)
		if !ok {
			return refuse("it is not an SQL identifier", asInSQL)
		}
		if len(part) > maxIdentifierBytes {
			return refuse("an identifier has at most 63 bytes", "PostgreSQL would cut it, and refresh another view")
		}
		parts = append(parts, part)
		after = strings.TrimLeft(after, sqlSpace)
		if after == "" {
			break
		}
		if after[0] != '.' {
			return refuse("it is not an SQL identifier", asInSQL)
		}
		rest = strings.TrimLeft(after[1:], sqlSpace)
	}

	switch len(parts) {
	case 1:
		return ViewName{Name: parts[0]}, nil
	case 2:
		return ViewName{Schema: parts[0], Name: parts[1]}, nil
	default:
		return refuse("it has too many parts", "write view or schema.view; the database is the one connected to")
	}
}

// String is the name as SQL reads it, quoted where needed; ParseViewName gives the same name back. The canonical name
// that the database stores differs from it only in that key words are quoted too.
func (n ViewName) String() string {
	if n.Schema == "" {
		return quoteIdentifier(n.Name)
	}
	return quoteIdentifier(n.Schema) + "." + quoteIdentifier(n.Name)
}

// Identifier is the name for pgx to quote into a statement. It must be schema-qualified: what the search_path makes of
// an unqualified name can change between two statements.
func (n ViewName) Identifier() pgx.Identifier { return pgx.Identifier{n.Schema, n.Name} }

// ShellWord is s as a shell takes it for one word.
func ShellWord(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool {
		return r != '.' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// sqlSpace is what the SQL scanner takes for white space.
const sqlSpace = " \t\n\r\f\v"

// cutIdentifier takes the identifier at the start of s.
func cutIdentifier(s string) (identifier, rest string, ok bool) {
	if strings.HasPrefix(s, `"`) {
		return cutQuoted(s[1:])
	}
	end := 0
	for end < len(s) && isIdentifierByte(s[end], end == 0) {
		end++
	}
	return strings.Map(lowerASCII, s[:end]), s[end:], end > 0
}

// cutQuoted takes what stands before the closing quote; the opening one has been taken.
func cutQuoted(s string) (identifier, rest string, ok bool) {
	var b strings.Builder
	for {
		inside, after, closed := strings.Cut(s, `"`)
		if !closed {
			return "", "", false
		}
		b.WriteString(inside)
		if !strings.HasPrefix(after, `"`) {
			return b.String(), after, b.Len() > 0
		}
		b.WriteByte('"')
		s = after[1:]
	}
}

func isIdentifierByte(c byte, first bool) bool {
	switch {
	case c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf:
		return true
	default:
		return !first && (c == '$' || c >= '0' && c <= '9')
	}
}

// lowerASCII folds as the server does in a multi-byte encoding: ASCII letters only.
func lowerASCII(r rune) rune {
	if r >= 'A' && r <= 'Z' {
		return r - 'A' + 'a'
	}
	return r
}

func quoteIdentifier(s string) string {
	for i := range len(s) {
		plain := s[i] == '_' || s[i] >= 'a' && s[i] <= 'z' || i > 0 && s[i] >= '0' && s[i] <= '9'
		if !plain {
			return pgx.Identifier{s}.Sanitize()
		}
	}
	return s
}
