package report

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// Forecast writes what the schedules are going to do: a line for every view and then, in words, what does not fit; with
// runs, a line for every run instead.
func (p Printer) Forecast(f schedule.Forecast, runs bool) error {
	switch p.Format {
	case JSON:
		return encodeJSON(p.W, toForecastJSON(f))
	case JSONLines, CSV:
		if runs {
			return list(p, f.Runs, toPredictedRunJSON, nil)
		}
		return list(p, f.Views, toViewForecastJSON, nil)
	default:
		return p.outlook(f, runs)
	}
}

// outlook writes a forecast for people.
func (p Printer) outlook(f schedule.Forecast, runs bool) error {
	if len(f.Views) == 0 {
		return nil
	}
	p.share = 2
	if err := p.line("%s to %s, workers: %d, runs: %d, busy: %s",
		clockTime(f.From), clockTime(f.Until), f.Workers, len(f.Runs), share(busy(f), f.Until.Sub(f.From)*time.Duration(f.Workers))); err != nil {
		return err
	}
	var err error
	if runs {
		err = p.predictedRuns(f)
	} else {
		err = p.viewForecasts(f)
	}
	if err != nil {
		return err
	}
	return p.problems(f)
}

func busy(f schedule.Forecast) (sum time.Duration) {
	for _, v := range f.Views {
		sum += v.Busy
	}
	return sum
}

// share is a part in per cent.
func share(part, whole time.Duration) string {
	switch percent := 100 * part.Seconds() / whole.Seconds(); {
	case part <= 0 || whole <= 0:
		return "0%"
	case percent < 1:
		return "<1%"
	default:
		return fmt.Sprintf("%.0f%%", percent)
	}
}

func (p Printer) viewForecasts(f schedule.Forecast) error {
	columns := []column[schedule.ViewForecast]{
		{head: "VIEW", cell: func(v schedule.ViewForecast) string { return v.View }, name: true},
		{head: "RUNS", cell: func(v schedule.ViewForecast) string { return itoa(v.Runs) }, right: true},
		{head: "FIRST", cell: func(v schedule.ViewForecast) string { return firstRun(v, f.From) }, right: true},
		{head: "USUAL", cell: usual, right: true},
		{head: "BUSY", cell: func(v schedule.ViewForecast) string { return share(v.Busy, f.Until.Sub(f.From)) }, right: true},
		{head: "MAX AGE", cell: maxAge, right: true},
		{
			head: "TARGET", cell: func(v schedule.ViewForecast) string { return target(v.MaxLag, nil, false) }, right: true,
			when: func(v schedule.ViewForecast) bool { return v.MaxLag != nil },
		},
		{
			head: "PROBLEM", cell: problem,
			when: func(v schedule.ViewForecast) bool { return len(v.Problems) > 0 },
		},
	}
	if cells := min(p.room()-natural(columns, f.Views)-2, mostCells); cells >= leastCells {
		bars := p.timelines(f, cells)
		columns = append(columns, column[schedule.ViewForecast]{
			head: "TIMELINE", cell: func(v schedule.ViewForecast) string { return bars[v.View] },
		})
	}
	return table(p, f.Views, columns)
}

// A timeline has as many cells as the terminal has room for, within these.
const (
	leastCells = 12
	mostCells  = 96
)

// timelines draws for every view how busy each part of the time is with it.
func (p Printer) timelines(f schedule.Forecast, cells int) map[string]string {
	cell := f.Until.Sub(f.From) / time.Duration(cells)
	if cell <= 0 {
		return nil
	}
	filled := map[string][]time.Duration{}
	for _, v := range f.Views {
		filled[v.View] = make([]time.Duration, cells)
	}
	for _, r := range f.Runs {
		bar := filled[r.View]
		if bar == nil {
			continue // a refresh by hand of a view without a schedule
		}
		from, to := max(r.StartsAt.Sub(f.From), 0), r.EndsAt.Sub(f.From)
		for i := int(from / cell); i < cells && time.Duration(i)*cell < to; i++ {
			begin := time.Duration(i) * cell
			bar[i] += min(to, begin+cell) - max(from, begin)
		}
	}
	bars := map[string]string{}
	for view, bar := range filled {
		var b strings.Builder
		for _, d := range bar {
			b.WriteRune(p.block(d, cell))
		}
		bars[view] = b.String()
	}
	return bars
}

func firstRun(v schedule.ViewForecast, now time.Time) string {
	if v.FirstRunAt == nil {
		return "-"
	}
	in := v.FirstRunAt.Sub(now)
	if in <= 0 {
		return "now"
	}
	return age(&in)
}

// maxAge is how old the data gets, and looks older than its target where it does not keep it.
func maxAge(v schedule.ViewForecast) string {
	switch {
	case v.MaxAge == nil:
		return "-"
	case v.MaxLag != nil && *v.MaxAge > *v.MaxLag:
		return schedule.FormatBeyond(*v.MaxAge)
	default:
		return schedule.FormatSpan(*v.MaxAge)
	}
}

func usual(v schedule.ViewForecast) string {
	if v.Usual == nil {
		return "-"
	}
	return schedule.FormatSpan(*v.Usual)
}

func problem(v schedule.ViewForecast) string {
	if len(v.Problems) == 0 {
		return "-"
	}
	return v.Problems[0].Code
}

func (p Printer) predictedRuns(f schedule.Forecast) error {
	return table(p, f.Runs, []column[schedule.PredictedRun]{
		{head: "START", cell: func(r schedule.PredictedRun) string { return clockTime(r.StartsAt) }},
		{head: "VIEW", cell: func(r schedule.PredictedRun) string { return r.View }, name: true},
		{head: "TOOK", cell: func(r schedule.PredictedRun) string { return schedule.FormatSpan(r.EndsAt.Sub(r.StartsAt)) }, right: true},
		{head: "WAITS", cell: waits, gives: true},
	})
}

// waits is what a run waits for, from a tenth of a second.
func waits(r schedule.PredictedRun) string {
	var parts []string
	add := func(d time.Duration, what string) {
		if d >= 100*time.Millisecond {
			parts = append(parts, schedule.FormatSpan(d)+" for "+what)
		}
	}
	add(r.ForItself, "its last run")
	add(r.ForViews, "what it reads")
	worker := "a worker"
	if r.Behind != "" {
		worker += " behind " + r.Behind
	}
	add(r.ForWorker, worker)
	return cmp.Or(strings.Join(parts, ", "), "-")
}

// problems writes what does not fit. A message is never shortened: it must be readable.
func (p Printer) problems(f schedule.Forecast) error {
	type viewProblem struct{ view, message string }
	var rows []viewProblem
	for _, v := range f.Views {
		for _, remark := range v.Problems {
			rows = append(rows, viewProblem{v.View, remark.Message})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(p.W); err != nil {
		return err
	}
	return table(p, rows, []column[viewProblem]{
		{head: "VIEW", cell: func(r viewProblem) string { return r.view }, name: true},
		{head: "PROBLEM", cell: func(r viewProblem) string { return r.message }, wraps: true, least: 30},
	})
}

type forecastJSON struct {
	From  time.Time          `json:"from"`
	Until time.Time          `json:"until"`
	Views []viewForecastJSON `json:"views"`
	Runs  []predictedRunJSON `json:"runs"`
	Notes []noteJSON         `json:"notes"`
}

type viewForecastJSON struct {
	View                string        `json:"view"`
	Queue               string        `json:"queue"`
	Runs                int           `json:"runs"`
	FirstRunAt          *time.Time    `json:"first_run_at"`
	BusySeconds         float64       `json:"busy_seconds"`
	UsualSeconds        *float64      `json:"usual_seconds"`
	MaxAgeSeconds       *float64      `json:"max_age_seconds"`
	MaxLagSeconds       *float64      `json:"max_lag_seconds"`
	ReachableLagSeconds *float64      `json:"reachable_lag_seconds"`
	LateRuns            int           `json:"late_runs"`
	LongestWaitSeconds  float64       `json:"longest_wait_seconds"`
	MissedSlots         int           `json:"missed_slots"`
	Problem             *string       `json:"problem"`
	Problems            []problemJSON `json:"problems"`
}

type predictedRunJSON struct {
	View        string     `json:"view"`
	ScheduledAt *time.Time `json:"scheduled_at"`
	StartsAt    time.Time  `json:"starts_at"`
	EndsAt      time.Time  `json:"ends_at"`
	Trigger     string     `json:"trigger"`
}

type problemJSON struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type noteJSON struct {
	problemJSON
	Views []string `json:"views"`
}

func toForecastJSON(f schedule.Forecast) forecastJSON {
	j := forecastJSON{From: f.From.UTC(), Until: f.Until.UTC(), Views: []viewForecastJSON{}, Runs: []predictedRunJSON{}, Notes: []noteJSON{}}
	for _, n := range f.Notes {
		j.Notes = append(j.Notes, noteJSON{problemJSON{n.Code, n.Message}, n.Views})
	}
	for _, v := range f.Views {
		j.Views = append(j.Views, toViewForecastJSON(v))
	}
	for _, r := range f.Runs {
		j.Runs = append(j.Runs, toPredictedRunJSON(r))
	}
	return j
}

func toViewForecastJSON(v schedule.ViewForecast) viewForecastJSON {
	j := viewForecastJSON{
		View: v.View, Queue: v.Queue, Runs: v.Runs, FirstRunAt: utc(v.FirstRunAt), BusySeconds: *secondsOf(&v.Busy), UsualSeconds: secondsOf(v.Usual),
		MaxAgeSeconds: secondsOf(v.MaxAge), MaxLagSeconds: secondsOf(v.MaxLag), ReachableLagSeconds: secondsOf(v.ReachableLag),
		LateRuns: v.LateRuns, LongestWaitSeconds: *secondsOf(&v.LongestWait), MissedSlots: v.MissedSlots, Problems: []problemJSON{},
	}
	for _, problem := range v.Problems {
		j.Problems = append(j.Problems, problemJSON{problem.Code, problem.Message})
	}
	if len(j.Problems) > 0 {
		j.Problem = &j.Problems[0].Code
	}
	return j
}

func toPredictedRunJSON(r schedule.PredictedRun) predictedRunJSON {
	j := predictedRunJSON{View: r.View, StartsAt: r.StartsAt.UTC(), EndsAt: r.EndsAt.UTC(), Trigger: r.Trigger}
	if !r.ScheduledAt.IsZero() {
		j.ScheduledAt = utc(&r.ScheduledAt)
	}
	return j
}
