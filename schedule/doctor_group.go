package schedule

// groupLongSQL: the last member ends behind all others, so the longest of them is the whole group. Five minutes are
// longGroup.
const groupLongSQL = `
select 'warning', '',
       format(e'group %s: its %s views take \x02~%s\x03 in one transaction. For as long it holds their locks, and VACUUM can remove no row '
              'anywhere in the database that was deleted meanwhile: make the queries cheaper, or the group smaller',
              grouped.name, grouped.members, grouped.seconds),
       null::text
  from (select s.refresh_group as name, count(*) as members, max(usual.median) as seconds
          from scheduled s
          join usual on usual.schedule_id = s.id
         where s.refresh_group is not null and s.paused_at is null and s.suspended_at is null
         group by s.refresh_group) grouped
 where grouped.members > 1 and grouped.seconds >= 300`

// A group has one clock, the one of its first due member.
const groupUnevenSQL = `
select 'advice', s.name,
       format(e'it asks to be refreshed every \x02%s\x03, and is with its group, %s, every \x02%s\x03: give it the same interval, or take it out of the group',
              extract(epoch from s.refresh_interval), s.refresh_group, extract(epoch from s.group_interval)),
       'mvsched set ' || s.word || ' --group '''''
  from scheduled s
 where s.refresh_group is not null and s.refresh_interval >= 4 * s.group_interval and s.paused_at is null and s.suspended_at is null`

// Readers wait for the exclusive lock of a plain refresh until its transaction ends.
const groupPlainSQL = `
select 'warning', s.name,
       format('it is not refreshed concurrently: its readers wait until all of its group, %s, is refreshed; with two such views, a reader of '
              'both and the refresh can wait for each other, until the server ends one of them. Create a unique index, or take it out of the group',
              s.refresh_group),
       'mvsched set ' || s.word || ' --group '''''
  from scheduled s
 where s.oid is not null and s.refresh_group is not null and s.group_members > 1
   and (s.strategy = 'plain' or s.oid not in (select u.indrelid from usable u))`

// What stands between two members is refreshed after the one and too late for the other.
const groupOpenSQL = `
select 'warning', member.name,
       format('it reads %s, which reads %s: the two are in group %s and that one is not, so this one shows older data through it. Put it into the group',
              outside.name, min(above.name), member.refresh_group),
       format('mvsched set %s --group %s', outside.word, case when member.refresh_group ~ '^[A-Za-z0-9_.-]+$' then member.refresh_group::text
              else '''' || replace(member.refresh_group, '''', '''\''''') || '''' end)
  from scheduled member
  join mvsched.materialized_view_graph g on g.view_oid = member.oid
 cross join lateral unnest(g.ancestors) as nearer (oid)
  join scheduled outside on outside.oid = nearer.oid and outside.refresh_group is distinct from member.refresh_group
  join mvsched.materialized_view_graph og on og.view_oid = outside.oid
 cross join lateral unnest(og.ancestors) as farther (oid)
  join scheduled above on above.oid = farther.oid and above.refresh_group = member.refresh_group
 where above.id <> member.id
 group by member.id, member.name, member.refresh_group, outside.id, outside.name, outside.word`
