package report

import (
	"strings"
	"time"
)

// Bars are drawn with eighths of a character's height, or with what ASCII has for that.
const (
	blocks      = "▁▂▃▄▅▆▇█"
	blocksASCII = "_.:-=+*#"
)

// block is a bar as high as the part is of the whole; what is not nothing can be seen.
func (p Printer) block(part, whole time.Duration) rune {
	heights, nothing := []rune(blocks), '·'
	if p.ASCII {
		heights, nothing = []rune(blocksASCII), ' '
	}
	if part <= 0 || whole <= 0 {
		return nothing
	}
	return heights[min(int(int64(part)/max(int64(whole)/int64(len(heights)), 1)), len(heights)-1)]
}

// progress is a bar from the left, as long as the part is of the whole.
func (p Printer) progress(part, whole time.Duration, cells int) string {
	full, empty := "█", "░"
	if p.ASCII {
		full, empty = "#", "."
	}
	filled := cells
	if whole > 0 {
		filled = int(min(max(part.Seconds()/whole.Seconds(), 0), 1) * float64(cells))
	}
	return strings.Repeat(full, filled) + strings.Repeat(empty, cells-filled)
}
