package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// everyState is one view in each state, and the hostile ones, which are failing.
func everyState() []schedule.Standing {
	standings := hostileStandings()
	for i := range standings {
		if standings[i].MaxLag != nil {
			standings[i].ReachableLag = ptr(5 * time.Minute)
		}
	}
	for _, state := range []schedule.State{
		schedule.StateMissing, schedule.StateRunning, schedule.StatePaused, schedule.StateSuspended, schedule.StateBlocked, schedule.StateLate,
		schedule.StateDue,
	} {
		st := standing("cinema." + string(state) + "_view")
		st.State, st.SucceededAt = state, ptr(at.Add(1200*time.Millisecond))
		standings = append(standings, st)
	}
	return standings
}

func printStatus(standings []schedule.Standing) func(report.Printer) error {
	return func(p report.Printer) error { return p.Status(standings) }
}

func printMetrics(standings []schedule.Standing) func(report.Printer) error {
	activity := schedule.Activity{Running: 3, Workers: 2, OldestRunning: ptr(90 * time.Second), LastHour: []schedule.Ended{
		{Status: schedule.Succeeded, Count: 40, Took: 12500 * time.Millisecond},
		{Status: schedule.Skipped, Count: 7},
		{Status: schedule.Failed, Count: 2, Took: time.Second},
		{Status: schedule.TimedOut},
		{Status: schedule.Cancelled},
		{Status: schedule.Abandoned},
	}}
	return func(p report.Printer) error { return p.Metrics(standings, activity) }
}

func TestGoldenStatus(t *testing.T) {
	inUTC(t)
	golden(t, "status.prom", printed(t, report.Prometheus, 0, printMetrics(everyState())))
	for format, name := range map[report.Format]string{
		report.JUnit: "status.junit.xml", report.Badge: "status.badge.json", report.BadgeSVG: "status.badge.svg",
	} {
		golden(t, name, printed(t, format, 80, printStatus(everyState())))
		golden(t, name, printed(t, format, 200, printStatus(everyState())))
	}
}

// junit is what the common schema allows, in its order; anything else is an error.
var junit = map[string]struct {
	required, optional []string
	children           []string
}{
	"testsuites": {[]string{"name", "tests", "failures", "errors", "time"}, nil, []string{"testsuite"}},
	"testsuite":  {[]string{"name", "tests", "failures", "errors", "skipped", "time"}, nil, []string{"testcase"}},
	"testcase":   {[]string{"name", "classname", "time"}, nil, []string{"skipped", "failure"}},
	"skipped":    {[]string{"message"}, []string{"type"}, nil},
	"failure":    {[]string{"message", "type"}, nil, nil},
}

func TestJUnitHasATestCaseForEveryView(t *testing.T) {
	standings := everyState()
	decoder := xml.NewDecoder(strings.NewReader(printed(t, report.JUnit, 0, printStatus(standings))))
	var path []string
	outcomes := map[string]string{}
	count := map[string]int{}
	totals := map[string]string{}
	var names []string
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			element := token.Name.Local
			allowed, known := junit[element]
			parent := "nothing"
			if len(path) > 0 {
				parent = path[len(path)-1]
			}
			if !known || len(path) > 0 && !slices.Contains(junit[parent].children, element) {
				t.Fatalf("a %s in %s", element, parent)
			}
			attributes := map[string]string{}
			for _, attribute := range token.Attr {
				attributes[attribute.Name.Local] = attribute.Value
				if !slices.Contains(slices.Concat(allowed.required, allowed.optional), attribute.Name.Local) {
					t.Errorf("%s has an attribute %s", element, attribute.Name.Local)
				}
			}
			for _, name := range allowed.required {
				if _, ok := attributes[name]; !ok {
					t.Errorf("%s has no attribute %s", element, name)
				}
			}
			if value, ok := attributes["time"]; ok {
				if _, err := strconv.ParseFloat(value, 64); err != nil {
					t.Errorf("%s: %v", element, err)
				}
			}
			switch element {
			case "testsuite":
				totals = attributes
			case "testcase":
				names = append(names, unescape(t, attributes["name"]))
				outcomes[names[len(names)-1]] = "passed"
			case "failure", "skipped":
				outcomes[names[len(names)-1]] = element + ": " + attributes["message"]
			}
			count[element]++
			path = append(path, element)
		case xml.EndElement:
			path = path[:len(path)-1]
		}
	}
	for i, s := range standings {
		if names[i] != s.View {
			t.Errorf("%q, want %q", names[i], s.View)
		}
	}
	for attribute, element := range map[string]string{"tests": "testcase", "failures": "failure", "skipped": "skipped"} {
		if totals[attribute] != strconv.Itoa(count[element]) {
			t.Errorf("%s are %s, and there are %d", attribute, totals[attribute], count[element])
		}
	}
	for view, want := range map[string]string{
		"cinema.missing_view": "failure: missing: there is no such view any more", "cinema.running_view": "passed", "cinema.paused_view": "skipped: paused",
		"cinema.suspended_view": "failure: suspended after 0 failed slots: succeeded: concurrently +12 -3", "cinema.blocked_view": "passed",
		"cinema.new_view": "skipped: never", "cinema.late_view": "failure: late: its data is 12s old", "cinema.due_view": "passed",
		`public."a|b"`: "failure: failing: failed: a|b",
	} {
		if outcomes[view] != want {
			t.Errorf("%s: %q, want %q", view, outcomes[view], want)
		}
	}
}

type sample struct {
	metric string
	labels map[string]string
	value  float64
}

var (
	metricLine = regexp.MustCompile(`^([a-z_][a-z0-9_]*)(?:\{(.*)\})? (-?[0-9]+(?:\.[0-9]+)?)$`)
	labelPair  = regexp.MustCompile(`^([a-z_][a-z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)`)
)

// parsePrometheus reads the text format and allows nothing but gauges, each family once, with HELP, TYPE and samples in
// this order, and no sample twice.
func parsePrometheus(t *testing.T, text string) (samples []sample) {
	t.Helper()
	if !strings.HasSuffix(text, "\n") {
		t.Error("the last line has no end")
	}
	families, seen := map[string]bool{}, map[string]bool{}
	family, state := "", "samples"
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if help, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, words, _ := strings.Cut(help, " ")
			if state != "samples" || families[name] || words == "" {
				t.Errorf("after %s: %s", state, line)
			}
			family, state, families[name] = name, "help", true
			continue
		}
		if kind, ok := strings.CutPrefix(line, "# TYPE "); ok {
			if state != "help" || kind != family+" gauge" {
				t.Errorf("after %s: %s", state, line)
			}
			state = "type"
			continue
		}
		match := metricLine.FindStringSubmatch(line)
		if match == nil || match[1] != family || state == "help" || seen[line[:strings.LastIndex(line, " ")]] {
			t.Fatalf("after %s of %s: %s", state, family, line)
		}
		state, seen[line[:strings.LastIndex(line, " ")]] = "samples", true
		s := sample{metric: match[1], labels: map[string]string{}}
		s.value, _ = strconv.ParseFloat(match[3], 64)
		for rest := match[2]; rest != ""; {
			pair := labelPair.FindStringSubmatch(rest)
			if pair == nil {
				t.Fatalf("labels: %s", rest)
			}
			s.labels[pair[1]] = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n").Replace(pair[2])
			rest = rest[len(pair[0]):]
		}
		samples = append(samples, s)
	}
	return samples
}

func TestPrometheus(t *testing.T) {
	standings := everyState()
	got := map[string]map[string]float64{}
	for _, s := range parsePrometheus(t, printed(t, report.Prometheus, 0, printMetrics(standings))) {
		view := ""
		if label, ok := s.labels["view"]; ok {
			view = unescape(t, label)
		}
		if got[view] == nil {
			got[view] = map[string]float64{}
		}
		got[view][s.metric+s.labels["state"]+s.labels["status"]] = s.value
	}
	if got[""]["mvsched_views"] != float64(len(standings)) {
		t.Errorf("mvsched_views is %v", got[""])
	}
	if executions := got[""]; executions["mvsched_executions_running"] != 3 || executions["mvsched_workers_busy"] != 2 ||
		executions["mvsched_executions_oldest_running_seconds"] != 90 || executions["mvsched_executions_last_hoursucceeded"] != 40 ||
		executions["mvsched_executions_last_hour_duration_secondssucceeded"] != 12.5 || executions["mvsched_executions_last_hourfailed"] != 2 {
		t.Errorf("%v", executions)
	}
	for _, s := range standings {
		if got[s.View]["mvsched_view_state"+string(s.State)] != 1 {
			t.Errorf("%q has no state: %v", s.View, got[s.View])
		}
	}
	if want := map[string]float64{
		"mvsched_view_statelate": 1, "mvsched_view_health": 2, "mvsched_view_age_seconds": 12, "mvsched_view_data_as_of_timestamp_seconds": 1795255200,
		"mvsched_view_last_success_timestamp_seconds": 1795255201.2, "mvsched_view_last_duration_seconds": 1.2,
		"mvsched_view_next_run_timestamp_seconds": 1795255500, "mvsched_view_consecutive_failures": 0, "mvsched_view_size_bytes": 8192,
	}; !reflect.DeepEqual(got["cinema.late_view"], want) {
		t.Errorf("%v\nwant\n%v", got["cinema.late_view"], want)
	}
	if want := map[string]float64{ // what is not known has no sample
		"mvsched_view_statenever": 1, "mvsched_view_health": 1, "mvsched_view_consecutive_failures": 0, "mvsched_view_size_bytes": 0,
	}; !reflect.DeepEqual(got["cinema.new_view"], want) {
		t.Errorf("%v\nwant\n%v", got["cinema.new_view"], want)
	}
	if got["cinema.ticket_count_by_country_and_day_view"]["mvsched_view_max_lag_seconds"] != 600 {
		t.Error("no max_lag")
	}
	if text := printed(t, report.Prometheus, 0, printStatus(nil)); len(parsePrometheus(t, text)) != 1 {
		t.Errorf("of no views: %s", text)
	}
}

// Prometheus takes nothing of what has a sample twice.
func TestPrometheusHasAViewOnce(t *testing.T) {
	once := everyState()
	twice := append(slices.Clone(once), once[1], once[len(once)-1])
	want, got := printed(t, report.Prometheus, 0, printMetrics(once)), printed(t, report.Prometheus, 0, printMetrics(twice))
	if got != want {
		t.Errorf("with two schedules of a view\n%s", got)
	}
}

func TestBadge(t *testing.T) {
	fresh, never, failing := standing("public.a"), standing("public.b"), hostileStandings()[2]
	never.State = schedule.StateNever
	for message, test := range map[string]struct {
		standings []schedule.Standing
		color     string
		isError   bool
	}{
		"none scheduled":     {nil, "lightgrey", false},
		"2 ok":               {[]schedule.Standing{fresh, fresh}, "green", false},
		"1 never":            {[]schedule.Standing{fresh, never}, "orange", false},
		"1 failing, 1 never": {[]schedule.Standing{fresh, never, failing}, "red", true},
	} {
		var got map[string]any
		if err := json.Unmarshal([]byte(printed(t, report.Badge, 0, printStatus(test.standings))), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"schemaVersion": 1.0, "label": "materialized views", "message": message, "color": test.color, "isError": test.isError, "cacheSeconds": 300.0,
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v\nwant\n%v", got, want)
		}
		text := printed(t, report.BadgeSVG, 0, printStatus(test.standings))
		decoder := xml.NewDecoder(strings.NewReader(text))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if strings.Count(text, message) != 3 || !strings.HasPrefix(text, "<svg ") {
			t.Errorf("%s", text)
		}
	}
}

// checkLine is one line of text, a bar, and the performance data that Nagios reads.
var checkLine = regexp.MustCompile(`^MVSCHED (OK|WARNING|CRITICAL) - ([^|\n]+) \|((?: [a-z]+=[0-9]+s?(?:;[0-9]*){0,3})+)\n$`)

func TestCheck(t *testing.T) {
	named := func(state schedule.State, views ...string) (standings []schedule.Standing) {
		for _, view := range views {
			st := standing(view)
			st.State = state
			standings = append(standings, st)
		}
		return standings
	}
	unscheduled := schedule.Summarize(named(schedule.StateFresh, "a.a"), nil)
	unscheduled.AddUnscheduled([]string{"a.x"})
	all := schedule.Summarize(nil, nil)
	all.AddUnscheduled(nil)
	for name, test := range map[string]struct {
		summary schedule.Summary
		want    string
	}{
		"nothing": {schedule.Summarize(nil, nil), "MVSCHED OK - nothing is scheduled | views=0 missing=0;;0;0 suspended=0;;0;0 failing=0;;0;0 late=0;;0;0 blocked=0;;;0 never=0;0;;0 unreachable=0;0;;0 paused=0;;;0 running=0;;;0 due=0;;;0 fresh=0;;;0\n"},
		"fresh":   {schedule.Summarize(named(schedule.StateFresh, "a.a", "a.b"), ptr(time.Minute)), "MVSCHED OK - 2 fresh | views=2 missing=0;;0;0 suspended=0;;0;0 failing=0;;0;0 late=0;;0;0 blocked=0;;;0 never=0;0;;0 unreachable=0;0;;0 paused=0;;;0 running=0;;;0 due=0;;;0 fresh=2;;;0 oldest=12s;;60;0\n"},
		"some": {
			schedule.Summarize(slices.Concat(named(schedule.StateLate, "a.a", "a.b", "a.c", "a.d", "a.e"), named(schedule.StateNever, "a.f"), named(schedule.StateFresh, "a.g")), nil),
			"MVSCHED CRITICAL - 5 late (a.a, a.b, a.c and 2 more), 1 never (a.f), 1 fresh | views=7 missing=0;;0;0 suspended=0;;0;0 failing=0;;0;0 late=5;;0;0 blocked=0;;;0 never=1;0;;0 unreachable=0;0;;0 paused=0;;;0 running=0;;;0 due=0;;;0 fresh=1;;;0 oldest=12s;;;0\n",
		},
		"unscheduled": {unscheduled, "MVSCHED WARNING - 1 unscheduled (a.x), 1 fresh | views=1 missing=0;;0;0 suspended=0;;0;0 failing=0;;0;0 late=0;;0;0 blocked=0;;;0 never=0;0;;0 unreachable=0;0;;0 unscheduled=1;0;;0 paused=0;;;0 running=0;;;0 due=0;;;0 fresh=1;;;0 oldest=12s;;;0\n"},
		"all":         {all, "MVSCHED OK - nothing is scheduled | views=0 missing=0;;0;0 suspended=0;;0;0 failing=0;;0;0 late=0;;0;0 blocked=0;;;0 never=0;0;;0 unreachable=0;0;;0 unscheduled=0;0;;0 paused=0;;;0 running=0;;;0 due=0;;;0 fresh=0;;;0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := printed(t, report.Text, 80, func(p report.Printer) error { return p.Check(test.summary) })
			if got != test.want || !checkLine.MatchString(got) {
				t.Errorf("%s\nwant\n%s", got, test.want)
			}
		})
	}
	for _, st := range hostileStandings() {
		got := printed(t, report.Text, 0, func(p report.Printer) error { return p.Check(schedule.Summarize([]schedule.Standing{st}, nil)) })
		if !checkLine.MatchString(got) {
			t.Errorf("%q", got)
		}
	}
}

// Nothing is lost in silence: a write that fails is told, in every format.
func TestEveryFormatTellsOfAFailedWrite(t *testing.T) {
	full := errors.New("no space")
	for _, format := range report.StatusFormats() {
		err := report.Printer{W: failing{full}, Format: format}.Status(everyState())
		if !errors.Is(err, full) {
			t.Errorf("%s: %v", format, err)
		}
	}
	if err := (report.Printer{W: failing{full}}).Check(schedule.Summary{}); !errors.Is(err, full) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func BenchmarkStatus(b *testing.B) {
	standings := make([]schedule.Standing, 2000)
	for i := range standings {
		standings[i] = standing(fmt.Sprintf("cinema.view_%d", i))
	}
	for _, format := range report.StatusFormats() {
		b.Run(string(format), func(b *testing.B) {
			for b.Loop() {
				var buf bytes.Buffer
				if err := (report.Printer{W: &buf, Format: format, Width: 80}).Status(standings); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
