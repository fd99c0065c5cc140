package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"

	"github.com/jackc/pgx/v5/pgxpool"
)

// measureGraph times what the graph of very many views takes: to read it, and a look at the schedules that finds the catalog
// changed and works it out again, beside one that finds nothing.
func (b *bench) measureGraph(ctx context.Context, out io.Writer) (err error) {
	s, err := b.newScale(ctx, 1, "autovacuum=off")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	// Each reads the one with half its number, and the one with a third: 11 levels for 2,000 views.
	err = s.exec(ctx, fmt.Sprintf(`do $$ begin
		for i in 2..%d loop
			execute pg_catalog.format('create materialized view public.v%%s as select a.id from public.v%%s a join public.v%%s b on true', i, i / 2, greatest(i / 3, 1));
			commit;
		end loop; end $$`, b.graph), fmt.Sprintf(`
		insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
		select 'public.v' || g, '1 day', now() + interval '1 day' from generate_series(1, %d) g`, b.graph), `vacuum analyze`)
	if err != nil {
		return err
	}
	conns, err := s.open(ctx, 1, "")
	if err != nil {
		return err
	}
	defer closeAll(conns)
	store := schedule.NewStore(conns[0])
	var read, changed, idle []float64
	timed := func(times *[]float64, fn func() error) error {
		began := time.Now()
		err := fn()
		*times = append(*times, float64(time.Since(began))/float64(time.Millisecond))
		return err
	}
	look := func() error { _, err := store.Tend(ctx, schedule.TendOptions{Limit: 1}); return err }
	for i := range max(5, b.rounds) + 1 {
		if i == 1 { // the first one fills caches
			read, changed, idle = nil, nil, nil
		}
		if err := s.exec(ctx, fmt.Sprintf(`create or replace view public.changes as select %d as n%s from public.v1`, i, columns(i))); err != nil {
			return err
		}
		err := errors.Join(timed(&changed, look), timed(&idle, look),
			timed(&read, func() error { _, err := store.Graph(ctx); return err }))
		if err != nil {
			return err
		}
	}
	table(out, fmt.Sprintf("The graph of %d views", b.graph), [][]string{
		{"", "median (least–greatest), ms", "target"},
		{"to read it from the catalog", spread("%.1f", read), "≤ 20 ms"},
		{"a look at the schedules when the catalog has changed", spread("%.1f", changed), "–"},
		{"a look when it has not", spread("%.1f", idle), "–"},
	})
	return nil
}

// columns are one more for each time, so that the view is another one.
func columns(n int) (sql string) {
	for i := range n {
		sql += fmt.Sprintf(", %d as c%d", i, i)
	}
	return sql
}

// growthViews are refreshed over and over, at most so many.
const growthViews = 1000

// measureGrowth refreshes at full speed, for the middle third with a transaction open, and weighs mvsched's own tables.
func (b *bench) measureGrowth(ctx context.Context, out io.Writer) (err error) {
	views := min(growthViews, b.refreshes/10)
	s, err := b.newScale(ctx, views, "autovacuum=on")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.schedule(ctx, views, views); err != nil {
		return err
	}
	if err := s.exec(ctx, `update mvsched.settings set keep_last = 1000000`); err != nil { // nothing is trimmed meanwhile
		return err
	}
	pool, err := s.workerPool(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	worker := &refresh.Worker{Pool: pool, Store: schedule.NewStore(pool), Jobs: 8, Name: "bench"}
	var claims [2][]float64
	release := func() {}
	defer func() { release() }()
	began := time.Now()
	var rates [3]string // refreshes a second
	for third := range 3 {
		switch third {
		case 0:
			if claims[0], err = s.growthClaims(ctx); err != nil {
				return err
			}
		case 1:
			if release, err = s.hold(ctx); err != nil {
				return err
			}
		case 2:
			release()
		}
		done, from := 0, time.Now()
		for done < b.refreshes/3 {
			if err := s.exec(ctx, `update mvsched.materialized_view_refresh_schedule set next_run_at = pg_catalog.now()`); err != nil {
				return err
			}
			executions, err := worker.RunDue(ctx)
			if err != nil {
				return err
			}
			done += len(executions)
		}
		rates[third] = fmt.Sprintf("%.0f", float64(done)/time.Since(from).Seconds())
		fmt.Fprintf(os.Stderr, "third %d ended after %s, %s a second\n", third+1, time.Since(began).Round(time.Second), rates[third])
	}
	if claims[1], err = s.growthClaims(ctx); err != nil {
		return err
	}
	rows := [][]string{{"", "size, MB", "of its live size", "target"}}
	names, grown, err := s.sizes(ctx)
	if err != nil {
		return err
	}
	if err := s.exec(ctx, `vacuum full`); err != nil {
		return err
	}
	_, live, err := s.sizes(ctx)
	if err != nil {
		return err
	}
	var allGrown, allLive float64
	for i, name := range names {
		allGrown, allLive = allGrown+grown[i], allLive+live[i]
		rows = append(rows, []string{"`" + name + "`", fmt.Sprintf("%.2f", grown[i]), fmt.Sprintf("%.2f", grown[i]/live[i]), "≤ 2"})
	}
	rows = append(rows, []string{"all of these", fmt.Sprintf("%.2f", allGrown), fmt.Sprintf("%.2f", allGrown/allLive), "≤ 2"},
		[]string{"a claim before, p50 and p99", milliseconds(claims[0], 50), milliseconds(claims[0], 99), "–"},
		[]string{"after", milliseconds(claims[1], 50), milliseconds(claims[1], 99), "as before"},
		[]string{"refreshes a second, in each third", strings.Join(rates[:], ", "), "", "–"})
	table(out, fmt.Sprintf("mvsched's tables after %d refreshes of %d views, a transaction open for the middle third", b.refreshes, views), rows)
	return nil
}

func (s *scale) workerPool(ctx context.Context) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(s.server.DSN("postgres"))
	if err != nil {
		return nil, err
	}
	refresh.ConfigurePool(config, 8)
	return pgxpool.NewWithConfig(ctx, config)
}

// growthClaims times claims of what is due, one after the other.
func (s *scale) growthClaims(ctx context.Context) (all []float64, err error) {
	for len(all) < s.samples/4 {
		if err := s.exec(ctx, `update mvsched.materialized_view_refresh_schedule set next_run_at = pg_catalog.now()`); err != nil {
			return nil, err
		}
		times, err := s.timedClaims(ctx, 4, s.views/2, claimsASecond)
		if err != nil {
			return nil, err
		}
		all = append(all, times...)
	}
	return all, nil
}

// sizes are those of mvsched's tables with their indexes, in megabytes, of those that have anything.
func (s *scale) sizes(ctx context.Context) (names []string, megabytes []float64, err error) {
	rows, err := s.admin.Query(ctx, `select c.relname::text, pg_catalog.pg_total_relation_size(c.oid) / 1e6
		from pg_catalog.pg_class c where c.relnamespace = 'mvsched'::regnamespace and c.relkind = 'r'
		 and c.relname in ('materialized_view_refresh_schedule', 'materialized_view_refresh_schedule_execution', 'materialized_view_vacuum', 'claim_turn')
		order by 1`)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var size float64
		if err := rows.Scan(&name, &size); err != nil {
			return nil, nil, err
		}
		names, megabytes = append(names, name), append(megabytes, size)
	}
	return names, megabytes, rows.Err()
}
