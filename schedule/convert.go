package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Conversion turns a materialized view into a merge table of the same name, or back.
type Conversion struct {
	View    string    // canonical name
	Build   []string  // makes the new relation, beside the old one, which stays in use
	Lock    []string  // changes nothing: from here on readers of what is dropped wait
	Swap    []string  // puts the new relation in the place of the old one
	Rebuilt []Rebuilt // what is made again meanwhile, in this order

	id    int64 // of its schedule
	opts  ConvertOptions
	limit time.Duration
	names []string // what is dropped is called then, and was called before, in turn
}

// Rebuilt is a materialized view that reads the one that is converted, and has to be made again for it.
type Rebuilt struct {
	View  string         // canonical name
	Usual *time.Duration // how long its refresh usually takes; nil: there is no history
}

// ConvertOptions say how a view is converted.
type ConvertOptions struct {
	Key     []string // the columns that say which rows are the same one; nil: those of its unique index
	Back    bool     // from a merge table to a materialized view
	Rebuild bool     // materialized views that read it are made again; else they are in the way
}

// RightsError is what the server does not let the role do.
type RightsError struct {
	Err  error
	Hint string // whom it would
}

func (e *RightsError) Error() string { return e.Err.Error() }

func (e *RightsError) Unwrap() error { return e.Err }

// convertibleSQL is what is to be known before: the key of a unique index that CONCURRENTLY could use, and what would be lost.
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
       $2::text[] is null or mvsched.merge_equalities(c.oid, $2::text[]) is not null, c.relispopulated,
       case when s.refresh_group is not null then format('is in group %s, and only materialized views can be', quote_ident(s.refresh_group))
            when s.merge_window is not null then 'has a window, so it may have rows that its view does not give any more: with --window '''' the next refresh takes them away'
            when s.kind = 'merge' and mvsched.resolve_source(s.merge_source_oid, s.merge_source) is null
            then format('has no query: view %s does not exist', s.merge_source)
            when c.relkind = 'p' or exists (select from pg_catalog.pg_inherits i where c.oid in (i.inhrelid, i.inhparent))
            then 'has partitions, or inherits, which a materialized view cannot'
            when exists (select from pg_catalog.pg_attribute a where a.attrelid = c.oid and (a.atthasdef or a.attidentity <> '') and not a.attisdropped)
            then 'has defaults or generated columns, which a materialized view cannot have'
            when exists (select from pg_catalog.pg_rewrite r where r.ev_class = c.oid and r.rulename <> '_RETURN')
            then 'has rules, which a materialized view cannot have'
            when c.relrowsecurity then 'has row security, which a materialized view cannot have'
            when exists (select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal)
            then 'has triggers, which a materialized view cannot have'
            when exists (select from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype in ('c', 'f', 'x'))
            then 'has constraints, which a materialized view cannot have'
            when exists (select from pg_catalog.pg_publication_rel p where p.prrelid = c.oid)
            then 'is in a publication, which a materialized view cannot be' end,
       ` + unkeptSQL + `
  from mvsched.materialized_view_refresh_schedule s
  join pg_catalog.pg_class c on c.oid = s.view_oid and mvsched.can_be(c.relkind, s.kind)
 where s.id = $1 and s.database_identity = mvsched.database_identity()`

// PlanConversion works out how a scheduled materialized view becomes a merge table, or back. It changes nothing.
func (s *Store) PlanConversion(ctx context.Context, view ViewName, opts ConvertOptions) (c Conversion, err error) {
	ctx, cancel := withDeadline(ctx, "planning a conversion")
	defer cancel()
	found, err := s.find(ctx, view)
	if err != nil {
		return Conversion{}, fmt.Errorf("looking up %s: %w", view, err)
	}
	if found.problem != nil {
		return Conversion{}, found.problem
	}
	if err := found.needSchedule(view); err != nil {
		return Conversion{}, err
	}
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		c, err = planConversion(ctx, tx, view.String(), *found.scheduleID, opts)
		return err
	})
	return c, err
}

func planConversion(ctx context.Context, tx pgx.Tx, view string, id int64, opts ConvertOptions) (Conversion, error) {
	c := Conversion{id: id, opts: opts}
	var kind Materialization
	var limit float64
	var unique []string
	var isKey, filled bool
	var obstacle, unkept *string
	key := opts.Key
	err := tx.QueryRow(ctx, convertibleSQL, id, key).Scan(&kind, &c.View, &limit, &unique, &isKey, &filled, &obstacle, &unkept)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Conversion{}, &ViewError{View: view, Err: ErrNoView}
	case err != nil:
		return Conversion{}, err
	case opts.Back && kind != MergeTable:
		return Conversion{}, &DefinitionError{Problem: c.View + " is no merge table"}
	case !opts.Back && kind != MaterializedView:
		return Conversion{}, &DefinitionError{Problem: c.View + " is no materialized view", Hint: "with --back a merge table becomes one again"}
	case obstacle != nil:
		return Conversion{}, &DefinitionError{Problem: c.View + " " + *obstacle}
	case unkept != nil:
		return Conversion{}, &DefinitionError{
			Problem: c.View + " " + *unkept + ", which would be lost",
			Hint:    "take it away, convert " + c.View + ", and put it back",
		}
	case !filled:
		return Conversion{}, &DefinitionError{Problem: c.View + " has never been filled", Hint: "`mvsched refresh` it first"}
	case !opts.Back && (unique == nil || !isKey):
		return Conversion{}, &DefinitionError{Problem: c.View + " has no unique index on the columns of the key", Hint: "create one, valid, immediate and without WHERE"}
	case key == nil:
		key = unique
	}
	c.limit = duration(limit)
	if err := c.findRebuilt(ctx, tx); err != nil {
		return Conversion{}, err
	}
	err = c.write(ctx, tx, key)
	return c, err
}

// findRebuilt finds what has to be made again, and refuses what may not or cannot be.
func (c *Conversion) findRebuilt(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, rebuildSQL, c.id)
	if err != nil {
		return err
	}
	var names []string
	var refused *DefinitionError
	var name string
	var usual *float64
	var problem *string
	_, err = pgx.ForEachRow(rows, []any{&name, &usual, &problem}, func() error {
		c.Rebuilt = append(c.Rebuilt, Rebuilt{View: name, Usual: durationOrNil(usual)})
		names = append(names, name)
		if problem != nil && refused == nil {
			refused = &DefinitionError{
				Problem: fmt.Sprintf("%s reads %s and would have to be made again, but it %s", name, c.View, *problem),
				Hint:    "drop it, convert " + c.View + ", and create it again",
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(names) > 0 && !c.opts.Rebuild:
		return &DefinitionError{
			Problem: fmt.Sprintf("%s is read by materialized views, which would have to be made again: %s", c.View, strings.Join(names, ", ")),
			Hint:    "--rebuild-dependents does that; their readers wait meanwhile",
		}
	case refused != nil:
		return refused
	}
	return nil
}

// write writes the statements.
func (c *Conversion) write(ctx context.Context, tx pgx.Tx, key []string) error {
	rows, err := tx.Query(ctx, conversionSQL, c.id, key)
	if err != nil {
		return err
	}
	parts := map[string][]string{}
	var part, sql string
	_, err = pgx.ForEachRow(rows, []any{&part, &sql}, func() error {
		parts[part] = append(parts[part], sql)
		return nil
	})
	c.Build, c.Lock, c.Swap = parts["build"], parts["lock"], slices.Concat(parts["aside"], parts["again"], parts["finish"])
	c.names = parts["name"]
	return err
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
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return c.swap(ctx, tx) })
			if err == nil || sqlState(err) != pgerrcode.LockNotAvailable || try == swapTries || !pause(ctx, swapPause) {
				return err
			}
		}
	})
	var pgErr *pgconn.PgError
	switch refused := refusedDefinition(err); {
	case errors.As(err, &pgErr) && pgErr.Code == pgerrcode.NotNullViolation && strings.HasPrefix(pgErr.TableName, "mvsched_new_"):
		return &DefinitionError{
			Problem: fmt.Sprintf("%s has a row with a NULL in its key, in column %s", c.View, identifiers([]string{pgErr.ColumnName})),
			Hint:    "a merge table takes none: leave such rows out of the query, or name columns that have none with --key",
		}
	case refused != nil:
		switch {
		case pgErr.Code == pgerrcode.DuplicateTable && !c.opts.Back:
			refused.Hint = "convert makes a plain view of that name for the query: rename what has it, or drop it"
		case pgErr.Code == pgerrcode.InvalidTableDefinition:
			refused.Hint = fmt.Sprintf("a view that reads %s would get other columns: drop it, convert %[1]s, and create it again", c.View)
		}
		return refused
	case errors.As(err, &pgErr) && pgErr.Code == pgerrcode.InsufficientPrivilege:
		return fmt.Errorf("converting %s: %w", c.View, &RightsError{Err: err, Hint: fmt.Sprintf(
			"it takes the role that owns %s and the views that read it, or a member of it, CREATE on their schema, and UPDATE on the schedules", c.View)})
	case errors.As(err, &pgErr) && pgErr.Code == pgerrcode.DependentObjectsStillExist:
		return &DefinitionError{
			Problem: "something other than views depends on " + c.View,
			Hint:    strings.NewReplacer(append(c.names, "\n", "; ")...).Replace(pgErr.Detail),
		}
	case err != nil:
		return fmt.Errorf("converting %s: %w", c.View, err)
	}
	return nil
}

// swap puts the new relation in the place of the old one, unless somebody has changed something while it was built: that
// would be undone. With the locks nobody can do so any more.
func (c *Conversion) swap(ctx context.Context, tx pgx.Tx) error {
	if err := runAtOnce(ctx, tx, c.Lock); err != nil {
		return err
	}
	now, err := planConversion(ctx, tx, c.View, c.id, c.opts)
	switch {
	case err != nil:
		return err
	case !slices.Equal(now.Build, c.Build), !slices.Equal(now.Lock, c.Lock), !slices.Equal(now.Swap, c.Swap):
		return &DefinitionError{Problem: c.View + ", or what reads it, has been changed meanwhile", Hint: "convert it again"}
	}
	return runAtOnce(ctx, tx, c.Swap)
}

// runAtOnce runs statements in one message, since readers wait. Only the simple protocol takes that, and there are no arguments
// in it.
func runAtOnce(ctx context.Context, tx pgx.Tx, statements []string) error {
	return tx.Conn().PgConn().Exec(ctx, strings.Join(statements, ";\n")).Close()
}
