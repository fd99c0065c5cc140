package schedule

import (
	"fmt"
	"strings"
)

// checks are what Doctor asks, behind viewsSQL.
var checks = []check{
	{"missing", missingSQL},
	{"not_a_materialized_view", notAViewSQL},
	{"scheduled_twice", scheduledTwiceSQL},
	{"unpopulated", unpopulatedSQL},
	{"no_unique_index", noUniqueIndexSQL},
	{"null_in_unique_key", nullInUniqueKeySQL},
	{"may_not_refresh", mayNotRefreshSQL},
	{"owner_without_temp", ownerWithoutTempSQL},
	{"no_schema_usage", noSchemaUsageSQL},
	{"search_path_trap", searchPathTrapSQL},
	{"interval_too_short", intervalTooShortSQL},
	{"nothing_changed", nothingChangedSQL},
	{"cannot_tell_changes", cannotTellSQL},
	{"bloat", deadRowsSQL},
	{"unscheduled", nobodyRefreshesSQL},
	{"parent_less_often", parentLessOftenSQL},
	{"duplicate_check", duplicateCheckSQL},
	{"mostly_rewritten", mostlyRewrittenSQL},
	{"suspended", suspendedSQL},
	{"timezone_unknown", zoneUnknownSQL},
	{"max_lag_out_of_reach", lagOutOfReachSQL},
	{"max_lag_behind_parent", lagBehindParentSQL},
	{"changes_unseen", changesUnseenSQL},
	{"queue_unserved", queueUnservedSQL},
	{"group_long", groupLongSQL},
	{"group_uneven", groupUnevenSQL},
	{"group_plain", groupPlainSQL},
	{"group_open", groupOpenSQL},
	{"columns_gone", columnsGoneSQL},
	{"columns_without_index", columnsWithoutIndexSQL},
	{"materialized_at_indexed", columnsIndexedSQL},
	{"rows_set_aside", rowsSetAsideSQL},
	{"merge_source_missing", mergeSourceSQL},
	{"merge_key_not_unique", mergeUniqueSQL},
	{"merge_key_nullable", mergeNullableSQL},
	{"may_not_merge", mergeRightsSQL},
}

// checksSQL is one statement for all of them, so that the server works out once what they have in common.
func checksSQL() string {
	var b strings.Builder
	b.WriteString(viewsSQL)
	for i, check := range checks {
		if i > 0 {
			b.WriteString(" union all")
		}
		fmt.Fprintf(&b, "\nselect '%s', found.* from (%s) found (severity, view, message, fix)", check.name, check.sql)
	}
	return b.String()
}

// viewsSQL is what the checks have in common.
//
//	views      all materializations but tables with materialized columns, whose checks are their own; word is the name as a shell takes it
//	scheduled  schedules with their views, null where there is none; found: there is one, or their next run is going to find it
//	tables     schedules of tables with materialized columns; the table is null where it is gone
//	usable     the unique indexes that CONCURRENTLY can use, and whether a NULL has been seen in their keys
//	usual      what the last 50 successes of each schedule took, in seconds, and wrote
const viewsSQL = `
with views as materialized (
  select c.oid, c.relname, c.relnamespace, c.relowner, c.relispopulated, c.reltuples, n.nspname, m.source,
         mvsched.view_name(c.oid, n.nspname, c.relname) collate pg_catalog."default" as name
    from mvsched.materialization m
    join pg_catalog.pg_class c on c.oid = m.oid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where m.kind <> 'columns'
), found as materialized (
  select s.id, mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, here.identity) as oid
    from mvsched.materialized_view_refresh_schedule s
   cross join (select mvsched.database_identity() as identity offset 0) here
), scheduled as materialized (
  select s.id, s.kind, s.merge_source, s.merge_key, v.source, s.strategy, s.refresh_interval, s.refresh_delay, s.cron, s.on_change, s.max_lag, s.reachable_lag, s.skip_unchanged,
         s.max_staleness, s.requested_at, s.paused_at, s.suspended_at, s.suspended_reason, s.materialized_view_name, s.refresh_group,
         count(*) over (partition by s.refresh_group) as group_members,
         min(s.refresh_interval) filter (where s.paused_at is null and s.suspended_at is null) over (partition by s.refresh_group) as group_interval,
         v.oid, found.oid is not null as found, v.relname, v.nspname, v.relnamespace, v.relowner, v.relispopulated, v.reltuples, named.name,
         case when named.name ~ '^[a-z0-9_.]+$' then named.name
              else '''' || replace(named.name, '''', '''\''''') || '''' end as word
    from mvsched.materialized_view_refresh_schedule s
    join found on found.id = s.id
    left join views v on v.oid = found.oid
   cross join lateral (select coalesce(v.name, s.materialized_view_name) as name) named
   where s.kind <> 'columns'
), tables as materialized (
  select s.id, s.materialized_view_name as name, c.oid, c.relkind, mvsched.columns_key(c.oid) as key, s.columns_query, s.columns_list,
         case when s.materialized_view_name ~ '^[a-z0-9_.]+$' then s.materialized_view_name
              else '''' || replace(s.materialized_view_name, '''', '''\''''') || '''' end as word
    from mvsched.materialized_view_refresh_schedule s
    join found on found.id = s.id
    left join pg_catalog.pg_class c on c.oid = found.oid
   where s.kind = 'columns'
), usable as materialized (
  select i.indrelid, i.indexrelid, format('%I.%I', v.nspname, c.relname) as name,
         exists (
           select from unnest(i.indkey::smallint[]) with ordinality as key (attnum, position)
             join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = key.attnum
             join pg_catalog.pg_stats st
               on st.schemaname = v.nspname and st.tablename = v.relname and st.attname = a.attname
            where key.position <= i.indnkeyatts and st.null_frac > 0) as has_null
    from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indexrelid
    join views v on v.oid = i.indrelid
   where i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
), usual as materialized (
  select s.id as schedule_id, lately.*
    from scheduled s
   cross join lateral (
          select count(*) as runs, percentile_cont(0.5) within group (order by e.seconds) as median,
                 percentile_cont(0.95) within group (order by e.seconds) as p95,
                 count(*) filter (where e.method = 'concurrently') as concurrent,
                 percentile_cont(0.5) within group (order by e.seconds) filter (where e.method = 'concurrently') as concurrent_median,
                 percentile_cont(0.5) within group (order by e.seconds) filter (where e.method = 'plain') as plain_median,
                 avg(greatest(e.rows_inserted, e.rows_deleted)) filter (where e.method = 'concurrently') as written,
                 count(e.rows_inserted) filter (where e.method = 'concurrently') as counted,
                 count(*) filter (where e.method = 'concurrently' and e.rows_inserted = 0 and e.rows_deleted = 0) as idle,
                 count(e.changed) as shares, percentile_cont(0.5) within group (order by e.changed) as changed
            from (select e.method, e.rows_inserted, e.rows_deleted, ` + changedShare + ` as changed,
                         extract(epoch from e.ended_at - e.started_at)::float8 as seconds
                    from mvsched.materialized_view_refresh_schedule_execution e
                   where e.materialized_view_refresh_schedule_id = s.id and e.status = 'succeeded'
                   order by e.id desc
                   limit 50) e) lately
)`

// The names are compared as text: one that came past the trigger cannot be parsed, nor given to mvsched remove.
const missingSQL = `
select 'error', s.name, 'there is no such view: create it, or remove the schedule',
       case when s.name ~ '^([a-z_][a-z0-9_]*|"([^"]|"")+")[.]([a-z_][a-z0-9_]*|"([^"]|"")+")$' then 'mvsched remove ' || s.word
            else format('delete from mvsched.materialized_view_refresh_schedule where materialized_view_name = %L;', s.name) end
  from scheduled s
 where s.oid is null and not s.found
   and not exists (
         select
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where format('%I.%I', n.nspname, c.relname) = s.materialized_view_name)`

const notAViewSQL = `
select 'error', s.name,
       case c.relkind when 'v' then 'the name stands for a plain view now' when 'i' then 'the name stands for an index now'
                      when 'S' then 'the name stands for a sequence now' else 'the name stands for a table now' end
       || ': nothing can be refreshed',
       'mvsched remove ' || s.word
  from scheduled s
  join (pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace)
    on format('%I.%I', n.nspname, c.relname) = s.materialized_view_name
 where s.oid is null and not s.found`

// A schedule is taken for a view that is not there yet; then another one, which has its own, gets that name.
const scheduledTwiceSQL = `
select 'warning', min(s.name), format('the view has %s schedules, each of which refreshes it at its own times', count(*)),
       format('delete from mvsched.materialized_view_refresh_schedule where id <> %s and id in (%s);', min(s.id), string_agg(s.id::text, ', ' order by s.id))
  from scheduled s
 where s.oid is not null
 group by s.oid
having count(*) > 1`

const unpopulatedSQL = `
select 'warning', s.name, 'the view has never been filled: whoever reads it gets an error', 'mvsched refresh ' || s.word
  from scheduled s
 where not s.relispopulated`

// A column without duplicates and NULLs, by the last ANALYZE, makes a key; correlation is known only of what can be sorted.
const noUniqueIndexSQL = `
select case s.strategy when 'concurrently' then 'error' else 'warning' end, s.name,
       case s.strategy when 'concurrently' then 'every refresh fails' else 'every refresh locks out its readers' end
       || ': the view has no unique index that CONCURRENTLY can use (valid, on columns only, without WHERE)'
       || case when key.attname is null then '; no single column is known to be a key (ANALYZE may find one)' else '' end,
       case when key.attname is null then format('mvsched set %s --strategy plain', s.word)
            else format('create unique index on %I.%I (%I);', s.nspname, s.relname, key.attname) end
  from scheduled s
  left join lateral (
         select a.attname
           from pg_catalog.pg_attribute a
           join pg_catalog.pg_stats st
             on st.schemaname = s.nspname and st.tablename = s.relname and st.attname = a.attname
          where a.attrelid = s.oid and st.n_distinct = -1 and st.null_frac = 0 and st.correlation is not null
          order by a.attnum
          limit 1) key on true
 where s.kind <> 'merge' and s.oid is not null and s.strategy <> 'plain'
   and s.oid not in (select u.indrelid from usable u)`

// A NULL in the key of any usable index has its row deleted and inserted again by each refresh.
const nullInUniqueKeySQL = `
select 'warning', s.name,
       format('the key of index %s has NULLs: every refresh writes those rows anew (mvsched doctor --measure %s counts them)', u.name, s.word)
       || case when other.found then ', though another index would do without it'
               else '; give the key a value in the view''s query (coalesce), or build another unique index' end,
       case when other.found then format('drop index %s;', u.name) end
  from scheduled s
  join usable u on u.indrelid = s.oid and u.has_null
 cross join lateral (select s.oid in (select o.indrelid from usable o where not o.has_null) as found) other
 where s.kind <> 'merge' and s.strategy <> 'plain'`

// 'MAINTAIN' is no privilege, but an error, before 17.
const mayNotRefreshSQL = `
select 'error', s.name,
       format('role %I may not refresh the view, which belongs to %I', current_user, owner.name),
       case when current_setting('server_version_num')::integer >= 170000
            then format('grant maintain on %I.%I to %I;', s.nspname, s.relname, current_user)
            else format('grant %I to %I;', owner.name, current_user) end
  from scheduled s
 cross join lateral (select pg_catalog.pg_get_userbyid(s.relowner) as name) owner
 where s.kind <> 'merge' and s.oid is not null
   and not pg_catalog.pg_has_role(s.relowner, 'USAGE')
   and not case when current_setting('server_version_num')::integer >= 170000
                then pg_catalog.has_table_privilege(s.oid, 'MAINTAIN') else false end`

const ownerWithoutTempSQL = `
select case s.strategy when 'concurrently' then 'error' else 'warning' end, s.name,
       format('its owner %I may not create temporary tables, which CONCURRENTLY needs', owner.name)
       || case s.strategy when 'concurrently' then ': every refresh fails' else ': every refresh locks out its readers' end,
       format('grant temporary on database %I to %I;', current_database(), owner.name)
  from scheduled s
 cross join lateral (select pg_catalog.pg_get_userbyid(s.relowner) as name) owner
 where s.kind <> 'merge' and s.oid is not null and s.strategy <> 'plain'
   and not pg_catalog.has_database_privilege(s.relowner, current_database(), 'TEMP')`

const noSchemaUsageSQL = `
select 'error', s.name, format('role %I has no USAGE on schema %I: every refresh fails', current_user, s.nspname),
       format('grant usage on schema %I to %I;', s.nspname, current_user)
  from scheduled s
 where s.oid is not null and not pg_catalog.has_schema_privilege(s.relnamespace, 'USAGE')`

// Functions of the view's query, and of the plain views that it reads. An unqualified name after from or join counts when there is a relation of that name, so that a CTE or
// extract(… from …) does not. From 17 on, REFRESH empties the search_path; before, it is the worker's.
const searchPathTrapSQL = `
with recursive reads (name, relation) as (
  select s.name, coalesce(s.source, s.oid)
    from scheduled s
   where s.oid is not null
  union
  select reads.name, c.oid
    from reads
    join pg_catalog.pg_rewrite r on r.ev_class = reads.relation and r.rulename = '_RETURN'
    join pg_catalog.pg_depend d
      on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_catalog.pg_class'::regclass
    join pg_catalog.pg_class c on c.oid = d.refobjid and c.relkind = 'v'
), functions as (
  select distinct reads.name, m.found[1]::oid as function
    from reads
    join pg_catalog.pg_rewrite r on r.ev_class = reads.relation and r.rulename = '_RETURN'
   cross join lateral regexp_matches(r.ev_action::text, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') m (found)
)
select case when current_setting('server_version_num')::integer >= 170000 then 'warning' else 'advice' end, f.name,
       format('function %s, which the view calls, reads %s without naming its schema: ', signature.text, tables.names)
       || case when current_setting('server_version_num')::integer >= 170000
               then 'REFRESH sets an empty search_path, and it fails'
               else 'it fails where the worker''s search_path is another one, and always from PostgreSQL 17 on' end
       || case when tables.ambiguous then '. Several schemas have it: set the search_path of the function to the right one' else '' end,
       case when not tables.ambiguous
            then format('alter function %s set search_path = %s, pg_temp;', signature.text, tables.path) end
  from functions f
  join pg_catalog.pg_proc p on p.oid = f.function and p.oid >= 16384
  join pg_catalog.pg_language l on l.oid = p.prolang and l.lanname in ('sql', 'plpgsql')
  join pg_catalog.pg_namespace n on n.oid = p.pronamespace
 cross join lateral (
        select format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)) as text
      ) signature
 cross join lateral (
        -- its own schema too: there may be functions and types that it calls without a schema
        select string_agg(distinct quote_ident(c.relname), ', ') as names,
               count(distinct c.oid) > count(distinct c.relname) as ambiguous,
               concat_ws(', ', quote_ident(n.nspname),
                         string_agg(distinct quote_ident(rn.nspname), ', ') filter (where rn.oid <> n.oid)) as path
          from regexp_matches(p.prosrc, '\m(?:from|join)\s+(?:only\s+)?([[:alpha:]_][[:alnum:]_$]*\M|"[^"]+")(?!\s*[.(])', 'gi') m (found)
          join pg_catalog.pg_class c
            on c.relkind in ('r', 'p', 'v', 'm', 'f')
           and c.relname = case when m.found[1] like '"%' then trim(both '"' from m.found[1]) else lower(m.found[1]) end
          join pg_catalog.pg_namespace rn
            on rn.oid = c.relnamespace and rn.nspname <> 'information_schema' and rn.nspname !~ '^pg_'
      ) tables
 where tables.names is not null
   and not exists (select from unnest(p.proconfig) setting where setting like 'search\_path=%')`

// The new interval leaves room: half as much again, in whole minutes from two minutes on.
const intervalTooShortSQL = `
select 'warning', s.name,
       format(e'a refresh takes up to \x02>%s\x03, longer than the interval of \x02%s\x03: slots are missed', usual.p95,
              extract(epoch from s.refresh_interval)),
       format('mvsched set %s --every %s', s.word,
              format(e'\x02%s\x03', case when usual.p95 < 80 then ceil(usual.p95 * 1.5) else 60 * ceil(usual.p95 * 1.5 / 60) end))
  from scheduled s
  join usual on usual.schedule_id = s.id
 where s.oid is not null and usual.runs >= 5 and extract(epoch from s.refresh_interval)::float8 < usual.p95`

// Skipping needs counters that are up to date, which PostgreSQL has from 15 on.
const nothingChangedSQL = `
select 'advice', s.name,
       format('%s of the last %s concurrent refreshes changed nothing: let them be skipped', usual.idle, usual.counted),
       format('mvsched set %s --skip-unchanged', s.word)
  from scheduled s
  join usual on usual.schedule_id = s.id
 where s.oid is not null and not s.skip_unchanged
   and current_setting('server_version_num')::integer >= 150000
   and usual.counted >= 20 and usual.idle >= 0.8 * usual.counted`

const deadRowsSQL = `
select 'warning', s.name,
       format('%s of %s rows are dead: refreshes leave them faster than autovacuum clears them away', rows.dead,
              rows.dead + rows.live),
       format('vacuum %I.%I;', s.nspname, s.relname)
  from scheduled s
 cross join lateral (
        select pg_catalog.pg_stat_get_dead_tuples(s.oid) as dead, pg_catalog.pg_stat_get_live_tuples(s.oid) as live) rows
 where s.oid is not null and rows.dead > 1000 and rows.dead > 0.2 * (rows.dead + rows.live)`

// The views of an extension are its own business.
const nobodyRefreshesSQL = `
select 'warning', v.name, 'the view has no schedule: nobody refreshes it',
       format('mvsched add %s --every 1h', case when v.name ~ '^[a-z0-9_.]+$' then v.name
                                                else '''' || replace(v.name, '''', '''\''''') || '''' end)
  from views v
 where not exists (select from scheduled s where s.oid = v.oid)
   and not exists (
         select
           from pg_catalog.pg_depend d
          where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = v.oid and d.deptype = 'e')`

const parentLessOftenSQL = `
select 'advice', child.name,
       format('it is refreshed more often than %s, which it reads: most of its refreshes see the same data',
              string_agg(parent.name, ', ' order by parent.name)),
       format('mvsched set %s --after-parents', child.word)
  from mvsched.materialized_view_dependency d
  join scheduled parent on parent.oid = d.parent
  join scheduled child on child.oid = d.child
 where parent.refresh_interval > child.refresh_interval
 group by child.id, child.name, child.word`

// Before it writes, CONCURRENTLY sorts all rows that have no NULL to find duplicates among them, about half of its time.
const duplicateCheckSQL = `
select 'advice', s.name,
       format(e'a concurrent refresh takes \x02~%s\x03, about half of it to look for duplicate rows. Rows with a NULL are not looked at: '
              'a column that is always NULL in the view''s query (null::boolean as no_duplicate_check) makes it 1.8 to 2.3 times '
              'as fast, and more work_mem may help; mvsched doctor --measure %s tells for this view. The price of the column: exact '
              'duplicates of stored rows are dropped silently, instead of failing the refresh', usual.concurrent_median, s.word),
       null::text
  from scheduled s
  join usual on usual.schedule_id = s.id
 cross join lateral (
        select max(st.null_frac) as null_frac
          from pg_catalog.pg_stats st
         where st.schemaname = s.nspname and st.tablename = s.relname) stats
 where s.strategy <> 'plain' and usual.concurrent >= 5 and usual.concurrent_median >= 2 and s.reltuples > 0
   and usual.written < 0.5 * s.reltuples
   and stats.null_frac < 0.9`

// Of a view that changes altogether, CONCURRENTLY deletes all rows and inserts them again, ten times the work of a new file.
const mostlyRewrittenSQL = `
select 'advice', s.name,
       format(e'a concurrent refresh takes \x02~%s\x03 and writes %s %% of the view''s rows anew', usual.concurrent_median,
              round(100 * usual.changed::numeric))
       || case when usual.plain_median is null then '; a plain one may take a tenth of that'
               else format(e'; plain ones took \x02~%s\x03', usual.plain_median) end
       || format(', writes each row once and leaves none dead, but its readers wait for the end; mvsched doctor --measure %s tells more', s.word),
       format('mvsched set %s --strategy plain', s.word)
  from scheduled s
  join usual on usual.schedule_id = s.id
 where s.strategy <> 'plain' and usual.shares >= 5 and usual.changed >= 0.5 and usual.concurrent_median >= 1
   and usual.concurrent_median > coalesce(usual.plain_median, 0)`

const cannotTellSQL = `
select 'warning', s.name, 'is always refreshed, since it cannot be told whether what it reads has changed: '
       || array_to_string(o.obstacles, ', '),
       format('mvsched set %s --skip-unchanged=false', s.word)
  from scheduled s
 cross join lateral (select mvsched.obstacles(mvsched.read_sources(s.oid)) as obstacles offset 0) o
 where s.skip_unchanged and s.oid is not null and cardinality(o.obstacles) > 0`

const suspendedSQL = `
select 'error', s.name,
       concat_ws(': ', 'it is suspended since ' || to_char(s.suspended_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), s.suspended_reason)
       || '; mend what is wrong, then resume it',
       'mvsched resume ' || s.word
  from scheduled s
 where s.suspended_at is not null`

// What mvsched.in_window says of any window tells whether the server knows the zone. A cron expression is read by mvsched.
const zoneUnknownSQL = `
select 'error', s.materialized_view_name,
       format('there is no time zone %s any more, and its window is in it: give it another (mvsched set %s --timezone ZONE), and resume it where it is suspended',
              s.timezone, coalesce(scheduled.word, tables.word)),
       null
  from mvsched.materialized_view_refresh_schedule s
  left join scheduled on scheduled.id = s.id
  left join tables on tables.id = s.id
 where mvsched.in_window(now(), s.window_start, s.window_end, s.timezone) is null`

// A fiftieth of max_lag is margin, so the new one leaves room.
const lagOutOfReachSQL = `
select 'warning', s.name,
       format(e'its data gets up to \x02>%s\x03 old, not \x02%s\x03 as max_lag says: its refresh and those of what it reads take so long. '
              'Make them quicker, or allow it', extract(epoch from s.reachable_lag),
              extract(epoch from s.max_lag)),
       format(e'mvsched set %s --max-lag \x02%s\x03', s.word, ceil(extract(epoch from s.reachable_lag) * 1.25))
  from scheduled s
 where s.oid is not null and s.reachable_lag > s.max_lag`

// What is refreshed by a clock of its own does not heed the target of a view that reads it.
const lagBehindParentSQL = `
select 'warning', child.name,
       format(e'its data is to be no older than \x02%s\x03, and is never newer than that of %s, which ', target.seconds, parent.name)
       || case when p.id is null then 'nobody refreshes' when p.suspended_at is not null then 'is suspended'
               when p.paused_at is not null then 'is paused'
               when p.cron is not null then 'is refreshed by a clock of its own'
               when p.refresh_delay is not null then format(e'is refreshed \x02%s\x03 after each run', extract(epoch from p.refresh_delay))
               else format(e'is refreshed every \x02%s\x03', extract(epoch from p.refresh_interval)) end,
       case when p.id is null then format(e'mvsched add %s --max-lag \x02%s\x03', parent.word, target.seconds)
            when p.paused_at is not null or p.suspended_at is not null then 'mvsched resume ' || parent.word
            else format(e'mvsched set %s --max-lag \x02%s\x03', parent.word, target.seconds) end
  from scheduled child
 cross join lateral (select extract(epoch from child.max_lag)::float8 as seconds) target
  join mvsched.materialized_view_dependency d on d.child = child.oid and d.parent <> d.child
  join views v on v.oid = d.parent
  left join scheduled p on p.oid = d.parent
 cross join lateral (
        select v.name, case when v.name ~ '^[a-z0-9_.]+$' then v.name else '''' || replace(v.name, '''', '''\''''') || '''' end as word) parent
 where child.max_lag is not null
   and (p.id is null or p.paused_at is not null or p.suspended_at is not null or p.cron is not null
        or coalesce(p.refresh_interval, p.refresh_delay) >= child.max_lag)`

// Who asks for the refreshes knows that they are asked for.
const changesUnseenSQL = `
select case when s.requested_at is null then 'warning' else 'advice' end, s.name,
       format(e'changes of what it reads cannot be seen: %s; it is refreshed when somebody asks (mvsched.request_refresh) and \x02%s\x03 after '
              'its last refresh only', array_to_string(o.obstacles, ', '), extract(epoch from s.max_staleness)),
       format(e'mvsched set %s --every \x02%s\x03', s.word, extract(epoch from s.max_staleness))
  from scheduled s
 cross join lateral (select mvsched.obstacles(mvsched.read_sources(s.oid)) as obstacles offset 0) o
 where s.on_change and s.oid is not null and cardinality(o.obstacles) > 0`

// What waits for a view that it reads is not what nobody serves.
const queueUnservedSQL = `
select 'warning', '',
       format('queue %s: %s views are due for more than 10 minutes, the first of them %s, and no worker has begun any: start one that serves it',
              q.queue, count(*), min(s.materialized_view_name)),
       'mvsched run --queue ' || case when q.queue ~ '^[A-Za-z0-9_.-]+$' then q.queue
                                      else '''' || replace(q.queue, '''', '''\''''') || '''' end
  from unnest(mvsched.queues()) as q (queue)
  join mvsched.materialized_view_refresh_schedule s on s.queue = q.queue
 where s.next_run_at < now() - interval '10 minutes' and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null
   and q.queue not in (
         select r.queue
           from mvsched.materialized_view_refresh_schedule r
          where r.open_execution_id is not null or r.last_attempted_at > now() - interval '10 minutes')
   and not exists (
         select from mvsched.awaited(s.view_oid, mvsched.slot(s.next_run_at, s.next_run_offset, s.next_run_reason), null, now()))
 group by q.queue`
