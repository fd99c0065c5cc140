package schedule_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

const itemTable = `create table public.item (id int primary key, x text, materialized_at timestamptz, y int, z int)`

func columnsOf(query string) schedule.Settings {
	yes := true
	return schedule.Settings{OnChange: &yes, Columns: &schedule.Columns{Query: &query}}
}

func TestAddColumns_refuses(t *testing.T) {
	call := "no_such_function()"
	two := 2
	yes := true
	for _, test := range []struct {
		name, table, query, problem string
		settings                    schedule.Settings
	}{
		{name: "what is no query", query: `selekt`, problem: `syntax error`},
		{name: "two statements", query: `select 1 as id, 2 as y) q) select 1; drop table public.item; with x as (select * from (select 1 as id`, problem: "multiple commands"},
		{name: "a query without id", query: `select 1 as y from batch`, problem: "gives no column id"},
		{name: "a query without columns", query: `select id from batch`, problem: "gives no column but id"},
		{name: "a column that the table has not", query: `select id, 1 as w from batch`, problem: "column w"},
		{name: "materialized_at itself", query: `select id, now() as materialized_at from batch`, problem: "column materialized_at"},
		{name: "an unknown table", query: `select id, n as y from batch join nowhere using (id)`, problem: `"nowhere" does not exist`},
		{name: "a table without key", table: `create table public.item (id int, materialized_at timestamptz, y int)`, problem: "no primary key of one column"},
		{name: "a table without materialized_at", table: `create table public.item (id int primary key, y int)`, problem: "no column materialized_at"},
		{name: "a view", table: `create view public.item as select 1 as id`, problem: "is not a table"},
		{
			name: "a function that is not there", problem: "no_such_function",
			settings: schedule.Settings{OnChange: &yes, Columns: &schedule.Columns{Call: &call}},
		},
		{
			name: "a function in two lanes", problem: "two calls at the same time",
			settings: schedule.Settings{OnChange: &yes, Columns: &schedule.Columns{Call: new("pg_sleep(0)"), Lanes: &two}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setup(t)
			if test.table == "" {
				test.table = itemTable
			}
			if test.query == "" {
				test.query = `select id, 1 as y from batch`
			}
			b.Exec(test.table)
			settings := test.settings
			if settings.Columns == nil {
				settings = columnsOf(test.query)
			}
			_, err := b.store.Add(t.Context(), []schedule.ViewName{{Schema: "public", Name: "item"}}, settings, false)
			var refused *schedule.DefinitionError
			if !errors.As(err, &refused) || !strings.Contains(refused.Problem, test.problem) {
				t.Errorf("%v, want it refused for %q", err, test.problem)
			}
			b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule`)
			b.Check("true", `select to_regclass('public.item') is not null`)
		})
	}
}

func TestInvalidate(t *testing.T) {
	b := setup(t)
	b.Exec(itemTable)
	b.Exec(`insert into public.item (id, x, materialized_at) select n, n::text, '2020-01-01Z' from generate_series(1, 12000) n`)
	item := schedule.ViewName{Schema: "public", Name: "item"}
	if _, err := b.store.Add(t.Context(), []schedule.ViewName{item}, columnsOf(`select id, 1 as y, 2 as z from batch`), false); err != nil {
		t.Fatal(err)
	}

	var steps []int64
	rows, err := b.store.Invalidate(t.Context(), item, "id % 3 = 0", nil, func(rows int64) { steps = append(steps, rows) })
	if err != nil || rows != 4000 || len(steps) < 3 || !slices.IsSorted(steps) {
		t.Errorf("%d rows in steps %v (%v), want 4000 in small ones", rows, steps, err)
	}
	b.Check("4000", `select count(*) from public.item where materialized_at is null and id % 3 = 0`)

	if _, err := b.store.Invalidate(t.Context(), item, "x = '7'", []string{"z"}, nil); err != nil {
		t.Error(err)
	}
	b.Check("{z} x = '7'", `select columns::text || ' ' || condition from mvsched.materialization_fill`)

	for _, wrong := range []string{"nothing", "id", "true; drop table public.item", "true) from (select 1) s; select (1", "id = 1) or (id = 2"} {
		var refused *schedule.InvalidError
		if _, err := b.store.Invalidate(t.Context(), item, wrong, nil, nil); !errors.As(err, &refused) {
			t.Errorf("--where %s: %v, want it refused", wrong, err)
		}
	}
	var refused *schedule.DefinitionError
	if _, err := b.store.Invalidate(t.Context(), item, "true", []string{"w"}, nil); !errors.As(err, &refused) {
		t.Errorf("a column that is none: %v", err)
	}
	b.Check("4000", `select count(*) from public.item where materialized_at is null`)
}

// Columns that are asked for again are work, though no row is.
func TestColumnsQueued(t *testing.T) {
	b := setup(t)
	b.Exec(itemTable)
	b.Exec(`insert into public.item (id, materialized_at) values (1, now())`)
	b.add("item", columnsOf(`select id, 1 as y, 2 as z from batch`))
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		(materialized_view_refresh_schedule_id, view_name, view_oid, status, started_at, ended_at, method, data_as_of)
		select id, materialized_view_name, view_oid, 'succeeded', now(), now(), 'columns', now() from mvsched.materialized_view_refresh_schedule`)
	b.change("item", "next_run_at = null, last_attempted_at = now()")
	check := func(state schedule.State, queued, why string) {
		t.Helper()
		standings, err := b.store.Status(t.Context(), nil)
		if err != nil || len(standings) != 1 {
			t.Fatal(standings, err)
		}
		st, e := standings[0], b.why("public.item")
		if st.State != state || *st.RowsLeft != 0 || strings.Join(st.ColumnsQueued, ", ") != queued || e.State != state || e.Reasons[0].Code != why {
			t.Errorf("%+v, %+v", st, e)
		}
	}
	check(schedule.StateFresh, "", schedule.WhyAwaitsChange)
	for _, columns := range [][]string{{"z"}, {"z", "y"}} {
		if _, err := b.store.Invalidate(t.Context(), schedule.ViewName{Schema: "public", Name: "item"}, "true", columns, nil); err != nil {
			t.Fatal(err)
		}
	}
	check(schedule.StateDue, "y, z", schedule.WhyUnplanned)
}

func TestDoctorOnColumns(t *testing.T) {
	b := setup(t)
	b.Exec(itemTable)
	b.Exec(`create index item_at on public.item (materialized_at)`)
	item := schedule.ViewName{Schema: "public", Name: "item"}
	if _, err := b.store.Add(t.Context(), []schedule.ViewName{item}, columnsOf(`select id, 1 as y from batch`), false); err != nil {
		t.Fatal(err)
	}
	b.Exec(`insert into mvsched.materialization_poison (materialized_view_refresh_schedule_id, row_key, execution_id, error_name, error_message)
		select id, '7', 1, '22P02', 'bad' from mvsched.materialized_view_refresh_schedule`)
	found := func() map[string]schedule.Finding {
		findings, err := b.store.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		byCheck := map[string]schedule.Finding{}
		for _, f := range findings {
			if f.View == "public.item" {
				byCheck[f.Check] = f
			}
		}
		return byCheck
	}

	before := found()
	for check, fix := range map[string]string{
		"columns_without_index":   "create index concurrently on public.item (id) where materialized_at is null;",
		"materialized_at_indexed": "drop index public.item_at;",
		"rows_set_aside":          `mvsched invalidate public.item --where "materialized_at = '-infinity'"`,
	} {
		if f := before[check]; f.Fix == nil || *f.Fix != fix {
			t.Errorf("%s: %+v", check, f)
		} else if !strings.HasPrefix(fix, "mvsched") {
			b.Exec(fix)
		}
	}
	if len(before) != 3 {
		t.Errorf("found %+v", before)
	}
	b.Exec(`delete from mvsched.materialization_poison`)
	if after := found(); len(after) > 0 {
		t.Errorf("after the fixes: %+v", after)
	}
	b.Exec(`alter table public.item drop column materialized_at`)
	if f := found()["columns_gone"]; f.Fix == nil || *f.Fix != "alter table public.item add column materialized_at timestamptz;" {
		t.Errorf("without materialized_at: %+v", f)
	}
}
