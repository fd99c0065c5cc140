package report

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// How many lines the lists of a page have that are not the status itself; the rest is counted.
const (
	maxTroubles = 8
	maxCosts    = 10
	maxFailures = 20
	maxReads    = 20    // of what one view reads, in words
	maxMessage  = 4_000 // bytes of a failure's
)

// page is what the template shows. Every text in it has passed label or clean.
type page struct {
	Title       string
	Live        bool
	Style       template.CSS
	StyleSource string

	At       cell
	Zone     string
	Since    string // from when on the runs are known, where that is less than a day
	Verdict  string
	Tone     tone
	Counts   []stateCount
	Facts    facts
	Troubles []pageTrouble
	More     int // troubles that are not shown

	Rows     []pageRow
	Omitted  int // rows that are not shown
	Timeline timeline
	Drawing  drawing
	Costs    costs
	Failures failures
}

// tone is the class that gives a state its colour. The word stands beside it, always.
type tone string

const (
	toneOK      tone = "ok"
	toneRunning tone = "run"
	toneIdle    tone = "idle"
	toneWarn    tone = "warn"
	toneBad     tone = "bad"
)

func toneOf(state schedule.State) tone {
	switch state {
	case schedule.StateFresh:
		return toneOK
	case schedule.StateRunning:
		return toneRunning
	case schedule.StateNever, schedule.StateBlocked:
		return toneWarn
	case schedule.StateMissing, schedule.StateSuspended, schedule.StateFailing, schedule.StateLate:
		return toneBad
	default:
		return toneIdle
	}
}

// cell is a value as people read it, and as JSON has it. Without a key there is only the text.
type cell struct {
	Key, Value, Text string
	Instant          bool
}

var nothing = cell{Text: "–"}

func secondsCell(key string, d *time.Duration, text string) cell {
	if d == nil {
		return nothing
	}
	return cell{Key: key, Value: strconv.FormatFloat(*secondsOf(d), 'f', -1, 64), Text: text}
}

func integerCell[N int | int64](key string, n N, text string) cell {
	return cell{Key: key, Value: strconv.FormatInt(int64(n), 10), Text: text}
}

func instantCell(key string, t *time.Time, text string) cell {
	if t == nil {
		return cell{Text: text}
	}
	return cell{Key: key, Value: t.UTC().Format(time.RFC3339Nano), Text: text, Instant: true}
}

// viewName is the name of a view as people read it. It may be broken where a word ends.
type viewName string

// Parts returns the words of the name.
func (n viewName) Parts() (parts []string) {
	word := 0
	for i, r := range n {
		if (r == '.' || r == '_') && i > word {
			parts, word = append(parts, string(n[word:i+1])), i+1
		}
	}
	return append(parts, string(n[word:]))
}

// pageRow is a line of the status, in the order that JSON has.
type pageRow struct {
	ID       int
	View     string // exact, for programs
	Name     viewName
	State    schedule.State
	Tone     tone
	Failures cell
	Queue    string // "" for the default one
	Kind     string // "" for a view
	Age      cell
	DataAsOf cell
	Target   cell
	Bar      *bar
	Running  *pageRun
	Next     cell
	Ended    cell
	Status   string // "" when it succeeded
	Why      string // it did not
	Took     cell
	Inserted cell
	Deleted  cell
	Size     cell
}

// bar is an age beside its target, which stands at barTarget.
type bar struct {
	Width int
	Tone  tone
}

const barTarget, barWidth = 75, 100

type stateCount struct {
	State schedule.State
	Tone  tone
	Count int
}

// facts are the day in numbers.
type facts struct {
	Views, Runs, Failed cell
	Oldest              cell
	OldestID            int
}

func newFacts(snap schedule.Snapshot) facts {
	failed := 0
	for _, e := range snap.Runs {
		if e.Status.Bad() {
			failed++
		}
	}
	plain := func(key string, n int) cell { return integerCell(key, n, grouped(int64(n))) }
	f := facts{Views: plain("views", len(snap.Standings)), Runs: plain("runs", len(snap.Runs)), Failed: plain("failed", failed), Oldest: nothing}
	var oldest *time.Duration
	for i, s := range snap.Standings {
		if s.Age != nil && (oldest == nil || *s.Age > *oldest) {
			oldest, f.OldestID = s.Age, i
		}
	}
	if oldest != nil {
		f.Oldest = secondsCell("oldest_seconds", oldest, age(oldest))
	}
	return f
}

type pageTrouble struct {
	ID   int
	Name viewName
	What string
	Tone tone
}

func newPage(snap schedule.Snapshot, opts PageOptions, thrift thrift) page {
	p := page{
		Title: "Materialized views", Live: opts.Live, Style: template.CSS(pageStyle), StyleSource: PageStyleSource(), //nolint:gosec // our own file
		At: instantCell("at", &snap.At, clockTime(snap.At)), Zone: snap.At.Local().Format("MST"),
	}
	if opts.Database != "" {
		p.Title += " of " + label(opts.Database)
	}
	if since := snap.Since(); since.After(snap.At.Add(-schedule.Day)) {
		p.Since = shortTime(since)
	}
	ids := make([]int, len(snap.Standings))
	for i := range ids {
		ids[i] = i
	}
	for _, i := range foremost(ids, thrift.rows, func(i int) bool { return urgency(snap.Standings[i].State) == 0 }) {
		p.Rows = append(p.Rows, newPageRow(i, snap.Standings[i], snap.At, thrift))
	}
	p.Omitted = len(ids) - len(p.Rows)
	p.judge(snap.Standings)
	p.Facts = newFacts(snap)
	p.Timeline = newTimeline(snap, thrift)
	p.Drawing = newDrawing(snap.Graph, snap.Standings)
	p.Costs = newCosts(snap.Runs)
	p.Failures = newFailures(snap.Runs)
	return p
}

// judge sums up: how many views are in each state, and what deserves a look.
func (p *page) judge(standings []schedule.Standing) {
	byState := map[schedule.State]int{}
	worst := schedule.Healthy
	for _, s := range standings {
		byState[s.State]++
	}
	for _, state := range slices.Concat(troubles, calm) {
		if n := byState[state]; n > 0 {
			p.Counts = append(p.Counts, stateCount{state, toneOf(state), n})
		}
	}
	for _, health := range []schedule.Health{schedule.Critical, schedule.Warning} {
		for i, s := range standings {
			state, h := s.Judge(nil)
			if h != health {
				continue
			}
			worst = max(worst, h)
			if len(p.Troubles) == maxTroubles {
				p.More++
				continue
			}
			t := pageTrouble{ID: i, Name: viewName(label(s.View)), What: fit(label(cut(firstLine(trouble(s, state)), 400)), 200, "…"), Tone: toneWarn}
			if h == schedule.Critical {
				t.Tone = toneBad
			}
			p.Troubles = append(p.Troubles, t)
		}
	}
	switch {
	case len(standings) == 0:
		p.Verdict, p.Tone = "Nothing is scheduled yet", toneIdle
	case worst == schedule.Critical:
		p.Verdict, p.Tone = "In trouble", toneBad
	case worst == schedule.Warning:
		p.Verdict, p.Tone = "Worth a look", toneWarn
	default:
		p.Verdict, p.Tone = "All is well", toneOK
	}
}

func newPageRow(id int, s schedule.Standing, at time.Time, thrift thrift) pageRow {
	r := pageRow{
		ID: id, View: exact(s.View), Name: viewName(label(s.View)), State: s.State, Tone: toneOf(s.State),
		Failures: integerCell("consecutive_failures", s.ConsecutiveFailures, fmt.Sprintf("%d× in a row", s.ConsecutiveFailures)),
		Age:      secondsCell("age_seconds", s.Age, age(s.Age)), DataAsOf: nothing, Target: nothing, Ended: nothing, Took: nothing, Inserted: nothing,
		Next: instantCell("next_run_at", s.NextRunAt, dash(nextRun(s))), Size: integerCell("size_bytes", s.SizeBytes, ByteSize(s.SizeBytes)),
	}
	if kind := kindOf(s.Materialization); kind != string(schedule.MaterializedView) {
		r.Kind = kind
	}
	if s.Queue != "default" {
		r.Queue = label(s.Queue)
	}
	if s.DataAsOf != nil {
		r.DataAsOf = instantCell("data_as_of", s.DataAsOf, clockTime(*s.DataAsOf))
	}
	if s.MaxLag != nil {
		r.Target = secondsCell("max_lag_seconds", s.MaxLag, target(s.MaxLag, s.ReachableLag, s.Unreachable()))
		r.Bar = newBar(s.Age, *s.MaxLag)
	}
	r.Running = newPageRun(s, thrift.blockers)
	if last := s.Last; last != nil && last.EndedAt != nil {
		ago := max(at.Sub(*last.EndedAt), 0)
		r.Ended = instantCell("last.ended_at", last.EndedAt, age(&ago)+" ago")
		took := last.Duration()
		r.Took = secondsCell("last.duration_seconds", &took, schedule.FormatSpan(took))
		if last.RowsInserted != nil && last.RowsDeleted != nil {
			r.Inserted = integerCell("last.rows_inserted", *last.RowsInserted, "+"+grouped(*last.RowsInserted))
			r.Deleted = integerCell("last.rows_deleted", *last.RowsDeleted, "−"+grouped(*last.RowsDeleted))
		}
		if last.Status != schedule.Succeeded {
			r.Status = string(last.Status)
			r.Why = fit(label(cut(firstLine(detail(*last)), 2*thrift.why)), thrift.why, "…")
		}
	}
	return r
}

// pageRun is the refresh that is running: for how long, how long that usually takes, and who stands in its way.
type pageRun struct {
	Elapsed, Usual cell
	Bar            *bar
	Blockers       []pageBlocker
	More           int // blockers that are not shown
}

type pageBlocker struct {
	User string
	PID  cell // nothing: a prepared transaction
}

func newPageRun(s schedule.Standing, most int) *pageRun {
	if s.RunningFor == nil {
		return nil
	}
	r := &pageRun{Elapsed: secondsCell("running.elapsed_seconds", s.RunningFor, age(s.RunningFor)), Usual: nothing}
	if s.Usual != nil {
		r.Usual = secondsCell("running.usual_seconds", s.Usual, schedule.FormatSpan(*s.Usual))
		if r.Bar = newBar(s.RunningFor, *s.Usual); r.Bar != nil {
			r.Bar.Tone = toneRunning
		}
	}
	for i, b := range s.Blockers {
		if i == most {
			r.More = len(s.Blockers) - i
			break
		}
		who := pageBlocker{User: label(cmp.Or(b.User, "unknown")), PID: nothing}
		if b.PID != 0 {
			who.PID = integerCell(fmt.Sprintf("running.blocked_by.%d.pid", i), b.PID, strconv.Itoa(b.PID))
		}
		r.Blockers = append(r.Blockers, who)
	}
	return r
}

func newBar(age *time.Duration, target time.Duration) *bar {
	if age == nil || target <= 0 {
		return nil
	}
	b := bar{Width: int(min(float64(barTarget)*age.Seconds()/target.Seconds(), barWidth)), Tone: toneOK}
	if *age > target {
		b.Tone = toneBad
	}
	return &b
}

// firstLine is what an error says; what follows tells where.
func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

func dash(s string) string {
	if s == "-" {
		return nothing.Text
	}
	return s
}

// grouped is a number whose digits can be counted at a glance.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, r := range digits {
		if left := len(digits) - i; i > 0 && left%3 == 0 && digits[i-1] != '-' {
			b.WriteString("\u202f") // a narrow space that does not break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// ByteSize is a size as pg_size_pretty has it.
func ByteSize(n int64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	for _, unit := range units[:len(units)-1] {
		if n < 10*1024 {
			return fmt.Sprintf("%d %s", n, unit)
		}
		n = (n + 512) / 1024
	}
	return fmt.Sprintf("%d %s", n, units[len(units)-1])
}
