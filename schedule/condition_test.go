package schedule_test

import (
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

func TestWhatIsSaidOfACondition(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		condition, said string
		brackets        bool
	}{
		{"foo >", `syntax error at or near ")"`, true},
		{"id > 0) or (true", `syntax error at or near ")"`, true},
		{"foo >", `Syntaxfehler bei »)«`, true},
		{"foo = 'x", "unterminated quoted string at or near \"'x\n) limit 0\"", true},
		{"id between", `syntax error at or near ")"`, true},
		{"id is is null", `syntax error at or near "is"`, false},
		{"FOO.id > 1", `missing FROM-clause entry for table "foo"`, false},
		{"nothing > 1", `column "nothing" does not exist`, false},
		{"id", "argument of WHERE must be type boolean, not type integer", false},
	} {
		if got := schedule.IsAboutBrackets(c.condition, c.said); got != c.brackets {
			t.Errorf("%s: %s: %v", c.condition, c.said, got)
		}
	}
}
