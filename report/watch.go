package report

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/olekukonko/tablewriter/pkg/twwidth"

	"github.com/mvsched/mvsched/schedule"
)

// Watch writes the status as a page of so many lines at the most: a line that sums up, and the table. Where that is too
// long, the views that are well are left out first. Trouble, when not "", stands in place of the sum. Lines and width may be 0:
// some terminals do not tell.
func (p Printer) Watch(standings []schedule.Standing, trouble string, lines int) error {
	head := trouble
	if head == "" {
		head = p.sum(standings)
	}
	page, err := p.page(standings)
	if err != nil {
		return err
	}
	if lines > 0 && len(page) > lines-2 {
		page, err = p.page(slices.SortedStableFunc(slices.Values(standings), func(a, b schedule.Standing) int {
			return urgency(a.State) - urgency(b.State)
		}))
		if err != nil {
			return err
		}
		room := max(lines-3, 1)
		page = append(page[:min(room, len(page))], p.ellipsis())
	}
	page = append([]string{OneLine(clean(head)), ""}, page...)
	for i, line := range page {
		if p.Width > 0 && twwidth.Width(line) > p.Width { // on a terminal too narrow for anything
			page[i] = p.fit(withoutColor(line), p.Width)
		}
	}
	_, err = fmt.Fprint(p.W, strings.Join(page, "\n"))
	return err
}

// page is the table, line by line.
func (p Printer) page(standings []schedule.Standing) ([]string, error) {
	var buf bytes.Buffer
	p.W = &buf
	if err := p.standings(standings); err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(buf.String(), "\n"), "\n"), nil
}

// urgency orders states: what has to be looked at, what moves, what is well.
func urgency(state schedule.State) int {
	switch state {
	case schedule.StateMissing, schedule.StateSuspended, schedule.StateFailing, schedule.StateLate:
		return 0
	case schedule.StateRunning:
		return 1
	case schedule.StateBlocked, schedule.StateDue, schedule.StateNever:
		return 2
	default:
		return 3
	}
}

// sum is how many views there are in each state.
func (p Printer) sum(standings []schedule.Standing) string {
	if len(standings) == 0 {
		return "nothing is scheduled yet"
	}
	counts := map[schedule.State]int{}
	var states []schedule.State
	for _, s := range standings {
		if counts[s.State]++; counts[s.State] == 1 {
			states = append(states, s.State)
		}
	}
	slices.SortFunc(states, func(a, b schedule.State) int {
		if a, b := urgency(a), urgency(b); a != b {
			return a - b
		}
		return strings.Compare(string(a), string(b))
	})
	parts := make([]string, len(states))
	for i, state := range states {
		parts[i] = fmt.Sprintf("%d %s", counts[state], state)
	}
	return fmt.Sprintf("views: %d, %s", len(standings), strings.Join(parts, ", "))
}
