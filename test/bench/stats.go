package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// median is the middle of the values; NaN of none.
func median(values []float64) float64 { return percentile(values, 50) }

// percentile is the value that so many percent are not above; the mean of the two in the middle for the median of an even
// number.
func percentile(values []float64, percent float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	if percent == 50 && len(sorted)%2 == 0 {
		return (sorted[len(sorted)/2-1] + sorted[len(sorted)/2]) / 2
	}
	return sorted[max(0, int(math.Ceil(percent/100*float64(len(sorted))))-1)]
}

// ratios divides value by value.
func ratios(above, below []float64) []float64 {
	var out []float64
	for i := range min(len(above), len(below)) {
		out = append(out, above[i]/below[i])
	}
	return out
}

// spread is the median with the least and the greatest.
func spread(format string, values []float64) string {
	if len(values) == 0 {
		return "–"
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", median(values), slices.Min(values), slices.Max(values))
}

// table writes rows as Markdown, the first as the head.
func table(out io.Writer, title string, rows [][]string) {
	fmt.Fprintf(out, "### %s\n\n", title)
	for i, row := range rows {
		fmt.Fprintf(out, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(out, "|---%s|\n", strings.Repeat("|---", len(row)-1))
		}
	}
	fmt.Fprintln(out)
}
