package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// What an episode materializes: views, by themselves or in groups, merge tables, and columns of tables.
const (
	kindView    = "view"
	kindMerge   = "merge"
	kindColumns = "columns"
)

// theTargets are some of each of the other kinds, and a group that succeeds and one that fails every other time.
func theTargets() (views []view) {
	for i := range 3 {
		views = append(views, view{name: fmt.Sprintf("merge%02d", i), kind: kindMerge, unique: true, healthy: true, every: "1s", timeout: "5s"})
	}
	for _, group := range []string{"sound", "shaky"} {
		for i := range 3 {
			v := view{name: fmt.Sprintf("%s%02d", group, i), unique: true, healthy: group == "sound", every: "1s", timeout: "5s", group: group}
			columns := `0, 0.02`
			if !v.healthy && i == 1 {
				columns = `0, 0.01) / random()::integer + (0`
			}
			v.query = fmt.Sprintf(`select 1 as id, chaos.stamp('chaos.%s', %s) as xid, (select max(n) from chaos.version) as version, (select sum(amount) from chaos.base) as total`,
				v.name, columns)
			views = append(views, v)
		}
	}
	for i, c := range []struct {
		lanes int
		call  bool
	}{{1, false}, {2, false}, {1, true}} {
		v := view{name: fmt.Sprintf("columns%02d", i), kind: kindColumns, unique: true, healthy: true, every: "1s", timeout: "5s", lanes: c.lanes}
		if c.call {
			v.call = fmt.Sprintf("chaos.fill('chaos.%s')", v.name)
		}
		views = append(views, v)
	}
	return views
}

// relation is what the view is to ALTER and its like.
func (v view) relation() string {
	if v.kind == "" {
		return "materialized view"
	}
	return "table"
}

func (v view) createTable() []string {
	columns := `id bigint not null, amount bigint, xid bigint`
	if v.kind == kindColumns {
		columns = `id bigint not null, version bigint not null default 1, payload bigint not null, materialized_at timestamptz, value bigint`
	}
	statements := []string{
		fmt.Sprintf(`create table chaos.%s (%s)`, v.name, columns),
		fmt.Sprintf(`alter table chaos.%s owner to worker`, v.name),
		v.createIndex(),
	}
	switch v.kind {
	case kindMerge:
		return append(statements, fmt.Sprintf(`create or replace view chaos.%[1]s_source as
			select id, amount, null::bigint as xid from chaos.base union all select 0, null, chaos.stamp('chaos.%[1]s', 0, 0.02)`, v.name),
			fmt.Sprintf(`alter view chaos.%s_source owner to worker`, v.name))
	default: // one row in a hundred cannot be computed
		return append(statements,
			fmt.Sprintf(`insert into chaos.%s (id, payload) select i, case when i %% 100 = 50 then -i else i end from generate_series(1, 500) i`, v.name),
			fmt.Sprintf(`create index %s_backlog on chaos.%[1]s (id) where materialized_at is null`, v.name))
	}
}

// scheduleOfTable is the schedule of a merge table, or of columns.
func (v view) scheduleOfTable() string {
	const into = `insert into mvsched.materialized_view_refresh_schedule
		(materialized_view_name, refresh_interval, maximum_execution_duration, kind, merge_source, merge_key, columns_query, columns_call, lanes) values `
	common := fmt.Sprintf(`'chaos.%s', '%s', '%s'`, v.name, v.every, v.timeout)
	if v.kind == kindMerge {
		return into + fmt.Sprintf(`(%s, 'merge', 'chaos.%s_source', '{id}', null, null, 1)`, common, v.name)
	}
	query, call := fmt.Sprintf(`$q$select t.id, chaos.work('chaos.%[1]s', t.id, t.version, t.payload) as value from batch join chaos.%[1]s t on t.id = batch.id$q$`, v.name), "null"
	if v.call != "" {
		query, call = "null", "$c$"+v.call+"$c$"
	}
	return into + fmt.Sprintf(`(%s, 'columns', null, null, %s, %s, %d)`, common, query, call, v.lanes)
}

// byHand is what somebody types: for a view REFRESH, for a merge table a row that its view does not have, and for columns
// some rows that are to be materialized again.
func (v view) byHand() string {
	switch v.kind {
	case kindMerge:
		return fmt.Sprintf(`insert into chaos.%s (id) select min(id) - 1 from chaos.%[1]s`, v.name)
	case kindColumns:
		return fmt.Sprintf(`update chaos.%s set version = version + 1, materialized_at = null where id in
			(select id from chaos.%[1]s where payload > 0 order by random() limit 200 for update skip locked)`, v.name)
	}
	return `refresh materialized view chaos.` + v.name
}

// setupTargets is what merge tables, groups and columns need: a table that they read, whose versions are written down, and
// a list of what was computed for which version of which row.
const setupTargets = `
create table chaos.target (view text primary key, kind text, lanes integer, refresh_group text);

-- However it is changed, the total is the same.
create table chaos.base (id bigint primary key, amount bigint);
insert into chaos.base select i, 1000 from generate_series(1, 40) i;
create table chaos.version (n bigint generated always as identity primary key, digest text, at timestamptz default clock_timestamp());
grant select on chaos.base, chaos.version to worker;

create function chaos.digest(rows regclass) returns text language plpgsql stable as $$ -- stable: of the caller's snapshot
declare
  digest text;
begin
  execute format('select md5(string_agg(id || '':'' || amount, '','' order by id)) from %s where id > 0', rows) into digest;
  return digest;
end
$$;
insert into chaos.version (digest) values (chaos.digest('chaos.base'));

create table chaos.worked (view text, id bigint, version bigint, xid bigint, began timestamptz default now());
create index on chaos.worked (view, id, version);
create index on chaos.worked (view, began);
create index on chaos.worked (xid);

-- Computes a row. The server's log tells where a batch begins.
create function chaos.work(view text, id bigint, version bigint, payload bigint) returns bigint
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  xid bigint := pg_current_xact_id()::text::bigint;
begin
  if current_setting('chaos.logged', true) is distinct from xid::text then
    perform set_config('chaos.logged', xid::text, true);
    raise log 'refresh of %', view;
  end if;
  if payload < 0 then
    raise exception 'row % cannot be computed', id using errcode = 'data_exception';
  end if;
  insert into chaos.worked values (view, id, version, xid);
  if random() < 0.01 then
    perform pg_sleep(0.05 * random());
  end if;
  return 2 * payload + 1;
end
$$;

create function chaos.backlog(rows text) returns bigint language plpgsql as $$
declare
  n bigint;
begin
  execute format('select count(*) from %s where materialized_at is null', rows) into n;
  return n;
end
$$;

-- As somebody has it who does it by a function. It locks first: in one statement a row that changes meanwhile may be
-- computed for what it was, and then once more for what it is.
create function chaos.fill(rows regclass) returns void language plpgsql as $$
declare
  ids bigint[];
begin
  execute format('select array(select id from %s where materialized_at is null order by id desc limit 100 for update skip locked)', rows) into ids;
  execute format('update %s t set value = chaos.work(%L, t.id, t.version, t.payload), materialized_at = now() where t.id = any ($1)', rows, rows) using ids;
end
$$;

-- The next version of everything.
create function chaos.write() returns void language plpgsql as $$
declare
  one bigint; another bigint; t record;
begin
  select id into one from chaos.base order by random() limit 1;
  select id into another from chaos.base where id <> one order by random() limit 1;
  update chaos.base set amount = amount - 7 where id = one;
  update chaos.base set amount = amount + 7 where id = another;
  if random() < 0.3 then -- the row goes, and its amount to another one, which may be new
    delete from chaos.base where id = one returning amount into one;
    insert into chaos.base select coalesce(max(id), 0) + 1, one from chaos.base;
  end if;
  insert into chaos.version (digest) values (chaos.digest('chaos.base'));
  for t in select view, to_regclass(view) as rows from chaos.target where kind = 'columns' and to_regclass(view) is not null loop
    execute format('update %1$s set version = version + 1, payload = payload + 1, materialized_at = null where id in
      (select id from %1$s where payload > 0 order by random() limit 3 for update skip locked)', t.rows);
    execute format('insert into %1$s (id, payload) select max(id) + 1, max(id) + 1 from %1$s having max(id) < 1500', t.rows);
  end loop;
end
$$;
`

// write changes what they read, again and again, until the context ends.
func (e *episode) write(ctx context.Context) {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		within, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, _ = e.admin.Exec(within, `select chaos.write()`) // or not: there are faults
		cancel()
	}
}

// targetNames are those of a kind, with their schema.
func (e *episode) targetNames(kind string) (names []string) {
	for _, v := range e.views {
		if v.kind == kind {
			names = append(names, "chaos."+v.name)
		}
	}
	return names
}

// groups are the members of each group.
func (e *episode) groups() map[string][]string {
	members := map[string][]string{}
	for _, v := range e.views {
		if v.group != "" {
			members[v.group] = append(members[v.group], "chaos."+v.name)
		}
	}
	return members
}

// torn are what a reader must never see, each as a statement of one snapshot that returns what is wrong.
func (e *episode) torn() (all []question) {
	for group, members := range e.groups() {
		var parts []string
		for _, m := range members {
			parts = append(parts, `select xid, version, total from `+m)
		}
		all = append(all, question{"I3", fmt.Sprintf(`select format('group %s is of several instants: %%s', array_agg(m)) from (%s) m
			having count(distinct m) > 1 or min(m.total) <> 40000`, group, strings.Join(parts, " union all "))})
	}
	for _, name := range e.targetNames(kindMerge) {
		all = append(all, question{"I3", fmt.Sprintf(`select 'the rows of %s are none of its view at any time' from (select chaos.digest('%[1]s') as digest) d
			where d.digest is not null and not exists (select from chaos.version v where v.digest = d.digest)`, name)})
	}
	for _, name := range e.targetNames(kindColumns) {
		all = append(all, question{"I3", fmt.Sprintf(`select format('row %%s of %s is of %%s, and has %%s', id, payload, value) from %[1]s
			where isfinite(materialized_at) and value is distinct from 2 * payload + 1`, name)})
	}
	return all
}

// read is a reader of what is materialized.
func (e *episode) read(ctx context.Context) {
	questions := e.torn()
	for i := 0; len(questions) > 0; i++ {
		e.look(ctx, questions[i%len(questions)])
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// look reads once. An error may be a fault's: the view is away, or the server.
func (e *episode) look(ctx context.Context, q question) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	rows, err := e.admin.Query(ctx, q.sql)
	if err != nil {
		return
	}
	wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err == nil {
		e.reads.Add(1)
	}
	for _, w := range wrong {
		e.violate(q.invariant, "%s", w)
	}
}
