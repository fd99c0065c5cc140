package schedule

// What Doctor asks about tables with materialized columns, each behind viewsSQL.

const columnsGoneSQL = `
select 'error', t.name,
       case when t.oid is null then 'there is no such table: create it, or remove the schedule'
            when t.key is null then 'the table has no primary key of one column any more, by which a batch names its rows'
            when lost.names is not null then 'its query gives columns that the table has not any more: ' || lost.names
            else 'the table has no column materialized_at any more, which says what is to be done' end,
       case when t.oid is null then 'mvsched remove ' || t.word
            when t.key is not null and lost.names is null then format('alter table %s add column materialized_at timestamptz;', t.name) end
  from tables t
 cross join lateral (
        select string_agg(quote_ident(c), ', ') as names
          from unnest(t.columns_list) c
         where t.oid is not null and mvsched.column_type(t.oid, c) is null) lost
 where t.oid is null or t.key is null or lost.names is not null or mvsched.column_type(t.oid, 'materialized_at') is null`

// A function may look for its rows by another order; but what is left has to be found too, each time.
const columnsWithoutIndexSQL = `
select 'warning', t.name,
       'no index finds the rows that are to be materialized: every batch reads through the table',
       format('create index %son %s (%I) where materialized_at is null;',
              case when t.relkind = 'r' then 'concurrently ' else '' end, t.name, t.key)
  from tables t
 where t.key is not null and mvsched.column_type(t.oid, 'materialized_at') is not null
   and not exists (
         select
           from pg_catalog.pg_index i
           join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attname = t.key
          where i.indrelid = t.oid and i.indisvalid and i.indkey[0] = a.attnum
            and pg_catalog.pg_get_expr(i.indpred, i.indrelid) = '(materialized_at IS NULL)')`

const columnsIndexedSQL = `
select 'advice', t.name,
       format('index %s has materialized_at among its columns: each row that is materialized gets an entry in it, which finds '
              'nothing that an index "where materialized_at is null" does not find; and no update of that column can be '
              'heap-only (HOT)', i.indexrelid::regclass),
       format('drop index %s;', i.indexrelid::regclass)
  from tables t
  join pg_catalog.pg_index i on i.indrelid = t.oid
  join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attname = 'materialized_at' and a.attnum = any (i.indkey::smallint[])
 where not i.indisunique and i.indpred is null`

const rowsSetAsideSQL = `
select 'warning', t.name,
       format('%s rows could not be materialized and are set aside, the last of them %s: %s', poison.rows, poison.last_key, poison.last_message),
       format('mvsched invalidate %s --where "materialized_at = ''-infinity''"', t.word)
  from tables t
 cross join lateral (
        select count(*) as rows, (array_agg(p.row_key order by p.set_aside_at desc))[1] as last_key,
               (array_agg(p.error_message order by p.set_aside_at desc))[1] as last_message
          from mvsched.materialization_poison p
         where p.materialized_view_refresh_schedule_id = t.id) poison
 where poison.rows > 0`
