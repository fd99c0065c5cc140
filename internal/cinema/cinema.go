// Package cinema holds the demo data set: a made-up chain of cinemas with a few hundred
// thousand screenings, the tickets sold for them, five materialized views that depend on
// each other and on the clock, as the views of a real ticket search would, a plain view
// to keep a table equal to, and a function that fills columns.
package cinema

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Schema is the schema everything is made in.
const Schema = "cinema"

// MaxScale is the largest scale Load accepts; it is about 21 million screenings.
const MaxScale = 100

var (
	//go:embed cinema.sql
	dataSQL string
	//go:embed views.sql
	viewsSQL string
	//go:embed materialize.sql
	materializeSQL string
	//go:embed change.sql
	changeSQL string
)

// marker begins the line that opens a step in the SQL files and names it.
const marker = "-- step: "

// step is one named part of a SQL file.
type step struct{ name, sql string }

// split cuts a SQL file at its marker lines. What stands before the first is left out.
func split(file string) []step {
	var steps []step
	for _, part := range strings.Split("\n"+file, "\n"+marker)[1:] {
		name, sql, _ := strings.Cut(part, "\n")
		steps = append(steps, step{strings.TrimSpace(name), sql})
	}
	return steps
}

// Load makes the schema cinema, its tables, views and functions, and fills them. At scale 1 that
// is about 215,000 screenings and 770,000 sales; the number of venues, and with it all
// else, grows in proportion. It does all in one transaction, so that a load that fails or
// is cancelled leaves nothing behind, and it fails if the schema is there already.
//
// Screenings lie around the current day in UTC; the same scale on the same day gives the
// same rows. The role needs no more than the right to create a schema in the database.
//
// Before each step, progress (which may be nil) is told how many of the steps are done
// and what comes next; at the end it is called with done equal to total and no name.
func Load(ctx context.Context, conn *pgx.Conn, scale float64, progress func(done, total int, what string)) error {
	return load(ctx, conn, scale, time.Now(), progress)
}

// load is Load with the day around which screenings are laid out.
func load(ctx context.Context, conn *pgx.Conn, scale float64, today time.Time, progress func(done, total int, what string)) error {
	if !(scale > 0 && scale <= MaxScale) { // not a number fails too
		return fmt.Errorf("load cinema: scale %v is not above 0 and at most %d", scale, MaxScale)
	}
	if progress == nil {
		progress = func(int, int, string) {}
	}
	steps := split(dataSQL + "\n" + viewsSQL + "\n" + materializeSQL)
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx,
			"select pg_catalog.set_config('cinema.scale', $1, true), pg_catalog.set_config('cinema.today', $2, true)",
			strconv.FormatFloat(scale, 'g', -1, 64), today.UTC().Format(time.DateOnly))
		if err != nil {
			return err
		}
		for i, s := range steps {
			progress(i, len(steps), s.name)
			if err := exec(ctx, tx, s.sql); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load cinema: %w", err)
	}
	progress(len(steps), len(steps), "")
	return nil
}

// exec runs several statements in the transaction. They go by the simple protocol, which
// is the one that takes more than one statement.
func exec(ctx context.Context, tx pgx.Tx, sql string) error {
	_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// Drop removes the schema cinema and all that is in it; it is no error if there is none.
func Drop(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "drop schema if exists cinema cascade"); err != nil {
		return fmt.Errorf("drop cinema: %w", err)
	}
	return nil
}

// Change makes a realistic change in the base data, in one transaction: an auditorium
// opens, screenings are added and cancelled, tickets are sold. Each of the views has
// something new to show after it. The views themselves are left as they are. It returns
// what it did in one line, such as
//
//	1 auditorium opened, 500 screenings added, 100 screenings cancelled, 2,000 tickets sold
func Change(ctx context.Context, conn *pgx.Conn) (string, error) {
	var done []string
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// One change at a time, lest two cancel and refund the same screenings.
		// Readers, refreshes among them, are not held up.
		if err := exec(ctx, tx, "lock table cinema.event in share row exclusive mode"); err != nil {
			return err
		}
		for _, s := range split(changeSQL) {
			var n int64
			// Not prepared: each is planned once, and a demo leaves no statements behind.
			if err := tx.QueryRow(ctx, s.sql, pgx.QueryExecModeExec).Scan(&n); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if n != 0 {
				done = append(done, amount(n, s.name))
			}
		}
		if len(done) == 0 {
			return errors.New("the data set is empty")
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("change cinema: %w", err)
	}
	return strings.Join(done, ", "), nil
}

// amount writes n of a thing, whose name begins with a plural that ends in s, with commas
// between the thousands: "1 ticket sold", "2,000 tickets sold".
func amount(n int64, what string) string {
	if n == 1 {
		noun, rest, _ := strings.Cut(what, " ")
		what = strings.TrimSuffix(noun, "s") + " " + rest
	}
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits + " " + what
}
