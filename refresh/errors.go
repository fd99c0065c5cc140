package refresh

import (
	"errors"
	"strings"
	"unicode"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/schedule"
)

// SQLSTATEs that schema mvsched raises.
const (
	codeClaimLost    = "MV001" // the execution is no longer running: somebody gave the claim up
	codeViewReplaced = "MV002" // the name went to another view while the refresh waited
)

// ErrTooManyConnections means that the server has no connection left for us.
var ErrTooManyConnections = errors.New("the server has no connection left (max_connections)")

// ErrBug means that the program itself went wrong.
var ErrBug = schedule.ErrBug

// classify turns what the server said about a refresh into how it ended. Errors are told apart by SQLSTATE, never by
// message. 57014 is both statement_timeout and somebody's cancel: it comes out as cancelled, with the time limit beside
// it for the server's clock to judge (schedule.Ending).
func classify(pgErr *pgconn.PgError, claim schedule.Claim, method schedule.Method) schedule.Ending {
	ending := schedule.Ending{
		Status:       schedule.Failed,
		Method:       method,
		ErrorName:    conditionName(pgErr.Code),
		ErrorMessage: pgErr.Message, // not Detail: it carries rows of the view
	}
	switch pgErr.Code {
	case pgerrcode.QueryCanceled:
		ending.Status, ending.Reason, ending.TimeLimit = schedule.Cancelled, schedule.ReasonRequested, claim.Timeout
	case pgerrcode.LockNotAvailable:
		ending.Status, ending.Reason = schedule.Skipped, schedule.ReasonLockBusy
	case codeViewReplaced:
		ending.Reason = schedule.ReasonViewReplaced
	case pgerrcode.UndefinedTable:
		if pgErr.Where == "" { // with a context, it is a function of the view's query that misses something
			ending.Reason = schedule.ReasonMissing
		}
	}
	return ending
}

// conditionName is the name that PostgreSQL's documentation gives an SQLSTATE (appendix A): 22012 is division_by_zero.
// A code that is not in it, as functions may raise, is its own name.
func conditionName(code string) string {
	switch code {
	case codeViewReplaced:
		return "view_replaced"
	case codeClaimLost:
		return "claim_lost"
	}
	name := pgerrcode.Name(code)
	if name == "" {
		return "sqlstate_" + code
	}
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		startsWord := unicode.IsUpper(r) && i > 0 &&
			(unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
		if startsWord {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// Hint is what a person can do about an execution that did not succeed, or "".
func Hint(e schedule.Execution) string {
	if e.ErrorName == nil {
		return ""
	}
	return strings.ReplaceAll(hint(e), "VIEW", schedule.ShellWord(e.View))
}

func hint(e schedule.Execution) string {
	if e.Status == schedule.TimedOut {
		return "give it more time with " + setting(e, "--timeout D") + ", or make the view's query cheaper"
	}
	if e.Reason != nil && *e.Reason == schedule.ReasonViewReplaced {
		return "the view was renamed or replaced during the refresh; nothing was changed, and the next slot looks again"
	}
	if e.Reason != nil && *e.Reason == schedule.ReasonNoTemp {
		return "`grant temporary on database … to` its owner, or use " + setting(e, "--strategy auto")
	}
	switch *e.ErrorName {
	case "object_not_in_prerequisite_state":
		if e.Method != nil && *e.Method == schedule.MethodConcurrently {
			return "CONCURRENTLY needs a unique index on columns, without WHERE; create one, or use " + setting(e, "--strategy auto")
		}
		if merged(e) {
			return "a merge table needs a unique index on its key, valid, immediate and without WHERE"
		}
		return "a materialized view that it reads has never been filled; refresh that one first"
	case "cardinality_violation", "unique_violation", "not_null_violation", "undefined_column", "datatype_mismatch":
		if merged(e) {
			return mergeHint(e)
		}
		if *e.ErrorName != "cardinality_violation" && *e.ErrorName != "unique_violation" {
			return ""
		}
		return "the view's query returns the same row or key twice; make its rows distinct"
	case "undefined_table":
		if e.Reason != nil && *e.Reason == schedule.ReasonMissing {
			return "the view is gone; `mvsched remove VIEW` removes its schedule"
		}
		if merged(e) {
			return "create the view again; if it is there, " + searchPathHint(e)
		}
		return searchPathHint(e)
	case "undefined_object": // a type, a text search configuration; and a setting of somebody's own
		return "a setting that the query reads is given to the role that refreshes with `alter role … set …`, or read with " +
			"current_setting(NAME, true); where it is none, " + searchPathHint(e)
	case "undefined_function", "invalid_schema_name":
		return searchPathHint(e)
	case "insufficient_privilege":
		if merged(e) {
			return "the role that refreshes needs SELECT on the view, and SELECT, INSERT, UPDATE and DELETE on the table, whose row security must not apply to it"
		}
		return "REFRESH needs the view's owner, or a member of that role, or from PostgreSQL 17 on MAINTAIN on the view and " +
			"USAGE on its schema; and the owner needs SELECT on what the query reads"
	case "lock_not_available":
		return "somebody held a lock on the view or on a table that it reads; a scheduled refresh is tried again by itself"
	case "deadlock_detected", "serialization_failure":
		return "somebody else's transaction was in the way; a scheduled refresh is tried again by itself"
	case "disk_full", "configuration_limit_exceeded":
		return "the server ran out of the space that it may use for this query"
	default:
		return ""
	}
}

func merged(e schedule.Execution) bool { return e.Method != nil && *e.Method == schedule.MethodMerge }

// mergeHint is for what is wrong between a merge table and its view.
func mergeHint(e schedule.Execution) string {
	switch *e.ErrorName {
	case "undefined_column", "datatype_mismatch":
		return "table and view must have the same columns, of the same types; what the table generates is left to it"
	case "not_null_violation":
		return "give the column a value in the view's query (coalesce); a key has no NULL"
	case "unique_violation":
		return "a unique index of the table allows only one of two rows of the view; or rows have exchanged such values, for which " +
			"it would have to be a deferrable constraint, since the table has triggers, an identity or heirs, or is referred to"
	default:
		return "the key must tell the rows of the view apart; make its rows distinct, or add a column to the key"
	}
}

func searchPathHint(e schedule.Execution) string {
	if merged(e) {
		return "a function or trigger uses a name that is not in the search_path; give it with " + setting(e, "--search-path PATH")
	}
	return "a function in the view's query uses a name that is not in the search_path; up to PostgreSQL 16 give it with " +
		setting(e, "--search-path PATH") + "; from 17 on, `alter function … set search_path = …`"
}

// setting is how a flag is given to the view's next run: by its schedule, or, when it was told to run, there.
func setting(e schedule.Execution, flag string) string {
	if e.Trigger == "manual" {
		return "`mvsched refresh VIEW " + flag + "`"
	}
	return "`mvsched set VIEW " + flag + "`"
}

// isTooManyConnections reports whether a connection was refused for want of a free one.
func isTooManyConnections(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == pgerrcode.TooManyConnections
}
