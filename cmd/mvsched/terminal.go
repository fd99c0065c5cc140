package main

import (
	"cmp"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// stdoutWidth is the width of the terminal that stdout is, or 0.
func (a *app) stdoutWidth() int {
	columns, _ := size(a.terminalOut)
	return columns
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// size is that of the terminal, or 0.
func size(w io.Writer) (columns, lines int) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	columns, lines, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return columns, lines
}

// isUTF8 reports whether the locale's characters are Unicode, as setlocale(3) finds it.
func (a *app) isUTF8() bool {
	locale := strings.ToLower(cmp.Or(a.getenv("LC_ALL"), a.getenv("LC_CTYPE"), a.getenv("LANG")))
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}

// When there are colours: automatic is on a terminal that has some, unless the environment says otherwise.
const (
	colorAuto   = "auto"
	colorAlways = "always"
	colorNever  = "never"
)

// colors reports whether stdout is to have colours (no-color.org, bixense.com/clicolors).
func (a *app) colors() bool {
	forced := a.getenv("CLICOLOR_FORCE")
	switch {
	case a.color == colorAlways || a.color == colorNever:
		return a.color == colorAlways
	case a.getenv("NO_COLOR") != "":
		return false
	case forced != "" && forced != "0":
		return true
	default:
		return isTerminal(a.terminalOut) && a.getenv("TERM") != "dumb"
	}
}
