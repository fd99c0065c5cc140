package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// metric is a family of Prometheus metrics: a gauge of every view.
type metric struct {
	name  string
	help  string
	value func(schedule.Standing) *float64 // nil: no sample
}

// The state is no number: it has a label beside the view's.
const stateMetric = "mvsched_view_state"

func metrics() []metric {
	return []metric{
		{"mvsched_view_health", "What monitoring makes of it: 0 fine, 1 warning, 2 critical.", health},
		{"mvsched_view_age_seconds", "How old the view's data is at the most.", func(s schedule.Standing) *float64 { return secondsOf(s.Age) }},
		{"mvsched_view_max_lag_seconds", "How old its data may get, where the schedule says so.", func(s schedule.Standing) *float64 { return secondsOf(s.MaxLag) }},
		{"mvsched_view_reachable_lag_seconds", "How old it gets at best; more than it may: that target cannot be kept.", func(s schedule.Standing) *float64 { return secondsOf(s.ReachableLag) }},
		{"mvsched_view_data_as_of_timestamp_seconds", "Its data is at least as new as this instant.", func(s schedule.Standing) *float64 { return unixSeconds(s.DataAsOf) }},
		{"mvsched_view_last_success_timestamp_seconds", "When its last successful refresh ended.", func(s schedule.Standing) *float64 { return unixSeconds(s.SucceededAt) }},
		{"mvsched_view_last_duration_seconds", "How long its last run took that has ended.", lastDuration},
		{"mvsched_view_next_run_timestamp_seconds", "When its next run may begin.", func(s schedule.Standing) *float64 { return unixSeconds(s.NextRunAt) }},
		{"mvsched_view_consecutive_failures", "Failed slots since the last success.", func(s schedule.Standing) *float64 { return number(s.ConsecutiveFailures) }},
		{"mvsched_view_size_bytes", "Its size by the catalog's page count.", func(s schedule.Standing) *float64 { return number(s.SizeBytes) }},
	}
}

func health(s schedule.Standing) *float64 {
	_, health := s.Judge(nil)
	return number(int(health))
}

func lastDuration(s schedule.Standing) *float64 {
	if s.Last == nil {
		return nil
	}
	d := s.Last.Duration()
	return secondsOf(&d)
}

func unixSeconds(t *time.Time) *float64 {
	if t == nil {
		return nil
	}
	return number(float64(t.UnixMicro()) / 1e6)
}

func number[N int | int64 | float64](n N) *float64 {
	f := float64(n)
	return &f
}

// Metrics writes how all views stand and what workers do, for Prometheus.
func (p Printer) Metrics(standings []schedule.Standing, activity schedule.Activity) error {
	if err := writePrometheus(p.W, standings); err != nil {
		return err
	}
	return writeActivity(p.W, activity)
}

func writeActivity(w io.Writer, a schedule.Activity) error {
	var buf bytes.Buffer
	one := func(name, help string, value float64) {
		fmt.Fprintf(&buf, "# HELP %[1]s %[2]s\n# TYPE %[1]s gauge\n%[1]s %[3]s\n", name, help, sampleValue(value))
	}
	one("mvsched_executions_running", "Refreshes that are open now.", float64(a.Running))
	one("mvsched_workers_busy", "Processes that refresh now.", float64(a.Workers))
	if a.OldestRunning != nil {
		one("mvsched_executions_oldest_running_seconds", "Since when the oldest of them is open.", a.OldestRunning.Seconds())
	}
	for _, m := range []struct {
		name, help string
		value      func(schedule.Ended) float64
	}{
		{"mvsched_executions_last_hour", "Refreshes that ended so within the last hour.", func(e schedule.Ended) float64 { return float64(e.Count) }},
		{"mvsched_executions_last_hour_duration_seconds", "How long these took together.", func(e schedule.Ended) float64 { return e.Took.Seconds() }},
	} {
		for i, ended := range a.LastHour {
			if i == 0 {
				fmt.Fprintf(&buf, "# HELP %[1]s %[2]s\n# TYPE %[1]s gauge\n", m.name, m.help)
			}
			fmt.Fprintf(&buf, "%s{status=\"%s\"} %s\n", m.name, labelValue(string(ended.Status)), sampleValue(m.value(ended)))
		}
	}
	_, err := w.Write(buf.Bytes())
	return err
}

func sampleValue(value float64) string { return strconv.FormatFloat(value, 'f', -1, 64) }

// writePrometheus writes the text format, without timestamps: a file for the textfile collector, or a page to be scraped.
func writePrometheus(w io.Writer, standings []schedule.Standing) error {
	standings = onceEach(standings)
	var buf bytes.Buffer
	gauge := func(name, help string) { fmt.Fprintf(&buf, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name) }
	gauge("mvsched_views", "Views with a schedule.")
	fmt.Fprintf(&buf, "mvsched_views %d\n", len(standings))
	if len(standings) > 0 {
		gauge(stateMetric, "1 for the state that the view is in, as mvsched status has it.")
	}
	for _, s := range standings {
		fmt.Fprintf(&buf, "%s{view=\"%s\",state=\"%s\"} 1\n", stateMetric, labelValue(s.View), labelValue(string(s.State)))
	}
	for _, m := range metrics() {
		named := false
		for _, s := range standings {
			value := m.value(s)
			if value == nil {
				continue
			}
			if !named {
				gauge(m.name, m.help)
				named = true
			}
			fmt.Fprintf(&buf, "%s{view=\"%s\"} %s\n", m.name, labelValue(s.View), sampleValue(*value))
		}
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// onceEach leaves one standing of each view: a rename can give one a second schedule (mvsched doctor tells), and Prometheus
// refuses everything where a sample is there twice.
func onceEach(standings []schedule.Standing) []schedule.Standing {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(standings), func(s schedule.Standing) bool {
		twice := seen[s.View]
		seen[s.View] = true
		return twice
	})
}

var inLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// labelValue is exact first: Prometheus has an escape for a line break, but none for other control characters.
func labelValue(s string) string { return inLabel.Replace(exact(s)) }
