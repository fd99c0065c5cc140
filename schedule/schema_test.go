package schedule_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/schedule"
	"github.com/mvsched/mvsched/sql"
)

func TestInstall(t *testing.T) {
	empty := func(t *testing.T) *bundle {
		b := setup(t)
		b.Exec(`drop schema mvsched cascade`)
		return b
	}

	t.Run("does_it_once", func(t *testing.T) {
		b := empty(t)
		for _, want := range []bool{true, false} {
			if installed, err := schedule.Install(t.Context(), b.Pool); err != nil || installed != want {
				t.Errorf("%v, %v; want %v", installed, err, want)
			}
		}
		if err := b.store.CheckVersion(t.Context(), sql.Version); err != nil {
			t.Error(err)
		}
	})

	t.Run("is_safe_when_many_do_it_at_once", func(t *testing.T) {
		b := empty(t)
		var wg sync.WaitGroup
		results := make(chan bool, 6)
		for range 6 {
			wg.Go(func() {
				installed, err := schedule.Install(t.Context(), b.Pool)
				if err != nil {
					t.Error(err)
				}
				results <- installed
			})
		}
		wg.Wait()
		close(results)
		n := 0
		for installed := range results {
			if installed {
				n++
			}
		}
		if n != 1 {
			t.Errorf("installed %d times", n)
		}
	})

	t.Run("refuses_a_newer_schema", func(t *testing.T) {
		b := setup(t)
		b.Exec(`update mvsched.schema_version set version = version + 1`)
		var version *schedule.SchemaVersionError
		if _, err := schedule.Install(t.Context(), b.Pool); !errors.As(err, &version) || version.Installed != sql.Version+1 {
			t.Errorf("%v", err)
		}
	})

	t.Run("does_not_hang_on_a_lock", func(t *testing.T) {
		b := empty(t)
		b.Hold(`select pg_catalog.pg_advisory_xact_lock($1)`, int64(0x6d767363686564))
		began := time.Now()
		if _, err := schedule.Install(t.Context(), b.Pool); sqlState(err) != "55P03" {
			t.Errorf("%v", err)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("it took %v", took)
		}
	})

	t.Run("needs_no_superuser", func(t *testing.T) {
		b := empty(t)
		b.Exec(`create role plain_owner_` + b.Value("current_database()"))
		role := "plain_owner_" + b.Value("current_database()")
		t.Cleanup(func() {
			_, _ = b.Pool.Exec(context.Background(), `reset role`)
			_, _ = b.Pool.Exec(context.Background(), `drop owned by `+role+` cascade`)
			_, _ = b.Pool.Exec(context.Background(), `drop role `+role)
		})
		b.Exec(`grant create on database ` + b.Value("current_database()") + ` to ` + role)
		conn, err := b.Pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		if _, err := conn.Exec(t.Context(), `set role `+role); err != nil {
			t.Fatal(err)
		}
		if installed, err := schedule.Install(t.Context(), conn); err != nil || !installed {
			t.Errorf("%v, %v", installed, err)
		}
		if _, err := conn.Exec(t.Context(), `reset role`); err != nil {
			t.Fatal(err)
		}
	})

	// As `mvsched init --print | psql` does it.
	t.Run("says_nothing_whatever_the_settings", func(t *testing.T) {
		b := empty(t)
		config := b.Pool.Config().ConnConfig.Copy()
		config.RuntimeParams["standard_conforming_strings"] = "off"
		config.RuntimeParams["plpgsql.extra_errors"] = "all"
		config.RuntimeParams["plpgsql.extra_warnings"] = "all"
		config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { t.Errorf("%s: %s", notice.Severity, notice.Message) }
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(t.Context(), "load 'plpgsql'"); err != nil {
			t.Fatal(err)
		}
		if err := conn.PgConn().Exec(t.Context(), sql.Schema).Close(); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("uninstalls", func(t *testing.T) {
		b := setup(t)
		if err := b.store.Uninstall(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.store.Uninstall(t.Context()); !errors.Is(err, schedule.ErrNoSchema) {
			t.Errorf("%v", err)
		}
		if err := b.store.CheckVersion(t.Context(), sql.Version); !errors.Is(err, schedule.ErrNoSchema) {
			t.Errorf("%v", err)
		}
	})
}

func TestSchemaExplainsItself(t *testing.T) {
	b := setup(t)
	b.Check("null", `select string_agg(o.what, ', ') from (
		select c.relname || coalesce('.' || a.attname, '') as what
		  from pg_class c left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and c.relkind in ('r', 'v')
		 where c.relnamespace = 'mvsched'::regnamespace and c.relkind in ('r', 'v')
		   and (obj_description(c.oid, 'pg_class') is null or a.attnum is not null and col_description(c.oid, a.attnum) is null)
		union all
		select p.proname from pg_proc p
		 where p.pronamespace = 'mvsched'::regnamespace and obj_description(p.oid, 'pg_proc') is null
		union all
		select t.typname from pg_type t
		 where t.typnamespace = 'mvsched'::regnamespace and t.typtype = 'd' and obj_description(t.oid, 'pg_type') is null) o`)
}

// I2, in the schema itself.
func TestExecutionStateMachine(t *testing.T) {
	const insert = `insert into mvsched.materialized_view_refresh_schedule_execution (view_name, status, reason, ended_at, method, data_as_of, terminated_at, error_name, rows_inserted)
		values ('public.a', $1, $2, $3, $4, $5, $6, $7, $8)`
	now := time.Now()
	b := setup(t)
	for name, row := range map[string][]any{
		"running":          {"running", nil, nil, nil, nil, nil, nil, nil},
		"succeeded":        {"succeeded", nil, now.Add(time.Hour), "plain", now, nil, nil, nil},
		"counted":          {"succeeded", nil, now.Add(time.Hour), "concurrently", now, nil, nil, 1},
		"failed":           {"failed", nil, now.Add(time.Hour), "plain", nil, nil, "division_by_zero", nil},
		"timed out":        {"timed_out", "time_limit", now.Add(time.Hour), nil, nil, now, "query_canceled", nil},
		"skipped":          {"skipped", "lock_busy", now.Add(time.Hour), nil, nil, nil, nil, nil},
		"skipped but seen": {"skipped", "unchanged", now.Add(time.Hour), nil, now, nil, nil, nil},
	} {
		if _, err := b.Pool.Exec(t.Context(), insert, row...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, row := range map[string][]any{
		"unknown status":        {"done", nil, now.Add(time.Hour), nil, nil, nil, nil, nil},
		"running and ended":     {"running", nil, now.Add(time.Hour), nil, nil, nil, nil, nil},
		"failed but not ended":  {"failed", nil, nil, nil, nil, nil, nil, nil},
		"ended before it began": {"failed", nil, now.Add(-time.Hour), nil, nil, nil, nil, nil},
		"success with an error": {"succeeded", nil, now.Add(time.Hour), "plain", now, nil, "oops", nil},
		"success without data":  {"succeeded", nil, now.Add(time.Hour), "plain", nil, nil, nil, nil},
		"failed with data":      {"failed", nil, now.Add(time.Hour), "plain", now, nil, nil, nil},
		"skip without reason":   {"skipped", nil, now.Add(time.Hour), nil, nil, nil, nil, nil},
		"failed but terminated": {"failed", nil, now.Add(time.Hour), nil, nil, now, nil, nil},
		"rows of a plain one":   {"succeeded", nil, now.Add(time.Hour), "plain", now, nil, nil, 1},
	} {
		if _, err := b.Pool.Exec(t.Context(), insert, row...); sqlState(err) != "23514" {
			t.Errorf("%s: %v", name, err)
		}
	}

	for _, change := range []string{"status = 'running', ended_at = null", "status = 'succeeded'", "error_message = 'x'", "worker = 'me'", "reason = null"} {
		_, err := b.Pool.Exec(t.Context(), `update mvsched.materialized_view_refresh_schedule_execution set `+change+` where status <> 'running'`)
		if sqlState(err) != "23000" {
			t.Errorf("a terminal execution took %q: %v", change, err)
		}
	}
	b.Exec(`delete from mvsched.materialized_view_refresh_schedule_execution where status <> 'running'`) // as retention does
	b.Check("null", `select string_agg(coalesce(execution_is_successful::text, 'null'), ' ') from mvsched.materialized_view_refresh_schedule_execution where status <> 'running'`)
}

func TestHandWrittenSchedules(t *testing.T) {
	t.Run("get_a_canonical_name_and_an_OID", func(t *testing.T) {
		b := setup(t)
		b.view("Foo", "")
		b.view("foo", "")
		b.Schedule(`public . "Foo"`, "5 minutes")
		b.Schedule(`PUBLIC.FOO`, "1 day")
		b.Check(`public."Foo" public.foo`, `select string_agg(materialized_view_name, ' ' order by materialized_view_name collate "C") from mvsched.materialized_view_refresh_schedule`)
		b.Check("true", `select bool_and(view_oid = materialized_view_name::regclass) from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("get_the_same_name_whatever_the_settings_and_before_the_view_is_there", func(t *testing.T) {
		b := setup(t)
		b.Exec(`set quote_all_identifiers = on;
			insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval) values ('public.x', '1 hour'), ('"A".b', '1 hour')`)
		b.Check(`"A".b, public.x`, `select string_agg(materialized_view_name, ', ' order by materialized_view_name collate "C")
			from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("with_a_bad_interval_are_refused", func(t *testing.T) {
		b := setup(t)
		b.view("a", "")
		for _, interval := range []string{"0", "-1 hour", "999 milliseconds", "1 month", "1 year", "1 mon -29 days", "178000000 years", "3651 days", "infinity"} {
			_, err := b.Pool.Exec(t.Context(), `insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
				values ('public.a', $1::text::interval)`, interval)
			if !slices.Contains([]string{"23514", "22007", "22008"}, sqlState(err)) {
				t.Errorf("%s: %v", interval, err)
			}
		}
		b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("that_mean_no_materialized_view_are_refused", func(t *testing.T) {
		b := setup(t)
		b.Exec(`create table public.t (id integer)`)
		b.Exec(`create view public.v as select 1 as id`)
		for name, code := range map[string]string{
			"public.t": "42809", "public.v": "42809", "nowhere": "42P01", `x"; drop table public.t; --`: "22023", "": "23514", "a.b.c": "42602",
			`public.""`: "22023",
			// the server would cut it, and mean the view that has the name that is left (I6)
			"public." + strings.Repeat("x", 64): "42622",
		} {
			_, err := b.Pool.Exec(t.Context(), `insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval) values ($1, '1 h')`, name)
			if sqlState(err) != code {
				t.Errorf("%q: %v, want %s", name, err, code)
			}
		}
		b.Check("t", `select relname from pg_class where oid = 'public.t'::regclass`)
	})

	t.Run("may_be_edited_and_deleted_while_the_view_is_refreshed", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.tend()
		claim := b.claim(1)[0]
		b.Hold(`select mvsched.begin_refresh($1, $2::bigint::oid, 'plain', '1 min', '1 s', $3)`, claim.ExecutionID, int64(claim.OID), claim.ClaimedAt)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		for _, edit := range []string{`update mvsched.materialized_view_refresh_schedule set refresh_interval = '2 hours'`, `delete from mvsched.materialized_view_refresh_schedule`} {
			if _, err := b.Pool.Exec(ctx, edit); err != nil {
				t.Errorf("%s: %v", edit, err)
			}
		}
	})
}

func TestNotify(t *testing.T) {
	b := setup(t)
	b.view("a", "1 hour")
	b.tend()
	conn, err := b.Pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), "listen mvsched"); err != nil {
		t.Fatal(err)
	}
	b.end(b.claim(1)[0], schedule.Ending{Status: schedule.Failed, ErrorName: "x", ErrorMessage: "secret"})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	n, err := conn.Conn().WaitForNotification(ctx)
	if err != nil || n.Payload != `{"execution" : 1, "view" : "public.a", "status" : "failed"}` {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := conn.Exec(t.Context(), "unlisten *"); err != nil {
		t.Fatal(err)
	}
}
