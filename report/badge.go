package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/mvsched/mvsched/schedule"
)

// badge is one line on all views, in the form of an endpoint of shields.io. It names none of them.
type badge struct {
	SchemaVersion int    `json:"schemaVersion"`
	Label         string `json:"label"`
	Message       string `json:"message"`
	Color         string `json:"color"`
	IsError       bool   `json:"isError"`
	CacheSeconds  int    `json:"cacheSeconds"`
}

// badgeCache is the shortest time that shields.io keeps a badge.
const badgeCache = 300

// The colors by the names that shields.io has, and for the picture such that white on them can be read.
var badgeColors = map[string]string{"green": "#2e7d32", "orange": "#9a5b00", "red": "#c62828", "lightgrey": "#595959"}

func newBadge(standings []schedule.Standing) badge {
	b := badge{SchemaVersion: 1, Label: "materialized views", CacheSeconds: badgeCache}
	summary := schedule.Summarize(standings, nil)
	switch {
	case summary.Views == 0:
		b.Message, b.Color = "none scheduled", "lightgrey"
	case summary.Health == schedule.Healthy:
		b.Message, b.Color = fmt.Sprintf("%d ok", summary.Views), "green"
	default:
		b.Message, b.Color = strings.Join(counts(summary, troubles), ", "), "orange"
		if summary.Health == schedule.Critical {
			b.Color, b.IsError = "red", true
		}
	}
	return b
}

// The states in the order in which a summary tells them, those that mean trouble first.
var (
	troubles = []schedule.State{
		schedule.StateMissing, schedule.StateSuspended, schedule.StateFailing, schedule.StateLate, schedule.StateBlocked, schedule.StateNever,
		schedule.StateUnreachable, schedule.StateUnscheduled,
	}
	calm = []schedule.State{schedule.StatePaused, schedule.StateRunning, schedule.StateDue, schedule.StateFresh}
)

// counts says how many views are in each of these states, but for those that none is in.
func counts(summary schedule.Summary, states []schedule.State) (parts []string) {
	for _, state := range states {
		if n := len(summary.Names[state]); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	return parts
}

// writeSVG draws the badge. How wide a letter is depends on the reader's fonts: the text is made to fit.
func (b badge) writeSVG(w io.Writer) error {
	const letter, margin = 7, 6
	width := func(text string) int { return letter * utf8.RuneCountInString(text) }
	label, message := width(b.Label)+2*margin, width(b.Message)+2*margin
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="20" viewBox="0 0 %[1]d 20" role="img" aria-label="%[2]s: %[3]s">
  <title>%[2]s: %[3]s</title>
  <rect width="%[1]d" height="20" rx="3" fill="%[4]s"/>
  <path d="M3 0h%[5]dv20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="#444"/>
  <g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
    <text x="%[6]d" y="14" textLength="%[7]d">%[2]s</text>
    <text x="%[8]d" y="14" textLength="%[9]d">%[3]s</text>
  </g>
</svg>
`, label+message, b.Label, b.Message, badgeColors[b.Color], label-3, margin, width(b.Label), label+margin, width(b.Message))
	return err
}
