package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
)

// bytesPerRow is about what a row of the big view takes.
const bytesPerRow = 136

// measureBig compares one refresh of a big view, in which nothing has changed, by mvsched's process with a bare one.
func (b *bench) measureBig(ctx context.Context, out io.Writer) error {
	rows := b.bigMB * 1024 * 1024 / bytesPerRow
	err := b.exec(ctx, notDue,
		fmt.Sprintf(`create table public.big_base as select g as id, repeat(md5(g::text), 3) as words from generate_series(1, %d) g`, rows),
		`analyze public.big_base`,
		`create materialized view public.big as select id, words from public.big_base`,
		`create unique index on public.big (id)`, `analyze public.big`,
		`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
			values ('public.big', '1 day', now() + interval '1 day')`)
	if err != nil {
		return err
	}
	var size float64
	if err := b.admin.QueryRow(ctx, `select pg_relation_size('public.big') / 1048576.0`).Scan(&size); err != nil {
		return err
	}
	ways := []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"bare", func(ctx context.Context) error {
			conn, err := pgx.Connect(ctx, b.server.DSN(database))
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close(ctx) }() // it has done its work
			_, err = conn.Exec(ctx, `refresh materialized view concurrently public.big`)
			return err
		}},
		{"mvsched `run`", func(ctx context.Context) error {
			text, err := b.command(ctx, b.server.DSN(database), "run", "-q").CombinedOutput()
			if err != nil {
				err = fmt.Errorf("mvsched run: %w: %s", err, text)
			}
			return err
		}},
	}
	wall, cpu := make([][]float64, len(ways)), make([][]float64, len(ways))
	for round := range b.rounds + 1 {
		for turn := range ways {
			i := (turn + round) % len(ways)
			if err := b.exec(ctx, `update mvsched.materialized_view_refresh_schedule set next_run_at = now() where materialized_view_name = 'public.big'`); err != nil {
				return err
			}
			m, err := b.newMeter(ctx)
			if err != nil {
				return err
			}
			began := time.Now()
			if err := ways[i].do(ctx); err != nil {
				return err
			}
			took := time.Since(began)
			spent, err := m.read(ctx)
			if err != nil {
				return err
			}
			if round > 0 { // the first fills caches
				wall[i], cpu[i] = append(wall[i], took.Seconds()), append(cpu[i], spent.Seconds())
			}
		}
	}
	lines := [][]string{{"", "wall, s", "of bare", "target", "server CPU, s", "of bare"}}
	for i, w := range ways {
		target := "–"
		if i > 0 {
			target = "≤ 1.005 (of 1 GB)"
		}
		lines = append(lines, []string{
			w.name, fmt.Sprintf("%.2f", median(wall[i])), spread("%.3f", ratios(wall[i], wall[0])), target,
			fmt.Sprintf("%.2f", median(cpu[i])), spread("%.3f", ratios(cpu[i], cpu[0])),
		})
	}
	table(out, fmt.Sprintf("One view of %.0f MB, refreshed concurrently, nothing changed", size), lines)
	return nil
}
