package main

import (
	"context"
	"fmt"
	"io"
)

// measureMerge refreshes a merge table and a materialized view of the same query side by side, after so many of the rows
// that they read have changed. The time is that of the refresh, by the record.
func (b *bench) measureMerge(ctx context.Context, out io.Writer) error {
	const key = "(id)"
	window := fmt.Sprintf("id > %d", b.rows-b.rows/100)
	err := b.exec(ctx, notDue,
		fmt.Sprintf(`create table public.merge_base as select g as id, g %% 1000 as kind, md5(g::text) as name, g * 1.5 as price,
			timestamptz '2026-01-01' + g * interval '1 second' as at from generate_series(1, %d) g`, b.rows),
		`alter table public.merge_base add primary key `+key,
		`create view public.merge_source as select * from public.merge_base`,
		`create materialized view public.merge_view as select * from public.merge_base`,
		`create table public.merge_table as select * from public.merge_base`,
		`create table public.merge_windowed as select * from public.merge_base`,
		`create unique index on public.merge_view `+key, `create unique index on public.merge_table `+key,
		`create unique index on public.merge_windowed `+key, `vacuum analyze`,
		`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at, vacuum)
			values ('public.merge_view', '1 day', now() + interval '1 day', 'never')`,
		fmt.Sprintf(`insert into mvsched.materialized_view_refresh_schedule
			(materialized_view_name, refresh_interval, next_run_at, vacuum, kind, merge_source, merge_key, merge_window)
			values ('public.merge_table', '1 day', now() + interval '1 day', 'never', 'merge', 'public.merge_source', '{id}', null),
			       ('public.merge_windowed', '1 day', now() + interval '1 day', 'never', 'merge', 'public.merge_source', '{id}', '%s')`, window))
	if err != nil {
		return err
	}
	ways := []struct{ name, view string }{
		{"CONCURRENTLY", "merge_view"}, {"merge", "merge_table"}, {"merge, window of 1 %", "merge_windowed"},
	}
	for _, changed := range []struct {
		what  string
		every int
	}{{"0.1 %", 1000}, {"10 %", 10}} {
		seconds, wal := make([][]float64, len(ways)), make([][]float64, len(ways))
		for round := range b.rounds + 1 {
			if err := b.exec(ctx, fmt.Sprintf(`update public.merge_base set name = md5(name) where id %% %d = %d`, changed.every, round%changed.every),
				`vacuum public.merge_base, public.merge_view, public.merge_table, public.merge_windowed`, `checkpoint`); err != nil {
				return err
			}
			for turn := range ways {
				i := (turn + round) % len(ways)
				took, written, err := b.refreshOnce(ctx, "public."+ways[i].view)
				if err != nil {
					return err
				}
				if round > 0 { // the first fills caches
					seconds[i], wal[i] = append(seconds[i], took), append(wal[i], written)
				}
			}
		}
		lines := [][]string{{"", "s", "of CONCURRENTLY", "target", "WAL, MB", "of CONCURRENTLY", "target"}}
		for i, way := range ways {
			lines = append(lines, []string{
				way.name, fmt.Sprintf("%.2f", median(seconds[i])), spread("%.3f", ratios(seconds[i], seconds[0])), []string{"–", "≤ 0.5", "≤ 0.05"}[i],
				fmt.Sprintf("%.2f", median(wal[i])), spread("%.2f", ratios(wal[i], wal[0])), []string{"–", "≤ 1.1", "≤ 1.1"}[i],
			})
		}
		table(out, fmt.Sprintf("%d rows, %s of them changed", b.rows, changed.what), lines)
	}
	return nil
}

// refreshOnce has a view refreshed by mvsched's process, and returns how long the refresh took, by its record, and how many
// megabytes of WAL were written meanwhile.
func (b *bench) refreshOnce(ctx context.Context, view string) (seconds, wal float64, err error) {
	var before string
	if err := b.admin.QueryRow(ctx, `select pg_current_wal_insert_lsn()::text`).Scan(&before); err != nil {
		return 0, 0, err
	}
	text, err := b.command(ctx, b.server.DSN(database), "refresh", "-q", view).CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("mvsched refresh: %w: %s", err, text)
	}
	err = b.admin.QueryRow(ctx, `
		select extract(epoch from e.ended_at - e.started_at)::float8, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $2::text::pg_lsn)::float8 / 1048576
		  from mvsched.materialized_view_refresh_schedule_execution e
		 where e.view_name = $1 order by e.id desc limit 1`, view, before).Scan(&seconds, &wal)
	return seconds, wal, err
}
