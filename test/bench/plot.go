package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// bar is one bar of a plot.
type bar struct {
	name  string
	value float64
}

// plot draws bars into a file, if there is a directory for plots. 1, which is the bare loop or the target, is a line. The
// colours are legible on white and on black.
func (b *bench) plot(name, title string, bars []bar) error {
	if b.plots == "" || len(bars) == 0 {
		return nil
	}
	const left, width, row, top = 250, 400, 24, 40
	greatest := 1.0
	for _, one := range bars {
		if !math.IsNaN(one.value) {
			greatest = max(greatest, one.value)
		}
	}
	scale := width / greatest
	height := top + row*len(bars) + 14
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 %d" font-family="sans-serif" font-size="13" fill="#6b7280" role="img">`+"\n", height)
	fmt.Fprintf(&s, "<title>%s</title>\n<text x=\"8\" y=\"20\" font-weight=\"bold\">%s</text>\n", html.EscapeString(title), html.EscapeString(title))
	for i, one := range bars {
		y := top + row*i
		colour := "#94a3b8"
		if strings.HasPrefix(one.name, "mvsched") {
			colour = "#2563eb"
		}
		length := 0.0
		label := "–"
		if !math.IsNaN(one.value) {
			length, label = one.value*scale, fmt.Sprintf("%.2f", one.value)
		}
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d">%s</text>`+"\n",
			left-8, y+16, html.EscapeString(strings.ReplaceAll(one.name, "`", "")), left, y+4, length, row-8, colour, left+length+6, y+16, label)
	}
	fmt.Fprintf(&s, `<path d="M%.1f %dV%d" stroke="#6b7280" stroke-dasharray="3 3"/>`+"\n</svg>\n", left+scale, top-4, height-10)
	return os.WriteFile(filepath.Join(b.plots, name), []byte(s.String()), 0o644)
}
