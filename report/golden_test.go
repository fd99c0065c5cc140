package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// hostile is what views may be called, and what errors may say.
var hostile = []string{
	"<script>alert(1)</script>", "=cmd|' /C calc'!A0", "::error::x", "a|b", "\x1b[31mred\nnew line\r\ttab\u202e\u009b", `back\slash \| \n`,
	"`tick` *bold* _it_ a_b ~~x~~ [l](http://x.example) www.x.example @me #1 :tada: $x$ &amp; <!-- ![i](j) |", "'quoted'", "@SUM(1)", "-1+1",
	"+1", " edges ", "＝1", "::warning file=a,line=1::%0A", "##[error]x", "]]>", `"`, "世界",
}

func hostileStandings() []schedule.Standing {
	standings := []schedule.Standing{standing("cinema.ticket_count_by_country_and_day_view"), {View: "cinema.new_view", State: schedule.StateNever, Queue: "default"}}
	standings[0].MaxLag, standings[0].Parents = ptr(10*time.Minute), []string{"cinema.event_view", `public."a|b"`}
	for i, text := range hostile {
		st := standing(`public."` + strings.ReplaceAll(text, `"`, `""`) + `"`)
		st.State, st.Last.Status, st.ConsecutiveFailures, st.Queue = schedule.StateFailing, schedule.Failed, 2, text
		st.Last.Method, st.Last.RowsInserted, st.Last.RowsDeleted = nil, nil, nil
		st.Last.ErrorName, st.Last.ErrorMessage = ptr("raise_exception"), ptr(text)
		if i%4 == 2 {
			st.State, st.RunningFor, st.Blockers = schedule.StateRunning, ptr(time.Minute), []schedule.Blocker{{View: st.View, PID: 4711, User: text}}
		}
		standings = append(standings, st)
	}
	busy := standing("cinema.busy_view")
	busy.State, busy.RunningFor, busy.Usual = schedule.StateRunning, ptr(75*time.Second), ptr(100*time.Second)
	return append(standings, busy)
}

func hostileExecutions() (executions []schedule.Execution) {
	for i, st := range hostileStandings() {
		e := succeeded(st.View)
		if st.Last != nil {
			e = *st.Last
		}
		e.ID, e.Worker = int64(i+1), ptr("host:7")
		executions = append(executions, e)
	}
	return executions
}

func hostileSchedules() (schedules []schedule.Schedule) {
	for _, st := range hostileStandings() {
		schedules = append(schedules, schedule.Schedule{
			View: st.View, Kind: schedule.KindEvery, Every: ptr(5 * time.Minute), Timezone: "UTC", Timeout: 30 * time.Minute, Strategy: "auto",
			Queue: "default", PausedAt: ptr(at), PausedReason: ptr(st.Queue), NextRunAt: ptr(at), SearchPath: &st.Queue,
		})
	}
	return schedules
}

func hostileFindings() (findings []schedule.Finding) {
	for _, st := range hostileStandings() {
		findings = append(findings, schedule.Finding{
			Severity: schedule.SeverityError, Check: "missing", View: st.View, Message: st.Queue, Fix: ptr("drop " + st.View),
		})
	}
	return append(findings, schedule.Finding{Severity: schedule.SeverityAdvice, Check: "pooler", Message: "a pooler stands before the server"})
}

func hostileForecast() schedule.Forecast {
	f := schedule.Forecast{From: at, Until: at.Add(time.Hour), Workers: 2}
	for _, st := range hostileStandings() {
		f.Views = append(f.Views, schedule.ViewForecast{
			View: st.View, Queue: st.Queue, Runs: 1, FirstRunAt: ptr(at), Usual: ptr(time.Minute), Busy: time.Minute, MaxAge: ptr(time.Hour),
			Problems: []schedule.Remark{{Code: "overload", Message: st.Queue}},
		})
		f.Runs = append(f.Runs, schedule.PredictedRun{View: st.View, StartsAt: at, EndsAt: at.Add(time.Minute), ScheduledAt: at, Trigger: "schedule"})
	}
	return f
}

func hostileExplanation() schedule.Explanation {
	e := schedule.Explanation{View: hostileStandings()[6].View, State: schedule.StateFailing, Now: at}
	for _, text := range hostile {
		e.Reasons = append(e.Reasons, schedule.Reason{Code: schedule.WhyLastRun, Message: text, Since: ptr(at.Add(-time.Minute)), Views: []string{text}})
	}
	return e
}

// lists is everything that prints rows, with the rows that are worst.
var lists = map[string]func(report.Printer) error{
	"status":  func(p report.Printer) error { return p.Status(hostileStandings()) },
	"list":    func(p report.Printer) error { return p.Schedules(hostileSchedules()) },
	"history": func(p report.Printer) error { return p.Executions(hostileExecutions(), false) },
	"run":     func(p report.Printer) error { return p.Run(hostileExecutions()) },
	"due": func(p report.Printer) error {
		return p.Due([]schedule.Due{{View: hostileStandings()[2].View, ScheduledAt: ptr(at)}, {View: "cinema.new_view"}})
	},
	"doctor": func(p report.Printer) error { return p.Findings(hostileFindings()) },
	"why":    func(p report.Printer) error { return p.Explanation(hostileExplanation()) },
	"plan":   func(p report.Printer) error { return p.Forecast(hostileForecast(), false) },
	"runs":   func(p report.Printer) error { return p.Forecast(hostileForecast(), true) },
}

// printed is what a command writes in a format, through the writer that every command has.
func printed(t *testing.T, format report.Format, width int, write func(report.Printer) error) string {
	t.Helper()
	var laidOut, out bytes.Buffer
	if err := write(report.Printer{W: &laidOut, Format: format, Width: width}); err != nil {
		t.Fatal(err)
	}
	if _, err := report.NewCleanWriter(&out).Write(laidOut.Bytes()); err != nil {
		t.Fatal(err)
	}
	if laidOut.String() != out.String() && format != report.JSON && format != report.JSONLines {
		t.Errorf("%s has left something to be cleaned", format)
	}
	if i := strings.IndexFunc(out.String(), forbidden); i >= 0 {
		t.Errorf("%s: %q", format, out.String()[i:])
	}
	if command := commandLine.FindString(out.String()); command != "" {
		t.Errorf("%s: a command, %q, in %s", format, command, out.String())
	}
	return out.String()
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, want)
	}
}

// inUTC has times shown as in UTC.
func inUTC(t *testing.T) {
	t.Helper()
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
}

// What every list looks like in every format. Only tables depend on the width of the terminal.
func TestGolden(t *testing.T) {
	inUTC(t)
	for name, write := range lists {
		for _, width := range []int{80, 200} {
			golden(t, fmt.Sprintf("%s.table.%d.txt", name, width), printed(t, report.Table, width, write))
			for format, extension := range map[report.Format]string{
				report.JSON: ".json", report.JSONLines: ".jsonl", report.CSV: ".csv", report.Markdown: ".md",
			} {
				golden(t, name+extension, printed(t, format, width, write))
			}
		}
	}
}

// objects are the rows as JSON has them: where it is one object, those of a list in it, with what stands beside that.
func objects(t *testing.T, name string) (rows []map[string]any) {
	t.Helper()
	text := []byte(printed(t, report.JSON, 0, lists[name]))
	inner := map[string]string{"why": "reasons", "plan": "views", "runs": "runs"}[name]
	if inner == "" {
		if err := json.Unmarshal(text, &rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	for _, element := range object[inner].([]any) {
		row := element.(map[string]any)
		if name == "why" {
			row["view"], row["state"] = object["view"], object["state"]
		}
		rows = append(rows, row)
	}
	return rows
}

// Nothing is lost in JSON, nor on its way through the clean writer.
func TestJSONHasTheNames(t *testing.T) {
	rows := objects(t, "status")
	for i, st := range hostileStandings() {
		if rows[i]["view"] != st.View {
			t.Errorf("%q, want %q", rows[i]["view"], st.View)
		}
		last, ok := rows[i]["last"].(map[string]any)
		if st.Last != nil && st.Last.ErrorMessage != nil && (!ok || last["error_message"] != *st.Last.ErrorMessage) {
			t.Errorf("%q, want %q", last["error_message"], *st.Last.ErrorMessage)
		}
	}
}

func TestJSONLinesHaveTheObjectsOfJSON(t *testing.T) {
	for name, write := range lists {
		want := objects(t, name)
		var got []map[string]any
		for line := range strings.Lines(printed(t, report.JSONLines, 0, write)) {
			var object map[string]any
			if err := json.Unmarshal([]byte(line), &object); err != nil {
				t.Fatalf("%s: %v: %s", name, err, line)
			}
			got = append(got, object)
		}
		if name == "why" { // one object, as in JSON
			if len(got) != 1 || len(got[0]["reasons"].([]any)) != len(want) {
				t.Errorf("%s: %v", name, got)
			}
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\nwant\n%v", name, got, want)
		}
	}
}

// A spreadsheet computes nothing, and whoever undoes what docs/commands.md says gets the rows of JSON.
func TestCSVHasTheRowsOfJSON(t *testing.T) {
	for name, write := range lists {
		want := objects(t, name)
		text := printed(t, report.CSV, 0, write)
		table, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		if err != nil || len(table) != len(want)+1 || strings.Count(text, "\n") != len(table) {
			t.Fatalf("%s: %v, %d records in %d lines, want %d", name, err, len(table), strings.Count(text, "\n"), len(want)+1)
		}
		for i, object := range want {
			columns := 0
			members := map[string]int{"last": 11, "running": 3} // of inner objects
			for key, value := range object {
				if inner, ok := value.(map[string]any); ok || members[key] > 0 {
					for member := range inner {
						checkCell(t, name, table, i, key+"_"+member, inner[member])
					}
					columns += members[key]
					continue
				}
				checkCell(t, name, table, i, key, value)
				columns++
			}
			if columns != len(table[0]) {
				t.Errorf("%s: %d columns, want %d: %q", name, len(table[0]), columns, table[0])
			}
		}
	}
}

func checkCell(t *testing.T, name string, table [][]string, row int, head string, want any) {
	t.Helper()
	column := slices.Index(table[0], head)
	if column < 0 {
		t.Fatalf("%s: no column %s in %q", name, head, table[0])
	}
	cell := table[row+1][column]
	var got any
	switch want.(type) {
	case nil:
		if cell != "" {
			t.Errorf("%s: %s is %q, want nothing", name, head, cell)
		}
		return
	case float64:
		number, err := strconv.ParseFloat(cell, 64)
		if err != nil {
			t.Errorf("%s: %s: %v", name, head, err)
		}
		got = number
	case bool:
		got = cell == "true"
	case []any:
		if err := json.Unmarshal([]byte(undo(t, cell)), &got); err != nil {
			t.Errorf("%s: %s: %v", name, head, err)
		}
	default:
		if strings.ContainsAny(cell[:min(len(cell), 1)], "=+-@\t\r") || strings.HasPrefix(cell, "＝") {
			t.Errorf("%s: %s is a formula: %q", name, head, cell)
		}
		got = undo(t, cell)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %s is %q, want %q", name, head, got, want)
	}
}

// undo takes the quote in front of a cell away, then its escapes.
func undo(t *testing.T, cell string) string {
	t.Helper()
	return unescape(t, strings.TrimPrefix(cell, "'"))
}

func unescape(t *testing.T, text string) (s string) {
	t.Helper()
	if err := json.Unmarshal([]byte(`"`+strings.ReplaceAll(text, `"`, `\"`)+`"`), &s); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	return s
}

// Every view is one row of one table, nothing in a cell is markup, and what stands in it is the view's name.
func TestMarkdownHasTheRowsOfJSON(t *testing.T) {
	for name, write := range lists {
		want := objects(t, name)
		table := tables(t, printed(t, report.Markdown, 0, write))[0]
		if len(table) != len(want)+1 {
			t.Fatalf("%s: %d rows, want %d", name, len(table)-1, len(want))
		}
		head, key := "VIEW", "view"
		if name == "why" {
			head, key = "WHY", "message"
		}
		column := slices.Index(table[0], head)
		for i, object := range want {
			value := object[key]
			if value == nil {
				value = "-"
			}
			if got := unescape(t, table[i+1][column]); got != value {
				t.Errorf("%s: %q, want %q", name, got, value)
			}
		}
	}
}

// tables reads the tables of a Markdown text, and fails where a cell could be more than text.
func tables(t *testing.T, text string) (all [][][]string) {
	t.Helper()
	within := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, "|") {
			within = false
			noMarkup(t, line)
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), "|") {
			cell = strings.TrimSpace(cell)
			noMarkup(t, cell)
			cells = append(cells, html.UnescapeString(cell))
		}
		if !within {
			all = append(all, nil)
		}
		within = true
		table := &all[len(all)-1]
		if len(*table) > 0 && len(cells) != len((*table)[0]) {
			t.Errorf("%d cells under %d heads: %s", len(cells), len((*table)[0]), line)
		}
		*table = append(*table, cells)
	}
	for i, table := range all { // without the line under the heads
		all[i] = slices.Delete(table, 1, 2)
	}
	return all
}

func noMarkup(t *testing.T, text string) {
	t.Helper()
	if strings.ContainsAny(text, "\\`*[]<>~$@") || strings.Contains(text, "www.") || strings.Contains(text, "://") || strings.Contains(text, "::") {
		t.Errorf("markup in %q", text)
	}
}

// What is longer than a step's summary may be is cut between two rows, and says so.
func TestMarkdownIsCutToTheLimitOfASummary(t *testing.T) {
	const rows = 30_000
	executions := make([]schedule.Execution, rows)
	for i := range executions {
		executions[i] = hostileExecutions()[2]
	}
	text := printed(t, report.Markdown, 0, func(p report.Printer) error { return p.Executions(executions, false) })
	if len(text) > 1_000_000 || len(text) < 999_000 {
		t.Errorf("%d bytes", len(text))
	}
	table := tables(t, text)[0]
	if want := fmt.Sprintf("|\n\n… %d more\n", rows-len(table)+1); !strings.HasSuffix(text, want) {
		t.Errorf("ends with %q, want %q", text[len(text)-30:], want)
	}
}
