package report_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func ptr[T any](v T) *T { return &v }

var at = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func succeeded(view string) schedule.Execution {
	return schedule.Execution{
		ID: 7, View: view, Status: schedule.Succeeded, Trigger: "schedule", Attempt: 1, StartedAt: at, EndedAt: ptr(at.Add(1200 * time.Millisecond)),
		Method: ptr(schedule.MethodConcurrently), RowsInserted: ptr(int64(12)), RowsDeleted: ptr(int64(3)), DataAsOf: ptr(at),
	}
}

func standing(view string) schedule.Standing {
	last := succeeded(view)
	return schedule.Standing{
		View: view, State: schedule.StateFresh, Age: ptr(12 * time.Second), DataAsOf: ptr(at), NextRunAt: ptr(at.Add(5 * time.Minute)),
		NextRunIn: ptr(288 * time.Second), Last: &last, Queue: "default", SizeBytes: 8192,
	}
}

func TestStatus(t *testing.T) {
	failing := standing("cinema.future_event_view")
	failing.State, failing.Last.Status, failing.Age = schedule.StateFailing, schedule.TimedOut, ptr(50*time.Hour)
	running := standing("cinema.last_week_event_view")
	running.State, running.RunningFor, running.NextRunIn = schedule.StateRunning, ptr(75*time.Second), ptr(-time.Second)
	running.Usual = ptr(100 * time.Second)
	never := schedule.Standing{View: `public."By Day"`, State: schedule.StateNever}
	paused := schedule.Standing{View: "cinema.venue_view", State: schedule.StatePaused, NextRunIn: ptr(time.Hour)}

	var buf bytes.Buffer
	standings := []schedule.Standing{standing("cinema.ticket_count_by_country_view"), failing, never, paused}
	err := report.Printer{W: &buf, Format: report.Table}.Status(standings)
	const want = `VIEW                                 STATE     AGE   NEXT  LAST RUN
cinema.ticket_count_by_country_view  fresh     12s  4m48s  1.2s
cinema.future_event_view             failing  2d2h  4m48s  timed_out
public."By Day"                      never       -    now  -
cinema.venue_view                    paused      -      -  -
`
	if err != nil || buf.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, buf.String(), want)
	}
	standings = []schedule.Standing{standings[0], running}
	for _, c := range []struct {
		printer report.Printer
		blocked []schedule.Blocker
		want    string
	}{
		{report.Printer{}, nil, `VIEW                                 STATE    AGE   NEXT  LAST RUN  RUNNING
cinema.ticket_count_by_country_view  fresh    12s  4m48s  1.2s      -
cinema.last_week_event_view          running  12s    now  1.2s      1m15s, usually 1m40s
`},
		{report.Printer{Width: 80}, nil, `VIEW                         STATE    AGE   NEXT  LAST RUN  RUNNING
cinema.t…nt_by_country_view  fresh    12s  4m48s  1.2s      -
cinema.last_week_event_view  running  12s    now  1.2s      1m15s, usually 1m40s
`},
		{report.Printer{Width: 100}, nil, `VIEW                                 STATE    AGE   NEXT  LAST RUN  RUNNING
cinema.ticket_count_by_country_view  fresh    12s  4m48s  1.2s      -
cinema.last_week_event_view          running  12s    now  1.2s      ███████░░░ 1m15s, usually 1m40s
`},
		{report.Printer{Width: 80, ASCII: true}, []schedule.Blocker{{PID: 4711, User: "alice"}, {PID: 0}}, `VIEW                      STATE    AGE   NEXT  LAST RUN  RUNNING
cinema....y_country_view  fresh    12s  4m48s  1.2s      -
cinema....eek_event_view  running  12s    now  1.2s      1m15s, usually 1m40s,
                                                         waits for alice (pid
                                                         4711), a prepared
                                                         transaction
`},
	} {
		buf.Reset()
		c.printer.W, c.printer.Format, standings[1].Blockers = &buf, report.Table, c.blocked
		if err := c.printer.Status(standings); err != nil || buf.String() != c.want {
			t.Errorf("%v\n%s\nwant\n%s", err, buf.String(), c.want)
		}
	}
}

// A target that cannot be kept is said beside it, and a table without targets has no column for them.
func TestTargets(t *testing.T) {
	kept, missed := standing("cinema.sales_view"), standing("cinema.top_view")
	narrow := standing("cinema.hour_view") // by less than a second
	narrow.MaxLag, narrow.ReachableLag, narrow.State = ptr(time.Second), ptr(1450*time.Millisecond), schedule.StateLate
	kept.MaxLag, kept.ReachableLag = ptr(10*time.Minute), ptr(8450*time.Millisecond)
	missed.MaxLag, missed.ReachableLag, missed.State = ptr(time.Minute), ptr(90*time.Second), schedule.StateLate
	var buf bytes.Buffer
	err := report.Printer{W: &buf, Format: report.Table}.Status([]schedule.Standing{standing("cinema.venue_view"), kept, missed, narrow})
	const want = `VIEW               STATE  AGE  TARGET               NEXT  LAST RUN
cinema.venue_view  fresh  12s  -                   4m48s  1.2s
cinema.sales_view  fresh  12s  10m                 4m48s  1.2s
cinema.top_view    late   12s  1m (1m30s at best)  4m48s  1.2s
cinema.hour_view   late   12s  1s (1.5s at best)   4m48s  1.2s
`
	if err != nil || buf.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, buf.String(), want)
	}

	buf.Reset()
	err = report.Printer{W: &buf, Format: report.Table}.Schedules([]schedule.Schedule{
		{View: "cinema.sales_view", Kind: schedule.KindMaxLag, MaxLag: kept.MaxLag, ReachableLag: kept.ReachableLag, Timeout: time.Minute, Strategy: "auto", Retries: 3},
		{View: "cinema.top_view", Kind: schedule.KindMaxLag, MaxLag: missed.MaxLag, ReachableLag: missed.ReachableLag, Timeout: time.Minute, Strategy: "auto", Retries: 3},
		{View: "cinema.hour_view", Kind: schedule.KindMaxLag, MaxLag: narrow.MaxLag, ReachableLag: narrow.ReachableLag, Timeout: time.Minute, Strategy: "auto", Retries: 3},
	})
	const list = `VIEW               WHEN                              TIMEOUT  STRATEGY
cinema.sales_view  no older than 10m                      1m  auto
cinema.top_view    no older than 1m (1m30s at best)       1m  auto
cinema.hour_view   no older than 1s (1.5s at best)        1m  auto
`
	if err != nil || buf.String() != list {
		t.Errorf("%v\n%s\nwant\n%s", err, buf.String(), list)
	}
}

func TestTablesGiveWayToTheTerminal(t *testing.T) {
	long := strings.Repeat("a_long_name_", 5)
	failed := schedule.Execution{
		View: long, Status: schedule.Failed, StartedAt: at, EndedAt: ptr(at.Add(time.Second)), ErrorMessage: ptr(strings.Repeat("wörds 世界 ", 40)),
	}
	for _, width := range []int{60, 80, 120} {
		var buf bytes.Buffer
		if err := (report.Printer{W: &buf, Width: width}).Run([]schedule.Execution{failed, succeeded("a.b")}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(buf.String()) {
			if n := columns(line); n > width {
				t.Errorf("%d columns on a terminal of %d: %s", n, width, line)
			}
		}
	}
	var buf bytes.Buffer
	if err := (report.Printer{W: &buf}).Run([]schedule.Execution{failed}); err != nil || !strings.Contains(buf.String(), long) {
		t.Errorf("piped, nothing is shortened: %v %s", err, buf.String())
	}
}

// Names of one table can be told apart at any width, and what matters least makes room for them.
func TestNamesStayApart(t *testing.T) {
	for _, names := range [][]string{
		{"public.sales_merge_by_day", "public.sales_merge_by_week", "public.sales_merge_by_month"},
		{"public.daily_2024_report_of_all_sales", "public.daily_2025_report_of_all_sales"},
		{"public.daily_a_report_of_all_sales_b", "public.daily_b_report_of_all_sales_b", "public.daily_a_report_of_all_sales_a"}, // at both ends
		{"a_schema.events_of_the_year", "b_schema.events_of_the_year"},
	} {
		var standings []schedule.Standing
		for _, name := range names {
			s := standing(name)
			s.Materialization, s.RowsLeft, s.RowsSetAside = schedule.MaterializedColumns, ptr(int64(30_000)), ptr(int64(12))
			s.MaxLag, s.ReachableLag, s.State = ptr(time.Second), ptr(1500*time.Millisecond), schedule.StateLate
			standings = append(standings, s)
		}
		for width := 60; width <= 120; width += 10 {
			var buf bytes.Buffer
			if err := (report.Printer{W: &buf, Format: report.Table, Width: width}).Status(standings); err != nil {
				t.Fatal(err)
			}
			var shown []string // a name that goes on in the next line is put together again
			for line := range strings.Lines(buf.String()) {
				if n := columns(line); n > width {
					t.Errorf("%d columns on a terminal of %d: %s", n, width, line)
				}
				switch first, rest, _ := strings.Cut(line, "  "); {
				case strings.Contains(rest, "late"):
					shown = append(shown, first)
				case len(shown) > 0:
					shown[len(shown)-1] += strings.TrimSpace(first)
				}
			}
			if unique := slices.Compact(slices.Sorted(slices.Values(shown))); len(unique) != len(names) {
				t.Errorf("%d names of %d at %d:\n%s", len(unique), len(names), width, buf.String())
			}
		}
	}
}

// What goes on in the next line breaks between words, and in a long one where it has a joint.
func TestListBreaksBetweenWords(t *testing.T) {
	var buf bytes.Buffer
	err := report.Printer{W: &buf, Format: report.Table, Width: 80}.Schedules([]schedule.Schedule{{
		View: "public.sales_by_day", Materialization: schedule.MergeTable, Kind: schedule.KindCron, Cron: ptr("30 4 * * 1-5"), Timezone: "Europe/Berlin",
		Timeout: 30 * time.Minute, Strategy: "auto", Retries: 3, MergeSource: ptr("public.sales_by_day_source"), MergeKey: []string{"day"},
		Parameters: schedule.Parameters{"work_mem": "256MB"},
	}})
	const want = `VIEW                 KIND   WHEN           TIMEOUT  STRATEGY  OPTIONS
public.sales_by_day  merge  cron 30 4 * *      30m  auto      from
                            1-5                               public.sales_by_
                            Europe/Berlin                     day_source by day,
                                                              work_mem=256MB
`
	if err != nil || buf.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, buf.String(), want)
	}
}

// columns counts the wide characters of the test twice.
func columns(line string) int {
	n := 0
	for _, r := range strings.TrimRight(line, "\n") {
		n++
		if r == '世' || r == '界' {
			n++
		}
	}
	return n
}

func TestEmptyLists(t *testing.T) {
	for format, want := range map[report.Format]string{report.Table: "", report.JSON: "[]\n"} {
		var buf bytes.Buffer
		p := report.Printer{W: &buf, Format: format}
		if err := p.Status(nil); err != nil || buf.String() != want {
			t.Errorf("%s: %v %q", format, err, buf.String())
		}
		buf.Reset()
		if err := p.Findings(nil); err != nil || buf.String() != want {
			t.Errorf("%s: %v %q", format, err, buf.String())
		}
	}
}

// The keys and types that scripts rely on.
func TestJSON(t *testing.T) {
	var buf bytes.Buffer
	p := report.Printer{W: &buf, Format: report.JSON}
	if err := p.Status([]schedule.Standing{standing("public.a"), {View: "public.b", State: schedule.StateNever, Queue: "default"}}); err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(buf.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{
			"view": "public.a", "state": "fresh", "data_as_of": "2026-11-21T10:00:00Z", "age_seconds": 12.0, "max_lag_seconds": nil,
			"next_run_at": "2026-11-21T10:05:00Z", "consecutive_failures": 0.0, "queue": "default", "parents": nil, "size_bytes": 8192.0, "running": nil, "kind": "view",
			"rows_left": nil, "rows_per_second": nil, "seconds_left": nil, "rows_set_aside": nil,
			"last": map[string]any{
				"status": "succeeded", "reason": nil, "method": "concurrently", "scheduled_at": nil, "started_at": "2026-11-21T10:00:00Z",
				"ended_at": "2026-11-21T10:00:01.2Z", "duration_seconds": 1.2, "rows_inserted": 12.0, "rows_deleted": 3.0, "error_name": nil, "error_message": nil,
			},
		},
		{
			"view": "public.b", "state": "never", "data_as_of": nil, "age_seconds": nil, "max_lag_seconds": nil, "next_run_at": nil, "last": nil,
			"consecutive_failures": 0.0, "queue": "default", "parents": nil, "size_bytes": 0.0, "running": nil, "kind": "view",
			"rows_left": nil, "rows_per_second": nil, "seconds_left": nil, "rows_set_aside": nil,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v\nwant\n%v", got, want)
	}
}

func TestFindings(t *testing.T) {
	findings := []schedule.Finding{
		{Severity: schedule.SeverityError, Check: "missing", View: "public.v", Message: "there is no such view", Fix: ptr("mvsched remove public.v")},
		{Severity: schedule.SeverityAdvice, Check: "pooler", Message: "a pooler stands before the server"},
	}
	for format, want := range map[report.Format]string{
		report.Table: "" +
			"error: missing public.v\n  there is no such\n  view\n  fix: mvsched remove public.v\n\n" +
			"advice: pooler\n  a pooler stands\n  before the server\n",
		report.JSON: `[
  {
    "severity": "error",
    "check": "missing",
    "view": "public.v",
    "message": "there is no such view",
    "fix": "mvsched remove public.v"
  },
  {
    "severity": "advice",
    "check": "pooler",
    "view": null,
    "message": "a pooler stands before the server",
    "fix": null
  }
]
`,
	} {
		var buf bytes.Buffer
		p := report.Printer{W: &buf, Format: format, Width: 20} // a fix is never shortened
		if err := p.Findings(findings); err != nil || buf.String() != want {
			t.Errorf("%v\n%s\nwant\n%s", err, buf.String(), want)
		}
	}
}

// I8: what a view is called or an error says cannot command a terminal, nor pass for a line of its own.
func TestHostileText(t *testing.T) {
	e := succeeded("public.\"\x1b[2J\u202ex\x07\n::error::y\"")
	e.Status, e.ErrorMessage = schedule.Failed, ptr("a\r\nVIEW  fake\tb\u009b1m\xff")
	for _, format := range []report.Format{report.Table, report.JSON} {
		var buf bytes.Buffer
		p := report.Printer{W: report.NewCleanWriter(&buf), Format: format}
		if err := p.Executions([]schedule.Execution{e}, false); err != nil {
			t.Fatal(err)
		}
		if bad := strings.IndexFunc(buf.String(), forbidden); bad >= 0 || !utf8.Valid(buf.Bytes()) {
			t.Errorf("%s: %q", format, buf.String())
		}
		if lines := strings.Count(buf.String(), "\n"); format == report.Table && lines != 2 {
			t.Errorf("%d lines: %s", lines, buf.String())
		}
		if format == report.JSON {
			var back []struct{ View string }
			if err := json.Unmarshal(buf.Bytes(), &back); err != nil || back[0].View != e.View {
				t.Errorf("%v %q", err, back)
			}
		}
	}
}

// commandLine is what a CI service takes for a command.
var commandLine = regexp.MustCompile(`(?m)^[\s\p{Z}]*::|##[A-Za-z]*\[`)

func TestNothingCommandsACIService(t *testing.T) {
	for text, want := range map[string]string{
		"::error::x": `\u003a:error::x`, "a\n  ::stop-commands::x\n": "a\n  \\u003a:stop-commands::x\n", "\u00a0::debug::": "\u00a0\\u003a:debug::",
		"a ##[error]x": `a \u0023#[error]x`, "##vso[task.complete]": `\u0023#vso[task.complete]`, "###[x": `#\u0023#[x`,
		"a::int ## [b] #[c]": "a::int ## [b] #[c]",
	} {
		var out bytes.Buffer
		if _, err := report.NewCleanWriter(&out).Write([]byte(text)); err != nil || out.String() != want {
			t.Errorf("%v: %q, want %q", err, out.String(), want)
		}
	}
}

func forbidden(r rune) bool {
	return r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// The law: whatever goes in, what comes out is text without commands, and cleaning it again changes nothing.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[31m", "a\x00b", "\xff\xfe", "\u202e", "\u009b", "tab\tand\nline", "\ufffd", "é世", "::error::x", "##[x", "\n\v ::\x00:: ##vso["} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var once, twice bytes.Buffer
		if n, err := report.NewCleanWriter(&once).Write([]byte(s)); err != nil || n != len(s) {
			t.Fatalf("%d, %v", n, err)
		}
		if !utf8.Valid(once.Bytes()) || strings.ContainsFunc(once.String(), forbidden) || commandLine.MatchString(once.String()) {
			t.Fatalf("%q became %q", s, once.String())
		}
		if _, err := report.NewCleanWriter(&twice).Write(once.Bytes()); err != nil || twice.String() != once.String() {
			t.Fatalf("%q became %q, then %q", s, once.String(), twice.String())
		}
		if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
			return forbidden(r) || r == 0x061c || r == 0x200e || r == 0x200f || r == 0x2028 || r == 0x2029 || r == 0xfeff
		}) && !commandLine.MatchString(s) && once.String() != s {
			t.Fatalf("harmless %q became %q", s, once.String())
		}
	})
}

func TestLive(t *testing.T) {
	screen := make(chan string, 100)
	live := report.NewLive(writerFunc(func(p []byte) { screen <- string(p) }), sized(60, 24))
	live.Started(schedule.Claim{ExecutionID: 1, View: "cinema.\x1bvenue_view", Usual: ptr(14 * time.Second)})
	if got := <-screen; got != "cinema.\\u001bvenue_view  refreshing for 0s, usually 14s\n" {
		t.Errorf("%q", got)
	}
	live.Ended(schedule.Execution{ID: 1})
	if got := <-screen; !strings.HasPrefix(got, "\x1b[1A\x1b[J") {
		t.Errorf("%q", got)
	}
	live.Stop()
}

// What is said while lines are drawn stays above them.
func TestLiveKeepsWhatIsSaid(t *testing.T) {
	screen := make(chan string, 100)
	live := report.NewLive(writerFunc(func(p []byte) { screen <- string(p) }), sized(60, 24))
	live.Started(schedule.Claim{ExecutionID: 1, View: "public.a"})
	if got := <-screen; !strings.HasPrefix(got, "public.a  refreshing") {
		t.Errorf("%q", got)
	}
	_, _ = live.Write([]byte("note: one\nnote: two\n"))
	const again = "\x1b[1A\x1b[J"
	for got := range screen {
		if !strings.HasPrefix(got, again) {
			t.Fatalf("it leaves its line: %q", got)
		}
		if said, line, _ := strings.Cut(strings.TrimPrefix(got, again), "two\n"); said != "" && line != "" {
			if said != "note: one\nnote: " || !strings.HasPrefix(line, "public.a  refreshing") {
				t.Errorf("%q", got)
			}
			break
		}
	}
	if got := <-screen; !strings.HasPrefix(got, again+"public.a") {
		t.Errorf("it clears more than its line: %q", got)
	}
	live.Stop()
	_, _ = live.Write([]byte("error: three\n"))
	close(screen)
	var last string
	for last = range screen {
		continue
	}
	if last != "error: three\n" {
		t.Errorf("%q", last)
	}
}

// There are never more lines than the terminal has, nor wider ones, whatever becomes of it.
func TestLiveFits(t *testing.T) {
	var columns, lines atomic.Int64
	var screen atomic.Pointer[string]
	live := report.NewLive(writerFunc(func(p []byte) { screen.Store(ptr(string(p))) }), func() (int, int) { return int(columns.Load()), int(lines.Load()) })
	defer live.Stop()
	for i := range 40 {
		live.Started(schedule.Claim{ExecutionID: int64(i), View: fmt.Sprintf("public.v%d", i)})
	}
	for _, c := range []struct {
		columns, lines int64
		drawn          int
		last           string
	}{
		{60, 24, 23, "… 18 more"},
		{20, 8, 7, "… 34 more"},
		{60, 41, 40, "public.v39  refreshing for 0s"},
		{60, 40, 39, "… 2 more"},
		{60, 2, 1, "… 40 more"},
		{60, 1, 1, "… 40 more"},
		{60, 0, 40, "public.v39  refreshing for 0s"},
	} {
		columns.Store(c.columns)
		lines.Store(c.lines)
		_, _ = live.Write(nil)
		text := cleared.ReplaceAllString(strings.TrimSuffix(*screen.Load(), "\n"), "")
		drawn := strings.Split(text, "\n")
		if last := drawn[len(drawn)-1]; len(drawn) != c.drawn || last != c.last {
			t.Errorf("%dx%d: %d lines, the last %q", c.columns, c.lines, len(drawn), last)
		}
		for _, line := range drawn {
			if utf8.RuneCountInString(line) >= int(c.columns) {
				t.Errorf("%dx%d: %q", c.columns, c.lines, line)
			}
		}
	}
}

// cleared is what takes lines away.
var cleared = regexp.MustCompile("^\x1b\\[\\d+A\x1b\\[J")

func sized(columns, lines int) func() (int, int) {
	return func() (int, int) { return columns, lines }
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

// A terminal shows above the history how long refreshes took; what is piped has a line for every execution and no more.
func TestTrends(t *testing.T) {
	inUTC(t)
	var executions []schedule.Execution
	for i, took := range []time.Duration{8, 1, 0, 4} { // newest first
		e := succeeded("public.a")
		e.EndedAt = ptr(at.Add(took * time.Second))
		if took == 0 {
			e.Status = schedule.Failed
		}
		executions = append(executions, e, succeeded("public.twice"))
		if i > 1 {
			executions = executions[:len(executions)-1]
		}
	}
	for _, c := range []struct {
		printer report.Printer
		want    string
	}{
		{report.Printer{Format: report.Table, Width: 80}, "VIEW      USUALLY  AT MOST  TREND\npublic.a     4.0s     8.0s  ▅×▂█\n\nSTARTED "},
		{report.Printer{Format: report.Table, Width: 80, ASCII: true}, "VIEW      USUALLY  AT MOST  TREND\npublic.a     4.0s     8.0s  =x.#\n\nSTARTED "},
		{report.Printer{Format: report.Table}, "STARTED "},
		{report.Printer{Format: report.Markdown, Width: 80}, "| STARTED "},
	} {
		var buf bytes.Buffer
		c.printer.W = &buf
		if err := c.printer.Executions(executions, false); err != nil || !strings.HasPrefix(buf.String(), c.want) {
			t.Errorf("%v\n%s\nwant\n%s", err, buf.String(), c.want)
		}
	}
}

// Options that are as by default go without saying; none of the others is lost, however narrow the terminal.
func TestOptionsOfSchedules(t *testing.T) {
	plain := schedule.Schedule{
		View: "public.a", Kind: schedule.KindEvery, Every: ptr(5 * time.Minute), Timezone: "UTC", Timeout: 30 * time.Minute,
		Strategy: schedule.Auto, Queue: "default", Retries: 3, MaxStaleness: time.Hour,
	}
	full := plain
	full.View, full.Kind, full.Every, full.Timezone = "public.b", schedule.KindCron, nil, "Europe/Berlin"
	full.Cron, full.Window = ptr("30 6 * * 1-5"), &schedule.Window{Start: schedule.TimeOfDay(22 * time.Hour), End: schedule.TimeOfDay(6 * time.Hour)}
	full.Jitter, full.Debounce, full.AtMostEvery, full.LockTimeout = ptr(30*time.Second), ptr(5*time.Second), ptr(time.Minute), ptr(10*time.Second)
	full.Retries, full.SuspendAfter, full.SkipUnchanged, full.OnParentFailure = 5, ptr(4), true, schedule.ParentFailureRun
	full.Vacuum, full.Queue, full.Priority, full.SearchPath = schedule.VacuumNever, "heavy", 7, ptr("cinema")
	for width, want := range map[int]string{
		0: `VIEW      WHEN      TIMEOUT  STRATEGY
public.a  every 5m      30m  auto
`,
		80: `VIEW      WHEN               TIMEOUT  STRATEGY  OPTIONS
public.a  every 5m               30m  auto      -
public.b  cron 30 6 * * 1-5      30m  auto      between 22:00-06:00
          Europe/Berlin                         Europe/Berlin, debounce
                                                5s, at most every 1m,
                                                jitter 30s, skip
                                                unchanged up to 1h, run
                                                when a parent failed,
                                                retries 5, suspend after
                                                4, lock timeout 10s,
                                                vacuum never, queue
                                                heavy, priority 7,
                                                search path cinema
`,
	} {
		schedules := []schedule.Schedule{plain, full}
		if width == 0 {
			schedules = schedules[:1]
		}
		var buf bytes.Buffer
		if err := (report.Printer{W: &buf, Format: report.Table, Width: width}).Schedules(schedules); err != nil || buf.String() != want {
			t.Errorf("%v\n%s\nwant\n%s", err, buf.String(), want)
		}
	}
}
