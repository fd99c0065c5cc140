package schedule_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

const majorSQL = `current_setting('server_version_num')::integer / 10000`

// provokedElsewhere are the checks with tests of their own.
var provokedElsewhere = []string{
	"may_not_refresh", "no_schema_usage", "owner_without_temp", "may_not_merge", // TestDoctorOnRights
	"bloat",                                                                              // TestDoctorOnBloat
	"timezone_unknown",                                                                   // TestATimeZoneThatIsGone
	"columns_gone", "columns_without_index", "materialized_at_indexed", "rows_set_aside", // TestDoctorOnColumns
}

func TestEveryCheckIsDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "commands.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(schedule.CheckNames(), "cycle", "known_cve", "standby", "pooler", "clock") {
		if !strings.Contains(string(page), "\n| `"+name+"` | ") {
			t.Errorf("docs/commands.md does not tell what %s finds", name)
		}
	}
}

// TestDoctorFindings brings each finding about, and where there is a fix, applies it as printed.
func TestDoctorFindings(t *testing.T) {
	// Two columns, of which doctor sees that id is a key.
	const analyzed = `create materialized view public.v as select i as id, i %% 2 as half, %s as n from generate_series(1, 100) i;
		create unique index v_id on public.v (id); analyze public.v`
	plain := fmt.Sprintf(analyzed, "0")
	const merge = `create table public.copy (id int); create view public.source as select 1 as id;
		insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, kind, merge_source, merge_key, refresh_interval)
		values ('public.copy', 'merge', 'public.source', '{id}', '1 hour')`
	unprovoked := slices.DeleteFunc(schedule.CheckNames(), func(name string) bool { return slices.Contains(provokedElsewhere, name) })
	for _, test := range []struct {
		check    string
		severity schedule.Severity
		arrange  string
		message  string // a part of it
		fix      string // as printed; "" for none
		view     string // public.v if "", none if "-"
		from     int    // major version of PostgreSQL
		until    int    // 0: all
	}{
		{
			check: "missing", severity: "error", message: "no such view",
			arrange: plain + `; {v every 1h}; drop materialized view public.v`, fix: "mvsched remove public.v",
		},
		{
			check: "missing", severity: "error", message: "no such view", view: `public."it's ""so"""`,
			arrange: plain + `; alter materialized view public.v rename to "it's ""so"""; {"it's ""so""" every 1h};
				drop materialized view public."it's ""so"""`,
			fix: `mvsched remove 'public."it'\''s ""so"""'`,
		},
		{
			check: "missing", severity: "error", message: "no such view", view: `no"such..name`,
			arrange: plain + `; {v every 1h}; alter table mvsched.materialized_view_refresh_schedule disable trigger user;
				update mvsched.materialized_view_refresh_schedule set materialized_view_name = 'no"such..name', view_oid = null`,
			fix: `delete from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'no"such..name';`,
		},
		{
			check: "not_a_materialized_view", severity: "error", message: "stands for a table now",
			arrange: plain + `; {v every 1h}; drop materialized view public.v; create table public.v ()`,
			fix:     "mvsched remove public.v",
		},
		{
			check: "scheduled_twice", severity: "warning", message: "has 2 schedules", view: "public.w",
			arrange: plain + `; {v every 1h}; {w every 1h}; alter materialized view public.v rename to w`,
			fix:     "delete from mvsched.materialized_view_refresh_schedule where id <> 1 and id in (1, 2);",
		},
		{
			check: "unpopulated", severity: "warning", message: "never been filled",
			arrange: plain + `; {v every 1h}; refresh materialized view public.v with no data`, fix: "mvsched refresh public.v",
		},
		{
			check: "no_unique_index", severity: "warning", message: "locks out its readers",
			arrange: plain + `; {v every 1h}; drop index public.v_id; create unique index on public.v (id) where id > 0`,
			fix:     "create unique index on public.v (id);",
		},
		{
			check: "no_unique_index", severity: "error", message: "every refresh fails",
			arrange: `create materialized view public.v as select 1 as id from generate_series(1, 2); {v every 1h};
				update mvsched.materialized_view_refresh_schedule set strategy = 'concurrently'`,
			fix: "mvsched set public.v --strategy plain",
		},
		{
			check: "null_in_unique_key", severity: "warning", message: "public.v_n has NULLs",
			arrange: fmt.Sprintf(analyzed, "nullif(i, 7)") + `; create unique index v_n on public.v (n); {v every 1h}`,
			fix:     "drop index public.v_n;",
		},
		{
			check: "null_in_unique_key", severity: "warning", message: "coalesce",
			arrange: fmt.Sprintf(analyzed, "nullif(i, 7)") + `; drop index public.v_id; create unique index v_n on public.v (n); {v every 1h}`,
		},
		{
			check: "search_path_trap", severity: "warning", message: "empty search_path, and it fails", from: 17,
			arrange: trap, fix: "alter function shop.price() set search_path = shop, pg_temp;",
		},
		{
			check: "search_path_trap", severity: "advice", message: "from PostgreSQL 17 on", until: 16,
			arrange: trap, fix: "alter function shop.price() set search_path = shop, pg_temp;",
		},
		{
			check: "search_path_trap", severity: "warning", message: "Several schemas have it", from: 17,
			arrange: trap + `; create table public.prices ()`,
		},
		{
			check: "interval_too_short", severity: "warning", message: "longer than the interval of 10s",
			arrange: plain + `; {v every 10s}; {5 runs of 20 s, +1 -1}`, fix: "mvsched set public.v --every 30s",
		},
		{
			check: "interval_too_short", severity: "warning", message: "longer than the interval of 10s",
			arrange: plain + `; {v every 10s}; {5 runs of 200 s, +1 -1}`, fix: "mvsched set public.v --every 5m",
		},
		{
			check: "nothing_changed", severity: "advice", message: "20 of the last 22", from: 15,
			arrange: plain + `; {v every 1h}; {20 runs of 1 s, +0 -0}; {2 runs of 1 s, +1 -0}`,
			fix:     "mvsched set public.v --skip-unchanged",
		},
		{
			check: "cannot_tell_changes", severity: "warning", message: "function random()",
			arrange: fmt.Sprintf(analyzed, "random()") + `; {v every 1h};
				update mvsched.materialized_view_refresh_schedule set skip_unchanged = true`,
			fix: "mvsched set public.v --skip-unchanged=false",
		},
		{
			check: "unscheduled", severity: "warning", message: "no schedule",
			arrange: plain, fix: "mvsched add public.v --every 1h",
		},
		{
			check: "parent_less_often", severity: "advice", message: "public.v", view: "public.child",
			arrange: plain + `; create view public.between as select id from public.v;
				create materialized view public.child as select id from public.between; {v every 1h}; {child every 5m}`,
			fix: "mvsched set public.child --after-parents",
		},
		{
			check: "duplicate_check", severity: "advice", message: "dropped silently",
			arrange: plain + `; {v every 1h}; {5 runs of 3 s, +10 -10}`,
		},
		{
			check: "mostly_rewritten", severity: "advice", message: "takes 3.0s and writes 90 % of the view's rows anew; a plain one may",
			arrange: plain + `; {v every 1h}; {5 runs of 3 s, +900 -900}`,
			fix:     "mvsched set public.v --strategy plain",
		},
		{
			check: "suspended", severity: "error", message: "since 2026-03-02 12:00 UTC: 3 failed slots in a row",
			arrange: plain + `; {v every 1h}; update mvsched.materialized_view_refresh_schedule
				set suspended_at = '2026-03-02 12:00Z', suspended_reason = '3 failed slots in a row'`,
			fix: "mvsched resume public.v",
		},
		{
			check: "max_lag_out_of_reach", severity: "warning", message: "up to 1m30s old, not 1m as",
			arrange: plain + `; {v every 1h}; {v no older than 1 minute}; update mvsched.materialized_view_refresh_schedule set reachable_lag = '90 s'`,
			fix:     "mvsched set public.v --max-lag 1m53s",
		},
		{
			check: "max_lag_out_of_reach", severity: "warning", message: "up to 1m1s old, not 1m as",
			arrange: plain + `; {v every 1h}; {v no older than 1 minute}; update mvsched.materialized_view_refresh_schedule set reachable_lag = '60.04 s'`,
			fix:     "mvsched set public.v --max-lag 1m16s",
		},
		{
			check: "max_lag_behind_parent", severity: "warning", message: "public.v, which is refreshed every 1h", view: "public.child",
			arrange: plain + `; create materialized view public.child as select id from public.v; {child every 1h}; {child no older than 1 minute}; {v every 1h}`,
			fix:     "mvsched set public.v --max-lag 1m",
		},
		{
			check: "max_lag_behind_parent", severity: "warning", message: "public.v, which nobody refreshes", view: "public.child",
			arrange: plain + `; create materialized view public.child as select id from public.v; {child every 1h}; {child no older than 1 minute}`,
			fix:     "mvsched add public.v --max-lag 1m",
		},
		{
			check: "max_lag_behind_parent", severity: "warning", message: "public.v, which is paused", view: "public.child",
			arrange: plain + `; create materialized view public.child as select id from public.v; {child every 1h}; {child no older than 1 minute};
				{v every 30s}; update mvsched.materialized_view_refresh_schedule set paused_at = now() where materialized_view_name = 'public.v'`,
			fix: "mvsched resume public.v",
		},
		{
			check: "changes_unseen", severity: "warning", message: "function random()",
			arrange: fmt.Sprintf(analyzed, "random()") + `; {v every 1h};
				update mvsched.materialized_view_refresh_schedule set refresh_interval = null, on_change = true`,
			fix: "mvsched set public.v --every 1h",
		},
		{
			check: "changes_unseen", severity: "advice", message: "when somebody asks", // and somebody does
			arrange: fmt.Sprintf(analyzed, "random()") + `; {v every 1h};
				update mvsched.materialized_view_refresh_schedule set refresh_interval = null, on_change = true, requested_at = now()`,
			fix: "mvsched set public.v --every 1h",
		},
		{
			check: "queue_unserved", severity: "warning", message: "queue heavy: 1 views are due", view: "-",
			arrange: plain + `; {v every 1h}; update mvsched.materialized_view_refresh_schedule
				set queue = 'heavy', next_run_at = now() - interval '11 minutes', last_attempted_at = now() - interval '2 hours'`,
			fix: "mvsched run --queue heavy",
		},
		{
			check: "group_long", severity: "warning", message: "group g: its 2 views take 6m40s", view: "-",
			arrange: plain + `; {v every 1h}; create materialized view public.w as select 1 as id; {w every 1h}; {5 runs of 400 s, +1 -1};
				update mvsched.materialized_view_refresh_schedule set refresh_group = 'g'`,
		},
		{
			check: "group_uneven", severity: "advice", message: "every 1h, and is with its group, g, every 5m",
			arrange: plain + `; {v every 1h}; create materialized view public.w as select 1 as id; {w every 5m};
				update mvsched.materialized_view_refresh_schedule set refresh_group = 'g'`,
			fix: "mvsched set public.v --group ''",
		},
		{
			check: "group_plain", severity: "warning", message: "its readers wait until all of its group, g,", view: "public.w",
			arrange: plain + `; {v every 1h}; create materialized view public.w as select 1 as id; {w every 1h};
				update mvsched.materialized_view_refresh_schedule set refresh_group = 'g'`,
			fix: "mvsched set public.w --group ''",
		},
		{
			check: "group_open", severity: "warning", message: "it reads public.v, which reads public.first: the two are in group g", view: "public.w",
			arrange: `create materialized view public.first as select 1 as id; create materialized view public.v as select id from public.first;
				create materialized view public.w as select id from public.v; {first every 1h}; {v every 1h}; {w every 1h};
				update mvsched.materialized_view_refresh_schedule set refresh_group = 'g' where materialized_view_name <> 'public.v';
				insert into mvsched.materialized_view_graph (view_oid, parents, ancestors, cyclic)
				values ('public.v'::regclass, array['public.first'::regclass]::oid[], array['public.first'::regclass]::oid[], false),
				       ('public.w'::regclass, array['public.v'::regclass]::oid[], array['public.v', 'public.first']::regclass[]::oid[], false)`,
			fix: "mvsched set public.v --group g",
		},
		{
			check: "merge_source_missing", severity: "error", message: "view public.source, which the table is kept equal to", view: "public.copy",
			arrange: merge + `; drop view public.source`,
		},
		{
			check: "merge_key_not_unique", severity: "error", message: "no unique index on its key (id)", view: "public.copy",
			arrange: merge, fix: "create unique index on public.copy (id);",
		},
		{
			check: "merge_key_nullable", severity: "advice", message: "column id of its key may be NULL", view: "public.copy",
			arrange: merge, fix: "alter table public.copy alter column id set not null;",
		},
		{
			check: "cycle", severity: "warning", message: "public.v, public.w; no order",
			arrange: `create view public.between as select 1 as id; create materialized view public.v as select id from public.between;
				create materialized view public.w as select id from public.v; create materialized view public.behind as select id from public.w;
				create or replace view public.between as select id from public.w`,
		},
	} {
		unprovoked = slices.DeleteFunc(unprovoked, func(name string) bool { return name == test.check })
		t.Run(test.check+"_"+string(test.severity), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var major int
			if _, err := fmt.Sscan(b.Value(majorSQL), &major); err != nil {
				t.Fatal(err)
			}
			if major < test.from || test.until != 0 && major > test.until {
				return // another case is for this one
			}
			b.arrange(test.arrange)
			view := test.view
			switch view {
			case "":
				view = "public.v"
			case "-":
				view = ""
			}
			b.found(schedule.Finding{Severity: test.severity, Check: test.check, View: view, Message: test.message}, test.fix)
			if test.fix == "" {
				return
			}
			b.apply(test.fix)
			if f := b.finding(test.check, view); f != nil {
				t.Errorf("after the fix: %+v", *f)
			}
		})
	}
	if len(unprovoked) > 0 {
		t.Errorf("no test provokes %q", unprovoked)
	}
}

func TestDoctorOnRights(t *testing.T) {
	b := setup(t)
	role := b.role()
	b.Exec(`create schema s`)
	b.Exec(`create materialized view s.v as select 1 as id`)
	b.Exec(`create unique index on s.v (id)`)
	b.Schedule("s.v", "1 h")
	conn, err := b.Pool.Acquire(b.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(b.Context(), "set role "+role); err != nil {
		t.Fatal(err)
	}
	defer conn.Exec(b.Context(), "reset role")
	unprivileged := &bundle{b.DB, schedule.NewStore(conn)}

	fix := fmt.Sprintf("grant maintain on s.v to %s;", role)
	if major := b.Value(majorSQL); major < "17" {
		fix = fmt.Sprintf("grant %s to %s;", b.Value(`quote_ident(current_user)`), role)
	}
	unprivileged.found(schedule.Finding{Severity: "error", Check: "may_not_refresh", View: "s.v", Message: "may not refresh"}, fix)
	usage := fmt.Sprintf("grant usage on schema s to %s;", role)
	unprivileged.found(schedule.Finding{Severity: "error", Check: "no_schema_usage", View: "s.v", Message: "no USAGE"}, usage)
	b.Exec(usage)
	if unprivileged.finding("no_schema_usage", "s.v") != nil {
		t.Error("no_schema_usage after its fix")
	}
	b.Exec(`create table s.copy (id int primary key)`)
	b.Exec(`create view s.source as select 1 as id`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, kind, merge_source, merge_key, refresh_interval)
	values ('s.copy', 'merge', 's.source', '{id}', '1 hour')`)
	rights := fmt.Sprintf("grant select, insert, update, delete on s.copy to %s; grant select on s.source to %[1]s;", role)
	unprivileged.found(schedule.Finding{Severity: "error", Check: "may_not_merge", View: "s.copy", Message: "write the table, nor read view s.source"}, rights)
	b.Exec(`grant select, insert, update, delete on s.copy to ` + role)
	b.Exec(`grant select on s.source to ` + role)
	if unprivileged.finding("may_not_merge", "s.copy") != nil {
		t.Error("may_not_merge after its fix")
	}
	b.Exec(fix)
	if unprivileged.finding("may_not_refresh", "s.v") != nil {
		t.Error("may_not_refresh after its fix")
	}

	// A member of the database's owner would have its rights.
	if owner, isMember := strings.CutSuffix(fix, " to "+role+";"); isMember && !strings.Contains(owner, "maintain") {
		b.Exec(strings.Replace(owner, "grant", "revoke", 1) + " from " + role)
	}
	b.Exec("revoke temporary on database " + b.Value("quote_ident(current_database())") + " from public")
	b.Exec("alter materialized view s.v owner to " + role)
	temp := fmt.Sprintf("grant temporary on database %s to %s;", b.Value("quote_ident(current_database())"), role)
	b.found(schedule.Finding{Severity: "warning", Check: "owner_without_temp", View: "s.v", Message: "temporary"}, temp)
	b.Exec(`update mvsched.materialized_view_refresh_schedule set strategy = 'concurrently'`)
	b.found(schedule.Finding{Severity: "error", Check: "owner_without_temp", View: "s.v", Message: "every refresh fails"}, temp)
	b.Exec(temp)
	if b.finding("owner_without_temp", "s.v") != nil {
		t.Error("owner_without_temp after its fix")
	}
}

func TestDoctorOnBloat(t *testing.T) {
	b := setup(t)
	b.Exec(`create table public.t as select i as id, 0 as x from generate_series(1, 2000) i`)
	b.Exec(`create materialized view public.v with (autovacuum_enabled = off) as select * from public.t`)
	b.Exec(`create unique index on public.v (id)`)
	b.Schedule("public.v", "1 h")
	b.Exec(`update public.t set x = 1`)
	b.Exec(`refresh materialized view concurrently public.v`)
	pgtest.WaitFor(t, t.Context(), "bloat", func() bool { return b.finding("bloat", "public.v") != nil })
	b.found(schedule.Finding{Severity: "warning", Check: "bloat", View: "public.v", Message: "rows are dead"}, "vacuum public.v;")
	b.apply("vacuum public.v;")
	pgtest.WaitFor(t, t.Context(), "no bloat", func() bool { return b.finding("bloat", "public.v") == nil })
}

// Nothing to find, and what must not be taken for a finding.
func TestDoctorFindsNothing(t *testing.T) {
	b := setup(t)
	b.arrange(`create materialized view public.v as select i as id, null::boolean as n from generate_series(1, 100) i;
		create unique index on public.v (id) include (n); analyze public.v; {v every 1h}; {30 runs of 4 s, +10 -10};
		create materialized view public.w as select 1 as id; {w every 1s};
		update mvsched.materialized_view_refresh_schedule set strategy = 'plain' where materialized_view_name = 'public.w';
		create materialized view public.x as select id from public.w; {x every 1s}; {x no older than 1 minute};
		update mvsched.materialized_view_refresh_schedule set strategy = 'plain', reachable_lag = '1 minute' where materialized_view_name = 'public.x';
		update mvsched.materialized_view_refresh_schedule set next_run_at = now() - interval '11 minutes', last_attempted_at = now() - interval '1 minute'`)
	findings, err := b.store.Doctor(t.Context())
	if err != nil || len(findings) > 0 {
		t.Errorf("%+v, %v", findings, err)
	}
}

func TestDoctorOnServer(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		facts schedule.ServerFacts
		want  string
	}{
		"fine":              {schedule.ServerFacts{Version: 180004, Clock: now}, ""},
		"standby":           {schedule.ServerFacts{Version: 180004, Clock: now, InRecovery: true}, "error standby"},
		"old":               {schedule.ServerFacts{Version: 150003, Clock: now}, "warning known_cve"},
		"pooler":            {schedule.ServerFacts{Version: 180004, Clock: now, PID: 1, ConnectedTo: 2}, "advice pooler"},
		"clock ahead":       {schedule.ServerFacts{Version: 180004, Clock: now.Add(-3 * time.Second)}, "advice clock"},
		"clock behind":      {schedule.ServerFacts{Version: 180004, Clock: now.Add(8 * time.Second)}, "advice clock"},
		"slow, not a clock": {schedule.ServerFacts{Version: 180004, Clock: now.Add(5 * time.Second)}, ""},
	} {
		test.facts.AskedAt, test.facts.AnsweredAt = now, now.Add(5*time.Second)
		var got []string
		for _, f := range schedule.ServerFindings(test.facts) {
			got = append(got, string(f.Severity)+" "+f.Check)
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%s: %v, want %s", name, got, test.want)
		}
	}
}
