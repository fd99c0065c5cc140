package report

import (
	"time"

	"github.com/mvsched/mvsched/schedule"
)

type explanationJSON struct {
	View    string       `json:"view"`
	State   string       `json:"state"`
	Reasons []reasonJSON `json:"reasons"`
}

type reasonJSON struct {
	Code    string     `json:"code"`
	Message string     `json:"message"`
	Since   *time.Time `json:"since"`
	Until   *time.Time `json:"until"`
	Views   []string   `json:"views"`
}

// viewReasonJSON is a reason as a row by itself.
type viewReasonJSON struct {
	View  string `json:"view"`
	State string `json:"state"`
	reasonJSON
}

// Explanation writes what a view is waiting for.
func (p Printer) Explanation(e schedule.Explanation) error {
	switch p.Format {
	case JSON:
		return encodeJSON(p.W, toExplanationJSON(e))
	case JSONLines:
		return writeJSONLines(p.W, []schedule.Explanation{e}, toExplanationJSON)
	case CSV:
		return writeCSV(p.W, e.Reasons, func(r schedule.Reason) viewReasonJSON {
			return viewReasonJSON{View: e.View, State: string(e.State), reasonJSON: toReasonJSON(r)}
		})
	default:
		return p.reasons(e)
	}
}

// reasons writes them for people. A message is never shortened: it must be readable. Where there is no room for instants,
// how far they are from now is enough.
func (p Printer) reasons(e schedule.Explanation) error {
	if err := p.line("%s: %s", e.View, e.State); err != nil {
		return err
	}
	columns := reasonColumns(e.Now, instant)
	if tooWide(p, columns, e.Reasons) {
		columns = reasonColumns(e.Now, distance)
	}
	return table(p, e.Reasons, columns)
}

func reasonColumns(now time.Time, show func(*time.Time, time.Time) string) []column[schedule.Reason] {
	return []column[schedule.Reason]{
		{head: "WHY", cell: func(r schedule.Reason) string { return r.Message }, wraps: true},
		{
			head: "SINCE", cell: func(r schedule.Reason) string { return show(r.Since, now) },
			when: func(r schedule.Reason) bool { return r.Since != nil },
		},
		{
			head: "UNTIL", cell: func(r schedule.Reason) string { return show(r.Until, now) },
			when: func(r schedule.Reason) bool { return r.Until != nil },
		},
	}
}

// instant is a time in the reader's time zone, with how far it is from now.
func instant(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	return clockTime(*t) + " (" + distance(t, now) + ")"
}

// distance is how far a time is from now.
func distance(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	if ahead := t.Sub(now); ahead > 0 {
		return "in " + age(&ahead)
	}
	ago := now.Sub(*t)
	return age(&ago) + " ago"
}

func toExplanationJSON(e schedule.Explanation) explanationJSON {
	j := explanationJSON{View: e.View, State: string(e.State), Reasons: []reasonJSON{}}
	for _, r := range e.Reasons {
		j.Reasons = append(j.Reasons, toReasonJSON(r))
	}
	return j
}

func toReasonJSON(r schedule.Reason) reasonJSON {
	return reasonJSON{Code: r.Code, Message: r.Message, Since: utc(r.Since), Until: utc(r.Until), Views: r.Views}
}
