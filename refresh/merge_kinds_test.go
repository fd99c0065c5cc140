package refresh_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// mergeTable schedules public.copy as a merge table of public.source by id.
func (b *bundle) mergeTable(window string) {
	b.Helper()
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule
		(materialized_view_name, kind, merge_source, merge_key, merge_window, refresh_interval)
		values ('public.copy', 'merge', 'public.source', '{id}', nullif($1, ''), '1 hour')`, window)
}

// refreshed refreshes what is due, which is to succeed with so many rows inserted and deleted.
func (b *bundle) refreshed(inserted, deleted int64) {
	b.Helper()
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
	e := b.runDue()["public.copy"]
	if e.Status != schedule.Succeeded || *e.RowsInserted != inserted || *e.RowsDeleted != deleted {
		b.Errorf("%s %s %s, want +%d -%d", e.Status, text(e.ErrorMessage), counted(e), inserted, deleted)
	}
}

func counted(e schedule.Execution) string {
	if e.RowsInserted == nil {
		return "null"
	}
	return fmt.Sprintf("+%d -%d", *e.RowsInserted, *e.RowsDeleted)
}

// Such a view is read into a temporary table first, unless there is a window; nothing is left of that.
func TestMergeTableOfASlowView(t *testing.T) {
	for name, window := range map[string]string{"all": "", "window": "id < 100"} {
		t.Run(name, func(t *testing.T) {
			b := setupJobs(t, 1)
			b.Exec(`create table public.factor as select 1::bigint as by`)
			b.Exec(`create view public.source as select g % 10 as id, sum(g * by) as total from generate_series(1, 200000) g, public.factor group by 1`)
			b.Exec(`create table public.copy (id int primary key, total numeric)`)
			b.mergeTable(window)
			b.refreshed(10, 0)
			b.refreshed(0, 0)
			b.Exec(`update public.factor set by = 2`)
			b.refreshed(10, 10)
			b.Check("0", `select count(*) from public.copy full join public.source using (id) where copy.total is distinct from source.total`)
			b.Check("0", `select count(*) from pg_class where relname = 'mvsched_merge'`)

			b.Exec(`create or replace view public.source as select g % 10 as id, sum(g * by) as total from generate_series(1, 200000) g, public.factor group by g % 10, g % 20`)
			b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
			if e := b.runDue()["public.copy"]; text(e.ErrorName) != "cardinality_violation" {
				t.Errorf("two rows have the same key: %s %s", e.Status, text(e.ErrorMessage))
			}
		})
	}
}

// Where the planner is told off a way to join, the server compiled what is asked of the catalog here: 12.9 s a refresh on a busy
// machine, in place of 0.1 s.
func TestMergeAsksTheCatalogWithoutJIT(t *testing.T) {
	b := setup(t)
	b.Check("{merge_columns,merge_equalities}", `select array_agg(proname::text order by proname) from pg_proc
		where pronamespace = 'mvsched'::regnamespace and proname in ('merge_columns', 'merge_equalities') and 'jit=off' = any (proconfig)`)
}

func TestMergeTableIsATable(t *testing.T) {
	for name, c := range map[string]struct{ table, window string }{
		"partitioned": {`create table public.copy (id int primary key, name text, mail text) partition by range (id);
			create table public.low partition of public.copy for values from (0) to (3);
			create table public.high partition of public.copy for values from (3) to (100)`, ""},
		"partitioned with a window": {`create table public.copy (id int primary key, name text, mail text) partition by range (id);
			create table public.low partition of public.copy for values from (0) to (3);
			create table public.high partition of public.copy for values from (3) to (100)`, "id >= 0"},
		"second unique index": {`create table public.copy (id int primary key, name text, mail text unique)`, ""},
		"what it generates": {`create table public.copy (n int generated always as identity, id int unique, name text, mail text,
			upper text generated always as (upper(name)) stored)`, ""},
		"identity from the view": {`create table public.copy (id int generated always as identity primary key, name text, mail text)`, "id > 0"},
		"names":                  {`create table public.copy (id int primary key, name text, mail text)`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.Exec(`create table public.base (id int, name text, mail text)`)
			b.Exec(`create view public.source as select name, mail, id from public.base`)
			b.Exec(c.table)
			b.mergeTable(c.window)
			same := func() {
				t.Helper()
				b.Check("0", `select count(*) from ((select id, name, mail from public.copy except all select id, name, mail from public.source)
					union all (select id, name, mail from public.source except all select id, name, mail from public.copy)) d`)
			}
			b.Exec(`insert into public.base select g, 'n' || g, 'm' || g from generate_series(1, 5) g`)
			b.refreshed(5, 0)
			same()
			// What is gone makes room for what is new, in whichever unique index.
			b.Exec(`delete from public.base where id = 2`)
			b.Exec(`insert into public.base values (6, 'six', 'm2')`)
			b.Exec(`update public.base set name = null where id = 3`)
			b.refreshed(2, 2)
			same()
			b.refreshed(0, 0)
		})
	}
}

// Rows that exchange what is unique are in each other's way, whichever is updated first.
func TestMergeTableOfRowsThatExchangeAUniqueValue(t *testing.T) {
	const (
		made     = `create table public.copy (id int primary key, name text, mail text unique)`
		conflict = "unique_violation"
	)
	for name, c := range map[string]struct{ table, window, want string }{
		"nobody notices":    {table: made},
		"with a window":     {table: made, window: "id > 0"},
		"checked later":     {table: `create table public.copy (id int primary key, name text, mail text unique deferrable)`},
		"it is referred to": {table: made + `; create table public.child (id int references public.copy on delete cascade)`, want: conflict},
		"it has heirs":      {table: made + `; create table public.heir (extra text) inherits (public.copy)`, want: conflict},
		"a trigger": {table: `create function public.odd() returns trigger language plpgsql as 'begin return new; end'; ` + made +
			`; create trigger odd before insert on public.copy for each row execute function public.odd()`, want: conflict},
		"its own number": {table: `create table public.copy (id int primary key, name text, mail text unique, n int generated always as identity)`, want: conflict},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.Exec(`create table public.base (id int, name text, mail text)`)
			b.Exec(`create view public.source as select name, mail, id from public.base`)
			b.Exec(`insert into public.base select g, 'n' || g, 'm' || g from generate_series(1, 5) g`)
			b.Exec(c.table)
			b.mergeTable(c.window)
			b.refreshed(5, 0)
			if name == "it is referred to" {
				b.Exec(`insert into public.child values (1), (5)`)
			}
			b.Exec(`update public.base set mail = 'm' || 6 - id where id <> 3`)
			b.Exec(`insert into public.base values (6, 'six', 'm6')`)
			if c.want == "" {
				b.refreshed(5, 4)
				b.Check("0", `select count(*) from (select id, name, mail from public.copy except select id, name, mail from public.base) d`)
				return
			}
			b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
			if e := b.runDue()["public.copy"]; text(e.ErrorName) != c.want {
				t.Errorf("%s %s, want %s", e.Status, text(e.ErrorMessage), c.want)
			}
			b.Check("5", `select count(*) from public.copy where mail = 'm' || id`)
			if name == "it is referred to" {
				b.Check("2", `select count(*) from public.child`)
			}
		})
	}
}

// What is wrong with a merge table is told in its own words.
func TestMergeHints(t *testing.T) {
	for name, c := range map[string]struct{ sql, want string }{
		"no rights":         {`create function public.no() returns trigger language plpgsql as 'begin raise insufficient_privilege; end'; create trigger no before insert on public.copy for each row execute function public.no()`, "DELETE on the table"},
		"a trigger's table": {`create function public.odd() returns trigger language plpgsql as 'begin perform from nowhere; return new; end'; create trigger odd before insert on public.copy for each row execute function public.odd()`, "--search-path"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.Exec(`create view public.source as select 1 as id`)
			b.Exec(`create table public.copy (id int primary key)`)
			b.mergeTable("")
			b.Exec(c.sql)
			e := b.runDue()["public.copy"]
			if hint := refresh.Hint(e); e.Status != schedule.Failed || !strings.Contains(hint, c.want) || strings.Contains(hint, "PostgreSQL") {
				t.Errorf("%s %s: %s", e.Status, text(e.ErrorMessage), hint)
			}
		})
	}
}
