package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/internal/throwaway"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// The exit codes, which scripts rely on.
const (
	exitDone        = 0
	exitFailed      = 1  // a refresh did not succeed, doctor found something wrong, or there was nothing to cancel
	exitUsage       = 2  // wrong use; nothing was changed
	exitUnavailable = 3  // no connection, lost the server, or may not
	exitSchema      = 4  // schema mvsched missing, or of another version
	exitStopped     = 5  // stopped by a signal; what ran was cancelled and recorded
	exitBug         = 70 // a bug
	exitOutput      = 74 // stdout could not be written
)

// usageError is wrong use of the command line.
type usageError struct {
	problem string
	hint    string
	err     error
}

func (e *usageError) Error() string { return e.problem }

func (e *usageError) Unwrap() error { return e.err }

// outputError is a failed write to stdout.
type outputError struct{ err error }

func (e *outputError) Error() string { return "writing the output: " + e.err.Error() }

func (e *outputError) Unwrap() error { return e.err }

// connectError is a connection that could not be had. It never shows the connection string.
type connectError struct {
	err  error
	hint string
}

func (e *connectError) Error() string { return "cannot connect to the database: " + rootCause(e.err) }

func (e *connectError) Unwrap() error { return e.err }

// refreshesError says that refreshes have ended badly; what was wrong has been printed already.
type refreshesError struct{ count int }

func (e *refreshesError) Error() string { return fmt.Sprintf("%d refreshes did not succeed", e.count) }

// finish prints an error with its hint and returns the exit code: the one place where both are decided. Where several
// codes apply, the order of the cases decides.
func (a *app) finish(err error) int {
	code, problem, hint := explain(err)
	if a.monitors && problem != "" {
		return a.unknown(problem, hint)
	}
	if problem != "" {
		a.printError(problem, hint)
		a.annotate(report.AnnotateError, "mvsched", problem, hint)
	}
	return code
}

func explain(err error) (code int, problem, hint string) {
	var (
		stopped   *signalError
		output    *outputError
		connect   *connectError
		version   *schedule.SchemaVersionError
		usage     *usageError
		invalid   *schedule.InvalidError
		refused   *schedule.DefinitionError
		view      *schedule.ViewError
		noServer  *throwaway.NotFoundError
		refreshes *refreshesError
		findings  *findingsError
		check     *checkError
		idle      *idleError
		notEnded  *schedule.NotEndedError
		dial      *pgconn.ConnectError
		pgErr     *pgconn.PgError
	)
	switch {
	case err == nil:
		return exitDone, "", ""
	case errors.Is(err, refresh.ErrBug):
		return exitBug, err.Error(), "please report it"
	case errors.As(err, &output) && !errors.Is(err, syscall.EPIPE):
		return exitOutput, output.Error(), ""
	case errors.As(err, &stopped):
		return exitStopped, stopped.Error(), ""
	case errors.As(err, &connect):
		return exitUnavailable, connect.Error(), connect.hint
	case errors.As(err, &noServer):
		return exitUnavailable, noServer.Error(), noServer.Hint()
	case errors.Is(err, schedule.ErrNoSchema):
		return exitSchema, schedule.ErrNoSchema.Error(), "install it with `mvsched init`"
	case errors.As(err, &version):
		return exitSchema, version.Error(), versionHint(version)
	case errors.As(err, &usage):
		return exitUsage, usage.problem, usage.hint
	case errors.As(err, &invalid):
		return exitUsage, invalid.Error(), invalid.Hint
	case errors.As(err, &refused):
		return exitUsage, refused.Problem, refused.Hint
	case errors.As(err, &view):
		return exitUsage, view.Error(), viewHint(view)
	case errors.As(err, &refreshes), errors.As(err, &findings):
		return exitFailed, "", ""
	case errors.As(err, &check):
		return check.code, "", ""
	case errors.As(err, &idle):
		return exitFailed, idle.Error(), "`mvsched status` shows what is"
	case errors.As(err, &notEnded):
		return explainNotEnded(notEnded)
	case errors.As(err, &output):
		return exitDone, "", "" // EPIPE: the reader has what it wanted
	case errors.As(err, &dial):
		return exitUnavailable, "lost the server: " + rootCause(err), "check that it runs, then try again"
	case errors.As(err, &pgErr):
		return explainServer(err, pgErr)
	case isNonsense(err):
		return exitUnavailable, refresh.ErrProtocol.Error() + ": " + rootCause(err), nonsenseHint
	case isLost(err):
		return exitUnavailable, "lost the server: " + rootCause(err), "check that it runs, then try again"
	default:
		return exitBug, err.Error(), "please report it"
	}
}

// explainServer is for what the server says to mvsched's own statements. What a person wrote wrong comes as a typed
// error; the rest is the server's state, a missing right, or a bug.
func explainServer(err error, pgErr *pgconn.PgError) (code int, problem, hint string) {
	var rights *schedule.RightsError
	problem = strings.Replace(err.Error(), pgErr.Error(), pgErr.Message, 1)
	switch class := pgErr.Code[:min(2, len(pgErr.Code))]; {
	case !isSQLState(pgErr.Code):
		return exitUnavailable, problem, nonsenseHint
	case errors.As(err, &rights):
		return exitUnavailable, problem, rights.Hint
	case isTheirs(pgErr):
		return exitUnavailable, problem, "a trigger or function of somebody's own was called for it and failed; it runs with search_path = pg_catalog, pg_temp"
	case pgErr.Code == pgerrcode.InsufficientPrivilege:
		return exitUnavailable, problem, "the role needs rights on schema mvsched and its tables, and for `mvsched init` CREATE on the database (docs/security.md)"
	case pgErr.Code == pgerrcode.ReadOnlySQLTransaction:
		return exitUnavailable, problem, "this server takes no writes (a standby, or default_transaction_read_only); connect to the primary"
	case pgErr.Code == pgerrcode.LockNotAvailable:
		return exitUnavailable, problem, "somebody holds a lock on it; try again when that transaction has ended"
	case pgErr.Code == pgerrcode.InvalidSchemaName, pgErr.Code == pgerrcode.UndefinedTable, pgErr.Code == pgerrcode.UndefinedFunction:
		return exitSchema, problem, "schema mvsched is gone, or not whole; install it with `mvsched init`"
	case pgErr.Code == pgerrcode.CheckViolation, pgErr.Code == pgerrcode.NameTooLong, pgErr.Code == pgerrcode.InvalidName:
		return exitUsage, problem, ""
	case pgErr.Code == pgerrcode.UntranslatableCharacter, pgErr.Code == pgerrcode.CharacterNotInRepertoire:
		return exitUsage, problem, "the database's encoding has no such character"
	case pgErr.Code == pgerrcode.TooManyConnections:
		return exitUnavailable, problem, "raise max_connections, or let fewer programs connect at a time"
	case class == "XX":
		return exitUnavailable, problem, "the server says that something in it is broken; its log may say what"
	case class == "08" || class == "28" || class == "40" || class == "53" || class == "57" || class == "58" || class == "25":
		return exitUnavailable, problem, ""
	default:
		return exitBug, problem, "please report it"
	}
}

// isTheirs reports whether what failed is in what a person has put into the database, such as an event trigger: among the errors that
// would otherwise be told as ours.
func isTheirs(pgErr *pgconn.PgError) bool {
	switch pgErr.Code {
	case pgerrcode.RaiseException, pgerrcode.InvalidSchemaName, pgerrcode.UndefinedTable, pgerrcode.UndefinedFunction:
		innermost, _, _ := strings.Cut(pgErr.Where, "\n")
		return innermost != "" && !strings.Contains(innermost, "mvsched")
	}
	return false
}

// explainNotEnded is for a refresh that was asked to end and goes on.
func explainNotEnded(e *schedule.NotEndedError) (code int, problem, hint string) {
	var pgErr *pgconn.PgError
	if !errors.As(e, &pgErr) {
		return exitFailed, e.Error(), "the request stands; `select pg_terminate_backend(…)` ends the server process that does not heed it"
	}
	return exitUnavailable, strings.Replace(e.Error(), pgErr.Error(), pgErr.Message, 1),
		"to cancel what has no worker takes the role that refreshes, or a member of it, or pg_signal_backend (docs/security.md); the request stands"
}

func isLost(err error) bool {
	var network net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, net.ErrClosed) || pgconn.Timeout(err) ||
		strings.Contains(err.Error(), "conn closed") || errors.Is(err, refresh.ErrTooManyConnections)
}

const nonsenseHint = "check that it is PostgreSQL, or a pooler for it, that answers at this host and port"

// isNonsense reports whether err is about messages that no PostgreSQL sends. For those that are wrong within pgx has
// texts and no types; TestServerThatLies holds them.
func isNonsense(err error) bool {
	text := err.Error()
	return errors.Is(err, refresh.ErrProtocol) || slices.ContainsFunc([]string{
		"invalid message format", "body is invalid", "unexpected message", "unexpected DataRow",
		"number of field descriptions must equal number of values", "no more results in batch",
	}, func(part string) bool { return strings.Contains(text, part) })
}

// isSQLState reports whether a code looks like one; which there are, a server and what runs in it may decide.
func isSQLState(code string) bool {
	return len(code) == 5 && strings.Trim(code, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

func versionHint(e *schedule.SchemaVersionError) string {
	if e.Installed > e.Known {
		return "use a newer mvsched; this one keeps its hands off"
	}
	return "upgrade it with `mvsched init`"
}

func viewHint(e *schedule.ViewError) string {
	switch {
	case errors.Is(e.Err, schedule.ErrNoView):
		return "name it as in SQL (schema.view, \"Quoted\".\"Name\"); an unqualified name is looked up in the search_path"
	case errors.Is(e.Err, schedule.ErrNotAView):
		return "mvsched refreshes what `create materialized view` made, and tables that were added with --merge-from"
	case errors.Is(e.Err, schedule.ErrNotScheduled):
		return "schedule it with `mvsched add VIEW --every 5m`"
	case errors.Is(e.Err, schedule.ErrScheduled):
		return "change it with `mvsched set`, or add it with --if-not-exists"
	case errors.Is(e.Err, schedule.ErrNoColumns):
		return "`mvsched add TABLE --columns --from FILE.sql` makes one"
	case errors.Is(e.Err, schedule.ErrNoParents):
		return "with --after-parents it would never be refreshed again; use --every 5m (`mvsched graph` shows what reads what)"
	default:
		return ""
	}
}

// rootCause is the innermost message of an error: what lies around it may show more of the connection than it should.
func rootCause(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Message
	}
	for {
		switch wrapped := err.(type) { //nolint:errorlint // the layers are taken off one by one
		case interface{ Unwrap() error }:
			inner := wrapped.Unwrap()
			if inner == nil {
				return err.Error()
			}
			if _, isOp := err.(*net.OpError); isOp { //nolint:errorlint // it says which address
				return err.Error()
			}
			err = inner
		case interface{ Unwrap() []error }:
			inner := wrapped.Unwrap()
			if len(inner) == 0 {
				return err.Error()
			}
			err = inner[len(inner)-1]
		default:
			return err.Error()
		}
	}
}
