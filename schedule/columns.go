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

// Columns say how the columns of a table are materialized: by a query or by a function. In Set, nil leaves what is there.
type Columns struct {
	Query     *string // over batch(id), giving id and the columns
	Call      *string // of a function that materializes some rows each time
	BatchRows *int    // rows of the first batch
	Lanes     *int    // how many workers may be at the table at the same time

	path string // the session's own search_path, under which query and call are read where the schedule has none
}

const sessionPathSQL = `select pg_catalog.current_setting('search_path')`

// read returns the columns with what the session says; nil for nil.
func (c *Columns) read(ctx context.Context, s *Store) (*Columns, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // nothing to be read
	}
	known := *c
	path, err := s.sessionPath(ctx)
	known.path = path
	return &known, err
}

func (s *Store) sessionPath(ctx context.Context) (path string, err error) {
	ctx, cancel := withDeadline(ctx, "reading the search_path")
	defer cancel()
	if err := s.db.QueryRow(ctx, sessionPathSQL).Scan(&path); err != nil {
		return "", fmt.Errorf("reading the search_path: %w", err)
	}
	return path, nil
}

// What a schedule of columns may count; domains of its table have the same.
const (
	MaxBatchRows = 10_000
	MaxLanes     = 64
)

// What the table has where nobody says otherwise.
const (
	DefaultBatchRows = 100
	DefaultLanes     = 1
)

// refusedColumns: what the server says of a person's SQL is that person's; what it says of locks and connections is not.
func refusedColumns(pgErr *pgconn.PgError) error {
	switch pgErr.Code[:min(2, len(pgErr.Code))] {
	case "08", "25", "28", "40", "53", "55", "57", "58", "XX":
		return pgErr
	}
	return &DefinitionError{Problem: pgErr.Message, Hint: pgErr.Hint}
}

// columnsPathSQL tells the trigger, which is fired under a safe search_path.
const columnsPathSQL = `select pg_catalog.set_config('mvsched.columns_path', $1, true)`

const setPathSQL = `select pg_catalog.set_config('search_path', $1, true)`

const overBatchSQL = `select mvsched.over_batch(mvsched.find_relation($1), $2) || 'select 1'`

// check has the server parse what a person wrote, as one statement and no more: a prepared statement cannot hold two. What
// it says of the columns is checked by the table's trigger, for rows written by hand too.
func (c *Columns) check(ctx context.Context, tx pgx.Tx, table string, searchPath *string) error {
	if c == nil {
		return nil
	}
	path := c.path
	if searchPath != nil && *searchPath != "" {
		path = *searchPath
	}
	if _, err := tx.Exec(ctx, columnsPathSQL, path); err != nil {
		return err
	}
	if c.Query == nil && c.Call == nil {
		return nil
	}
	sql := "select 1"
	if c.Query != nil {
		var over *string
		if err := tx.QueryRow(ctx, overBatchSQL, table, *c.Query).Scan(&over); err != nil {
			return err
		}
		if over == nil {
			return nil // the trigger says what is wrong with the table
		}
		sql = *over
	}
	if c.Call != nil {
		sql = "select " + *c.Call
	}
	nested, err := tx.Begin(ctx) // so that the search_path is as it was
	if err != nil {
		return err
	}
	defer func() { _ = nested.Rollback(ctx) }()
	if _, err := nested.Exec(ctx, setPathSQL, path); err != nil {
		return err
	}
	_, err = nested.Prepare(ctx, "", sql)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		if strings.Contains(sql, ";") && pgErr.Code == pgerrcode.SyntaxError {
			return &DefinitionError{Problem: pgErr.Message, Hint: "it has to be one query, or the call of one function"}
		}
		return refusedColumns(pgErr)
	}
	return err
}

const columnsOfSQL = `
select s.materialized_view_name, s.kind = 'columns', s.search_path
  from mvsched.materialized_view_refresh_schedule s
 where s.id = $1`

// fits is check for a schedule that is there already.
func (c *Columns) fits(ctx context.Context, tx pgx.Tx, id int64, searchPath *string) error {
	if c == nil {
		return nil
	}
	var table string
	var ofColumns bool
	var path *string
	if err := tx.QueryRow(ctx, columnsOfSQL, id).Scan(&table, &ofColumns, &path); err != nil {
		return err
	}
	if !ofColumns {
		return &ViewError{View: table, Err: ErrNoColumns}
	}
	if searchPath != nil {
		path = searchPath
	}
	return c.check(ctx, tx, table, path)
}

// Progress is how far the drain of a table with materialized columns has come.
type Progress struct {
	ExecutionID int64
	Batches     int
	Done        int64 // rows materialized by this execution
	Left        int64 // rows of the table that are left, for all lanes
	SetAside    int64 // rows that could not be materialized
}

// invalidateChunk is how many rows one transaction of Invalidate looks at.
const invalidateChunk = 5000

const columnsTargetSQL = `
select s.id, s.kind = 'columns', array_remove(s.columns_list, null), coalesce(s.search_path, pg_catalog.current_setting('search_path'))
  from mvsched.materialized_view_refresh_schedule s
 where s.id = $1`

const invalidateSQL = `select i.looked_at, i.changed, i.low from mvsched.invalidate_chunk($1, $2, $3, $4) i`

const fillSQL = `
insert into mvsched.materialization_fill (materialized_view_refresh_schedule_id, columns, condition)
values ($1, $2, $3)`

// Invalidate has rows of a table materialized again: those for which condition, a boolean expression over its columns, is
// true. They are set to null in small transactions, from the newest down, and done is told after each. With columns, only
// those are computed again, and the rows stay as they are until then.
func (s *Store) Invalidate(ctx context.Context, table ViewName, condition string, columns []string, done func(rows int64)) (int64, error) {
	id, path, err := s.columnsSchedule(ctx, table, columns)
	if err != nil {
		return 0, err
	}
	if err := s.checkCondition(ctx, id, path, condition); err != nil {
		return 0, err
	}
	if len(columns) > 0 {
		return 0, s.edit(ctx, "invalidating columns", func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, fillSQL, id, columns, condition)
			return err
		})
	}
	var total int64
	var below *string
	for {
		var looked, changed int64
		err := s.edit(ctx, "invalidating rows", func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, setPathSQL, path); err != nil {
				return err
			}
			return tx.QueryRow(ctx, invalidateSQL, id, condition, below, invalidateChunk).Scan(&looked, &changed, &below)
		})
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) {
			err = refusedColumns(pgErr) // a division by zero, say
		}
		if err != nil {
			return total, err
		}
		total += changed
		if looked == 0 {
			return total, nil
		}
		if done != nil {
			done(total)
		}
	}
}

func (s *Store) columnsSchedule(ctx context.Context, table ViewName, columns []string) (id int64, path string, err error) {
	ctx, cancel := withDeadline(ctx, "looking up a table")
	defer cancel()
	found, err := s.find(ctx, table)
	if err != nil {
		return 0, "", fmt.Errorf("looking up %s: %w", table, err)
	}
	if err := found.needSchedule(table); err != nil {
		return 0, "", err
	}
	var ofColumns bool
	var known []string
	if err := s.readInSessionPath(ctx, []any{&id, &ofColumns, &known, &path}, columnsTargetSQL, found.scheduleID); err != nil {
		return 0, "", fmt.Errorf("looking up %s: %w", table, err)
	}
	if !ofColumns {
		return 0, "", &ViewError{View: table.String(), Err: ErrNoColumns}
	}
	for _, column := range columns {
		if !slices.Contains(known, column) {
			return 0, "", &DefinitionError{
				Problem: fmt.Sprintf("column %q is none that is materialized by a query", column),
				Hint:    "its query gives: " + strings.Join(known, ", "),
			}
		}
	}
	return id, path, nil
}

// Rate is how many rows a second, and how long the rest will take at that; 0 where that is not known.
func (p Progress) Rate(since time.Duration) (perSecond float64, left time.Duration) {
	if p.Done == 0 || since <= 0 {
		return 0, 0
	}
	perSecond = float64(p.Done) / since.Seconds()
	return perSecond, time.Duration(float64(p.Left) / perSecond * float64(time.Second))
}
