package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// controlTimeout bounds every call of the store: what it asks for takes milliseconds.
const controlTimeout = 10 * time.Second

// editLockTimeout bounds how long an edit waits for a schedule row that somebody else's transaction holds.
const editLockTimeout = "5s"

// DB is what the store needs of a connection. A *pgxpool.Pool, a *pgxpool.Conn and a *pgx.Conn have it.
type DB interface {
	querier
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// querier is what a transaction has of it.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Store reads and writes schema mvsched. Every call has a deadline of its own, 10 s, within its context's.
type Store struct {
	// Now is nil in production, where the database's clock decides; a test passes the instant it wants.
	Now func() time.Time

	db DB
}

// NewStore returns a store that works through db.
func NewStore(db DB) *Store { return &Store{db: db} }

// On returns the same store on another connection.
func (s *Store) On(db DB) *Store { return &Store{Now: s.Now, db: db} }

// now is what SQL sees as coalesce($n, now()).
func (s *Store) now() *time.Time {
	if s.Now == nil {
		return nil
	}
	t := s.Now()
	return &t
}

func withDeadline(ctx context.Context, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, controlTimeout, fmt.Errorf("%s: %w", what, errSlow))
}

var errSlow = fmt.Errorf("it took longer than %s", controlTimeout)

// slowError stands for what is said of a statement that a deadline of ours has ended: by the server, that the user wished it.
type slowError struct{ said error }

func (e *slowError) Error() string { return errSlow.Error() }

func (e *slowError) Unwrap() error { return e.said }

// byDeadline is err, or what has become of a call that took too long.
func byDeadline(ctx context.Context, err error) error {
	if (sqlState(err) == pgerrcode.QueryCanceled || pgconn.Timeout(err)) && errors.Is(context.Cause(ctx), errSlow) {
		return &slowError{err}
	}
	return err
}

// The limit keeps it cheap by whatever statistics.
const versionSQL = `select v.version from mvsched.schema_version v limit 1`

// CheckVersion returns ErrNoSchema when schema mvsched is missing, and a *SchemaVersionError when it is of a version
// other than known.
func (s *Store) CheckVersion(ctx context.Context, known int) error {
	ctx, cancel := withDeadline(ctx, "reading the schema version")
	defer cancel()
	return checkVersion(ctx, s.db, known)
}

func checkVersion(ctx context.Context, db querier, known int) error {
	var installed int
	err := db.QueryRow(ctx, versionSQL).Scan(&installed)
	switch {
	case isNoSchema(err), errors.Is(err, pgx.ErrNoRows):
		return ErrNoSchema
	case err != nil:
		return fmt.Errorf("reading the schema version: %w", err)
	case installed != known:
		return &SchemaVersionError{Installed: installed, Known: known}
	}
	return nil
}

// isNoSchema reports whether err says that schema mvsched, or its first table, is not there.
func isNoSchema(err error) bool {
	switch sqlState(err) {
	case pgerrcode.InvalidSchemaName, pgerrcode.UndefinedTable:
		return true
	}
	return false
}

// sqlState is the SQLSTATE that err carries, or "".
func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

// edit runs fn in a transaction that does not wait for ever for a row that somebody holds.
func (s *Store) edit(ctx context.Context, what string, fn func(context.Context, pgx.Tx) error) error {
	ctx, cancel := withDeadline(ctx, what)
	defer cancel()
	err := s.transaction(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `set local lock_timeout = '`+editLockTimeout+`'`); err != nil {
			return err
		}
		return fn(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Read committed is pinned wherever rows are locked or several statements belong together: under a stricter default of
// the role or the database, SKIP LOCKED would not skip but fail with 40001, and a second look would see old rows.
const beginSQL = `begin isolation level read committed`

// What the statements name is qualified, but operators and types are looked up too; whoever may create objects in a
// schema of the session's search_path could put their own under ours (as in CVE-2018-1058).
const safePathSQL = `set local search_path = pg_catalog, pg_temp`

// What takes milliseconds would be compiled for seconds where statistics are so wrong that it seems to cost more than
// anything.
const notCompiledSQL = `set local jit = off`

// quickSQL is both, for transactions of nothing but our own.
const quickSQL = `select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), pg_catalog.set_config('jit', 'off', true)`

func (s *Store) transaction(ctx context.Context, fn func(pgx.Tx) error) error {
	return byDeadline(ctx, pgx.BeginTxFunc(ctx, s.db, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, quickSQL); err != nil {
			return err
		}
		return fn(tx)
	}))
}

// send runs a batch as one transaction, in one round trip.
func (s *Store) send(ctx context.Context, queue func(*pgx.Batch)) error {
	var batch pgx.Batch
	batch.Queue(beginSQL)
	batch.Queue(quickSQL)
	queue(&batch)
	batch.Queue(`commit`)
	err := s.db.SendBatch(ctx, &batch).Close()
	if err != nil {
		s.rollBack(ctx)
	}
	return byDeadline(ctx, err)
}

// commitSoFar ends the transaction of a batch and begins another.
func commitSoFar(batch *pgx.Batch) {
	batch.Queue(`commit`)
	batch.Queue(beginSQL)
	batch.Queue(quickSQL)
}

// read runs one query as send does, and collects its rows.
func read[T any](ctx context.Context, s *Store, what string, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	var found []T
	err := s.send(ctx, func(batch *pgx.Batch) { batch.Queue(sql, args...).Query(collect(&found, scan)) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return found, nil
}

// readInSessionPath reads one row with a statement that has to see the session's own search_path.
func (s *Store) readInSessionPath(ctx context.Context, to []any, sql string, args ...any) error {
	var batch pgx.Batch
	batch.Queue(beginSQL)
	batch.Queue(notCompiledSQL)
	batch.Queue(sql, args...).QueryRow(func(row pgx.Row) error { return row.Scan(to...) })
	batch.Queue(`commit`)
	err := s.db.SendBatch(ctx, &batch).Close()
	if err != nil {
		s.rollBack(ctx)
	}
	return byDeadline(ctx, err)
}

// rollBack leaves a connection as it was before a batch that failed; a pool discards such a connection by itself.
func (s *Store) rollBack(ctx context.Context) {
	var conn *pgx.Conn
	switch db := s.db.(type) {
	case *pgx.Conn:
		conn = db
	case interface{ Conn() *pgx.Conn }:
		conn = db.Conn()
	}
	if conn == nil || conn.IsClosed() || conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), controlTimeout)
	defer cancel()
	if _, err := conn.Exec(ctx, `rollback`); err != nil {
		_ = conn.Close(ctx) // it is of no use to anybody; the batch's error is what the caller has to know
	}
}

// seconds is a duration as SQL takes it, make_interval(secs => …); nil stays null.
func seconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	f := d.Seconds()
	return &f
}

// duration is the way back from extract(epoch from …).
// So far away that a time.Duration cannot hold it is 285 years.
func duration(seconds float64) time.Duration {
	seconds = min(max(seconds, -9e9), 9e9)
	return time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)
}

func durationOrNil(seconds *float64) *time.Duration {
	if seconds == nil {
		return nil
	}
	d := duration(*seconds)
	return &d
}

// elapsedOrNil is durationOrNil of what has passed: nothing where the server's clock was set back.
func elapsedOrNil(seconds *float64) *time.Duration {
	d := durationOrNil(seconds)
	if d != nil {
		*d = max(*d, 0)
	}
	return d
}
