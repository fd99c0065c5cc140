package schedule

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// original is the view that is measured: what a copy of it takes.
type original struct {
	view        string // canonical name
	word        string // the same as a shell takes it
	schema      string
	name        string
	owner       string
	mayBeOwner  bool // we may take on the role of the owner, who
	mayCreate   bool // may create the copy in the view's schema
	populated   bool
	uniqueIndex bool
	ownerTemp   bool
	strategy    Strategy
	searchPath  string  // for the refresh: the schedule's, or the session's
	parameters  *string // JSON, as the schedule has them
	workMem     int64   // bytes
	bytes       int64
	query       string
	with        string // storage parameters
	tablespace  *string
	indexes     []string // what follows the name of the table
}

// An index's definition always begins with its own name and that of its table, qualified; what follows is the same for
// the copy. Sizes are the catalog's page counts, which take no lock.
const originalSQL = `
select n.nspname::text, c.relname::text,
       case when $5 ~ '^[a-z0-9_.]+$' then $5 else '''' || replace($5, '''', '''\''''') || '''' end, owner.name, c.relispopulated, v.unique_index, v.owner_temp,
       case when current_setting('server_version_num')::integer >= 160000
            then pg_catalog.pg_has_role(c.relowner, 'SET') else pg_catalog.pg_has_role(c.relowner, 'MEMBER') end,
       pg_catalog.has_schema_privilege(c.relowner, c.relnamespace, 'CREATE'),
       coalesce(s.strategy, 'auto'), coalesce(s.search_path, $2::text), s.settings::text,
       (c.relpages + coalesce((select sum(x.relpages) from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid
                                where i.indrelid = c.oid), 0)) * current_setting('block_size')::bigint,
       rtrim(pg_catalog.pg_get_viewdef(c.oid), ';'), coalesce('with (' || array_to_string(c.reloptions, ', ') || ')', ''),
       (select t.spcname::text from pg_catalog.pg_tablespace t where t.oid = c.reltablespace),
       array(select format('create %sindex on %I.%I %s', case when i.indisunique then 'unique ' end, n.nspname, $4::text,
                           substr(definition.text, length(named.text) + 1))
               from pg_catalog.pg_index i
               join pg_catalog.pg_class x on x.oid = i.indexrelid
              cross join lateral (select pg_catalog.pg_get_indexdef(i.indexrelid) as text) definition
              cross join lateral (
                     select format('CREATE %sINDEX %I ON %I.%I ', case when i.indisunique then 'UNIQUE ' end, x.relname, n.nspname, c.relname) as text
                   ) named
              where i.indrelid = c.oid and i.indisvalid and starts_with(definition.text, named.text)
              order by i.indexrelid)
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join mvsched.refreshable v on v.oid = c.oid
 cross join lateral (select pg_catalog.pg_get_userbyid(c.relowner)::text as name) owner
  left join mvsched.materialized_view_refresh_schedule s on s.id = $3::bigint
 where c.oid = $1::bigint::oid and c.relkind = 'm'`

// The limits hold for the copying; a refresh is given what is left of the time. A client that is gone ends it all, unlike a
// refresh that somebody waits for.
const measureLimitsSQL = `
select set_config('lock_timeout', '` + measureLockTimeout + `', true), set_config('client_min_messages', 'error', true),
       set_config('quote_all_identifiers', 'off', true), set_config('idle_in_transaction_session_timeout', '15s', true),
       case when current_setting('server_version_num')::integer >= 140000
            then set_config('client_connection_check_interval', '1s', true) end`

// prepare reads what the view is like, and becomes its owner. The copy's query is not run before REFRESH does: so its
// functions run as they would in any refresh, restricted, and cannot take the role off again.
func (m *measuring) prepare(ctx context.Context, found description) error {
	m.view = *found.name
	var sessionPath string
	if err := m.tx.QueryRow(ctx, `select pg_catalog.current_setting('search_path')`).Scan(&sessionPath); err != nil {
		return fmt.Errorf("measuring %s: %w", m.view, err)
	}
	for _, sql := range []string{safePathSQL, measureLimitsSQL} {
		if err := m.exec(ctx, sql); err != nil {
			return fmt.Errorf("measuring %s: %w", m.view, err)
		}
	}
	err := m.tx.QueryRow(ctx, originalSQL, *found.oid, sessionPath, found.scheduleID, measuredCopy, m.view).
		Scan(&m.schema, &m.name, &m.word, &m.owner, &m.populated,
			&m.uniqueIndex, &m.ownerTemp, &m.mayBeOwner, &m.mayCreate, &m.strategy, &m.searchPath, &m.parameters, &m.bytes,
			&m.query, &m.with, &m.tablespace, &m.indexes)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return &InvalidError{
			What: "view", Value: m.view, Problem: "it is no materialized view", Hint: "only the refresh of a materialized view can be measured on a copy",
		}
	case err != nil:
		return fmt.Errorf("measuring %s: %w", m.view, err)
	case !m.mayBeOwner:
		return &InvalidError{
			What: "view", Value: m.view, Problem: fmt.Sprintf("only its owner, role %q, can make a copy of it", m.owner),
			Hint: "connect as that role, or as a member of it",
		}
	case !m.mayCreate:
		return &InvalidError{
			What: "view", Value: m.view, Problem: fmt.Sprintf("its owner, role %q, may not create a copy in its schema", m.owner),
			Hint: fmt.Sprintf("grant create on schema %s to %s", pgx.Identifier{m.schema}.Sanitize(), pgx.Identifier{m.owner}.Sanitize()),
		}
	}
	if err := m.readWorkMem(ctx); err != nil {
		return fmt.Errorf("measuring %s: %w", m.view, err)
	}
	if err := m.exec(ctx, `set local role `+pgx.Identifier{m.owner}.Sanitize()); err != nil {
		return fmt.Errorf("measuring %s: %w", m.view, err)
	}
	return nil
}

// readWorkMem reads what the view is refreshed with now: the schedule's work_mem, or the session's.
func (m *measuring) readWorkMem(ctx context.Context) error {
	if err := m.exec(ctx, `savepoint measured`); err != nil {
		return err
	}
	if err := m.exec(ctx, measureSettingsSQL, m.parameters, nil); err != nil {
		return err
	}
	err := m.tx.QueryRow(ctx, `select s.setting::bigint * 1024 from pg_catalog.pg_settings s where s.name = 'work_mem'`).Scan(&m.workMem)
	if err != nil {
		return err
	}
	return m.exec(ctx, `rollback to savepoint measured`)
}

// The names are free, unless somebody wishes to be in the way: no such transaction is ever committed.
const (
	measuredCopy  = "mvsched_measured"
	measuredQuery = "mvsched_measured_query"
)

func (m *measuring) copy() string { return pgx.Identifier{m.schema, measuredCopy}.Sanitize() }

func (m *measuring) source() string { return pgx.Identifier{m.schema, measuredQuery}.Sanitize() }

// refreshCopy makes a copy with what the view has now, and says how long it takes to refresh it to what its query says.
// The copy reads a plain view between the two, since a materialized view's own query cannot be replaced.
func (m *measuring) refreshCopy(ctx context.Context, way *way) (time.Duration, error) {
	column, tablespace := "", ""
	if way.NullColumn {
		column = ", null::boolean as mvsched_no_duplicate_check"
	}
	if m.tablespace != nil {
		tablespace = " tablespace " + pgx.Identifier{*m.tablespace}.Sanitize()
	}
	stored := m.query
	if m.populated {
		stored = "select * from " + pgx.Identifier{m.schema, m.name}.Sanitize()
	}
	statements := append([]string{
		"create view " + m.source() + " as " + stored,
		"create materialized view " + m.copy() + " " + m.with + tablespace + " as select s.*" + column + " from " + m.source() + " s with no data",
	}, m.indexes...)
	statements = append(statements, "refresh materialized view "+m.copy(), "analyze "+m.copy())
	if m.populated {
		statements = append(statements, "create or replace view "+m.source()+" as "+m.query)
	}
	for _, sql := range statements {
		if err := m.limit(ctx); err != nil {
			return 0, err
		}
		if err := m.exec(ctx, sql); err != nil {
			return 0, err
		}
	}
	return m.timed(ctx, way)
}

// limit gives the next statement what is left of the time.
func (m *measuring) limit(ctx context.Context) error {
	left := time.Until(m.deadline)
	if left < time.Millisecond {
		return ErrNotMeasured
	}
	limit := left.Milliseconds() + 1 // not before the deadline: then it would be somebody else who has ended it
	return m.exec(ctx, `select pg_catalog.set_config('statement_timeout', $1, true)`, strconv.FormatInt(limit, 10))
}

const measureSettingsSQL = `
select pg_catalog.set_config(s.key, s.value, true)
  from pg_catalog.jsonb_each_text(coalesce($1::jsonb, '{}') || coalesce(pg_catalog.jsonb_strip_nulls($2::jsonb), '{}')) s`

const writtenSQL = `
select pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid), pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid)
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname = $1 and c.relname = $2`

// timed refreshes the copy. Settings and search_path go with the savepoint.
func (m *measuring) timed(ctx context.Context, way *way) (took time.Duration, err error) {
	var inserted, deleted, insertedBefore, deletedBefore int64
	if err := m.tx.QueryRow(ctx, writtenSQL, m.schema, measuredCopy).Scan(&insertedBefore, &deletedBefore); err != nil {
		return 0, err
	}
	if err := m.limit(ctx); err != nil {
		return 0, err
	}
	if err := m.exec(ctx, measureSettingsSQL, m.parameters, way.Parameters.changes()); err != nil {
		return 0, err
	}
	if err := m.exec(ctx, `select pg_catalog.set_config('search_path', $1, true)`, m.searchPath); err != nil {
		return 0, err
	}
	sql := []string{"refresh materialized view", m.copy()}
	if way.Method == MethodConcurrently {
		sql = []string{"refresh materialized view concurrently", m.copy()}
	}
	began := time.Now()
	if err := m.exec(ctx, strings.Join(sql, " ")); err != nil {
		return 0, err
	}
	took = time.Since(began)
	if err := m.exec(ctx, safePathSQL); err != nil {
		return 0, err
	}
	if way.Method == MethodConcurrently {
		if err := m.tx.QueryRow(ctx, writtenSQL, m.schema, measuredCopy).Scan(&inserted, &deleted); err != nil {
			return 0, err
		}
		way.RowsInserted, way.RowsDeleted = new(inserted-insertedBefore), new(deleted-deletedBefore)
	}
	return took, nil
}
