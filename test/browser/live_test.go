package browser

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// program builds the program, and returns how to start it on the database of this test.
func program(t *testing.T) func(args ...string) *exec.Cmd {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mvsched")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", file, "./cmd/mvsched")
	build.Dir = filepath.Join("..", "..")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	dsn := pgtest.DSN(t)
	return func(args ...string) *exec.Cmd {
		cmd := exec.Command(file, args...)
		cmd.Env = append(os.Environ(), "DATABASE_URL="+dsn)
		return cmd
	}
}

// serve starts the program with a page, and returns where that is, and what ends it. The end of the test does so, too.
func serve(t *testing.T, cmd *exec.Cmd) (url string, stop func()) {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	ended := make(chan error, 1)
	stop = func() {
		if ended == nil {
			return
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		ended = nil
	}
	for url == "" && lines.Scan() {
		_, url, _ = strings.Cut(lines.Text(), "status page: ")
	}
	go func() {
		for lines.Scan() { // so that it never waits for us
		}
		ended <- cmd.Wait()
	}()
	t.Cleanup(stop)
	if url == "" {
		t.Fatal("serve did not say where its page is")
	}
	return url, stop
}

// until waits until an expression is true of the page, and returns when that was. A page that says that it will be there in
// a moment is loaded again.
func (b *tab) until(expression string) time.Time {
	b.Helper()
	for {
		milliseconds, err := chromedp.Run(b.ctx, chromedp.Evaluate[float64](`new Promise(resolve => {
			const look = () => (`+expression+`) && resolve(Date.now());
			new MutationObserver(look).observe(document.documentElement, {childList: true, subtree: true, characterData: true, attributes: true});
			look();
		})`, chromedp.EvalAwaitPromise))
		switch {
		case err == nil:
			return time.UnixMilli(int64(milliseconds))
		case b.ctx.Err() != nil || !strings.Contains(err.Error(), "navigated"):
			b.Fatalf("waiting for %s: %v", expression, err)
		}
	}
}

// awaitsEnd has the page remember when it first shows that a run of a view has ended, for sawEnd.
func (b *tab) awaitsEnd(view string) {
	b.Helper()
	ended := cellOf(view, "last.ended_at")
	evaluate[bool](b, `(() => {
		const before = `+ended+`.dateTime;
		window.end = new Promise(resolve => new MutationObserver(() => {
			const now = `+ended+`;
			if (!now || now.dateTime !== before) resolve(Date.now());
		}).observe(document.documentElement, {childList: true, subtree: true}));
		return true;
	})()`)
}

func (b *tab) sawEnd() time.Time {
	b.Helper()
	milliseconds, err := chromedp.Run(b.ctx, chromedp.Evaluate[float64]("window.end", chromedp.EvalAwaitPromise))
	if err != nil {
		b.Fatal(err)
	}
	return time.UnixMilli(int64(milliseconds))
}

// cellOf is an expression for what stands in the status about a view.
func cellOf(view, key string) string {
	return fmt.Sprintf("document.querySelector(`.status tr[data-view=%q] [data-key=%q]`)", view, key)
}

// Whoever looks at the page sees a refresh within a second after it has committed.
func TestLive(t *testing.T) {
	db := pgtest.NewDB(t)
	db.Exec("create table public.sale (amount integer)")
	db.Exec("create materialized view public.sales as select row_number() over () as n, amount from public.sale")
	db.Exec("create unique index on public.sales (n)")
	db.Exec(`create materialized view public."<script>alert(1)</script>" as select 1 as id`)
	db.Exec("create materialized view public.sales_by_day_of_the_week as select * from public.sales")
	db.Exec("create materialized view public.sales_by_day_and_country as select * from public.sales_by_day_of_the_week")
	db.Schedule("public.sales", "1 day")
	db.Schedule(`public."<script>alert(1)</script>"`, "1 day")
	mvsched := program(t)
	url, stop := serve(t, mvsched("serve", "--listen", "127.0.0.1:0"))
	db.Await("2", "select count(*) from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded'")

	b := open(t, url)
	b.until(cellOf("public.sales", "last.ended_at"))
	evaluate[bool](b, `document.getElementById("mvsched").first = true`)
	b.until(`!document.getElementById("mvsched").first`) // it follows what happens
	b.as(look{scheme: "light", width: 400})
	evaluate[bool](b, `document.querySelector("details").open = true`)
	evaluate[float64](b, `document.getElementById("drawing").scrollLeft = 50`)
	evaluate[bool](b, `window.scrollTo(0, 200), document.title = "what it was before", true`)

	var delays, told []time.Duration
	for i := range 5 {
		b.awaitsEnd("public.sales")
		rows := strconv.Itoa(i + 2)
		db.Exec("insert into public.sale select generate_series(1, " + rows + ")")
		if output, err := mvsched("refresh", "-q", "sales").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		seen := b.until(cellOf("public.sales", "last.rows_inserted") + "?.value == " + rows)
		committed, err := time.Parse(time.RFC3339Nano, evaluate[string](b, cellOf("public.sales", "last.ended_at")+".dateTime"))
		if err != nil {
			t.Fatal(err)
		}
		db.Check(rows, "select rows_inserted from mvsched.materialized_view_refresh_schedule_execution where ended_at = $1", committed)
		delays = append(delays, seen.Sub(committed))
		told = append(told, b.sawEnd().Sub(committed))
	}
	t.Logf("told %s, and all of it %s after the commit", told, delays)
	if slices.Max(told) > time.Second {
		t.Errorf("told only %s after the commit", told)
	}
	if slices.Min(delays) > time.Second || slices.Max(delays) > 2*time.Second { // where one follows the other, there is one look a second
		t.Errorf("seen only %s after the commit", delays)
	}
	b.picture("live")
	if !evaluate[bool](b, `document.querySelector("details").open && document.getElementById("drawing").scrollLeft == 50 && window.scrollY == 200`) {
		t.Error("what was opened or scrolled is not any more")
	}
	if title := evaluate[string](b, "document.title"); !strings.HasPrefix(title, "Materialized views of ") || !strings.HasSuffix(title, ": All is well") {
		t.Errorf("its title is %q", title)
	}
	if scripts := evaluate[int](b, "document.scripts.length"); scripts != 1 {
		t.Errorf("%d scripts", scripts)
	}
	if family := evaluate[string](b, "getComputedStyle(document.body).fontFamily"); !strings.Contains(family, "system-ui") {
		t.Errorf("its own policy forbids its style: %s", family)
	}

	stop()
	b.until(`(document.getElementById("mvsched-notice") || {}).textContent`)
	b.picture("stopped")
}
