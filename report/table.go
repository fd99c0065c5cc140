package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/pkg/twwidth"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// column is one column of a table.
type column[T any] struct {
	head  string
	cell  func(T) string
	right bool         // aligned right
	when  func(T) bool // leave the column out when this holds for no row; nil: never leave it out
	gives bool         // gives way, shortened with …, where the table is wider than the terminal
	name  bool         // gives way as a name does: shortened in its middle, and only as far as the names of a table can be told apart
	spare int          // is left out where the others would have too little room, the highest first; 0: never
	wraps bool         // gives way by going on in the next line, so that nothing is lost
	word  bool         // it is one of the words that have a colour
	least int          // how many characters it keeps when it gives way; 0: minShortened
}

// minShortened is how many characters a column that gives way keeps.
const minShortened = 12

// writeTable writes rows as aligned text without frames, made to fit the terminal's width if there is one.
func writeTable[T any](p Printer, all []column[T], rows []T) error {
	columns, cells, to := fitted(p, shown(all, rows), rows)
	cells = p.squeeze(cells, to)
	head := make([]string, len(columns))
	align := make(tw.Alignment, len(columns))
	for i, c := range columns {
		head[i], align[i] = c.head, tw.AlignLeft
		if c.right {
			align[i] = tw.AlignRight
		}
	}
	for i, c := range columns {
		for _, row := range cells {
			if c.word {
				row[i] = p.paint(row[i])
			}
		}
	}

	var buf bytes.Buffer
	table := tablewriter.NewTable(&buf,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders:  tw.BorderNone,
			Settings: tw.Settings{Separators: tw.SeparatorsNone, Lines: tw.LinesNone},
			Symbols:  tw.NewSymbols(tw.StyleNone),
		})),
		tablewriter.WithPadding(tw.Padding{Left: "", Right: "  ", Overwrite: true}),
		tablewriter.WithEastAsian(tw.Off), tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithRowAutoWrap(tw.WrapNone), tablewriter.WithHeaderAutoWrap(tw.WrapNone),
		tablewriter.WithHeaderAlignmentConfig(tw.CellAlignment{PerColumn: align}),
		tablewriter.WithRowAlignmentConfig(tw.CellAlignment{PerColumn: align}))
	table.Header(head)
	if err := table.Bulk(cells); err != nil {
		return fmt.Errorf("laying out a table: %w", err)
	}
	if err := table.Render(); err != nil {
		return fmt.Errorf("laying out a table: %w", err)
	}
	for line := range bytes.Lines(buf.Bytes()) { // the library pads every line, and hides errors of its writer
		if _, err := io.WriteString(p.W, unpadded(string(line))+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// unpadded is a line without what pads it, which may stand before the end of a colour.
func unpadded(line string) string {
	line = strings.TrimRight(line, " \n")
	if text, colored := strings.CutSuffix(line, reset); colored {
		return strings.TrimSuffix(unpadded(text), reset) + reset
	}
	return line
}

// shown is the columns without those that have nothing to say of these rows.
func shown[T any](all []column[T], rows []T) (columns []column[T]) {
	for _, c := range all {
		if c.when == nil || anyOf(rows, c.when) {
			columns = append(columns, c)
		}
	}
	return columns
}

func anyOf[T any](rows []T, is func(T) bool) bool {
	for _, row := range rows {
		if is(row) {
			return true
		}
	}
	return false
}

// measured lays out the cells, and tells how wide each column is.
func measured[T any](columns []column[T], rows []T) (cells [][]string, widths []int) {
	widths = make([]int, len(columns))
	for i, c := range columns {
		widths[i] = twwidth.Width(c.head)
	}
	cells = make([][]string, len(rows))
	for r, row := range rows {
		cells[r] = make([]string, len(columns))
		for i, c := range columns {
			cells[r][i] = OneLine(clean(c.cell(row)))
			widths[i] = max(widths[i], twwidth.Width(cells[r][i]))
		}
	}
	return cells, widths
}

// room is the width that a table is made to fit, or 0: what is not laid out in columns is as wide as it is.
func (p Printer) room() int {
	if p.Format == Markdown {
		return 0
	}
	return p.Width
}

// tooWide reports whether a table is wider than the terminal that it is for.
func tooWide[T any](p Printer, columns []column[T], rows []T) bool {
	return p.room() > 0 && natural(columns, rows) > p.room()
}

// natural is how wide a table is to which nothing is done.
func natural[T any](all []column[T], rows []T) int {
	_, widths := measured(shown(all, rows), rows)
	return tableWidth(widths)
}

func tableWidth(widths []int) int {
	total := 2 * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	return total
}

// squeezed is what has become of a column: its width, or 0 where it is as wide as it was.
type squeezed struct {
	width int
	wraps bool
	front int // of a name: how much of its beginning is kept; 0: it is cut at its end
}

// fitted makes a table fit the terminal's width, if there is one. It leaves columns out where the others would have less than
// they want to keep, or two names would look the same.
func fitted[T any](p Printer, columns []column[T], rows []T) ([]column[T], [][]string, []squeezed) {
	for {
		cells, widths := measured(columns, rows)
		if p.Width <= 0 {
			return columns, cells, make([]squeezed, len(columns))
		}
		to, pressed := yielding(columns, cells, widths, p.Width)
		for i, c := range columns {
			if !c.name || to[i].width == 0 {
				continue
			}
			names := make([]string, len(cells))
			for n, row := range cells {
				names[n] = row[i]
			}
			to[i].front = apart(names, to[i].width, p.ellipsis())
			to[i].wraps = to[i].front == 0
			pressed = pressed || to[i].wraps
		}
		left := -1
		for i, c := range columns {
			if c.spare > 0 && (left < 0 || c.spare > columns[left].spare) {
				left = i
			}
		}
		if !pressed || left < 0 {
			return columns, cells, to
		}
		columns = slices.Delete(slices.Clone(columns), left, left+1)
	}
}

// yielding takes what the table is wider than the terminal from the columns that give way, always from the widest: at first
// no more than they want to keep and what would break no word, then no more than they want to keep, and on a very narrow
// terminal all but their heads, which pressed says.
func yielding[T any](columns []column[T], cells [][]string, widths []int, width int) (to []squeezed, pressed bool) {
	to = make([]squeezed, len(columns))
	least := make([]int, len(columns))
	for i, c := range columns {
		least[i] = max(twwidth.Width(c.head), cmp.Or(c.least, minShortened))
	}
	words := slices.Clone(least)
	for i, c := range columns {
		for _, row := range cells {
			for word := range strings.FieldsSeq(row[i]) {
				if c.wraps {
					words[i] = max(words[i], twwidth.Width(word))
				}
			}
		}
	}
	heads := make([]int, len(columns))
	for i, c := range columns {
		heads[i] = twwidth.Width(c.head)
	}
	excess := tableWidth(widths) - width
	for stage, keep := range [][]int{words, least, heads} {
		for excess > 0 {
			widest := -1
			for i, c := range columns {
				if (c.gives || c.name || c.wraps) && widths[i] > keep[i] && (widest < 0 || widths[i] >= widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			pressed = stage == 2
			excess--
			widths[widest]--
			to[widest] = squeezed{width: widths[widest], wraps: columns[widest].wraps}
		}
	}
	return to, pressed || excess > 0
}

// apart gives names that are shortened a width at which they can be told apart: how much of the beginning is to be kept; 0: at
// none.
func apart(names []string, width int, ellipsis string) int {
	room := width - twwidth.Width(ellipsis)
	for off := range 2 * room { // from a third, where a schema is known and most of the name's end, to both sides
		front := room/3 + (off+1)/2*(1-off%2*2)
		if front < 1 || front >= room {
			continue
		}
		seen := map[string]string{}
		same := slices.ContainsFunc(names, func(name string) bool {
			short := shorten(name, width, front, ellipsis)
			other, known := seen[short]
			seen[short] = name
			return known && other != name
		})
		if !same {
			return front
		}
	}
	return 0
}

// shorten cuts out the middle of s.
func shorten(s string, width, front int, ellipsis string) string {
	if twwidth.Width(s) <= width {
		return s
	}
	head := cutAt(s, front)
	tail := s
	for twwidth.Width(tail) > width-twwidth.Width(head)-twwidth.Width(ellipsis) {
		_, size := utf8.DecodeRuneInString(tail)
		tail = tail[size:]
	}
	return head + ellipsis + tail
}

// squeeze makes the cells as narrow as their columns have become. A row that goes on takes several.
func (p Printer) squeeze(rows [][]string, columns []squeezed) (squeezed [][]string) {
	for _, row := range rows {
		lines := [][]string{row}
		for i, c := range columns {
			if c.width == 0 {
				continue
			}
			var parts []string
			switch {
			case c.wraps:
				parts = wrap(row[i], c.width)
			case c.front > 0:
				parts = []string{shorten(row[i], c.width, c.front, p.ellipsis())}
			default:
				parts = []string{p.fit(row[i], c.width)}
			}
			for len(lines) < len(parts) {
				lines = append(lines, make([]string, len(columns)))
			}
			for n, part := range parts {
				lines[n][i] = part
			}
		}
		squeezed = append(squeezed, lines...)
	}
	return squeezed
}

// ellipsis marks what has been shortened.
func (p Printer) ellipsis() string {
	if p.ASCII {
		return "..."
	}
	return "…"
}

func (p Printer) fit(s string, width int) string { return fit(s, width, p.ellipsis()) }

// fit shortens s to a width. The library marks also what fits as shortened.
func fit(s string, width int, ellipsis string) string {
	if twwidth.Width(s) <= width {
		return s
	}
	return twwidth.Truncate(s, width, ellipsis)
}

// wrap breaks s into lines of a width, between words where it can. No line can be a command that s as a whole was not.
func wrap(s string, width int) (lines []string) {
	line, room := "", width
	for word := range strings.FieldsSeq(s) {
		word = clean(word)
		for line != "" && twwidth.Width(word) >= room || twwidth.Width(word) > width {
			if line == "" { // longer than a line
				line = breakAt(word, width)
				word = clean(word[len(line):])
			}
			lines, line, room = append(lines, line), "", width
		}
		if line != "" {
			line += " "
		}
		line += word
		room = width - twwidth.Width(line)
	}
	return append(lines, line)
}

// breakAt is as much of the beginning of a word as fits, up to where it has a joint.
func breakAt(word string, width int) string {
	part := cutAt(word, width)
	if end := strings.LastIndexAny(part, "/=.,_-"); end > len(part)/3 {
		return part[:end+1]
	}
	return part
}

// cutAt is as much of the beginning of s as fits, a character at the least.
func cutAt(s string, width int) string {
	end := 0
	for i, r := range s {
		if end > 0 && twwidth.Width(s[:i+utf8.RuneLen(r)]) > width {
			break
		}
		end = i + utf8.RuneLen(r)
	}
	return s[:end]
}
