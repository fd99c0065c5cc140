package refresh

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pipeline is statements that are sent in one write: once they are, the server completes them without us. They must stay
// within one network buffer of the server (8 kB), or a dead worker's connection may cut them in the middle.
type pipeline struct {
	batch   pgconn.Batch
	readers []reader // of the result of each statement
}

type reader = func(*pgconn.ResultReader) error

// queue adds a statement whose arguments the server takes as text.
func (p *pipeline) queue(read reader, sql string, args ...string) {
	values := make([][]byte, len(args))
	for i, arg := range args {
		values[i] = []byte(arg)
	}
	p.batch.ExecParams(sql, values, nil, nil, nil)
	p.readers = append(p.readers, read)
}

func (p *pipeline) send(ctx context.Context, conn *pgx.Conn) (err error) {
	results := conn.PgConn().ExecBatch(ctx, &p.batch)
	for i := 0; results.NextResult(); i++ {
		err = errors.Join(err, p.readers[i](results.ResultReader()))
	}
	if closed := results.Close(); closed != nil {
		err = closed
	}
	return err
}

// pass reads a result of which only the error matters.
func pass(result *pgconn.ResultReader) error {
	_, err := result.Close()
	return err
}

// reach notes that a statement has succeeded.
func reach(point *bool) reader {
	return func(result *pgconn.ResultReader) error {
		err := pass(result)
		*point = err == nil
		return err
	}
}

// one reads the only row of a result.
func one[T any](conn *pgx.Conn, dest *T, scan pgx.RowToFunc[T]) reader {
	return func(result *pgconn.ResultReader) (err error) {
		*dest, err = pgx.CollectExactlyOneRow(pgx.RowsFromResultReader(conn.TypeMap(), result), scan)
		return err
	}
}
