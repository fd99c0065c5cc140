package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	freshLag      = time.Minute            // the target of the chains, and how long the heavy view takes
	freshBeat     = 200 * time.Millisecond // between two rows of what the chains read
	freshLook     = 20 * time.Millisecond  // how often it is looked how old data is, and whether a change is seen
	freshPatience = time.Minute            // with what is to be there within seconds
	freshQuick    = 100                    // quick views beside the heavy one
	changePause   = 10 * time.Second       // between a change that was seen and the next, at most; of requests a third
	floodCommits  = 10_000                 // within floodTime
	floodTime     = 10 * time.Second
	floodRest     = 30 * time.Second // behind them, in which their refreshes come
	floodWriters  = 4
)

// A view of a chain takes so long, in seconds: between the least and the most, back and forth.
const (
	workLeast = 2.0
	workMost  = 5.0
	workWave  = 97.0
)

// freshSchedules are the views, and their schedules: columns, and values in SQL. There LAG stands for freshLag. Of the two chains
// one follows the advice to give the target to the last view alone.
var freshSchedules = []struct{ view, query, columns, values string }{
	{"advised1", `select id, at, public.work() from public.source`, "max_lag", `'1 hour'`},
	{"advised2", `select id, at, public.work() from public.advised1`, "after_parents", `true`},
	{"advised3", `select id, at, public.work() from public.advised2`, "max_lag", `LAG`},
	{"chain1", `select id, at, public.work() from public.source`, "max_lag", `LAG`},
	{"chain2", `select id, at, public.work() from public.chain1`, "max_lag", `LAG`},
	{"chain3", `select id, at, public.work() from public.chain2`, "max_lag", `LAG`},
	{"seen", `select 1 as id, max(id) as last from public.changing`, "on_change, debounce", `true, '2 seconds'`},
	{"flooded", `select 1 as id, count(*) from public.flood`, "on_change, debounce", `true, '2 seconds'`},
	{"asked", `select 1 as id, max(id) as last from public.asking`, "refresh_interval", `'1 day'`},
	{"heavy", `select 1 as id, pg_catalog.pg_sleep(extract(epoch from LAG::interval)) is null`, "refresh_interval, queue", `LAG, 'heavy'`},
}

// freshChains are the views at the end of a chain.
var freshChains = []string{"advised3", "chain3"}

// freshness is one measurement.
type freshness struct {
	*scale
	shorter int       // than the real one, by so much, is all that takes long
	from    time.Time // the end of the warm-up
	until   time.Time

	mu      sync.Mutex
	ages    map[string][]float64 // of each chain's data, in seconds, at each look
	changed []float64            // seconds until a change was seen
	asked   []float64            // milliseconds until what was asked for was there
}

// measureFresh looks from outside at what schedules promise: how old the data of chains with a target is, how soon changes and
// requests are seen, and how late quick views are beside a slow one.
func (b *bench) measureFresh(ctx context.Context, out io.Writer) (err error) {
	s, err := b.newScale(ctx, 0, "autovacuum=on")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	f, warmUp := &freshness{scale: s, shorter: 1, ages: map[string][]float64{}}, 3*time.Minute
	if b.quick {
		f.shorter, warmUp = 20, 4*time.Second
	}
	if err := f.create(ctx); err != nil {
		return err
	}
	for range mixedServers {
		server, err := s.serve(ctx, s.server.DSN("postgres"), "--queue", "default=8,heavy=1")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.end()) }()
	}
	f.from = time.Now().Add(warmUp)
	f.until = f.from.Add(s.freshFor)
	work, working := errgroup.WithContext(ctx)
	f.beside(working, work, f.beat)
	for _, view := range freshChains {
		f.beside(working, work, func(ctx context.Context, conn *pgx.Conn) error { return f.watchAge(ctx, conn, view) })
	}
	f.beside(working, work, f.change)
	f.beside(working, work, f.ask)
	for range floodWriters {
		f.beside(working, work, f.flood)
	}
	if err := work.Wait(); err != nil {
		return err
	}
	rows, err := f.rows(ctx)
	if err != nil {
		return err
	}
	table(out, fmt.Sprintf("%d `serve --queue default=8,heavy=1`, seen from outside, %s", mixedServers, s.freshFor), rows)
	return nil
}

// create makes the tables, the views and the schedules.
func (f *freshness) create(ctx context.Context) error {
	lag := interval(freshLag / time.Duration(f.shorter))
	statements := []string{fmt.Sprintf(`create function public.work() returns boolean volatile language sql as $$
		select pg_catalog.pg_sleep((%[1]f + (%[2]f - %[1]f) * (1 + pg_catalog.sin(2 * pg_catalog.pi() * extract(epoch from pg_catalog.clock_timestamp())::float8 / %[3]f)) / 2) / %[4]d) is null $$`,
		workLeast, workMost, workWave, f.shorter)}
	for _, name := range []string{"source", "changing", "flood", "asking"} {
		statements = append(statements,
			fmt.Sprintf(`create table public.%s (id bigint generated always as identity primary key, at timestamptz not null default now())`, name),
			fmt.Sprintf(`insert into public.%s default values`, name))
	}
	add := func(view, query, columns, values string) {
		statements = append(statements, fmt.Sprintf(`create materialized view public.%s as %s`, view, query),
			fmt.Sprintf(`create unique index on public.%s (id)`, view),
			fmt.Sprintf(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, %s) values ('public.%s', %s)`, columns, view, values))
	}
	for _, s := range freshSchedules {
		add(s.view, strings.ReplaceAll(s.query, "LAG", lag), s.columns, strings.ReplaceAll(s.values, "LAG", lag))
	}
	for i := range freshQuick {
		add("quick"+strconv.Itoa(i), "select 1 as id", "refresh_interval", interval(3*time.Second+time.Duration(i)*21*time.Millisecond))
	}
	return f.exec(ctx, statements...)
}

// beside lets one part work on a connection of its own.
func (f *freshness) beside(ctx context.Context, work *errgroup.Group, part func(context.Context, *pgx.Conn) error) {
	work.Go(func() error {
		conn, err := pgx.Connect(ctx, f.server.DSN("postgres"))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		return part(ctx, conn)
	})
}

// beat writes what the chains read; only the last row counts.
func (f *freshness) beat(ctx context.Context, conn *pgx.Conn) error {
	for time.Now().Before(f.until) {
		if _, err := conn.Exec(ctx, `update public.source set at = clock_timestamp()`); err != nil {
			return err
		}
		if err := pause(ctx, freshBeat); err != nil {
			return err
		}
	}
	return nil
}

// watchAge looks how old the data of a view is.
func (f *freshness) watchAge(ctx context.Context, conn *pgx.Conn, view string) error {
	for time.Now().Before(f.until) {
		var age float64
		err := conn.QueryRow(ctx, fmt.Sprintf(`select extract(epoch from clock_timestamp() - max(at))::float8 from public.%s`, view)).Scan(&age)
		if err != nil {
			return err
		}
		if time.Now().After(f.from) {
			f.mu.Lock()
			f.ages[view] = append(f.ages[view], age)
			f.mu.Unlock()
		}
		if err := pause(ctx, freshLook); err != nil {
			return err
		}
	}
	return nil
}

// change commits changes, and sees how long each takes to be seen.
func (f *freshness) change(ctx context.Context, conn *pgx.Conn) error {
	return f.changes(ctx, conn, `insert into public.changing default values returning id`, "seen", changePause, func(took time.Duration) {
		f.changed = append(f.changed, took.Seconds())
	})
}

// ask asks for refreshes, and sees how long each takes to have been.
func (f *freshness) ask(ctx context.Context, conn *pgx.Conn) error {
	return f.changes(ctx, conn, `with a as (insert into public.asking default values returning id), r as materialized (select mvsched.request_refresh('public.asked'))
		select a.id from a, r`, "asked", changePause/3, func(took time.Duration) {
		f.asked = append(f.asked, float64(took)/float64(time.Millisecond))
	})
}

// changes commits a row, and notes when a view has it, over and over.
func (f *freshness) changes(ctx context.Context, conn *pgx.Conn, sql, view string, apart time.Duration, note func(time.Duration)) error {
	if err := pause(ctx, time.Until(f.from)); err != nil {
		return err
	}
	for time.Now().Before(f.until) {
		var id, last int64
		if err := conn.QueryRow(ctx, sql).Scan(&id); err != nil {
			return err
		}
		committed := time.Now()
		for {
			if err := conn.QueryRow(ctx, fmt.Sprintf(`select last from public.%s`, view)).Scan(&last); err != nil {
				return err
			}
			if last >= id {
				break
			}
			if time.Since(committed) > freshPatience {
				return fmt.Errorf("after %s view %s does not have what was committed", freshPatience, view)
			}
			if err := pause(ctx, freshLook); err != nil {
				return err
			}
		}
		note(time.Since(committed))
		if err := pause(ctx, rand.N(apart)); err != nil {
			return err
		}
	}
	return nil
}

// flood is one of those that commit very often, for a while.
func (f *freshness) flood(ctx context.Context, conn *pgx.Conn) error {
	if err := pause(ctx, time.Until(f.from)); err != nil {
		return err
	}
	apart := floodTime * floodWriters / floodCommits
	for i := range floodCommits / floodWriters / f.shorter {
		if _, err := conn.Exec(ctx, `insert into public.flood default values`); err != nil {
			return err
		}
		if err := pause(ctx, time.Until(f.from.Add(time.Duration(i)*apart))); err != nil {
			return err
		}
	}
	return nil
}

// rows are what was found.
func (f *freshness) rows(ctx context.Context) ([][]string, error) {
	rows := [][]string{{"", "number", "p50", "p99", "greatest", "target"}}
	of := func(what, format string, values []float64, target string) {
		rows = append(rows, []string{
			what, strconv.Itoa(len(values)), fmt.Sprintf(format, median(values)), fmt.Sprintf(format, percentile(values, 99)),
			fmt.Sprintf(format, percentile(values, 100)), target,
		})
	}
	count := func(what string, n int, target string) {
		rows = append(rows, []string{what, strconv.Itoa(n), "", "", "", target})
	}
	limit := freshLag / time.Duration(f.shorter)
	fewest := f.fewest()
	for _, view := range freshChains {
		of("age of "+view+", at looks from outside", "%.1f s", f.ages[view], fmt.Sprintf("≤ %.0f s", limit.Seconds()))
		var refreshes, outlasted int
		err := f.admin.QueryRow(ctx, `select count(*) filter (where e.view_name = 'public.' || $1), count(*) filter (where e.reason = 'outlasted_prediction')
			from mvsched.materialized_view_refresh_schedule_execution e
			where e.view_name like 'public.' || rtrim($1, '3') || '_' and e.status = 'succeeded' and e.ended_at::timestamptz between $2 and $3`, view, f.from, f.until).
			Scan(&refreshes, &outlasted)
		if err != nil {
			return nil, err
		}
		count("refreshes of "+view, refreshes, fmt.Sprintf("≤ %.1f: 1.3 of the fewest, %.1f", 1.3*fewest, fewest))
		count("refreshes of its chain that outlasted their prediction", outlasted, "–")
	}
	of("a commit until `--on-change` has it (debounce 2 s)", "%.1f s", f.changed, "≤ 17 s")
	of("`request_refresh` until it is there", "%.0f ms", f.asked, "≤ 1000 ms")
	var floods, heavy int
	err := f.admin.QueryRow(ctx, `select count(*) filter (where view_name = 'public.flooded' and started_at::timestamptz < $1::timestamptz + $2::interval),
			count(*) filter (where view_name = 'public.heavy')
		from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded' and ended_at::timestamptz > $1::timestamptz`, f.from, floodTime+floodRest).Scan(&floods, &heavy)
	if err != nil {
		return nil, err
	}
	count(fmt.Sprintf("refreshes for %d commits in %s", floodCommits/f.shorter, floodTime), floods, "≤ 3")
	found, err := f.admin.Query(ctx, `select extract(epoch from started_at::timestamptz - scheduled_at::timestamptz)::float8 * 1000
		from mvsched.materialized_view_refresh_schedule_execution where view_name like 'public.quick%' and scheduled_at::timestamptz > $1`, f.from)
	if err != nil {
		return nil, err
	}
	delays, err := pgx.CollectRows(found, pgx.RowTo[float64])
	if err != nil {
		return nil, err
	}
	of(fmt.Sprintf("start delay of %d quick views", freshQuick), "%.1f ms", delays, "≤ 100 ms")
	count(fmt.Sprintf("refreshes of the heavy one meanwhile, of %s each", limit), heavy, "–")
	return rows, nil
}

// fewest is how many refreshes of a chain's last view who knew beforehand how long each takes would make: each as late as the age of
// what the one before has brought allows.
func (f *freshness) fewest() float64 {
	takes := func(at time.Time) time.Duration {
		wave := (1 + math.Sin(2*math.Pi*float64(at.UnixNano())/1e9/workWave)) / 2
		return time.Duration((workLeast + (workMost-workLeast)*wave) / float64(f.shorter) * float64(time.Second))
	}
	end := func(began time.Time) time.Time {
		for range 3 {
			began = began.Add(takes(began))
		}
		return began
	}
	n, began := 0.0, f.from
	for {
		limit := began.Add(freshLag / time.Duration(f.shorter))
		next := limit
		for end(next).After(limit) {
			next = next.Add(-time.Millisecond)
		}
		if limit.After(f.until) {
			return n + float64(f.until.Sub(began))/float64(limit.Sub(began))
		}
		n, began = n+1, next
	}
}
