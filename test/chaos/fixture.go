package main

import "fmt"

// view is one of an episode's materialized views, or what it has in the place of one.
type view struct {
	name    string
	kind    string // "": a materialized view
	group   string // that it is refreshed with; "": by itself
	lanes   int    // of columns
	call    string // that materializes them; "": a query
	query   string
	unique  bool // has a unique index: refreshed concurrently
	every   string
	timeout string
	healthy bool // nothing but the faults keeps it from being refreshed
}

func (v view) create() []string {
	if v.kind != "" {
		return v.createTable()
	}
	statements := []string{
		fmt.Sprintf(`create materialized view chaos.%s as %s with no data`, v.name, v.query),
		fmt.Sprintf(`alter materialized view chaos.%s owner to worker`, v.name),
	}
	if v.unique {
		statements = append(statements, v.createIndex())
	}
	return statements
}

func (v view) createIndex() string {
	return fmt.Sprintf(`create unique index if not exists %s_id on chaos.%s (id)`, v.name, v.name)
}

func (v view) schedule() string {
	if v.kind != "" {
		return v.scheduleOfTable()
	}
	return fmt.Sprintf(`insert into mvsched.materialized_view_refresh_schedule
		(materialized_view_name, refresh_interval, maximum_execution_duration, refresh_group)
		values ('chaos.%s', '%s', '%s', nullif('%s', ''))`, v.name, v.every, v.timeout, v.group)
}

// note lets the oracle's queries know of it.
func (v view) note() string {
	return fmt.Sprintf(`insert into chaos.target values ('chaos.%s', '%s', %d, nullif('%s', ''))`, v.name, v.kind, v.lanes, v.group)
}

// theViews are quick ones, most of them; some slow; some poisoned. Their contents say which transaction wrote them.
func theViews() (views []view) {
	add := func(prefix string, n int, v view, columns string) {
		for i := range n {
			v := v
			v.name = fmt.Sprintf("%s%02d", prefix, i)
			v.query = fmt.Sprintf(`select 1 as id, chaos.stamp('chaos.%s', %s) as xid`, v.name, columns)
			if v.every == "" {
				v.every = "1s"
			}
			if v.timeout == "" {
				v.timeout = "5s"
			}
			views = append(views, v)
		}
	}
	add("quick", 44, view{unique: true, healthy: true}, `0, 0.02`)
	add("plain", 8, view{healthy: true}, `0, 0.02`)
	add("slow", 6, view{unique: true, healthy: true}, `0.2, 0.8`)
	add("failing", 4, view{unique: true}, `0, 0.01) / random()::integer + (0`)
	add("hanging", 1, view{unique: true, every: "5s", timeout: "1s"}, `30, 60`)
	add("noisy", 1, view{unique: true}, `0, 0.01) + chaos.noise() + (0`)
	for i := range 2 { // the same row twice, at every other time
		views = append(views, view{
			name: fmt.Sprintf("double%02d", i), unique: true, every: "1s", timeout: "5s",
			query: fmt.Sprintf(`select 1 as id, chaos.stamp('chaos.double%02d', 0, 0.01) as xid from generate_series(1, 1 + (random() < 0.5)::integer)`, i),
		})
	}
	return views
}

// setup makes the template that each episode's database is copied from, before and after schema mvsched is in it.
const setupBefore = `
create schema chaos;
grant usage on schema chaos to worker;
alter schema chaos owner to worker;
` + setupTargets + `

-- A row for each refresh that committed, and none for any other: the view's own query writes it.
create table chaos.refreshed (view text, xid bigint, pid integer, began timestamptz);
create view chaos.materialized as select view, began from chaos.refreshed union all select view, began from chaos.worked;
create table chaos.beat (at timestamptz default clock_timestamp());

create function chaos.stamp(view text, shortest float8, longest float8) returns bigint
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  xid bigint := pg_current_xact_id()::text::bigint;
begin
  if view like 'chaos.merge%' then
    raise log 'refresh of %', view; -- of a view, REFRESH is in the log
  end if;
  insert into chaos.refreshed values (view, xid,
    case when current_setting('application_name') like 'chaos%' then pg_backend_pid() else 0 end, clock_timestamp()); -- 0: by hand
  perform pg_sleep(shortest + (longest - shortest) * random());
  return xid;
end
$$;

create function chaos.noise() returns bigint
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  for i in 1..200 loop
    raise notice '%', repeat('noise ', 100);
  end loop;
  if random() < 0.5 then
    raise exception '%', repeat('loud ', 50000);
  end if;
  return 0;
end
$$;

-- Nobody refreshes it.
create materialized view chaos.bystander as select chaos.stamp('chaos.bystander', 0, 0) as xid;
`

// The ledger tells, from outside of mvsched, what happened to each execution, in which transaction.
const setupAfter = `
create table chaos.ledger (
  seq bigint generated always as identity primary key, op text, id bigint, schedule bigint, view text, oid oid, slot timestamptz,
  before text, after text, reason text, xid bigint, pid integer, lane smallint default 0, refresh_group text, method text,
  done bigint, data_as_of timestamptz, digest text, at timestamptz default clock_timestamp());
create index on chaos.ledger (id);
create index on chaos.ledger (xid);

create function chaos.note() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  e record := case when tg_op = 'DELETE' then old else new end;
begin
  insert into chaos.ledger (op, id, schedule, view, oid, slot, before, after, reason, xid, pid, lane, refresh_group, method, data_as_of, done, digest)
  values (tg_op, e.id, e.materialized_view_refresh_schedule_id, e.view_name, e.view_oid, e.scheduled_at,
          case when tg_op <> 'INSERT' then old.status end, case when tg_op <> 'DELETE' then new.status end, e.reason,
          pg_current_xact_id()::text::bigint, pg_backend_pid(), e.lane, e.refresh_group, e.method, e.data_as_of,
          case when tg_op = 'UPDATE' then new.rows_done - coalesce(old.rows_done, 0) end,
          case when e.method = 'merge' and e.status = 'succeeded' and tg_op = 'UPDATE' then chaos.digest(e.view_oid::regclass) end);
  return null;
end
$$;
create trigger note after insert or update or delete on mvsched.materialized_view_refresh_schedule_execution
  for each row execute function chaos.note();
`
