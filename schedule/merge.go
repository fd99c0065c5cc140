package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Merge says what a merge table is kept equal to, and by which columns. Its window, and how often it is refreshed beyond
// that, are settings, which can be changed.
type Merge struct {
	Source ViewName // a plain view
	Key    []string // names of columns, as they are

	// Create makes the table: the columns of the view, the key as its primary key, and whoever may read the view may read
	// the table. Its first refresh is one of all rows.
	Create bool
}

// DefinitionError is what speaks against the definition of a merge table or of columns, or against settings together.
type DefinitionError struct {
	Problem string
	Hint    string // may be empty
}

func (e *DefinitionError) Error() string { return e.Problem }

// placeSQL is asked in the session's own search_path: where a table is, or would be made.
const placeSQL = `
select mvsched.find_relation($1)::pg_catalog.int8, mvsched.relation_name(mvsched.find_relation($1)),
       (mvsched.names_in(array[pg_catalog.current_schema()], $1))[1],
       mvsched.relation_name(mvsched.find_relation($2)), mvsched.find_schedule($1, mvsched.find_relation($1), pg_catalog.current_schemas(true)) is not null`

const equalitiesSQL = `
select mvsched.merge_equalities(s.view_oid, s.merge_key) is not null or s.view_oid is null
  from mvsched.materialized_view_refresh_schedule s
 where s.materialized_view_name = $1`

// AddMerge schedules a table as a merge table: ErrNoView (of its view) or ErrScheduled in a *ViewError, or a *DefinitionError, say what
// is in the way. It is due at once.
func (s *Store) AddMerge(ctx context.Context, table ViewName, merge Merge, settings Settings, ifNotExists bool) (int, error) {
	var oid *int64
	var name, canonical, source *string
	var scheduled bool
	err := s.readInSessionPath(ctx, []any{&oid, &name, &canonical, &source, &scheduled}, placeSQL,
		table.String(), merge.Source.String())
	switch {
	case err != nil:
		return 0, fmt.Errorf("adding a merge table: %w", err)
	case source == nil:
		return 0, &ViewError{View: merge.Source.String(), Err: ErrNoView}
	case scheduled && ifNotExists:
		return 0, nil
	case scheduled:
		return 0, &ViewError{View: table.String(), Err: ErrScheduled}
	case oid == nil && !merge.Create:
		return 0, &DefinitionError{Problem: fmt.Sprintf("table %s does not exist", *canonical), Hint: "name one that does, or have it made like the view: --create"}
	case oid != nil && merge.Create:
		return 0, &DefinitionError{Problem: fmt.Sprintf("%s exists already", *name), Hint: "leave --create out"}
	case oid == nil:
		name = canonical
	}
	settings.merge, settings.source = &merge, source
	added := 0
	err = s.edit(ctx, "adding a merge table", func(ctx context.Context, tx pgx.Tx) error {
		if merge.Create {
			statements, err := tableStatements(ctx, tx, *name, *source, merge.Key)
			if err != nil {
				return err
			}
			for _, sql := range statements {
				if _, err := tx.Exec(ctx, sql); err != nil {
					return err
				}
			}
		}
		if added, err = s.insert(ctx, tx, []string{*name}, settings, ifNotExists); err != nil {
			return err
		}
		var indexed bool
		if err := tx.QueryRow(ctx, equalitiesSQL, *name).Scan(&indexed); err != nil {
			return err
		}
		if !indexed {
			columns := identifiers(merge.Key)
			return &DefinitionError{
				Problem: fmt.Sprintf("table %s has no unique index on (%s)", *name, columns),
				Hint:    fmt.Sprintf("`create unique index on %s (%s)`, or let --create make the table", *name, columns),
			}
		}
		return nil
	})
	if refused := refusedDefinition(err); refused != nil {
		return 0, refused
	}
	return added, err
}

// accessSQL are the statements that give a new table the readers of a view, and no others.
const accessSQL = `
select format('revoke all on %s from %s', $2::text, denied.denied)
  from pg_catalog.pg_namespace n
 cross join lateral (select ` + deniedSQL + ` as denied) denied
 where n.nspname = (mvsched.parse_view_name($2::text))[1] and denied.denied is not null
union all
(select format('grant select on %s to %s%s', $2::text,
               case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
               case when g.is_grantable then ' with grant option' else '' end)
   from pg_catalog.pg_class c
  cross join lateral aclexplode(c.relacl) g
  where c.oid = $1::text::regclass and g.grantee <> c.relowner and g.privilege_type = 'SELECT'
  group by g.grantee, g.is_grantable
  order by 1)`

const noColumnsSQL = `
select string_agg(quote_ident(k.name), ', ')
  from unnest($2::text[]) k (name)
 where k.name not in (select a.attname from pg_catalog.pg_attribute a where a.attrelid = $1::text::regclass and a.attnum > 0)`

// tableStatements make a table of the columns of a view, with a key, for those who may read the view.
func tableStatements(ctx context.Context, tx pgx.Tx, table, source string, key []string) ([]string, error) {
	var missing *string
	switch err := tx.QueryRow(ctx, noColumnsSQL, source, key).Scan(&missing); {
	case err != nil:
		return nil, err
	case missing != nil:
		return nil, &DefinitionError{Problem: fmt.Sprintf("there is no column %s in view %s", *missing, source), Hint: "--key takes names of its columns"}
	}
	statements := []string{
		fmt.Sprintf("create table %s (like %s)", table, source),
		fmt.Sprintf("alter table %s add primary key (%s)", table, identifiers(key)),
	}
	rows, err := tx.Query(ctx, accessSQL, source, table)
	if err != nil {
		return nil, err
	}
	access, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return append(statements, access...), err
}

// identifiers is a list of names as SQL has it. A keyword is a name only in quotes, and which are keywords the server knows.
func identifiers(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = pgx.Identifier{name}.Sanitize()
	}
	return strings.Join(quoted, ", ")
}

// refusedMerge is what the trigger has against the settings of a merge table, in terms of the flags; nil: it is something else.
func refusedMerge(err error, settings Settings) error {
	var pgErr *pgconn.PgError
	switch {
	case !errors.As(err, &pgErr):
	case pgErr.ConstraintName == "merge_window_is_a_condition" && settings.MergeWindow != nil:
		return noCondition("--window", *settings.MergeWindow, pgErr.Detail, pgErr.Hint)
	case pgErr.ConstraintName == "merge_settings_are_for_merge_tables" && (settings.MergeWindow != nil || settings.FullEvery != nil):
		flag := "--window"
		if settings.MergeWindow == nil {
			flag = "--full-every"
		}
		return &DefinitionError{
			Problem: fmt.Sprintf("%s is for merge tables, and %s is none", flag, pgErr.Detail),
			Hint:    "leave it out; `mvsched add TABLE --merge-from VIEW --key COLUMNS` makes a merge table",
		}
	}
	return nil
}

// refusedDefinition is the error of the trigger that looks at a definition, for people; nil: it is another one.
func refusedDefinition(err error) *DefinitionError {
	var pgErr *pgconn.PgError
	refusals := []string{
		pgerrcode.InvalidSchemaName, pgerrcode.UndefinedColumn, pgerrcode.UndefinedTable, pgerrcode.UndefinedFunction, pgerrcode.UndefinedObject,
		pgerrcode.DatatypeMismatch, pgerrcode.SyntaxError, pgerrcode.WrongObjectType, pgerrcode.DuplicateColumn,
		pgerrcode.DuplicateTable, pgerrcode.InvalidTableDefinition, pgerrcode.NotNullViolation, pgerrcode.UniqueViolation,
	}
	if !errors.As(err, &pgErr) || !slices.Contains(refusals, pgErr.Code) {
		return nil
	}
	return &DefinitionError{Problem: pgErr.Message, Hint: pgErr.Hint}
}
