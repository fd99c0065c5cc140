package schedule

import (
	"errors"
	"fmt"
	"runtime/debug"
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
	return fmt.Sprintf("invalid %s %q: %s", e.What, e.Value, e.Problem)
}

// Identities of what can be wrong with a view or a schedule; a *ViewError carries the view.
var (
	ErrNoView       = errors.New("does not exist")
	ErrNotAView     = errors.New("is not a materialized view")
	ErrNotScheduled = errors.New("has no schedule")
	ErrScheduled    = errors.New("is scheduled already")
	ErrNoParents    = errors.New("reads no other materialized view")
)

// ViewError says of which view one of ErrNoView, ErrNotAView, ErrNotScheduled, ErrScheduled and ErrNoParents is true.
type ViewError struct {
	View string
	Err  error
}

func (e *ViewError) Error() string { return fmt.Sprintf("%q %v", e.View, e.Err) }

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
