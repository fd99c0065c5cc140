package refresh

import (
	"testing"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// A connection that was left in the middle of something, as by a panic, is nobody's any more: the control loop gets another one.
func TestControlConnectionIsLeftInTheMiddle(t *testing.T) {
	db := pgtest.NewDB(t)
	var control controlConn
	t.Cleanup(control.release)
	for _, leave := range []string{`begin`, `select 1`} {
		conn, giveBack, err := control.connect(t.Context(), db.Pool)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), leave); err != nil {
			t.Fatal(err)
		}
		giveBack()
		if lent, giveBack := control.lend(t.Context()); (lent == nil) != (leave == `begin`) {
			t.Errorf("behind %q: lent %v", leave, lent != nil)
		} else if lent != nil {
			giveBack()
		}
	}
}
