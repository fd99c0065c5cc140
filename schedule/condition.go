package schedule

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What the server says about the first speaks least of the brackets; the other finds what closes them.
const conditionSQL = `
select array[pg_catalog.format(E'select from %s t where (%s\n)', mvsched.relation_name(s.view_oid), $2::text),
             pg_catalog.format(E'select from %s t where (array[%s\n])[1]', mvsched.relation_name(s.view_oid), $2::text)]
  from mvsched.materialized_view_refresh_schedule s
 where s.id = $1`

// checkCondition has the server parse a condition, and nothing beside it: only one that is an expression whichever brackets
// it stands in does not close them.
func (s *Store) checkCondition(ctx context.Context, id int64, path, condition string) error {
	ctx, cancel := withDeadline(ctx, "checking a condition")
	defer cancel()
	return s.transaction(ctx, func(tx pgx.Tx) error {
		var trials []string
		if err := tx.QueryRow(ctx, conditionSQL, id, condition).Scan(&trials); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, setPathSQL, path); err != nil {
			return err
		}
		for _, sql := range trials {
			_, err := tx.Prepare(ctx, "", sql)
			var pgErr *pgconn.PgError
			if errors.As(err, &pgErr) {
				err = refusedColumns(pgErr)
			}
			if refused := (*DefinitionError)(nil); errors.As(err, &refused) {
				return noCondition("--where", condition, pgErr.Message, refused.Hint)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// noCondition is the error for what is no boolean expression, with what the server says of it unless that is about the text
// in which it was tried.
func noCondition(flag, condition, said, hint string) error {
	problem := "it has to be one boolean expression over the columns of the table"
	if !isAboutBrackets(condition, said) {
		problem += ": " + said
	}
	return &InvalidError{What: flag, Value: shorten(condition), Problem: problem, Hint: hint}
}

// What a message ends with in quotes, in any language: what it is about.
var quotedAtEnd = regexp.MustCompile(`["„«»]([^"„«“»]*)["“»«]$`)

// isAboutBrackets reports whether a message is about what a condition was put into to try it: about text that is not the
// condition's, or a bracket, with which the condition ends too early or goes on too long.
func isAboutBrackets(condition, said string) bool {
	about := quotedAtEnd.FindStringSubmatch(said)
	return about != nil && (about[1] == ")" || about[1] == "]" || !strings.Contains(strings.ToLower(condition), strings.ToLower(about[1])))
}
