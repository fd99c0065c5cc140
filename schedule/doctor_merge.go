package schedule

// What Doctor asks about merge tables, each behind viewsSQL.

const mergeSourceSQL = `
select 'error', s.name, format('the view %s, which the table is kept equal to, does not exist: every refresh fails', s.merge_source), null::text
  from scheduled s
 where s.kind = 'merge' and s.oid is not null
   and not exists (select from pg_catalog.pg_class c where c.oid = s.source and c.relkind = 'v')`

const mergeUniqueSQL = `
select 'error', s.name, format('every refresh fails: the table has no unique index on its key (%s), valid, immediate and without WHERE', key.columns),
       format('create unique index on %I.%I (%s);', s.nspname, s.relname, key.columns)
  from scheduled s
 cross join lateral (
        select string_agg(quote_ident(k.name), ', ' order by k.n) as columns
          from unnest(s.merge_key) with ordinality as k (name, n)) key
 where s.kind = 'merge' and s.oid is not null and mvsched.merge_equalities(s.oid, s.merge_key) is null`

// A NULL in the key fails the refresh; the server sees to it that there is none only where the column may have none.
const mergeNullableSQL = `
select 'advice', s.name,
       format('column %I of its key may be NULL; a refresh fails when the view has one there', a.attname),
       format('alter table %I.%I alter column %I set not null;', s.nspname, s.relname, a.attname)
  from scheduled s
  join pg_catalog.pg_attribute a on a.attrelid = s.oid and a.attname::text = any (s.merge_key)
 where s.kind = 'merge' and not a.attnotnull and not a.attisdropped`

const mergeRightsSQL = `
select 'error', s.name,
       format('role %I may not %s: every refresh fails', current_user, concat_ws(', nor ', 
         case when not may.write then 'write the table' end, case when not may.read then 'read view ' || s.merge_source end)),
       concat_ws(' ', case when not may.write then format('grant select, insert, update, delete on %I.%I to %I;', s.nspname, s.relname, current_user) end,
                 case when not may.read then format('grant select on %s to %I;', s.merge_source, current_user) end)
  from scheduled s
 cross join lateral (
        select has_table_privilege(s.oid, 'select') and has_table_privilege(s.oid, 'insert')
               and has_table_privilege(s.oid, 'update') and has_table_privilege(s.oid, 'delete') as write,
               coalesce(has_table_privilege(s.source, 'select'), true) as read) may
 where s.kind = 'merge' and s.oid is not null and not (may.write and may.read)`
