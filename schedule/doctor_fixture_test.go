package schedule_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/schedule"
)

// A function that works only with shop in the search_path; its extract and its CTE are no tables.
const trap = `create schema shop; create table shop.prices (day date); create table public.day (); insert into shop.prices values ('2026-01-01');
	create function shop.price() returns bigint stable language sql set search_path = shop as
	$$with recent as (select * from PRICES) select count(extract(year from recent.day)) from recent$$;
	create view public.between as select shop.price() as id; create materialized view public.v as select id from public.between; {v every 1h}; alter function shop.price() reset search_path`

var (
	scheduleWord = regexp.MustCompile(`\{(\S+|".*") every (\w+)\}`)
	lagWord      = regexp.MustCompile(`\{(\S+) no older than ([\w ]+)\}`)
	runsWord     = regexp.MustCompile(`\{(\d+) runs of (\d+) s, \+(\d+) -(\d+)\}`)
)

// arrange runs statements, in which {v every 1h} schedules a view, {v no older than 1 minute} gives it another schedule, and {5 runs of 3 s, +1 -2} makes a history of v, which had 1000 rows.
func (b *bundle) arrange(script string) {
	b.Helper()
	script = scheduleWord.ReplaceAllStringFunc(script, func(word string) string {
		parts := scheduleWord.FindStringSubmatch(word)
		return fmt.Sprintf(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
			values ('public.%s', '%s')`, strings.ReplaceAll(parts[1], "'", "''"), parts[2])
	})
	script = lagWord.ReplaceAllString(script, `update mvsched.materialized_view_refresh_schedule
		set refresh_interval = null, max_lag = '$2' where materialized_view_name = 'public.$1'`)
	script = runsWord.ReplaceAllString(script, `
		insert into mvsched.materialized_view_refresh_schedule_execution
		       (materialized_view_refresh_schedule_id, view_name, status, method, started_at, ended_at, data_as_of, rows_inserted, rows_deleted, rows_kept)
		select s.id, s.materialized_view_name, 'succeeded', 'concurrently', now(), now() + interval '$2 s', now(), $3, $4, 1000 - $4
		  from mvsched.materialized_view_refresh_schedule s, generate_series(1, $1)`)
	conn, err := b.Pool.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Conn().PgConn().Exec(b.Context(), script).ReadAll(); err != nil {
		b.Fatalf("%s: %v", script, err)
	}
}

// finding returns what doctor says of a view by one check, or nil.
func (b *bundle) finding(check, view string) *schedule.Finding {
	b.Helper()
	findings, err := b.store.Doctor(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range findings {
		if f.Check == check && f.View == view {
			return &f
		}
	}
	return nil
}

// found checks one finding: its message has that of want in it.
func (b *bundle) found(want schedule.Finding, fix string) {
	b.Helper()
	got := b.finding(want.Check, want.View)
	switch {
	case got == nil:
		findings, _ := b.store.Doctor(b.Context())
		b.Fatalf("%s is not among %+v", want.Check, findings)
	case got.Severity != want.Severity || !strings.Contains(got.Message, want.Message):
		b.Errorf("%+v, want %+v", *got, want)
	case (got.Fix == nil) != (fix == "") || fix != "" && *got.Fix != fix:
		b.Errorf("fix %q, want %q", deref(got.Fix), fix)
	}
}

func deref(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// apply does what a fix says, the commands through the store.
func (b *bundle) apply(fix string) {
	b.Helper()
	line, isCommand := strings.CutPrefix(fix, "mvsched ")
	if !isCommand {
		b.Exec(fix)
		return
	}
	command, line, _ := strings.Cut(line, " ")
	if command == "run" {
		b.tend()
		for _, c := range b.claimAll() {
			b.succeed(c)
		}
		return
	}
	word, options, _ := strings.Cut(line, " --")
	if strings.HasPrefix(word, "'") { // as a shell would
		word = strings.ReplaceAll(strings.Trim(word, "'"), `'\''`, "'")
	}
	view, err := schedule.ParseViewName(word)
	if err != nil {
		b.Fatalf("%s: %v", fix, err)
	}
	flag, value, _ := strings.Cut(options, " ")
	var settings schedule.Settings
	switch flag {
	case "every":
		every, err := schedule.ParseDuration(value)
		if err != nil {
			b.Fatalf("%s: %v", fix, err)
		}
		settings.Every = &every
	case "max-lag":
		maxLag, err := schedule.ParseDuration(value)
		if err != nil {
			b.Fatalf("%s: %v", fix, err)
		}
		settings.MaxLag = &maxLag
	case "strategy":
		settings.Strategy = ptr(schedule.Strategy(value))
	case "skip-unchanged":
		settings.SkipUnchanged = ptr(true)
	case "skip-unchanged=false":
		settings.SkipUnchanged = ptr(false)
	case "after-parents":
		settings.AfterParents = ptr(true)
	case "group":
		settings.Group = ptr(strings.Trim(value, "'"))
	}
	views := []schedule.ViewName{view}
	switch command {
	case "add":
		_, err = b.store.Add(b.Context(), views, settings, false)
	case "set":
		err = b.store.Set(b.Context(), views, settings)
	case "resume":
		err = b.store.Resume(b.Context(), views)
	case "remove":
		err = b.store.Remove(b.Context(), views)
	case "refresh":
		b.Exec("refresh materialized view " + view.String())
	default:
		b.Fatalf("what is %s?", fix)
	}
	if err != nil {
		b.Fatalf("%s: %v", fix, err)
	}
}

// role creates a role with the rights that mvsched needs, and nothing else, for this test.
func (b *bundle) role() string {
	b.Helper()
	role := b.Value(`'Doctor ' || current_database()`)
	quoted := pgx.Identifier{role}.Sanitize()
	b.Exec("create role " + quoted)
	b.Cleanup(func() {
		for _, statement := range []string{"drop owned by ", "drop role "} { // the test's own context has ended
			if _, err := b.Pool.Exec(context.Background(), statement+quoted); err != nil {
				b.Error(err)
			}
		}
	})
	b.Exec("grant usage on schema mvsched to " + quoted)
	b.Exec("grant select on all tables in schema mvsched to " + quoted)
	return quoted
}
