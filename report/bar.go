package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/mvsched/mvsched/schedule"
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

// drained is how far a drain has come: its bar, the rows that are left, how many a second, and how long that will take.
func (p Printer) drained(progress schedule.Progress, since time.Duration, cells int) string {
	var b strings.Builder
	if cells > 0 {
		b.WriteString(p.progress(time.Duration(progress.Done), time.Duration(progress.Done+progress.Left), cells) + " ")
	}
	fmt.Fprintf(&b, "%d rows left", progress.Left)
	if perSecond, left := progress.Rate(since); perSecond > 0 {
		fmt.Fprintf(&b, ", %.0f rows/s", perSecond)
		if progress.Left > 0 {
			fmt.Fprintf(&b, ", %s to go", age(&left))
		}
	}
	if progress.SetAside > 0 {
		fmt.Fprintf(&b, ", %d set aside", progress.SetAside)
	}
	return b.String()
}
