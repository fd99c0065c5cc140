package schedule_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// guarded creates public.v, whose query and index call a function that fails in every role but the owner's, which it returns.
func (b *bundle) guarded() (owner string) {
	b.Helper()
	owner = "keeper_" + b.Value("current_database()")
	b.Exec(`create role ` + owner)
	b.Exec(`grant create on schema public to ` + owner)
	b.Exec(`create function public.guarded(n int) returns int language plpgsql immutable as $$ begin
		if current_user <> '` + owner + `' then raise exception 'the function runs as %', current_user; end if;
		return n;
	end $$`)
	b.Exec(`create materialized view public.v as select n as id, public.guarded(n) as n from generate_series(1, 3) n with no data`)
	b.Exec(`create unique index on public.v (id)`)
	b.Exec(`create index on public.v (public.guarded(n))`)
	b.Exec(`alter materialized view public.v owner to ` + owner)
	b.Schedule("public.v", "1 hour")
	return owner
}

// convert converts public.v, as a superuser.
func (b *bundle) convert(back bool) error {
	b.Helper()
	conversion, err := b.store.PlanConversion(b.Context(), schedule.ViewName{Schema: "public", Name: "v"},
		schedule.ConvertOptions{Back: back, Rebuild: true})
	if err != nil {
		return err
	}
	return b.store.Convert(b.Context(), conversion)
}

// What the owner has written into query and indexes runs with the owner's rights, as it does when the view is refreshed.
func TestConvert_runs_nothing_of_the_owners_with_other_rights(t *testing.T) {
	b := setup(t)
	owner := b.guarded()
	var refused *schedule.DefinitionError
	if err := b.convert(false); !errors.As(err, &refused) {
		t.Errorf("a view that has never been filled: %v, want it refused", err)
	}
	b.Exec(`refresh materialized view public.v`)
	b.Exec(`create materialized view public.reader as select public.guarded(id) as id from public.v with no data`)
	b.Exec(`create index on public.reader (public.guarded(id))`)
	b.Exec(`alter materialized view public.reader owner to ` + owner)
	b.Exec(`refresh materialized view public.reader`)
	for _, back := range []bool{false, true} {
		if err := b.convert(back); err != nil {
			t.Fatalf("back: %t: %v", back, err)
		}
		b.Check("3", `select count(*) from public.v join public.reader using (id)`)
		b.Check(owner, `select relowner::regrole from pg_class where oid = 'public.v'::regclass`)
	}
}

// Default privileges are for what is new to people, not for what takes the place of something.
func TestConvert_keeps_to_the_grants_there_were(t *testing.T) {
	b := setup(t)
	reader, other := "reader_"+b.Value("current_database()"), "Other_"+b.Value("current_database()")
	b.Exec(`create role ` + reader)
	b.Exec(`create role "` + other + `"`)
	b.guarded()
	b.Exec(`refresh materialized view public.v`)
	b.Exec(`create materialized view public.x as select id from public.v`)
	b.Exec(`grant select on public.v to ` + reader)
	b.Exec(`alter default privileges in schema public grant all on tables to "` + other + `" with grant option`)
	b.Exec(`alter default privileges grant select on tables to public`)
	for _, back := range []bool{false, true} {
		if err := b.convert(back); err != nil {
			t.Fatalf("back: %t: %v", back, err)
		}
		b.Check(reader+" SELECT v", `select string_agg(concat_ws(' ', coalesce(r.rolname, 'public'), g.privilege_type, c.relname), ', ')
			from pg_class c cross join aclexplode(c.relacl) g left join pg_roles r on r.oid = g.grantee
			where c.relname in ('v', 'v_source', 'x') and g.grantee <> c.relowner`)
	}
}

// Whoever subscribes gets nothing of the table while it has another name, and then what changes in it.
func TestConvert_makes_a_table_that_can_be_published(t *testing.T) {
	b := &bundle{DB: pgtest.NewServerDB(t, "wal_level=logical", "synchronous_commit=on")}
	b.store = schedule.NewStore(b.Pool)
	publications := []string{"for all tables"}
	if b.Value(`current_setting('server_version_num')::int >= 150000`) == "true" {
		publications = append(publications, "for tables in schema public")
	}
	for _, publication := range publications {
		b.Exec(`create materialized view public.v as select 1 as id, 2 as "No", 3 as n`)
		b.Exec(`create unique index on public.v (n)`)
		b.Exec(`create unique index on public.v (id, "No")`)
		b.Schedule("public.v", "1 hour")
		b.Exec(`create publication p ` + publication)
		b.Exec(`select pg_create_logical_replication_slot('s', 'pgoutput')`)
		conversion, err := b.store.PlanConversion(b.Context(), schedule.ViewName{Schema: "public", Name: "v"}, schedule.ConvertOptions{Key: []string{"No", "id"}})
		if err == nil {
			err = b.store.Convert(b.Context(), conversion)
		}
		if err != nil {
			t.Fatalf("%s: %v", publication, err)
		}
		b.Exec(`update public.v set n = 4`)
		b.Exec(`delete from public.v`)
		b.Check("UD", `select string_agg(convert_from(substr(data, 1, 1), 'SQL_ASCII'), '')
			from pg_logical_slot_get_binary_changes('s', null, null, 'proto_version', '1', 'publication_names', 'p')
			where substr(data, 1, 1) in ('I', 'U', 'D') and substr(data, 2, 4) = int4send('public.v'::regclass::oid::int)`)
		b.Check("p v_id_No_idx", `select concat_ws(' ', c.relpersistence, x.relname) from pg_class c join pg_index i on i.indrelid = c.oid join pg_class x on x.oid = i.indexrelid
			where c.oid = 'public.v'::regclass and i.indisreplident`)
		b.Exec(`select pg_drop_replication_slot('s')`)
		b.Exec(`drop publication p`)
		b.Exec(`drop table public.v`)
		b.Exec(`drop view public.v_source`)
		b.Exec(`delete from mvsched.materialized_view_refresh_schedule`)
	}
}

// A merge would refuse such a row for ever.
func TestConvert_refuses_a_NULL_in_the_key(t *testing.T) {
	b := setup(t)
	b.Exec(`create materialized view public.v as select * from (values (1, 1), (null, 2)) v (id, n)`)
	b.Exec(`create unique index on public.v (id)`)
	b.Schedule("public.v", "1 hour")
	var refused *schedule.DefinitionError
	if err := b.convert(false); !errors.As(err, &refused) || refused.Problem != "public.v has a row with a NULL in its key, in column \"id\"" {
		t.Errorf("%v, want it refused for the NULL", err)
	}
	b.Exec(`create unique index on public.v (n)`)
	conversion, err := b.store.PlanConversion(b.Context(), schedule.ViewName{Schema: "public", Name: "v"}, schedule.ConvertOptions{Key: []string{"n"}})
	if err == nil {
		err = b.store.Convert(b.Context(), conversion)
	}
	if err != nil {
		t.Errorf("by another key: %v", err)
	}
}

// While a table is built, for minutes, nobody is kept from changing what its statements were written from.
func TestConvert_undoes_nothing_that_has_been_done_meanwhile(t *testing.T) {
	b := setup(t)
	b.Exec(`create materialized view public.v as select 1 as id, 2 as n`)
	b.Exec(`create unique index on public.v (id)`)
	b.Exec(`create view public.dep as select n from public.v`)
	b.Exec(`create materialized view public.x as select n from public.v`)
	b.Exec(`grant select on public.v to public`)
	b.Schedule("public.v", "1 hour")
	opts := schedule.ConvertOptions{Rebuild: true}
	for _, change := range []string{
		`create or replace view public.dep as select n + 1 as n from public.v`,
		`revoke select on public.v from public`,
		`create index on public.v (n)`,
		`comment on materialized view public.x is 'new'`,
		`alter default privileges grant select on tables to public`,
		`create materialized view public.y as select n from public.v`,
		`create statistics public.st on id, n from public.v`,
		`drop materialized view public.v cascade`,
	} {
		conversion, err := b.store.PlanConversion(b.Context(), schedule.ViewName{Schema: "public", Name: "v"}, opts)
		if err != nil {
			t.Fatal(err)
		}
		b.Exec(change)
		before := b.Value(`select string_agg(concat(oid, relname, relacl), ' ' order by oid) from pg_class`)
		if err := b.store.Convert(b.Context(), conversion); err == nil {
			t.Errorf("%s: converted all the same", change)
		}
		b.Check(before, `select string_agg(concat(oid, relname, relacl), ' ' order by oid) from pg_class`)
		b.Exec(`drop statistics if exists public.st`)
	}
}

// The plain view is the one that a refresh reads: under another name, or another one under its name.
func TestConvert_back_finds_the_plain_view_as_a_refresh_does(t *testing.T) {
	b := setup(t)
	b.view("v", "1 hour")
	if err := b.convert(false); err != nil {
		t.Fatal(err)
	}
	b.Exec(`drop view public.v_source`)
	var refused *schedule.DefinitionError
	if err := b.convert(true); !errors.As(err, &refused) || refused.Problem != "public.v has no query: view public.v_source does not exist" {
		t.Errorf("without the plain view: %v, want it refused", err)
	}
	b.Exec(`create view public.v_source as select 2 as id`)
	if err := b.convert(true); err != nil {
		t.Fatal(err)
	}
	b.Check("2", `select id from public.v`)
	if err := b.convert(false); err != nil {
		t.Fatal(err)
	}
	b.Exec(`alter view public.v_source rename to renamed`)
	b.Exec(`create view public.v_source as select 3 as id`)
	if err := b.convert(true); err != nil {
		t.Fatal(err)
	}
	b.Check("2", `select id from public.v`)
	b.Check("v_source", `select relname from pg_class where relkind = 'v' and relnamespace = 'public'::regnamespace`)
}

// A superuser runs what the owners of tables and of their views have written too.
func TestCheckSuperuser_counts_all_that_is_materialized(t *testing.T) {
	b := setup(t)
	owner := "hers_" + b.Value("current_database()")
	b.Exec(`create role ` + owner)
	b.Exec(`grant create on schema public to ` + owner)
	b.Exec(`create view public.source as select 1 as id`)
	for _, table := range []string{"of_hers", "from_hers", "mine"} {
		b.Exec(`create table public.` + table + ` (id int primary key)`)
		b.Exec(`create view public.` + table + `_source as select 1 as id`)
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, kind, merge_source, merge_key, refresh_interval)
			values ('public.` + table + `', 'merge', 'public.` + table + `_source', '{id}', '1 hour')`)
	}
	b.Exec(`alter table public.of_hers owner to ` + owner)
	b.Exec(`alter view public.from_hers_source owner to ` + owner)
	superuser, err := b.store.CheckSuperuser(t.Context(), nil)
	if err != nil || superuser.ForeignViews != 2 {
		t.Errorf("%+v, %v; want 2 of somebody else's", superuser, err)
	}
}

// What the other kind cannot have would be gone, and row security with it what kept readers from each other's rows.
func TestConvert_refuses_to_lose_something(t *testing.T) {
	b := setup(t)
	b.Exec(`create materialized view public.v as select 1 as id, 2 as n, 'a' as word`)
	b.Exec(`create unique index on public.v (id)`)
	b.Schedule("public.v", "1 hour")
	refuses := func(back bool, change, undo, problem string) {
		t.Helper()
		b.Exec(change)
		err := b.convert(back)
		var refused *schedule.DefinitionError
		if !errors.As(err, &refused) || !strings.Contains(refused.Problem, problem) {
			t.Errorf("after %s: %v, want it refused for: %s", change, err, problem)
		}
		b.Exec(undo)
	}
	refuses(false, `update mvsched.materialized_view_refresh_schedule set refresh_group = 'g'`,
		`update mvsched.materialized_view_refresh_schedule set refresh_group = null`, "is in group g")
	refuses(false, `create statistics public.st on id, n from public.v`, `drop statistics public.st`, "has extended statistics")
	refuses(false, `alter materialized view public.v alter id set statistics 500`, `alter materialized view public.v alter id set statistics -1`,
		"has settings of its columns")
	refuses(false, `alter materialized view public.v alter word set storage external`, `alter materialized view public.v alter word set storage extended`,
		"has settings of its columns")
	if b.Value(`current_setting('server_version_num')::int >= 140000`) == "true" {
		refuses(false, `alter materialized view public.v alter word set compression pglz`, `alter materialized view public.v alter word set compression default`,
			"has settings of its columns")
	}
	refuses(false, `alter materialized view public.v set (toast.autovacuum_enabled = false)`, `alter materialized view public.v reset (toast.autovacuum_enabled)`,
		"has settings of its TOAST table")
	refuses(false, `alter materialized view public.v cluster on v_id_idx`, `alter materialized view public.v set without cluster`, "is clustered on an index")
	if err := b.convert(false); err != nil {
		t.Fatal(err)
	}
	refuses(true, `update mvsched.materialized_view_refresh_schedule set merge_window = 'id > 1'`,
		`update mvsched.materialized_view_refresh_schedule set merge_window = null`, "has a window")
	refuses(true, `alter table public.v add constraint positive check (id > 0)`, `alter table public.v drop constraint positive`, "has constraints")
	refuses(true, `create publication p for table public.v`, `drop publication p`, "is in a publication")
	refuses(true, `alter table public.v enable row level security`, `alter table public.v disable row level security`, "has row security")
	b.Exec(`create function public.f() returns trigger language plpgsql as 'begin return null; end'`)
	refuses(true, `create trigger tr after insert on public.v execute function public.f()`, `drop trigger tr on public.v`, "has triggers")
	refuses(true, `create rule ru as on insert to public.v do also nothing`, `drop rule ru on public.v`, "has rules")
	refuses(true, `alter table public.v alter n set default 5`, `alter table public.v alter n drop default`, "has defaults or generated columns")
	refuses(true, `alter table public.v add twice int generated always as (n * 2) stored`, `alter table public.v drop twice`, "has defaults or generated columns")
	refuses(true, `alter table public.v alter id add generated always as identity`, `alter table public.v alter id drop identity`, "has defaults or generated columns")
	b.Exec(`create table public.partitioned (like public.v) partition by list (id)`)
	refuses(true, `alter table public.partitioned attach partition public.v default`, `alter table public.partitioned detach partition public.v`, "has partitions, or inherits")
	if err := b.convert(true); err != nil {
		t.Error(err)
	}
	b.Exec(`drop materialized view public.v`)
	b.Exec(`drop table public.partitioned`)
	b.Exec(`create table public.v (id int primary key) partition by list (id)`)
	b.Exec(`create view public.s as select 1 as id`)
	b.Exec(`delete from mvsched.materialized_view_refresh_schedule`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, kind, merge_source, merge_key, refresh_interval)
		values ('public.v', 'merge', 'public.s', '{id}', '1 h')`)
	refuses(true, `analyze public.v`, `analyze public.v`, "has partitions, or inherits")
}
