package schedule_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// aside is Aside.
func (b *bundle) aside(statements ...string) {
	b.Helper()
	b.Aside(statements...)
}

// tellsChanges reports whether this server can tell what has changed; older ones have to say so.
func tellsChanges(b *bundle) bool {
	b.Helper()
	version, err := strconv.Atoi(b.Value("current_setting('server_version_num')"))
	if err != nil {
		b.Fatal(err)
	}
	if version < 150000 {
		b.Check("true", `select 'PostgreSQL before 15' = any (mvsched.obstacles(mvsched.read_sources(0)))`)
	}
	return version >= 150000
}

// sources is a view over what views read: a table, a partitioned table, a plain view, a materialized view, a function.
func sources(b *bundle) {
	b.aside( // the counters of what is filled here must not come later
		`create table public.base (id int primary key, n int)`,
		`insert into public.base select g, g from generate_series(1, 10) g`,
		`create table public.part (id int, n int) partition by range (id)`,
		`create table public.part1 partition of public.part for values from (0) to (10)`,
		`create table public.part2 (id int, n int)`,
		`create function public.twice(int) returns int language sql immutable as 'select $1 * 2'`,
		`create function public.keep(int, int) returns int language sql immutable as 'select $2'`,
		`create function public.finish(int) returns int language sql immutable as 'select $1'`,
		`create aggregate public.latest(int) (sfunc = public.keep, stype = int, finalfunc = public.finish)`,
		`create view public.plain as select id, public.twice(n) as n from public.base`,
		`create materialized view public.inner_view as select id, n from public.base`,
		`create unique index on public.inner_view (id)`,
		`create materialized view public.v as
			select id, p.n, date_trunc('day', now_free), (select public.latest(n) from public.base) from public.plain p join public.inner_view using (id)
			left join (select id, timestamptz '2026-01-01' as now_free from public.part) q using (id)`,
		`create unique index on public.v (id)`,
	)
	b.Schedule("public.v", "1 hour")
	b.change("v", "skip_unchanged = true")
}

func TestFingerprint(t *testing.T) {
	b := setup(t)
	if !tellsChanges(b) {
		return
	}
	sources(b)
	b.tend()
	fingerprint := func() string { return b.Value(`select mvsched.fingerprint('public.v'::regclass)`) }
	for _, change := range []struct {
		what string
		sql  []string
		same bool
	}{
		{what: "insert", sql: []string{`insert into public.base values (100, 1)`}},
		{what: "update", sql: []string{`update public.base set n = n + 1 where id = 1`}},
		{what: "delete", sql: []string{`delete from public.base where id = 100`}},
		{what: "truncate of an empty table", sql: []string{`truncate public.part`}},
		{what: "copy", sql: []string{`copy public.part from program 'echo 3,4' with (format csv)`}},
		{what: "partition attached", sql: []string{`alter table public.part attach partition public.part2 for values from (10) to (20)`}},
		{what: "partition detached", sql: []string{`alter table public.part detach partition public.part2`}},
		{what: "function replaced", sql: []string{`create or replace function public.twice(int) returns int language sql immutable as 'select $1 * 2 '`}},
		{what: "plain view replaced", sql: []string{`create or replace view public.plain as select id, n from public.base`}},
		{what: "materialized view refreshed with changes", sql: []string{`refresh materialized view concurrently public.inner_view`}},
		{what: "materialized view refreshed without changes", same: true, sql: []string{`refresh materialized view concurrently public.inner_view`}},
		{what: "a procedure that commits", sql: []string{
			`create procedure public.fill() language plpgsql as $$begin for i in 1..3 loop insert into public.base values (200 + i, 1); commit; end loop; end$$`,
			`call public.fill()`,
		}},
		{what: "another table", same: true, sql: []string{`create table public.other (n int)`, `insert into public.other values (1)`}},
		{what: "vacuum and analyze", same: true, sql: []string{`vacuum analyze public.base`}},
		{what: "a rolled-back truncate", same: true, sql: []string{`begin`, `truncate public.base`, `rollback`}},
		// The counters have it all the same: refreshed for nothing, which is the harmless error.
		{what: "a rolled-back insert", sql: []string{`begin`, `insert into public.base values (300, 1)`, `rollback`}},
		{what: "truncate", sql: []string{`truncate public.base`}},
		{what: "aggregate's state function replaced", sql: []string{
			`create or replace function public.keep(int, int) returns int language sql immutable as 'select greatest($1, $2)'`,
		}},
		{what: "aggregate's final function replaced", sql: []string{
			`create or replace function public.finish(int) returns int language sql immutable as 'select $1 + 1'`,
		}},
		{what: "aggregate replaced", sql: []string{
			`create function public.start_over(int) returns int language sql immutable as 'select $1'`,
			`create or replace aggregate public.latest(int) (sfunc = public.keep, stype = int, finalfunc = public.start_over)`,
		}},
		{what: "the new one's final function replaced", sql: []string{
			`create or replace function public.start_over(int) returns int language sql immutable as 'select $1 + 1'`,
		}},
		{what: "counters reset", sql: []string{`select pg_stat_reset()`}},
		{what: "counters reset when they were 0", sql: []string{`select pg_stat_reset()`}},
		{what: "a server of another timeline, after a failover", sql: []string{
			`alter function pg_catalog.pg_control_checkpoint() rename to pg_control_checkpoint_before`,
			`create function pg_catalog.pg_control_checkpoint() returns table (timeline_id int) language sql as 'select 4711'`,
		}},
	} {
		before := fingerprint()
		b.aside(change.sql...)
		b.Pool.Reset() // plans would still call a function of the server's own that has been renamed
		if after := fingerprint(); (after == before) != change.same || after == "null" {
			t.Errorf("%s: %s, then %s", change.what, before, after)
		}
	}
}

// The record of a view that mvsched has refreshed says what of the counters is its own doing, as long as they were not reset.
func TestFingerprintOfAViewWhoseCountersWereReset(t *testing.T) {
	b := setup(t)
	if !tellsChanges(b) {
		return
	}
	b.aside(
		`create table public.base (id int, n int)`,
		`insert into public.base select g, 0 from generate_series(1, 10) g`,
		`create materialized view public.inner_view as select id, n from public.base`,
		`create unique index on public.inner_view (id)`,
		`create materialized view public.v as select id from public.inner_view`,
		`update public.base set n = 1`,
		`refresh materialized view concurrently public.inner_view`,
	)
	claim, err := b.store.ClaimView(t.Context(), schedule.ViewName{Schema: "public", Name: "inner_view"}, schedule.Settings{}, schedule.ClaimOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.succeed(*claim)
	b.Check("true", `select tuples_written >= 20 from mvsched.materialized_view_refresh_schedule_execution`)
	b.aside(`select pg_stat_reset()`)
	fingerprint := func() string { return b.Value(`select mvsched.fingerprint('public.v'::regclass)`) }
	before := fingerprint()
	b.aside(`update public.base set n = 2 where id = 1`, `refresh materialized view concurrently public.inner_view`)
	if after := fingerprint(); before == after || after == "null" {
		t.Errorf("%s, then %s", before, after)
	}
}

func TestObstacles(t *testing.T) {
	b := setup(t)
	b.Exec(`create table public.base (id int, name text)`)
	b.Exec(`create table public.secret (id int)`)
	b.Exec(`alter table public.secret enable row level security`)
	b.Exec(`create function public.pick(int, int) returns int language sql volatile as 'select $2'`)
	b.Exec(`create aggregate public.strange(int) (sfunc = public.pick, stype = int)`)
	b.Exec(`create function public.lookup() returns int language sql stable as 'select 1'`)
	for _, view := range []struct{ query, obstacle string }{
		{"select now() as id", "function now()"},
		{"select random() as id", "function random()"},
		{"select current_date as id", "current_date, current_user or the like"},
		{"select public.lookup() as id", "function public.lookup()"},
		{"select id from public.secret", "row security on public.secret"},
		{"select oid from pg_catalog.pg_class", "relation pg_class"},
		{"select name::timestamptz from public.base", "a cast from text to timestamp with time zone"},
		{"select lower('NOW')::timestamptz", "a cast from text to timestamp with time zone"},
		{"select (jsonb_build_array(jsonb_build_object('at', name)) -> 0 ->> 'at')::time from public.base", "a cast from text to time without time zone"},
		{"select string_to_array(name, ',')::date[] from public.base", "a cast from text to date"},
		{"select (name || '}')::date[] from public.base", "a cast from text to date[]"},
		{"select name::tstzrange from public.base", "a cast from text to tstzrange"},
		{"select x.at from public.base, xmltable('/a' passing (name::xml) columns at timestamptz path 'b') x", "a cast from text to timestamp with time zone; function xml(text)"},
		{"select value, json_value(value, '$' returning date) from jsonb_path_query('{}', '$') value", "a cast from text to date"},
		{"select public.strange(id) from public.base", "function public.pick(integer,integer)"},
		{"with x as materialized (select timestamptz '2026-01-01' as at) select x.at, name::interval as i, name::int as n, name::text[] as a, name::jsonb as j, id::text, x.at::text as t from public.base, x", ""},
		{"select id from public.base tablesample system (50)", "tablesample"},
		{"select date_trunc('day', timestamptz '2026-01-01'), to_char(1, '9'), count(*) from public.base group by 1, 2", ""},
	} {
		if strings.Contains(view.query, "json_value(") && b.Value(`current_setting('server_version_num')::int >= 170000`) != "true" {
			continue
		}
		b.Exec("create materialized view public.v as " + view.query + " with no data")
		got := b.Value(`select array_to_string(mvsched.obstacles(mvsched.read_sources('public.v'::regclass)), '; ')`)
		got = strings.TrimSuffix(strings.TrimSuffix(got, "PostgreSQL before 15"), "; ")
		if got != view.obstacle {
			t.Errorf("%s: %q, want %q", view.query, got, view.obstacle)
		}
		b.Exec("drop materialized view public.v")
	}
}

// looks claims from what sources made, at the instants that a test says.
type looks struct {
	*bundle
	clock
}

func setupLooks(b *bundle) *looks {
	b.Helper()
	sources(b)
	l := &looks{b, clock{time.Now()}}
	b.store.Now = l.Now
	return l
}

// look claims public.v if it is due; nil: it is not, or a second look is needed.
func (l *looks) look() *schedule.Claim {
	l.Helper()
	l.tend()
	got := l.claimAll()
	if len(got) > 1 {
		l.Fatalf("claimed %v", views(got))
	}
	if len(got) == 0 {
		return nil
	}
	return &got[0]
}

func (l *looks) refresh(c schedule.Claim) {
	l.Helper()
	l.Exec(`refresh materialized view public.v`)
	l.succeed(c)
}

func (l *looks) refreshed(why string) {
	l.Helper()
	c := l.look()
	if c == nil || c.Skipped != "" {
		l.Fatalf("%s: %+v, want a refresh", why, c)
	}
	l.refresh(*c)
}

func (l *looks) skipped(why string) {
	l.Helper()
	if c := l.look(); c == nil || c.Skipped != schedule.ReasonUnchanged {
		l.Fatalf("%s: %+v, want a skip", why, c)
	}
}

func (l *looks) undecided(why string) {
	l.Helper()
	if c := l.look(); c != nil {
		l.Fatalf("%s: %+v, want a second look", why, c)
	}
}

func (l *looks) next(d time.Duration) { l.now = l.now.Add(d) }

func TestUnchanged(t *testing.T) {
	b := setup(t)
	if !tellsChanges(b) {
		return
	}
	l := setupLooks(b)
	l.refreshed("the first time")
	l.next(time.Hour)
	b.change("v", "max_staleness = '1 day'")

	l.skipped("nobody else is here who could have written: one look is enough")
	l.next(time.Hour)

	b.Hold(`select 1`)
	l.undecided("somebody is, and may have")
	outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1})
	if err != nil || outlook.Due != 0 || outlook.LookAgain == nil {
		t.Errorf("%+v, %v", outlook, err)
	}
	l.next(16 * time.Second)
	l.skipped("the second look")
	b.Check("skipped unchanged t t", `select concat_ws(' ', status, reason, data_as_of > refreshed_at, execution_is_successful is null)
		from mvsched.materialized_view_refresh_schedule_execution order by id desc limit 1`)

	// What the counters tell only at the second look is in time.
	l.next(time.Hour - 16*time.Second)
	l.undecided("somebody is here")
	b.aside(`insert into public.base values (100, 1)`)
	l.next(16 * time.Second)
	l.refreshed("changed before the second look")

	l.next(time.Hour)
	b.aside(`insert into public.base values (101, 1)`)
	l.refreshed("changed")

	l.next(25 * time.Hour)
	l.refreshed("older than its maximum staleness")

	l.next(time.Hour)
	b.Exec(`refresh materialized view public.v with no data`)
	l.refreshed("emptied by somebody")
}

// A skip costs the same whatever the size of the view and of what it reads: it looks into none of them.
func TestSkipReadsNoData(t *testing.T) {
	b := setup(t)
	if !tellsChanges(b) {
		return
	}
	l := setupLooks(b)
	l.refreshed("the first time")
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
	b.tend()
	tx, err := b.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	var before, after int64
	const blocks = `select sum(pg_catalog.pg_stat_get_xact_blocks_fetched(c.oid))
		from pg_catalog.pg_class c where c.relnamespace = 'public'::regnamespace`
	var reason string
	for _, step := range []struct {
		sql  string
		into any
	}{{blocks, &before}, {`select skipped from mvsched.claim('test', 1, null, null, null, false)`, &reason}, {blocks, &after}} {
		if err := tx.QueryRow(t.Context(), step.sql).Scan(step.into); err != nil {
			t.Fatalf("%s: %v", step.sql, err)
		}
	}
	if reason != schedule.ReasonUnchanged || before != after {
		t.Errorf("%q after %d blocks", reason, after-before)
	}
}
