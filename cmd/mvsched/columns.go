package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

// maxQueryFile is the CHECK of the column, in bytes.
const maxQueryFile = 1_000_000

// columnsFlags say how the columns of a table are materialized.
type columnsFlags struct {
	columns  bool
	from     string
	call     string
	batch    int
	parallel int
}

// register adds those that `set` has too.
func (f *columnsFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "of columns: the file with a query over batch(id) that gives id and the columns; - for stdin")
	flags.StringVar(&f.call, "call", "", "of columns: the function that materializes some rows at a time: 'fn()'")
	flags.IntVar(&f.batch, "batch", 0, "of columns: rows of the first batch, from which it is adapted (default 100)")
	flags.IntVar(&f.parallel, "parallel", 0, "of columns: how many workers may be at the table at the same time (default 1)")
}

// settings reads the flags that were given; nil: none.
func (f *columnsFlags) settings(a *app, cmd *cobra.Command) (*schedule.Columns, error) {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	var c schedule.Columns
	if given("from") && given("call") {
		return nil, &usageError{problem: "--from and --call exclude each other", hint: "give one of the two"}
	}
	if given("from") {
		query, err := a.readQuery(f.from)
		if err != nil {
			return nil, err
		}
		c.Query = &query
	}
	if given("call") {
		call := strings.TrimRight(f.call, "; \n\t")
		if call == "" {
			return nil, &usageError{problem: "--call: it is empty", hint: "name the function as in SQL: --call 'materialize_events()'"}
		}
		c.Call = &call
	}
	if given("batch") {
		if f.batch < 1 || f.batch > schedule.MaxBatchRows {
			return nil, &usageError{problem: fmt.Sprintf("--batch: %d is not between 1 and %d", f.batch, schedule.MaxBatchRows)}
		}
		c.BatchRows = &f.batch
	}
	if given("parallel") {
		if f.parallel < 1 || f.parallel > schedule.MaxLanes {
			return nil, &usageError{problem: fmt.Sprintf("--parallel: %d is not between 1 and %d", f.parallel, schedule.MaxLanes)}
		}
		c.Lanes = &f.parallel
	}
	if c == (schedule.Columns{}) {
		return nil, nil //nolint:nilnil // none was given
	}
	return &c, nil
}

// newSettings reads the flags of a new schedule, which is of columns when it says so, and then needs to know how.
func (f *columnsFlags) newSettings(a *app, cmd *cobra.Command, s *schedule.Settings) (err error) {
	if s.Columns, err = f.settings(a, cmd); err != nil {
		return err
	}
	switch {
	case s.Columns != nil && !f.columns:
		return &usageError{problem: "--from, --call, --batch and --parallel are for --columns", hint: "mvsched add TABLE --columns --from FILE.sql"}
	case !f.columns:
		return nil
	case s.Columns == nil || s.Columns.Query == nil && s.Columns.Call == nil:
		return &usageError{problem: "say how the columns are materialized", hint: "--from FILE.sql, or --call 'fn()'"}
	}
	if s.When() == "" {
		onChange := true
		s.OnChange = &onChange
	}
	return nil
}

// readQuery reads a file, or stdin.
func (a *app) readQuery(name string) (string, error) {
	in := a.stdin
	if name != "-" {
		file, err := os.Open(name) //nolint:gosec // the file that the user names
		if err != nil {
			return "", &usageError{problem: "--from: " + cause(err), hint: "name a file with one query, or - for stdin"}
		}
		defer file.Close() //nolint:errcheck // it was only read
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, maxQueryFile+1))
	switch {
	case err != nil:
		return "", &usageError{problem: "--from: " + cause(err)}
	case len(text) > maxQueryFile:
		return "", &usageError{problem: fmt.Sprintf("--from: %s is longer than %d bytes", name, maxQueryFile)}
	case strings.TrimSpace(string(text)) == "" || strings.ContainsRune(string(text), 0):
		return "", &usageError{problem: fmt.Sprintf("--from: %s is empty, or no text", name)}
	}
	return string(text), nil
}

func cause(err error) string {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Path + ": " + path.Err.Error()
	}
	return err.Error()
}
