package refresh_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// How a refresh ends that cannot succeed: the record, and that the others are none the worse (L2).
func TestHowARefreshEnds(t *testing.T) {
	for name, c := range map[string]struct {
		make   []string // of public.v
		change string   // of its schedule
		then   []string // after it was scheduled
		want   string   // status reason method error_name
		hint   string
	}{
		"unpopulated": {
			make: []string{"create materialized view public.v as select 1 as id with no data", "create unique index on public.v (id)"},
			want: "succeeded null plain null",
		},
		"no_unique_index": {
			make: []string{"create materialized view public.v as select 1 as id"},
			want: "succeeded null plain null",
		},
		"partial_unique_index": {
			make: []string{"create materialized view public.v as select 1 as id", "create unique index on public.v (id) where id > 0"},
			want: "succeeded null plain null",
		},
		"expression_index": {
			make: []string{"create materialized view public.v as select 1 as id", "create unique index on public.v ((id + 1))"},
			want: "succeeded null plain null",
		},
		"no_unique_index_but_concurrently": {
			make:   []string{"create materialized view public.v as select 1 as id"},
			change: "strategy = 'concurrently'",
			want:   "failed null concurrently object_not_in_prerequisite_state", hint: "unique index",
		},
		"plain_by_choice": {
			make:   []string{"create materialized view public.v as select 1 as id", "create unique index on public.v (id)"},
			change: "strategy = 'plain'",
			want:   "succeeded null plain null",
		},
		"duplicate_rows": {
			make: []string{
				"create table public.base (id integer, n integer)", "insert into public.base values (1, 1)",
				"create materialized view public.v as select * from public.base", "create unique index on public.v (id)",
				"insert into public.base values (1, 1)",
			},
			want: "failed null concurrently cardinality_violation", hint: "twice",
		},
		"duplicate_keys": {
			make: []string{
				"create table public.base (id integer, n integer)", "insert into public.base values (1, 1)",
				"create materialized view public.v as select * from public.base", "create unique index on public.v (id)",
				"insert into public.base values (1, 2)",
			},
			want: "failed null concurrently unique_violation", hint: "twice",
		},
		"error_in_the_query": {
			make: []string{"create materialized view public.v as select 1 / 0 as id with no data"},
			want: "failed null plain division_by_zero",
		},
		"dropped": {
			make: []string{"create materialized view public.v as select 1 as id"},
			then: []string{"drop materialized view public.v"},
			want: "failed missing null undefined_table", hint: "mvsched remove public.v",
		},
		"source_not_populated": {
			make: []string{"create materialized view public.base as select 1 as id with no data", "create materialized view public.v as select * from public.base with no data"},
			want: "failed null plain object_not_in_prerequisite_state", hint: "never been filled",
		},
		"own_setting": {
			make: []string{"create materialized view public.v as select current_setting('app.tenant') as id with no data"},
			want: "failed null plain undefined_object", hint: "`alter role … set …`",
		},
		"own_sqlstate": {
			make: []string{
				"create function public.f() returns integer language plpgsql as $$begin raise exception 'no' using errcode = 'XY123'; end$$",
				"create materialized view public.v as select public.f() as id with no data",
			},
			want: "failed null plain sqlstate_XY123",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.view("good", "select 1 as id")
			for _, sql := range c.make {
				b.Exec(sql)
			}
			b.schedule("v")
			if c.change != "" {
				b.set("v", c.change)
			}
			for _, sql := range c.then {
				b.Exec(sql)
			}
			log := &pgtest.Buffer{}
			b.worker.Log = slog.New(slog.NewTextHandler(log, nil))
			executions := b.runDue()
			if strings.Contains(log.String(), "recording the end") {
				t.Errorf("not recorded under the lock of the refresh, so that a rescuer may be quicker: %s", log.String())
			}
			e := executions["public.v"]
			if got := fmt.Sprintf("%s %s %s %s", e.Status, text(e.Reason), text((*string)(e.Method)), text(e.ErrorName)); got != c.want {
				t.Errorf("%s, want %s (%s)", got, c.want, text(e.ErrorMessage))
			}
			if hint := refresh.Hint(e); !strings.Contains(hint, c.hint) || (c.hint == "") != (hint == "") {
				t.Errorf("hint %q, want %q in it", hint, c.hint)
			}
			if executions["public.good"].Status != schedule.Succeeded {
				t.Errorf("the other view: %+v", executions["public.good"])
			}
			b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule_execution
				where status = 'running' or error_message like '%(1, %'`) // DETAIL carries rows
		})
	}
}

func TestNotTheOwner(t *testing.T) {
	b := setup(t)
	role := "worker_" + b.Value("current_database()")
	b.Exec("create role " + role + " login")
	t.Cleanup(func() {
		b.worker.Pool.Close()
		_, _ = b.Pool.Exec(context.Background(), "drop owned by "+role+" cascade")
		_, _ = b.Pool.Exec(context.Background(), "drop role "+role)
	})
	b.Exec("grant usage on schema mvsched to " + role)
	b.Exec("grant select, insert, update, delete on all tables in schema mvsched to " + role)
	b.view("v", "select 1 as id")
	config := b.worker.Pool.Config()
	config.ConnConfig.User = role
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	b.worker.Pool, b.worker.Store = pool, schedule.NewStore(pool)
	e := b.runDue()["public.v"]
	if e.Status != schedule.Failed || text(e.ErrorName) != "insufficient_privilege" || !strings.Contains(refresh.Hint(e), "MAINTAIN") {
		t.Errorf("%+v", e)
	}
}

// A function that the session's search_path does not reach, and one that --search-path does (up to PostgreSQL 16).
func TestSearchPath(t *testing.T) {
	b := setup(t)
	if b.Value("current_setting('server_version_num')::integer >= 170000") == "true" {
		b.Exec("create function public.inner_f() returns integer language sql as 'select 1'")
		b.Exec("create function public.f() returns integer language plpgsql as 'begin return inner_f(); end'")
		b.Exec("create materialized view public.v as select public.f() as id with no data")
		b.schedule("v")
		if e := b.runDue()["public.v"]; text(e.ErrorName) != "undefined_function" || !strings.Contains(refresh.Hint(e), "alter function") {
			t.Errorf("%+v", e)
		}
		return
	}
	b.Exec("create function public.inner_f() returns integer language sql as 'select 1'")
	b.Exec("create function public.f() returns integer language plpgsql as 'begin return inner_f(); end'")
	b.Exec("create materialized view public.v as select public.f() as id with no data")
	b.schedule("v")
	if e := b.runDue()["public.v"]; text(e.ErrorName) != "undefined_function" || !strings.Contains(refresh.Hint(e), "--search-path") {
		t.Errorf("without: %+v", e)
	}
	b.set("v", "search_path = 'public', next_run_at = now()")
	if e := b.runDue()["public.v"]; e.Status != schedule.Succeeded {
		t.Errorf("with: %+v", e)
	}
}

// What its end means for its schedule is settled behind the commit. When that fails, the refresh has succeeded all the same,
// and the connection is as good as before.
func TestSettlingBehindARefreshFails(t *testing.T) {
	b := setup(t)
	b.with(nil, 1)
	b.view("a", "select 1 as id")
	b.view("b", "select 1 as id")
	b.Exec(`create sequence public.calls`)
	b.Exec(`create table public.limits (settled_within text)`)
	b.Exec(`alter function mvsched.settle(bigint) rename to settle_them`)
	b.Exec(`create function mvsched.settle(schedule bigint default null) returns timestamptz language plpgsql as $$
		begin
			if exists (select from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded')
				and nextval('public.calls') = 1 then
				raise exception 'not now';
			end if;
			insert into public.limits values (current_setting('statement_timeout'));
			return mvsched.settle_them(schedule);
		end $$`)
	executions := b.runDue()
	for _, view := range []string{"public.a", "public.b"} {
		if e := executions[view]; e.Status != schedule.Succeeded {
			t.Errorf("%s: %+v %s", view, e, text(e.ErrorMessage))
		}
	}
	b.Check("0", `select count(open_execution_id) from mvsched.materialized_view_refresh_schedule`)
	b.Check("10s", `select distinct settled_within from public.limits where settled_within <> '0'`) // and not the refresh's
}

// What is left of the refresh's own time is nothing, by then.
func TestTheRecordOfAFailureHasTimeOfItsOwn(t *testing.T) {
	b := setup(t)
	b.Exec(`create materialized view public.slow as select 1 as id from pg_sleep(60) with no data`)
	b.schedule("slow")
	b.set("slow", "maximum_execution_duration = '1 second'")
	b.Exec(`create function public.take_time() returns trigger language plpgsql as $$ begin perform pg_sleep(1.3); return new; end $$`)
	b.Exec(`create trigger take_time before update on mvsched.materialized_view_refresh_schedule_execution
		for each row when (new.status = 'timed_out') execute function public.take_time()`)
	if got := b.runDue()["public.slow"]; got.Status != schedule.TimedOut || text(got.Reason) != schedule.ReasonTimeLimit {
		t.Errorf("it ended as %s (%s): %s", got.Status, text(got.Reason), text(got.ErrorMessage))
	}
}
