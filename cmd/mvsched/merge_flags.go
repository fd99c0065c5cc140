package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

// mergeFlags make a table a merge table.
type mergeFlags struct {
	from   string
	key    string
	create bool
}

func (f *mergeFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.from, "merge-from", "", "keep a table equal to this plain view, by --key")
	flags.StringVar(&f.key, "key", "", "with --merge-from: the columns that say which rows are the same one: day,country")
	flags.BoolVar(&f.create, "create", false, "with --merge-from: make the table, with the key and the readers of the view")
}

// merge reads the flags; nil: it is to be no merge table.
func (f *mergeFlags) merge(cmd *cobra.Command, views []schedule.ViewName) (*schedule.Merge, error) {
	given := cmd.Flags().Changed
	if !given("merge-from") {
		for _, flag := range []string{"key", "create", "window", "full-every"} {
			if given(flag) {
				return nil, &usageError{problem: "--" + flag + " is for --merge-from", hint: "name the plain view: --merge-from VIEW"}
			}
		}
		return nil, nil //nolint:nilnil // documented
	}
	switch {
	case len(views) != 1:
		return nil, &usageError{problem: "--merge-from is for one table", hint: "add one after the other"}
	case f.key == "":
		return nil, &usageError{problem: "say by which columns to merge", hint: "for example --key day,country"}
	}
	source, err := schedule.ParseViewName(f.from)
	if err != nil {
		return nil, named(err, "--merge-from")
	}
	key, err := parseKey(f.key)
	return &schedule.Merge{Source: source, Key: key, Create: f.create}, err
}

// parseKey reads the columns of a key, as in SQL.
func parseKey(list string) (key []string, err error) {
	for _, text := range splitColumns(list) {
		column, err := schedule.ParseViewName(text)
		if err == nil && column.Schema != "" || err == nil && slices.Contains(key, column.Name) {
			err = &schedule.InvalidError{Value: text, Problem: "it is no column, or named twice", Hint: `write columns as in SQL: day,"Country"`}
		}
		if err != nil {
			return nil, named(err, "--key")
		}
		key = append(key, column.Name)
	}
	return key, nil
}

// splitColumns splits a list of names as SQL has them: a comma within double quotes is part of a name.
func splitColumns(list string) []string {
	quoted := false
	return strings.FieldsFunc(list, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
}
