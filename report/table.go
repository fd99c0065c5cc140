package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

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
}

// minShortened is how many characters a column that gives way keeps.
const minShortened = 12

// writeTable writes rows as aligned text without frames. Width, when not 0, is the terminal's: cells of columns that
// give way are shortened to fit it.
func writeTable[T any](w io.Writer, width int, all []column[T], rows []T) error {
	columns := shown(all, rows)
	head := make([]string, len(columns))
	align := make(tw.Alignment, len(columns))
	widths := make([]int, len(columns))
	for i, c := range columns {
		head[i], align[i], widths[i] = c.head, tw.AlignLeft, twwidth.Width(c.head)
		if c.right {
			align[i] = tw.AlignRight
		}
	}
	cells := make([][]string, len(rows))
	for r, row := range rows {
		cells[r] = make([]string, len(columns))
		for i, c := range columns {
			cells[r][i] = OneLine(clean(c.cell(row)))
			widths[i] = max(widths[i], twwidth.Width(cells[r][i]))
		}
	}
	if width > 0 {
		shorten(columns, cells, widths, width)
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
		if _, err := w.Write(append(bytes.TrimRight(line, " \n"), '\n')); err != nil {
			return err
		}
	}
	return nil
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

// shorten takes what the table is wider than the terminal from the columns that give way, the last one first.
func shorten[T any](columns []column[T], cells [][]string, widths []int, width int) {
	total := 2 * (len(columns) - 1)
	for _, w := range widths {
		total += w
	}
	for i := len(columns) - 1; i >= 0 && total > width; i-- {
		if !columns[i].gives || widths[i] <= minShortened {
			continue
		}
		to := max(widths[i]-(total-width), minShortened)
		total -= widths[i] - to
		for _, row := range cells {
			row[i] = fit(row[i], to)
		}
	}
}

// fit shortens s to a width. The library marks also what fits as shortened.
func fit(s string, width int) string {
	if twwidth.Width(s) <= width {
		return s
	}
	return twwidth.Truncate(s, width, "…")
}

// widest is the width of the longest line.
func widest(text string) (most int) {
	for line := range strings.Lines(text) {
		most = max(most, twwidth.Width(strings.TrimRight(line, "\n")))
	}
	return most
}
