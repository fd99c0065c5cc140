package schedule

// deniedSQL are those to whom the default privileges of this role would grant something on what it makes in schema n, as
// REVOKE has them; null for nobody.
const deniedSQL = `(
  select string_agg(distinct case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end, ', ')
    from pg_catalog.pg_default_acl d
   cross join lateral aclexplode(d.defaclacl) g
   where pg_get_userbyid(d.defaclrole) = current_user and d.defaclobjtype = 'r' and d.defaclnamespace in (0, n.oid) and g.grantee <> d.defaclrole)`

// rebuiltSQL finds what reads a relation, and in which order: dep has what reads what itself, level how far everything is
// from the relation, the longest way, and rebuilt the materialized views that have to be made again with it (level 0: itself). Views
// can read each other in a circle, so there is an end to the levels.
const rebuiltSQL = `
with recursive dep as (
  select distinct r.ev_class as reader, d.refobjid as read
    from pg_catalog.pg_depend d
    join pg_catalog.pg_rewrite r on r.oid = d.objid and r.ev_class <> d.refobjid
   where d.refclassid = 'pg_catalog.pg_class'::regclass and d.classid = 'pg_catalog.pg_rewrite'::regclass
), way (oid, level) as (
  select s.view_oid, 0 from mvsched.materialized_view_refresh_schedule s where s.id = $1
  union
  select dep.reader, way.level + 1 from way join dep on dep.read = way.oid where way.level < 200
), level as (
  select way.oid, max(way.level) as level from way group by way.oid
), again (oid) as (
  select s.view_oid from mvsched.materialized_view_refresh_schedule s where s.id = $1
  union
  select c.oid
    from again
    join dep on dep.read = again.oid
    join pg_catalog.pg_class c on c.oid = dep.reader and c.relkind = 'm'
), rebuilt as (
  select again.oid, level.level from again join level on level.oid = again.oid
)`

// conversionSQL writes the statements of a conversion. Plain views that read the old relation are replaced: they stay the
// same relations, with their owners, grants and comments, and so does whatever reads only them. Materialized views that
// read it themselves are made again, under their own names, in the order of reading, and so are those that read these; they are
// filled by a refresh, which is done with the rights of their owners. What is new is granted to whom the old was, and to nobody by
// default privileges.
//
// What the owner has written into query and indexes may do anything; so what is new is the owner's before it gets rows. A
// table gets them from the materialized view, which computes nothing. Subscribers would look for it under the name that it has then: where
// a publication takes it in, it is no table for them until it has its rows. Where anything else depends on what is dropped, the
// drop fails, and with it the conversion. LOCK TABLE takes no materialized view; the owner that it has already locks it too, and
// changes nothing. A refresh that has waited behind them does not find what it was claimed for: a failure of before a change of the
// schedule does not count. Readers lock a view before what it reads, so that is the order here: nothing is waited for afterwards.
const conversionSQL = rebuiltSQL + `, relation as (
  select c.oid, c.relowner, c.relname, n.nspname, c.relnamespace, c.relkind, c.relacl, c.relispopulated, format('%I.%I', n.nspname, c.relname) as name,
         format('%I.%I', n.nspname, 'mvsched_old_' || c.oid) as gone, quote_ident('mvsched_old_' || c.oid) as gone_bare,
         case when c.reloptions is not null then format(' with (%s)', array_to_string(c.reloptions, ', ')) else '' end as options,
         pg_get_userbyid(c.relowner) as owner, ` + deniedSQL + ` as denied
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where c.oid in (select level.oid from level)
), old as (
  select r.*, quote_ident(r.relname) as bare, format('%I.%I', r.nspname, 'mvsched_new_' || r.oid) as fresh,
         case r.relkind when 'm' then 'materialized view' else 'table' end as type,
         case r.relkind when 'm' then 'table' else 'materialized view' end as new_type, r.relkind = 'm' as forth,
         case r.relkind when 'm' then format('%I.%I', r.nspname, r.relname || '_source') else mvsched.relation_name(plain.oid) end as source,
         case r.relkind when 'm' then r.oid else plain.oid end as query, s.id as schedule_id,
         exists (select from pg_catalog.pg_publication p where p.puballtables)
         or exists (select from pg_catalog.pg_depend d -- pg_publication_namespace, by way of what PostgreSQL 13 and 14 have too
                     where d.classid = to_regclass('pg_catalog.pg_publication_namespace')
                       and d.refclassid = 'pg_catalog.pg_namespace'::regclass and d.refobjid = r.relnamespace) as published
    from mvsched.materialized_view_refresh_schedule s
    join relation r on r.oid = s.view_oid
   cross join lateral (select mvsched.resolve_source(s.merge_source_oid, s.merge_source) as oid) plain
   where s.id = $1
), made as ( -- what is made, when, and as what
  select old.oid, 'build' as part, 0 as level, old.fresh as target, old.new_type as type, old.relowner, old.owner, old.relacl, old.denied, true as converted
    from old
  union all
  select r.oid, 'again', rebuilt.level, r.name, 'materialized view', r.relowner, r.owner, r.relacl, r.denied, false
    from rebuilt
    join relation r on r.oid = rebuilt.oid
   where rebuilt.level > 0
), changed (oid) as ( -- the relation, and all that reads it, or what is made again, itself
  select old.oid from old
  union
  select r.oid from dep join made on made.oid = dep.read join relation r on r.oid = dep.reader and r.relkind in ('m', 'v')
), index as (
  select made.part, made.level, made.converted, i.indexrelid as oid, c.relname,
         format('%I.%I', r.nspname, case when made.converted then 'mvsched_' || i.indexrelid else c.relname end) as target,
         format('%I.%I', r.nspname, c.relname) as name,
         case when made.converted
              then replace(pg_get_indexdef(i.indexrelid),
                     format(' INDEX %I ON %s ', c.relname, r.name), format(' INDEX %I ON %s ', 'mvsched_' || i.indexrelid, made.target))
              else pg_get_indexdef(i.indexrelid) end as definition
    from made
    join relation r on r.oid = made.oid
    join pg_catalog.pg_index i on i.indrelid = made.oid
    join pg_catalog.pg_class c on c.oid = i.indexrelid
), statement (part, level, n, sub, sql) as (
  select 'build', 0, 1, '', format(e'create view %s as\n%s', old.source, rtrim(pg_get_viewdef(old.oid), ';')) from old where forth
  union all
  select 'build', 0, 4, '', format('alter view %s owner to %I', old.source, old.owner) from old where forth and old.owner <> current_user
  union all
  select 'build', 0, 2, '', format('create %stable %s (like %s)%s', case when published then 'unlogged ' end, old.fresh, old.name, old.options) from old where forth
  union all
  select 'build', 0, 2, '', format(e'create materialized view %s%s as\n%s\nwith no data', old.fresh, old.options, rtrim(pg_get_viewdef(old.query), ';'))
    from old where not forth
  union all
  select 'build', 0, 3, '', format('revoke all on %s from %s', old.source, old.denied) from old where forth and old.denied is not null
  union all
  select made.part, made.level, 3, made.target, format('revoke all on %s from %s', made.target, made.denied) from made where made.denied is not null
  union all
  select made.part, made.level, 4, made.target, format('alter %s %s owner to %I', made.type, made.target, made.owner) from made where made.owner <> current_user
  union all
  select 'build', 0, 5, '', format('alter table %s %s', old.fresh,
           (select string_agg(format('alter %I set not null', k.name), ', ' order by k.n) from unnest($2::text[]) with ordinality as k (name, n)))
    from old where forth
  union all
  select 'build', 0, 6, '', case when forth then format('insert into %s select * from %s', old.fresh, old.name)
                                 else format('refresh materialized view %s', old.fresh) end from old
  union all
  select 'again', level.level, 2, r.name,
         case r.relkind
           when 'v' then format(e'create or replace view %s%s as\n%s', r.name, r.options, rtrim(pg_get_viewdef(r.oid), ';'))
           else format(e'create materialized view %s%s as\n%s\nwith no data', r.name, r.options, rtrim(pg_get_viewdef(r.oid), ';')) end
    from changed
    join level on level.oid = changed.oid
    join relation r on r.oid = changed.oid
   where level.level > 0
  union all
  select 'build', 0, 7, '', format('alter table %s set logged', old.fresh) from old where forth and published
  union all
  select index.part, index.level, 8, index.name, index.definition from index
  union all
  (select 'build', 0, 9, '', format('alter table %s replica identity using index %I', old.fresh, 'mvsched_' || i.indexrelid)
     from old
     join pg_catalog.pg_index i on i.indrelid = old.oid
    where forth and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
      and i.indnkeyatts = cardinality($2::text[])
      and not exists (select from unnest(i.indkey::smallint[]) with ordinality as k (attnum, n)
                        join pg_catalog.pg_attribute a on a.attrelid = old.oid and a.attnum = k.attnum
                       where k.n <= i.indnkeyatts and a.attname::text <> all ($2::text[]))
    order by i.indexrelid
    limit 1)
  union all
  select 'build', 0, 10, '', 'analyze ' || old.fresh from old
  union all
  select made.part, made.level, 10, made.target || lpad(d.objsubid::text, 5, '0'), format('comment on %s is %L',
           case when d.objsubid = 0 then format('%s %s', made.type, made.target) else format('column %s.%I', made.target, a.attname) end, d.description)
    from made
    join pg_catalog.pg_description d on d.objoid = made.oid and d.classoid = 'pg_catalog.pg_class'::regclass
    left join pg_catalog.pg_attribute a on a.attrelid = made.oid and a.attnum = d.objsubid
  union all
  select index.part, index.level, 11, index.name, format('comment on index %s is %L', index.target, d.description)
    from index
    join pg_catalog.pg_description d on d.objoid = index.oid and d.classoid = 'pg_catalog.pg_class'::regclass
  union all
  select made.part, made.level, 12, concat(made.target, g.grantee, g.is_grantable), format('grant %s on %s to %s%s', string_agg(distinct lower(g.privilege_type), ', '), made.target,
           case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end, case when g.is_grantable then ' with grant option' else '' end)
    from made cross join lateral aclexplode(made.relacl) g
   where g.grantee <> made.relowner
   group by g.grantee, g.is_grantable, made.part, made.level, made.target
  union all
  select made.part, made.level, 13, concat(made.target, a.attnum, g.grantee, g.is_grantable, g.privilege_type), format('grant %s (%I) on %s to %s%s', lower(g.privilege_type), a.attname, made.target,
           case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end, case when g.is_grantable then ' with grant option' else '' end)
    from made join pg_catalog.pg_attribute a on a.attrelid = made.oid cross join lateral aclexplode(a.attacl) g
  union all
  select made.part, made.level, 14, made.target, 'refresh materialized view ' || made.target
    from made join relation r on r.oid = made.oid where not made.converted and r.relispopulated
  union all
  select made.part, made.level, 15, made.target, 'analyze ' || made.target from made where not made.converted
  union all
  select 'lock', -level.level, 1, r.name,
         format('alter %s %s owner to %I', case r.relkind when 'm' then 'materialized view' when 'v' then 'view' else 'table' end, r.name, r.owner)
    from changed
    join level on level.oid = changed.oid
    join relation r on r.oid = changed.oid
  union all
  select 'aside', 0, 1, '', format('alter %s %s rename to %s', old.type, old.name, old.gone_bare) from old
  union all
  select 'aside', 0, 2, '', format('alter %s %s rename to %s', old.new_type, old.fresh, old.bare) from old
  union all
  select 'aside', 0, 3, r.name, format('alter materialized view %s rename to %s', r.name, r.gone_bare)
    from made join relation r on r.oid = made.oid where not made.converted
  union all
  select 'aside', 0, 4, index.name, format('alter index %s rename to %I', index.name, 'mvsched_' || index.oid) from index where not index.converted
  union all
  select 'finish', -made.level, 1, r.name, format('drop materialized view %s', r.gone)
    from made join relation r on r.oid = made.oid where not made.converted
  union all
  select 'finish', 0, 2, '', format('drop %s %s', old.type, old.gone) from old
  union all
  select 'finish', 0, 3, '', format('drop view %s', old.source)
    from old
   where not forth and not exists (
         select from pg_catalog.pg_depend d
          where d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = old.query and d.classid = 'pg_catalog.pg_rewrite'::regclass
            and d.objid not in (select r.oid from pg_catalog.pg_rewrite r where r.ev_class = old.query))
  union all
  select 'finish', 0, 4, index.name, format('alter index %s rename to %I', index.target, index.relname) from index where index.converted
  union all
  select 'finish', 0, 5, '', format('update mvsched.materialized_view_refresh_schedule set %s, spec_changed_at = clock_timestamp() where id = %s',
           case when old.forth then format('kind = ''merge'', merge_source = %L, merge_key = %L, next_run_at = now()', old.source, $2::text[])
                else 'kind = ''view'', merge_source = null, merge_key = null, merge_window = null, full_interval = null, next_full_at = null, next_run_at = now()' end,
           old.schedule_id)
    from old
  union all
  select 'finish', 0, 6, made.target, format('update mvsched.materialized_view_refresh_schedule set view_oid = %L::regclass, spec_changed_at = clock_timestamp() where id = %s', made.target, s.id)
    from made join mvsched.materialized_view_refresh_schedule s on s.view_oid = made.oid and s.database_identity = mvsched.database_identity()
   where not made.converted
  union all
  select 'name', 0, 1, lpad(r.oid::text, 10, '0') || n.n, n.name
    from made join relation r on r.oid = made.oid cross join lateral (values (1, r.gone_bare), (2, quote_ident(r.relname))) n (n, name)
)
select s.part, s.sql from statement s order by s.part, s.level, s.n, s.sub`

// rebuildSQL is what is to be known of the materialized views that are made again: how long that takes, as far as history
// tells, and what of them no statement here would make again.
const rebuildSQL = rebuiltSQL + `
select mvsched.relation_name(c.oid), mvsched.usual_seconds(mvsched.relation_name(c.oid)),
       ` + unkeptSQL + `
  from rebuilt r
  join pg_catalog.pg_class c on c.oid = r.oid
 where r.level > 0
 order by r.level, 1`

// unkeptSQL is what the relation c has that no statement here would make again; null for nothing.
const unkeptSQL = `
       case when exists (select from pg_catalog.pg_statistic_ext e where e.stxrelid = c.oid) then 'has extended statistics'
            when exists (select from pg_catalog.pg_seclabel l where l.objoid = c.oid and l.classoid = 'pg_catalog.pg_class'::regclass) then 'has a security label'
            when exists (select from pg_catalog.pg_depend d
                          where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') then 'belongs to an extension'
            when c.reltablespace <> 0 or exists (
                 select from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid
                  where i.indrelid = c.oid and x.reltablespace <> 0) then 'is in a tablespace of its own'
            when (select am.amname from pg_catalog.pg_am am where am.oid = c.relam)
                 <> current_setting('default_table_access_method') then 'has an access method of its own'
            when exists (select from pg_catalog.pg_attribute a
                           join pg_catalog.pg_type t on t.oid = a.atttypid
                          where a.attrelid = c.oid and a.attnum > 0
                            and (a.attoptions is not null or coalesce(a.attstattarget, -1) >= 0 or a.attstorage <> t.typstorage
                                 or to_jsonb(a) ->> 'attcompression' <> '')) then 'has settings of its columns' -- 13 has no attcompression
            when exists (select from pg_catalog.pg_class t where t.oid = c.reltoastrelid and t.reloptions is not null) then 'has settings of its TOAST table'
            when exists (select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisclustered) then 'is clustered on an index'
       end`
