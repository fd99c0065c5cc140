package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// articleScript holds the article's tables, its function as it was printed, and the same work as a query.
var articleScript = filepath.Join("..", "..", "cmd", "mvsched", "testdata", "script", "columns.txtar")

// part is one file of a script.
func part(script, name string) (string, error) {
	text, err := os.ReadFile(script)
	if err != nil {
		return "", err
	}
	_, rest, found := strings.Cut(string(text), "-- "+name+" --\n")
	if !found {
		return "", fmt.Errorf("%s has no %s", script, name)
	}
	body, _, _ := strings.Cut(rest, "\n-- ")
	return body, nil
}

// afreshSQL puts all rows back to where nothing is materialized, in a table as compact as a new one.
const afreshSQL = `
truncate public.event_seat_state_change;
insert into public.event_seat_state_change (id, event_id) select n, 1 + n %% 100 from generate_series(1, %d) n`

// measureColumns compares a drain of the article's backlog with a loop of the article's function on one connection. The
// loop knows how often it has to call.
func (b *bench) measureColumns(ctx context.Context, out io.Writer) error {
	rows := b.columns
	var file [3]string
	for i, name := range []string{"tables.sql", "function.sql", "query.sql"} {
		var err error
		if file[i], err = part(articleScript, name); err != nil {
			return err
		}
	}
	query := filepath.Join(b.dir, "query.sql")
	if err := os.WriteFile(query, []byte(file[2]), 0o600); err != nil {
		return err
	}
	if err := b.exec(ctx, notDue, file[0], file[1], `truncate event_seat_state_change_seat_state`,
		fmt.Sprintf(`insert into event_seat_state_change_seat_state
			select e, 1 + (e * 7 + s) %% 50 from generate_series(1, %d) e cross join generate_series(1, 20) s`, rows),
		`vacuum analyze event_seat_state_change_seat_state`); err != nil {
		return err
	}
	mvsched := func(ctx context.Context, args ...string) error {
		text, err := b.command(ctx, b.server.DSN(database), args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("mvsched %s: %w: %s", args[0], err, text)
		}
		return err
	}
	const name = "event_seat_state_change"
	if err := mvsched(ctx, "add", name, "--columns", "--from", query, "--queue", "columns"); err != nil {
		return err
	}
	set := func(args ...string) func(context.Context) error {
		return func(ctx context.Context) error { return mvsched(ctx, append([]string{"set", name}, args...)...) }
	}
	drain := func(jobs int) func(context.Context) error {
		return func(ctx context.Context) error {
			return mvsched(ctx, "run", "-q", "--queue", "columns", "-j", strconv.Itoa(jobs))
		}
	}
	ways := []struct {
		name    string
		target  string
		prepare func(context.Context) error
		do      func(context.Context) error
	}{
		{"a loop of the function, one connection", "–", set("--parallel", "1"), b.loop(rows / 100)},
		{"`--call`, 1 worker", "≥ 1", set("--call", "materialize_event_seat_state_change()", "--parallel", "1"), drain(1)},
		{"`--from`, 1 worker", "≥ 1", set("--from", query, "--parallel", "1"), drain(1)},
		{"`--from`, 2 workers", "≥ 1.5 (on 2 cores)", set("--from", query, "--parallel", "2"), drain(2)},
	}
	wall, cpu := make([][]float64, len(ways)), make([][]float64, len(ways))
	for round := range b.rounds + 1 {
		for turn := range ways {
			i := (turn + round) % len(ways)
			if err := ways[i].prepare(ctx); err != nil {
				return err
			}
			if err := b.exec(ctx, fmt.Sprintf(afreshSQL, rows), `vacuum analyze event_seat_state_change`,
				`update mvsched.materialized_view_refresh_schedule set last_attempted_at = null, next_run_at = null where kind = 'columns'`,
				`checkpoint`); err != nil {
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
			var left int
			if err := b.admin.QueryRow(ctx, `select count(*) from event_seat_state_change where materialized_at is null`).Scan(&left); err != nil {
				return err
			}
			if left > 0 {
				return fmt.Errorf("%s left %d rows", ways[i].name, left)
			}
			if round > 0 { // the first fills caches
				wall[i], cpu[i] = append(wall[i], took.Seconds()), append(cpu[i], spent.Seconds())
			}
		}
	}
	lines := [][]string{{"", "rows/s", "of the loop's", "target", "server CPU, s", "of the loop's"}}
	for i, w := range ways {
		lines = append(lines, []string{
			w.name, fmt.Sprintf("%.0f", float64(rows)/median(wall[i])), spread("%.2f", ratios(wall[0], wall[i])), w.target,
			fmt.Sprintf("%.2f", median(cpu[i])), spread("%.2f", ratios(cpu[i], cpu[0])),
		})
	}
	table(out, fmt.Sprintf("Materialized columns: the article's, a backlog of %d rows", rows), lines)
	return nil
}

// loop calls the article's function so often.
func (b *bench) loop(calls int) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, b.server.DSN(database))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }() // it has done its work
		for range calls {
			if _, err := conn.Exec(ctx, `select materialize_event_seat_state_change()`); err != nil {
				return err
			}
		}
		return nil
	}
}
