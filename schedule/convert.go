package schedule

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Conversion turns a materialized view into a merge table of the same name, or back.
type Conversion struct {
	View  string   // canonical name
	Build []string // makes the new relation, beside the old one, which stays in use
	Swap  []string // puts it in the place of the old one: for so long its readers wait

	limit time.Duration
}

// conversionSQL writes the statements of a conversion. What depends on the old relation are plain views, which are
// replaced: they stay the same relations, with their owners, grants and comments. What the owner has written into query and
// indexes may do anything; so the new relation is the owner's before it gets rows, a table gets them from the materialized
// view, which computes nothing, and a materialized view by a refresh. Where anything else depends on it, the
// drop of the old relation fails, and with it the conversion.
const conversionSQL = `
with old as (
  select c.oid, c.relowner, c.relname, n.nspname, format('%I.%I', n.nspname, c.relname) as name, quote_ident(c.relname) as bare,
         format('%I.%I', n.nspname, 'mvsched_new_' || c.oid) as fresh, format('%I.%I', n.nspname, 'mvsched_old_' || c.oid) as gone,
         quote_ident('mvsched_old_' || c.oid) as gone_bare,
         case c.relkind when 'm' then 'materialized view' else 'table' end as type,
         case c.relkind when 'm' then 'table' else 'materialized view' end as new_type, c.relkind = 'm' as forth,
         case when c.reloptions is not null then format(' with (%s)', array_to_string(c.reloptions, ', ')) else '' end as options,
         pg_get_userbyid(c.relowner) as owner, c.relacl,
         case c.relkind when 'm' then format('%I.%I', n.nspname, c.relname || '_source') else s.merge_source end as source,
         case c.relkind when 'm' then c.oid else s.merge_source_oid end as query, s.id as schedule_id
    from mvsched.materialized_view_refresh_schedule s
    join pg_catalog.pg_class c on c.oid = s.view_oid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where s.id = $1
), index as (
  select i.indexrelid as oid, c.relname, format('%I.%I', old.nspname, 'mvsched_' || i.indexrelid) as fresh,
         replace(pg_get_indexdef(i.indexrelid),
           format(' INDEX %I ON %s ', c.relname, old.name), format(' INDEX %I ON %s ', 'mvsched_' || i.indexrelid, old.fresh)) as definition
    from old
    join pg_catalog.pg_index i on i.indrelid = old.oid
    join pg_catalog.pg_class c on c.oid = i.indexrelid
), reader as (
  select distinct c.oid, format('%I.%I', n.nspname, c.relname) as name,
         case when c.reloptions is not null then format(' with (%s)', array_to_string(c.reloptions, ', ')) else '' end as options
    from old
    join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = old.oid
                               and d.classid = 'pg_catalog.pg_rewrite'::regclass
    join pg_catalog.pg_rewrite r on r.oid = d.objid and r.ev_class <> old.oid
    join pg_catalog.pg_class c on c.oid = r.ev_class and c.relkind = 'v'
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
), statement (part, n, sub, sql) as (
  select 'build', 1, '', format(e'create view %s as\n%s', old.source, rtrim(pg_get_viewdef(old.oid), ';')) from old where forth
  union all
  select 'build', 2, '', format('alter view %s owner to %I', old.source, old.owner) from old where forth and old.owner <> current_user
  union all
  select 'build', 3, '', format('create table %s (like %s)%s', old.fresh, old.name, old.options) from old where forth
  union all
  select 'build', 3, '', format(e'create materialized view %s%s as\n%s\n  with no data', old.fresh, old.options, rtrim(pg_get_viewdef(old.query), ';'))
    from old where not forth
  union all
  select 'build', 4, '', format('alter %s %s owner to %I', old.new_type, old.fresh, old.owner) from old where old.owner <> current_user
  union all
  select 'build', 5, '', case when forth then format('insert into %s select * from %s', old.fresh, old.name)
                              else format('refresh materialized view %s', old.fresh) end from old
  union all
  select 'build', 6, index.relname, index.definition from index
  union all
  select 'build', 7, '', 'analyze ' || old.fresh from old
  union all
  select 'build', 8, lpad(d.objsubid::text, 5, '0'), format('comment on %s is %L',
           case when d.objsubid = 0 then format('%s %s', old.new_type, old.fresh) else format('column %s.%I', old.fresh, a.attname) end, d.description)
    from old
    join pg_catalog.pg_description d on d.objoid = old.oid and d.classoid = 'pg_catalog.pg_class'::regclass
    left join pg_catalog.pg_attribute a on a.attrelid = old.oid and a.attnum = d.objsubid
  union all
  select 'build', 9, index.relname, format('comment on index %s is %L', index.fresh, d.description)
    from index
    join pg_catalog.pg_description d on d.objoid = index.oid and d.classoid = 'pg_catalog.pg_class'::regclass
  union all
  select 'build', 10, concat(g.grantee, g.is_grantable), format('grant %s on %s to %s%s', string_agg(distinct lower(g.privilege_type), ', '), old.fresh,
           case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end, case when g.is_grantable then ' with grant option' else '' end)
    from old cross join lateral aclexplode(old.relacl) g
   where g.grantee <> old.relowner
   group by g.grantee, g.is_grantable, old.fresh
  union all
  select 'build', 11, concat(a.attnum, g.grantee, g.is_grantable, g.privilege_type), format('grant %s (%I) on %s to %s%s', lower(g.privilege_type), a.attname, old.fresh,
           case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end, case when g.is_grantable then ' with grant option' else '' end)
    from old join pg_catalog.pg_attribute a on a.attrelid = old.oid cross join lateral aclexplode(a.attacl) g
  union all
  select 'swap', 1, '', format('alter %s %s rename to %s', old.type, old.name, old.gone_bare) from old
  union all
  select 'swap', 2, '', format('alter %s %s rename to %s', old.new_type, old.fresh, old.bare) from old
  union all
  select 'swap', 3, reader.name, format(e'create or replace view %s%s as\n%s', reader.name, reader.options, rtrim(pg_get_viewdef(reader.oid), ';')) from reader
  union all
  select 'swap', 4, '', format('drop %s %s', old.type, old.gone) from old
  union all
  select 'swap', 5, '', format('drop view %s', old.source)
    from old
   where not forth and not exists (
         select from pg_catalog.pg_depend d
          where d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = old.query and d.classid = 'pg_catalog.pg_rewrite'::regclass
            and d.objid not in (select r.oid from pg_catalog.pg_rewrite r where r.ev_class = old.query))
  union all
  select 'swap', 6, index.relname, format('alter index %s rename to %I', index.fresh, index.relname) from index
  union all
  select 'swap', 7, '', format('update mvsched.materialized_view_refresh_schedule set %s where id = %s',
           case when old.forth then format('kind = ''merge'', merge_source = %L, merge_key = %L, next_run_at = now()', old.source, $2::text[])
                else 'kind = ''view'', merge_source = null, merge_key = null, merge_window = null, full_interval = null, next_full_at = null, next_run_at = now()' end,
           old.schedule_id)
    from old
)
select s.part, s.sql from statement s order by s.part, s.n, s.sub`

// convertibleSQL is what is to be known before: the key of a unique index that CONCURRENTLY could use, the materialized
// views that read it, and what would be lost.
const convertibleSQL = `
select s.kind, mvsched.relation_name(c.oid), extract(epoch from s.maximum_execution_duration)::float8,
       (select array_agg(a.attname::text order by k.n)
          from (select i.indkey::smallint[] as indkey, i.indnkeyatts
                  from pg_catalog.pg_index i
                 where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
                 order by i.indisprimary desc, i.indnkeyatts, i.indexrelid
                 limit 1) i
         cross join unnest(i.indkey) with ordinality as k (attnum, n)
          join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
         where k.n <= i.indnkeyatts),
       array(select mvsched.relation_name(d.child) from mvsched.materialized_view_dependency d where d.parent = c.oid and d.child <> c.oid order by 1),
       $2::text[] is null or mvsched.merge_equalities(c.oid, $2::text[]) is not null, c.relispopulated,
       case when s.refresh_group is not null then format('is in group %s, and only materialized views can be', quote_ident(s.refresh_group))
            when c.relrowsecurity then 'has row security, which a materialized view cannot have'
            when exists (select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal)
            then 'has triggers, which a materialized view cannot have' end
  from mvsched.materialized_view_refresh_schedule s
  join pg_catalog.pg_class c on c.oid = s.view_oid and mvsched.can_be(c.relkind, s.kind)
 where s.id = $1 and s.database_identity = mvsched.database_identity()`

// PlanConversion works out how a scheduled materialized view becomes a merge table, by this key, nil for that of its unique
// index; or, back, how a merge table becomes a materialized view. It changes nothing.
func (s *Store) PlanConversion(ctx context.Context, view ViewName, key []string, back bool) (c Conversion, err error) {
	ctx, cancel := withDeadline(ctx, "planning a conversion")
	defer cancel()
	found, err := s.describe(ctx, view)
	if err != nil {
		return Conversion{}, fmt.Errorf("looking up %q: %w", view, err)
	}
	if err := found.needSchedule(view); err != nil {
		return Conversion{}, err
	}
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		var kind Materialization
		var limit float64
		var unique, readers []string
		var isKey, filled bool
		var obstacle *string
		err := tx.QueryRow(ctx, convertibleSQL, found.scheduleID, key).Scan(&kind, &c.View, &limit, &unique, &readers, &isKey, &filled, &obstacle)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return &ViewError{View: view.String(), Err: ErrNoView}
		case err != nil:
			return err
		case back && kind != MergeTable:
			return &DefinitionError{Problem: c.View + " is no merge table"}
		case !back && kind != MaterializedView:
			return &DefinitionError{Problem: c.View + " is no materialized view", Hint: "with --back a merge table becomes one again"}
		case obstacle != nil:
			return &DefinitionError{Problem: c.View + " " + *obstacle}
		case len(readers) > 0:
			return &DefinitionError{
				Problem: fmt.Sprintf("%s is read by materialized views, which would have to be made again: %s", c.View, strings.Join(readers, ", ")),
				Hint:    "drop them, convert it, and create them again",
			}
		case !filled:
			return &DefinitionError{Problem: c.View + " has never been filled", Hint: "`mvsched refresh` it first"}
		case !back && (unique == nil || !isKey):
			return &DefinitionError{Problem: c.View + " has no unique index on the columns of the key", Hint: "create one, valid, immediate and without WHERE"}
		case key == nil:
			key = unique
		}
		c.limit = duration(limit)
		rows, err := tx.Query(ctx, conversionSQL, found.scheduleID, key)
		if err != nil {
			return err
		}
		var part, sql string
		_, err = pgx.ForEachRow(rows, []any{&part, &sql}, func() error {
			if part == "build" {
				c.Build = append(c.Build, sql)
			} else {
				c.Swap = append(c.Swap, sql)
			}
			return nil
		})
		return err
	})
	return c, err
}

// How long the swap may wait for its locks, during which readers wait behind it, and how often it is tried.
const (
	swapLockTimeout = 50 * time.Millisecond
	swapPause       = 200 * time.Millisecond
	swapTries       = 100
)

// Convert does it, in one transaction: all of it, or nothing.
func (s *Store) Convert(ctx context.Context, c Conversion) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, fmt.Errorf("converting %s took longer than %s, the --timeout of its schedule", c.View, c.limit))
	defer cancel()
	err := s.transaction(ctx, func(tx pgx.Tx) error {
		for _, sql := range c.Build {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf("set local lock_timeout = '%dms'", swapLockTimeout.Milliseconds())); err != nil {
			return err
		}
		for try := 1; ; try++ {
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				// In one message, since readers wait. Only the simple protocol takes that, and there are no arguments in it.
				return tx.Conn().PgConn().Exec(ctx, strings.Join(c.Swap, ";\n")).Close()
			})
			if err == nil || sqlState(err) != pgerrcode.LockNotAvailable || try == swapTries || !pause(ctx, swapPause) {
				return err
			}
		}
	})
	var pgErr *pgconn.PgError
	switch refused := refusedDefinition(err); {
	case refused != nil:
		return refused
	case errors.As(err, &pgErr) && pgErr.Code == pgerrcode.DependentObjectsStillExist:
		// Its name is another one by then.
		gone := c.Swap[0][strings.LastIndex(c.Swap[0], " ")+1:]
		view, _ := ParseViewName(c.View)
		return &DefinitionError{
			Problem: "something other than views depends on " + c.View,
			Hint:    strings.NewReplacer(gone, quoteIdentifier(view.Name), "\n", "; ").Replace(pgErr.Detail),
		}
	case err != nil:
		return fmt.Errorf("converting %s: %w", c.View, err)
	}
	return nil
}
