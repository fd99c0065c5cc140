package report

import "strings"

// exact is text on one line that commands nothing and can be read back: as in a JSON string, \n is a line break, \u001b a
// control character and \\ a backslash. It is for formats that have no escapes of their own for these, or not for all.
func exact(s string) string { return OneLine(clean(strings.ReplaceAll(s, `\`, `\\`))) }

// Exact is text as the formats have it that are for programs: on one line, commanding nothing, and to be read back.
func Exact(s string) string { return exact(s) }
