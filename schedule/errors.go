package schedule

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
)

// InvalidError is a value that a person wrote and that cannot be taken. Hint, which may be empty, says what to write
// instead.
type InvalidError struct {
	What    string // what it was meant to be: "view name", "duration"
	Value   string
	Problem string
	Hint    string
}

func (e *InvalidError) Error() string {
	value := strconv.Quote(e.Value)
	if strings.Contains(e.Value, `"`) { // as of a name in SQL; it stays readable in other quotes
		value = "'" + strings.ReplaceAll(value[1:len(value)-1], `\"`, `"`) + "'"
	}
	return fmt.Sprintf("invalid %s %s: %s", e.What, value, e.Problem)
}

// Identities of what can be wrong with a view or a schedule; a *ViewError carries the view.
var (
	ErrNoView       = errors.New("does not exist")
	ErrNotAView     = errors.New("is not a materialized view, nor a table that is scheduled as one")
	ErrNotScheduled = errors.New("has no schedule")
	ErrScheduled    = errors.New("is scheduled already")
	ErrNoParents    = errors.New("reads no other materialized view")
	ErrNoColumns    = errors.New("has no schedule that materializes columns")
)

// ViewError says of which view one of ErrNoView, ErrNotAView, ErrNotScheduled, ErrScheduled, ErrNoParents and ErrNoColumns is true.
type ViewError struct {
	View string
	Err  error
}

// A name that has quotes, as SQL has them, needs no others.
func (e *ViewError) Error() string {
	if strings.Contains(e.View, `"`) {
		return e.View + " " + e.Err.Error()
	}
	return fmt.Sprintf("%q %v", e.View, e.Err)
}

func (e *ViewError) Unwrap() error { return e.Err }

// ErrNoSchema means that schema mvsched is not installed in the database.
var ErrNoSchema = errors.New("schema mvsched is not installed in this database")

// SchemaVersionError means that schema mvsched has a version that this program does not know.
type SchemaVersionError struct {
	Installed int
	Known     int
}

func (e *SchemaVersionError) Error() string {
	return fmt.Sprintf("schema mvsched has version %d, and this program knows version %d", e.Installed, e.Known)
}

// ErrBug means that the program itself went wrong.
var ErrBug = errors.New("bug")

// Bug is the error for what was recovered from a panic, with the stack of the deferred function that calls it.
func Bug(recovered any) error { return fmt.Errorf("%w: %v\n%s", ErrBug, recovered, debug.Stack()) }

// Guarded does it, and returns a bug in place of a panic: one that nobody recovers ends the whole process, and what it was
// refreshing with it.
func Guarded(do func() error) (err error) {
	defer func() {
		if bug := recover(); bug != nil {
			err = Bug(bug)
		}
	}()
	return do()
}
