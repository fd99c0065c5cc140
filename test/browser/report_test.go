package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// TestReport looks at the report from all sides.
func TestReport(t *testing.T) {
	snap := snapshot(t, database(t))
	b := openFile(t, pageOf(t, snap))

	t.Run("nothing_of_a_name_is_more_than_text", func(t *testing.T) {
		b := &tab{t, b.ctx}
		if found := evaluate[[]string](b, `[...document.querySelectorAll("script, img, iframe, object, link, base, form, [style], [onerror]")].map(e => e.outerHTML)`); len(found) > 0 {
			t.Errorf("%q", found)
		}
		for _, name := range hostile {
			if strings.ContainsAny(name, "\x1b\n") {
				continue
			}
			shown, err := json.Marshal(name)
			if err != nil {
				t.Fatal(err)
			}
			if !evaluate[bool](b, `[...document.querySelectorAll(".status tbody th")].some(th => th.textContent.includes(`+string(shown)+`.replaceAll('"', '""')))`) {
				t.Errorf("%q is not there", name)
			}
		}
	})

	t.Run("every_number_is_that_of_JSON", func(t *testing.T) {
		b := &tab{t, b.ctx}
		checkStatus(b, objects(t, func(p report.Printer) error { return p.Status(snap.Standings) }))
		checkRuns(b, snap.Runs)
	})

	for _, l := range looks() {
		t.Run(l.name, func(t *testing.T) {
			b := &tab{t, b.ctx}
			b.as(l)
			b.picture(l.name)
			if wide := evaluate[int64](b, "document.documentElement.scrollWidth"); wide > l.width {
				t.Errorf("%d wide on a screen of %d", wide, l.width)
			}
			if pale := evaluate[[]string](b, contrast); len(pale) > 0 {
				t.Errorf("hard to read: %q", pale)
			}
			checkRoles(b, len(snap.Standings))
		})
	}

	t.Run("the_keyboard_reaches_it", func(t *testing.T) {
		b := &tab{t, b.ctx}
		reached := map[string]bool{}
		for range 40 {
			b.do(chromedp.KeyEvent("\t"))
			reached[evaluate[string](b, `document.activeElement.className || document.activeElement.tagName`)] = true
		}
		for _, place := range []string{"skip", "A", "scroll", "SUMMARY"} {
			if !reached[place] {
				t.Errorf("%v: no %s", reached, place)
			}
		}
	})
}

// Jenkins serves artefacts so that neither style nor script runs.
func TestReportWithoutStyle(t *testing.T) {
	html := pageOf(t, snapshot(t, database(t)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", "sandbox allow-same-origin; default-src 'none'; img-src 'self'; style-src 'self'")
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write(html)
	}))
	t.Cleanup(server.Close)
	b := open(t, server.URL)
	b.picture("without_style")
	if family := evaluate[string](b, "getComputedStyle(document.body).fontFamily"); strings.Contains(family, "system-ui") {
		t.Errorf("it has a style: %s", family)
	}
	if tables := b.roles()["table"]; tables < 3 {
		t.Errorf("%d tables", tables)
	}
}

// A page of 2,000 views with a day of runs is one that a phone scrolls.
func TestReportOfManyViews(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	snap := schedule.Snapshot{At: now}
	for i := range 2000 {
		view := fmt.Sprintf("warehouse.revenue_by_customer_and_quarter_%04d", i)
		snap.Graph.Views = append(snap.Graph.Views, view)
		if i > 0 {
			snap.Graph.Edges = append(snap.Graph.Edges, schedule.Edge{Parent: snap.Graph.Views[(i-1)/3], Child: view})
		}
		run := schedule.Execution{View: view, Status: schedule.Succeeded, Method: new(schedule.MethodConcurrently), RowsInserted: new(int64(i)), RowsDeleted: new(int64(0))}
		for ago := 24 * time.Hour; ago > 0; ago -= time.Hour {
			run.StartedAt, run.EndedAt = now.Add(-ago), new(now.Add(time.Duration(i%60)*time.Second-ago))
			snap.Runs = append(snap.Runs, run)
		}
		snap.Standings = append(snap.Standings, schedule.Standing{
			View: view, State: schedule.StateFresh, DataAsOf: &run.StartedAt, Age: new(time.Hour), MaxLag: new(2 * time.Hour), Last: &run, Queue: "default", SizeBytes: 1 << 20,
		})
	}
	html := pageOf(t, snap)
	b := openFile(t, html)
	paint := evaluate[float64](b, `performance.getEntriesByName("first-contentful-paint")[0].startTime`)
	t.Logf("%d bytes, first paint after %.0f ms", len(html), paint)
	for _, l := range looks() {
		b.as(l)
		if wide := evaluate[int64](b, "document.documentElement.scrollWidth"); wide > l.width {
			t.Errorf("%d wide on a screen of %d", wide, l.width)
		}
	}
	if rows := evaluate[int](b, `document.querySelectorAll(".status tbody tr").length`); rows != len(snap.Standings) {
		t.Errorf("%d rows", rows)
	}
	if drawn := evaluate[int](b, `document.querySelectorAll(".graph .box").length`); drawn == 0 || drawn > 120 {
		t.Errorf("%d views drawn", drawn)
	}
}

// checkStatus compares what stands in the status with the objects of JSON, and the counts on top.
func checkStatus(b *tab, objects []map[string]any) {
	b.Helper()
	type row struct {
		View, State string
		Values      map[string]any
	}
	rows := evaluate[[]row](b, `[...document.querySelectorAll(".status tbody tr")].map(tr => ({
		view: JSON.parse('"' + tr.dataset.view.replaceAll('"', '\\"') + '"'), state: tr.dataset.state,
		values: Object.fromEntries([...tr.querySelectorAll("[data-key]")].map(e => [e.dataset.key, e.tagName == "TIME" ? e.dateTime : Number(e.value)]))}))`)
	if len(rows) != len(objects) {
		b.Fatalf("%d rows, want %d", len(rows), len(objects))
	}
	states := map[string]int{}
	for i, object := range objects {
		states[object["state"].(string)]++
		if rows[i].View != object["view"] || rows[i].State != object["state"] {
			b.Errorf("%+v, want %v", rows[i], object)
		}
		for _, key := range strings.Fields("age_seconds max_lag_seconds next_run_at size_bytes last.ended_at last.duration_seconds last.rows_inserted last.rows_deleted running.elapsed_seconds running.usual_seconds running.blocked_by.0.pid") {
			want := member(object, key)
			if got := rows[i].Values[key]; got != want {
				b.Errorf("%s: %s is %v, want %v", rows[i].View, key, got, want)
			}
		}
		if got, want := rows[i].Values["consecutive_failures"], object["consecutive_failures"]; got != want && (got != nil || want != 0.0) {
			b.Errorf("%s: %v failures, want %v", rows[i].View, got, want)
		}
	}
	counts := evaluate[map[string]int](b, `Object.fromEntries([...document.querySelectorAll("[data-count]")].map(e => [e.dataset.count, Number(e.value)]))`)
	for state, n := range states {
		if counts[state] != n {
			b.Errorf("%d are %s, want %d", counts[state], state, n)
		}
	}
	if len(counts) != len(states) {
		b.Errorf("%v, want %v", counts, states)
	}
}

func member(object map[string]any, path string) any {
	var value any = object
	for part := range strings.SplitSeq(path, ".") {
		switch inner := value.(type) {
		case map[string]any:
			value = inner[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(inner) {
				return nil
			}
			value = inner[i]
		default:
			return nil
		}
	}
	return value
}

// checkRuns compares the sums of the day with what the history in JSON adds up to.
func checkRuns(b *tab, runs []schedule.Execution) {
	b.Helper()
	want := map[string]float64{}
	add := func(table, view, key string, n float64) { want[table+" "+view+" "+key] += n }
	for _, e := range objects(b.T, func(p report.Printer) error { return p.Executions(runs, false) }) {
		view, status, took := e["view"].(string), e["status"].(string), 0.0
		if e["duration_seconds"] != nil {
			took = e["duration_seconds"].(float64)
		}
		add("timeline", view, "runs", 1)
		switch status {
		case "failed", "timed_out", "cancelled", "abandoned":
			add("timeline", view, "failed", 1)
		case "skipped":
			add("timeline", view, "skipped", 1)
		}
		if status == "skipped" || status == "running" {
			continue
		}
		add("numbers", view, "runs", 1)
		add("numbers", view, "total_seconds", took)
		want["numbers "+view+" longest_seconds"] = max(want["numbers "+view+" longest_seconds"], took)
		if status == "succeeded" && e["rows_inserted"] == 0.0 && e["rows_deleted"] == 0.0 {
			add("numbers", view, "unchanged_runs", 1)
			add("numbers", view, "unchanged_seconds", took)
		}
	}
	type number struct {
		Table, View, Key string
		Value            float64
	}
	shown := evaluate[[]number](b, `[...document.querySelectorAll(".timeline [data-key], .numbers [data-key]")].map(e => ({
		table: e.closest("table").className, view: JSON.parse('"' + e.closest("tr").dataset.view.replaceAll('"', '\\"') + '"'),
		key: e.dataset.key, value: Number(e.value)}))`)
	if len(shown) < 30 {
		b.Errorf("%d numbers", len(shown))
	}
	for _, n := range shown {
		if diff := n.Value - want[n.Table+" "+n.View+" "+n.Key]; diff > 1e-6 || diff < -1e-6 {
			b.Errorf("%+v, want %v", n, want[n.Table+" "+n.View+" "+n.Key])
		}
	}
}

// checkRoles has the page's tables be tables to those who hear them, on a phone too.
func checkRoles(b *tab, views int) {
	b.Helper()
	roles := b.roles()
	tables := evaluate[int](b, `document.querySelectorAll("table").length`)
	rows := evaluate[int](b, `document.querySelectorAll("tbody tr").length`)
	if roles["main"] != 1 || roles["table"] != tables || roles["rowheader"] != rows || rows < views || roles["cell"] < 3*rows || roles["columnheader"] < 3*tables {
		b.Errorf("%v; %d tables with %d rows", roles, tables, rows)
	}
	if nameless := evaluate[int](b, `[...document.querySelectorAll("table")].filter(t => !t.caption || !t.caption.textContent).length`); nameless > 0 {
		b.Errorf("%d tables without a caption", nameless)
	}
}

// contrast returns the texts whose colour is too near to what is behind them for the AA of WCAG 2.
const contrast = `(() => {
	const context = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d", {willReadFrequently: true});
	const colour = css => { context.clearRect(0, 0, 1, 1); context.fillStyle = css; context.fillRect(0, 0, 1, 1); return [...context.getImageData(0, 0, 1, 1).data]; };
	const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
	const behind = e => {
		for (; e; e = e.parentElement) {
			const box = e.tagName == "svg" && e.querySelector(":scope > .box");
			const ground = colour(box ? getComputedStyle(box).fill : getComputedStyle(e).backgroundColor);
			if (ground[3] == 255) return ground;
		}
		return [255, 255, 255, 255];
	};
	const pale = [];
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let text = walk.nextNode(); text; text = walk.nextNode()) {
		const e = text.parentElement;
		if (!text.data.trim() || e.tagName == "title" || !e.getClientRects().length) continue;
		const style = getComputedStyle(e);
		const [a, b] = [luminance(colour(e.ownerSVGElement ? style.fill : style.color)), luminance(behind(e))];
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (ratio < 4.5) pale.push(ratio.toFixed(2) + " " + text.data.trim());
	}
	return pale;
})()`
