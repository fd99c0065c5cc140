package report

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"unicode/utf8"
)

// maxPage is how many bytes a page may have: what a browser opens at once, and a phone scrolls.
const maxPage = 5_000_000

// thrift is how much of everything stands on a page.
type thrift struct {
	rows     int // views in the status
	lines    int // views in the timeline
	marks    int // there; where there are more, neighbours become one
	why      int // the letters of an error in the status
	blockers int // of one refresh
}

// thrifts are tried in turn until a page is small enough. The last one is, whatever the views are called: 257 bytes of a
// name that are escaped with six each are 3 kB of a row.
func thrifts() []thrift {
	return []thrift{
		{rows: math.MaxInt, lines: math.MaxInt, marks: 12_000, why: 160, blockers: 3},
		{rows: math.MaxInt, lines: 500, marks: 4_000, why: 60, blockers: 1},
		{rows: 800, lines: 100, marks: 1_000, why: 60, blockers: 1},
		{rows: 250, lines: 50, marks: 500, why: 60, blockers: 1},
	}
}

var errTooLarge = errors.New("the page is too large")

// limitedBuffer takes no more than maxPage bytes.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxPage {
		return 0, errTooLarge
	}
	return b.Buffer.Write(p)
}

// foremost returns at most n of the list, in its order: the first of those that are urgent, then of the others.
func foremost[T any](list []T, n int, urgent func(T) bool) []T {
	if len(list) <= n {
		return list
	}
	others := n
	for _, one := range list {
		if urgent(one) {
			others = max(others-1, 0)
		}
	}
	taken := make([]T, 0, n)
	for _, one := range list {
		switch {
		case len(taken) == n:
			return taken
		case urgent(one):
			taken = append(taken, one)
		case others > 0:
			taken, others = append(taken, one), others-1
		}
	}
	return slices.Clip(taken)
}

// cut is text of at most so many bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}
