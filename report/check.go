package report

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/mvsched/mvsched/schedule"
)

// CheckName begins the line that monitoring reads.
const CheckName = "MVSCHED"

// mostNamed is how many views of a state the line of a check names.
const mostNamed = 3

// Check writes the one line of a monitoring plugin: a word, which views are in trouble, and after a bar the numbers.
func (p Printer) Check(s schedule.Summary) error {
	_, err := fmt.Fprintf(p.W, "%s |%s\n", CheckLine(s), performance(s))
	return err
}

// CheckLine is the line of a check without the numbers.
func CheckLine(s schedule.Summary) string {
	var parts []string
	for _, state := range troubles {
		if names := s.Names[state]; len(names) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%s)", len(names), state, some(names)))
		}
	}
	parts = append(parts, counts(s, calm)...)
	if s.Views == 0 {
		parts = append(parts, "nothing is scheduled")
	}
	word := map[schedule.Health]string{schedule.Healthy: "OK", schedule.Warning: "WARNING", schedule.Critical: "CRITICAL"}[s.Health]
	return fmt.Sprintf("%s %s - %s", CheckName, word, CheckText(strings.Join(parts, ", ")))
}

// some names the first views of a list.
func some(names []string) string {
	if len(names) <= mostNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:mostNamed], ", "), len(names)-mostNamed)
}

// CheckText is text in the line of a check, where a bar begins the numbers.
func CheckText(s string) string { return strings.ReplaceAll(label(s), "|", "¦") }

// limits are how many views may be in a state before it is a warning; before it is critical.
var limits = map[schedule.State]string{
	schedule.StateMissing: ";;0", schedule.StateSuspended: ";;0", schedule.StateFailing: ";;0", schedule.StateLate: ";;0",
	schedule.StateNever: ";0;", schedule.StateUnreachable: ";0;", schedule.StateUnscheduled: ";0;",
}

// performance is the numbers, each as name=value;warning;critical;minimum.
func performance(s schedule.Summary) string {
	var buf bytes.Buffer
	fmt.Fprintf(&buf, " views=%d", s.Views)
	for _, state := range slices.Concat(troubles, calm) {
		names, there := s.Names[state]
		if state != schedule.StateUnscheduled || there {
			fmt.Fprintf(&buf, " %s=%d%s;0", state, len(names), cmp.Or(limits[state], ";;"))
		}
	}
	if s.Oldest != nil {
		limit := ""
		if s.MaxLag != nil {
			limit = fmt.Sprintf("%.0f", s.MaxLag.Seconds())
		}
		fmt.Fprintf(&buf, " oldest=%.0fs;;%s;0", max(s.Oldest.Seconds(), 0), limit)
	}
	return buf.String()
}
