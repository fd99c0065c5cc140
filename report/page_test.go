package report_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"image"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// aDay is a database of so many views in layers, each refreshed all day long; some fail, some are skipped, one runs.
func aDay(views int, every time.Duration) schedule.Snapshot {
	snap := schedule.Snapshot{At: at}
	id := int64(0)
	for i := range views {
		view := fmt.Sprintf("cinema.sales_%04d_by_country_view", i)
		snap.Graph.Views = append(snap.Graph.Views, view)
		if i > 0 && i%5 != 0 {
			snap.Graph.Edges = append(snap.Graph.Edges, schedule.Edge{Parent: snap.Graph.Views[(i-1)/2], Child: view})
		}
		st := standing(view)
		if i%2 == 0 {
			st.MaxLag = ptr(time.Duration(i+5) * 2 * time.Minute)
		}
		for start := at.Add(-24*time.Hour + time.Duration(i)*time.Second); start.Before(at); start = start.Add(every) {
			id++
			e := succeeded(view)
			e.ID, e.StartedAt, e.EndedAt = id, start, ptr(start.Add(time.Duration(i%17+1)*7*time.Second))
			switch {
			case i%7 == 3 && id%5 < 2:
				e.RowsInserted, e.RowsDeleted = ptr(int64(0)), ptr(int64(0))
			case i%9 == 4 && id%3 == 0:
				e.Status, e.Reason = schedule.Skipped, ptr(schedule.ReasonUnchanged)
				e.EndedAt, e.Method, e.RowsInserted, e.RowsDeleted = ptr(start), nil, nil, nil
			case i%11 == 5 && start.After(at.Add(-3*time.Hour)):
				e.Status, e.Method, e.RowsInserted, e.RowsDeleted = schedule.Failed, nil, nil, nil
				e.ErrorName, e.ErrorMessage = ptr("division_by_zero"), ptr("division by zero\nCONTEXT: SQL function \"share\" statement 1")
				st.State, st.ConsecutiveFailures = schedule.StateFailing, st.ConsecutiveFailures+1
			}
			if e.EndedAt.After(at) {
				e.Status, e.EndedAt, e.Method, e.RowsInserted, e.RowsDeleted = schedule.Running, nil, nil, nil, nil
				st.State, st.RunningFor = schedule.StateRunning, ptr(at.Sub(start))
			} else {
				last := e
				st.Last = &last
				st.Age = ptr(at.Sub(start))
			}
			snap.Runs = append(snap.Runs, e)
		}
		switch {
		case st.State != schedule.StateFresh:
		case i%13 == 6:
			st.State = schedule.StatePaused
		case i%13 == 8:
			st.State, st.Age = schedule.StateLate, ptr(7*every)
		case i%13 == 10:
			st.State, st.NextRunIn = schedule.StateDue, ptr(-time.Second)
		}
		snap.Standings = append(snap.Standings, st)
	}
	return snap
}

func pageOf(t *testing.T, snap schedule.Snapshot, opts report.PageOptions) string {
	t.Helper()
	var buf bytes.Buffer
	if err := report.WritePage(&buf, snap, opts); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// hostilePage is a page on which everything is called what nothing should be called.
func hostilePage() schedule.Snapshot {
	snap := schedule.Snapshot{At: at.Add(time.Minute), Standings: hostileStandings(), Runs: hostileExecutions()}
	for i, st := range snap.Standings {
		snap.Graph.Views = append(snap.Graph.Views, st.View)
		if i > 0 {
			snap.Graph.Edges = append(snap.Graph.Edges, schedule.Edge{Parent: snap.Standings[(i-1)/3].View, Child: st.View})
		}
	}
	return snap
}

func TestPageGolden(t *testing.T) {
	inUTC(t)
	page := printed(t, report.HTML, 0, func(p report.Printer) error {
		return report.WritePage(p.W, hostilePage(), report.PageOptions{Database: hostile[0]})
	})
	golden(t, "status.html", page)
}

// tag is an element of a page with the text in it.
type tag struct {
	name  string
	attr  map[string]string
	row   int // which line of its table it stands in
	table string
	text  string
}

// tags reads a page. Elements within others do not add to the text.
func tags(t *testing.T, page string) (all []*tag) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(page))
	decoder.Strict, decoder.AutoClose, decoder.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var open []*tag
	row, table := 0, ""
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			one := &tag{name: token.Name.Local, attr: map[string]string{}}
			for _, a := range token.Attr {
				one.attr[a.Name.Local] = a.Value
			}
			switch one.name {
			case "table":
				row, table = -2, one.attr["class"]
			case "tr":
				row++
			}
			one.row, one.table = row, table
			open, all = append(open, one), append(all, one)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].text += string(token)
			}
		}
	}
}

// What a view is called, or an error says, is text and nothing else.
func TestPageRunsNothing(t *testing.T) {
	page := pageOf(t, hostilePage(), report.PageOptions{Database: hostile[0]})
	elements := strings.Fields(`html head meta title style body a main header p h1 h2 ul li data time br section table caption thead tbody tr th td
		b small span wbr svg defs path text use g title div rect circle details summary pre code footer`)
	attributes := strings.Fields(`lang charset name content http-equiv class href id value datetime scope tabindex role width height viewBox fill
		d preserveAspectRatio x y text-anchor font-family font-size stroke rx cx cy r stroke-dasharray`)
	for _, one := range tags(t, page) {
		if !slices.Contains(elements, one.name) {
			t.Errorf("an element %s", one.name)
		}
		for name, value := range one.attr {
			if !slices.Contains(attributes, name) && !strings.HasPrefix(name, "data-") && !strings.HasPrefix(name, "aria-") {
				t.Errorf("an attribute %s", name)
			}
			if name == "href" && !strings.HasPrefix(value, "#") && value != "https://github.com/mvsched/mvsched" {
				t.Errorf("a link to %s", value)
			}
		}
	}
}

// The live page is that page with a script of its own, at a place of its own.
func TestPageLive(t *testing.T) {
	var scripts []string
	for _, one := range tags(t, pageOf(t, hostilePage(), report.PageOptions{Live: true})) {
		if one.name == "script" {
			scripts = append(scripts, one.attr["src"]+one.text)
		}
	}
	if len(scripts) != 1 || scripts[0] != "live.js" {
		t.Errorf("%q", scripts)
	}
}

func TestPageStyleSource(t *testing.T) {
	page := pageOf(t, hostilePage(), report.PageOptions{})
	_, style, _ := strings.Cut(page, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; report.PageStyleSource() != want {
		t.Errorf("%s, want %s", report.PageStyleSource(), want)
	}
	if strings.Contains(page, " style=") {
		t.Error("a style that no policy with a hash allows")
	}
}

// Whatever number stands in the status is that of JSON.
func TestPageHasTheNumbersOfJSON(t *testing.T) {
	for name, snap := range map[string]schedule.Snapshot{"hostile": hostilePage(), "a day": aDay(30, 20*time.Minute)} {
		t.Run(name, func(t *testing.T) {
			var objects []map[string]any
			text := printed(t, report.JSON, 0, func(p report.Printer) error { return p.Status(snap.Standings) })
			if err := json.Unmarshal([]byte(text), &objects); err != nil {
				t.Fatal(err)
			}
			rows, seen := -1, 0
			counts, keys := map[string]float64{}, map[string]int{}
			for _, one := range tags(t, pageOf(t, snap, report.PageOptions{})) {
				if state := one.attr["data-count"]; state != "" {
					counts[state], _ = strconv.ParseFloat(one.attr["value"], 64)
				}
				if one.table != "status" || one.row < 0 {
					continue
				}
				if one.name == "tr" {
					if rows++; unescape(t, one.attr["data-view"]) != objects[rows]["view"] || one.attr["data-state"] != objects[rows]["state"] {
						t.Errorf("%q, want %q", one.attr, objects[rows])
					}
				}
				key := one.attr["data-key"]
				if key == "" {
					continue
				}
				seen++
				var want any = objects[rows]
				for part := range strings.SplitSeq(key, ".") {
					if list, ok := want.([]any); ok {
						i, err := strconv.Atoi(part)
						if err != nil {
							t.Fatal(err)
						}
						want = list[i]
					} else {
						want = want.(map[string]any)[part]
					}
				}
				keys[key]++
				var got any = one.attr["datetime"]
				if one.name == "data" {
					number, err := strconv.ParseFloat(one.attr["value"], 64)
					if err != nil {
						t.Error(err)
					}
					got = number
				}
				if got != want {
					t.Errorf("%s of %s is %v, want %v", key, objects[rows]["view"], got, want)
				}
			}
			if rows+1 != len(objects) || seen < 4*len(objects) {
				t.Errorf("%d rows, %d numbers; want %d rows", rows+1, seen, len(objects))
			}
			if name == "hostile" && (keys["running.elapsed_seconds"] == 0 || keys["running.usual_seconds"] == 0 || keys["running.blocked_by.0.pid"] == 0) {
				t.Errorf("what runs does not say so: %v", keys)
			}
			for _, object := range objects {
				counts[object["state"].(string)]--
			}
			for state, rest := range counts {
				if rest != 0 {
					t.Errorf("%v too many %s", rest, state)
				}
			}
		})
	}
}

// A page of many views is one that a browser opens: the status is whole, and the rest is summed up.
func TestPageOfManyViews(t *testing.T) {
	snap := aDay(2000, 20*time.Minute)
	page := pageOf(t, snap, report.PageOptions{})
	if len(page) > 5_000_000 {
		t.Errorf("%d bytes", len(page))
	}
	rows, nodes, runs := 0, 0, 0
	for _, one := range tags(t, page) {
		switch {
		case one.name == "tr" && one.table == "status" && one.row >= 0:
			rows++
		case one.name == "rect":
			nodes++
		case one.table == "timeline" && one.attr["data-key"] == "runs":
			n, err := strconv.Atoi(one.attr["value"])
			if err != nil {
				t.Error(err)
			}
			runs += n
		}
	}
	if rows != len(snap.Standings) || nodes == 0 || nodes > 120 || runs != len(snap.Runs) {
		t.Errorf("%d rows, %d nodes, %d runs; want %d rows and %d runs", rows, nodes, runs, len(snap.Standings), len(snap.Runs))
	}
}

// Where a day had more runs than a snapshot keeps, the page does not pretend to know the others.
func TestPageSaysSinceWhenItKnowsTheRuns(t *testing.T) {
	inUTC(t)
	for every, want := range map[time.Duration]string{
		time.Minute:            "runs in 24 hours",
		400 * time.Millisecond: "runs since Nov 21 07:46",
	} {
		snap := schedule.Snapshot{At: at}
		for i := range 20_000 {
			e := succeeded("cinema.venue_view")
			e.StartedAt = at.Add(-time.Duration(i+1) * every)
			e.EndedAt = &e.StartedAt
			if at.Sub(e.StartedAt) < 24*time.Hour {
				snap.Runs = append(snap.Runs, e)
			}
		}
		if page := pageOf(t, snap, report.PageOptions{}); !strings.Contains(page, want) {
			t.Errorf("a run every %s: no %q in %s", every, want, page[strings.Index(page, "<main"):][:1000])
		}
	}
}

// marks are the titles of what is drawn on the timeline, by the way it is drawn.
func marks(t *testing.T, runs ...schedule.Execution) map[string]string {
	t.Helper()
	inUTC(t)
	found := map[string]string{}
	_, page, _ := strings.Cut(pageOf(t, schedule.Snapshot{At: at, Runs: runs}, report.PageOptions{}), `<table class="timeline">`)
	for _, part := range strings.Split(page, `d="`)[1:] {
		path, rest, _ := strings.Cut(part, `"`)
		if title, ok := strings.CutPrefix(rest, "><title>"); ok {
			title, _, _ = strings.Cut(title, "</title>")
			found[path] = html.UnescapeString(title)
		}
	}
	return found
}

func TestTimeline(t *testing.T) {
	run := func(before, took time.Duration) schedule.Execution {
		e := succeeded("cinema.venue_view")
		e.StartedAt, e.EndedAt = at.Add(-before), ptr(at.Add(took-before))
		return e
	}
	open := run(10*time.Minute, 0)
	open.Status, open.EndedAt = schedule.Running, nil
	failed := run(4*time.Hour, time.Hour)
	failed.Status, failed.ErrorName = schedule.Failed, ptr("division_by_zero")
	early := run(25*time.Hour, 2*time.Hour)
	for name, c := range map[string]struct {
		runs []schedule.Execution
		want map[string]string
	}{
		"a_run_is_as_long_as_it_took":          {[]schedule.Execution{run(12*time.Hour, time.Hour)}, map[string]string{"M720 2h60v12h-60z": "22:00:00 succeeded in 1h, +12 −3"}},
		"a_short_one_can_be_seen":              {[]schedule.Execution{run(12*time.Hour, time.Second)}, map[string]string{"M720 2h3v12h-3z": "22:00:00 succeeded in 1.0s, +12 −3"}},
		"a_failure_is_named":                   {[]schedule.Execution{failed}, map[string]string{"M1200 2h60v12h-60z": "06:00:00 failed in 1h, division_by_zero"}},
		"one_that_began_before_begins_left":    {[]schedule.Execution{early}, map[string]string{"M0 2h60v12h-60z": "09:00:00 succeeded in 2h, +12 −3"}},
		"a_running_one_points_beyond_now":      {[]schedule.Execution{open}, map[string]string{"M1430 2H1440L1460 8L1440 14H1430z": "09:50:00 running for 10m"}},
		"the_last_minute_is_on_it":             {[]schedule.Execution{run(time.Second, time.Second)}, map[string]string{"M1437 2h3v12h-3z": "09:59:59 succeeded in 1.0s, +12 −3"}},
		"those_of_three_minutes_become_one":    {[]schedule.Execution{run(12*time.Hour, time.Second), run(12*time.Hour-time.Minute, time.Second)}, map[string]string{"M720 2h3v12h-3z": "22:00 to 22:01 2 succeeded, 2.0s in all"}},
		"a_failure_stays_visible_among_others": {[]schedule.Execution{run(4*time.Hour, time.Second), failed}, map[string]string{"M1200 2h3v12h-3z": "06:00:00 succeeded in 1.0s, +12 −3", "M1200 2h60v12h-60z": "06:00:00 failed in 1h, division_by_zero"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := marks(t, c.runs...); !maps.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// Whatever reads whatever, no two views stand on each other, and, cycles left out, what a view reads is to its left.
func TestDrawing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var g schedule.Graph
		views := 2 + random.IntN(60)
		for i := range views {
			g.Views = append(g.Views, fmt.Sprintf("v%02d", i))
		}
		for range random.IntN(2 * views) {
			a, b := random.IntN(views), random.IntN(views)
			if e := (schedule.Edge{Parent: g.Views[min(a, b)], Child: g.Views[max(a, b)]}); a != b && !slices.Contains(g.Edges, e) {
				g.Edges = append(g.Edges, e)
			}
		}
		places := places(t, g)
		for _, e := range g.Edges {
			if parent, child := places[e.Parent], places[e.Child]; parent.Max.X >= child.Min.X {
				t.Errorf("%s at %v reads %s at %v", e.Child, child, e.Parent, parent)
			}
		}
	}

	circle := schedule.Graph{Views: []string{"a", "b", "c"}, Edges: []schedule.Edge{{Parent: "a", Child: "b"}, {Parent: "b", Child: "a"}, {Parent: "b", Child: "c"}}}
	if got := places(t, circle); len(got) != 3 {
		t.Errorf("%v", got)
	}
}

// places is where the views of a graph are drawn, none upon another.
func places(t *testing.T, g schedule.Graph) map[string]image.Rectangle {
	t.Helper()
	found := map[string]image.Rectangle{}
	var whole, place image.Rectangle
	for _, one := range tags(t, pageOf(t, schedule.Snapshot{At: at, Graph: g}, report.PageOptions{})) {
		number := func(name string) int { n, _ := strconv.Atoi(one.attr[name]); return n }
		x, y, width, height := number("x"), number("y"), number("width"), number("height")
		switch {
		case one.name == "svg" && strings.HasPrefix(one.attr["class"], "graph"):
			whole = image.Rect(0, 0, width, height)
		case one.name == "svg":
			place = image.Rect(x, y, x+width, y+height)
		case one.name == "title" && !whole.Empty():
			view, _, _ := strings.Cut(one.text, ":")
			if !place.In(whole) {
				t.Errorf("%s at %v is not in %v", view, place, whole)
			}
			for other, taken := range found {
				if place.Overlaps(taken) {
					t.Errorf("%s at %v stands on %s at %v", view, place, other, taken)
				}
			}
			found[view] = place
		}
	}
	return found
}
