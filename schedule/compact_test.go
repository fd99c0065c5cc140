package schedule_test

import (
	"testing"

	"github.com/mvsched/mvsched/schedule"
)

// grow updates the schedule very often, with a transaction open that keeps what is dead from being removed until it is released.
func (b *bundle) grow() (release func()) {
	b.Helper()
	release = b.Hold(`select pg_current_xact_id()`)
	b.Aside(`do $$ begin
		for i in 1..4000 loop
			update mvsched.materialized_view_refresh_schedule set priority = i % 10;
		end loop; end $$`)
	b.Exec(`vacuum mvsched.materialized_view_refresh_schedule`)
	return release
}

const (
	// pages are those of the schedules' table.
	pages = `select pg_relation_size('mvsched.materialized_view_refresh_schedule') / 8192`

	// file is another one when the table has been written anew.
	file = `select pg_relation_filenode('mvsched.materialized_view_refresh_schedule')`

	dead = `select pg_stat_get_dead_tuples('mvsched.materialized_view_refresh_schedule'::regclass)`
)

func TestCompact(t *testing.T) {
	t.Run("gives_back_what_is_free", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		if b.tend().Scattered {
			t.Error("a new table is scattered")
		}
		first := b.Value(file)
		left := func() {
			b.Helper()
			if err := b.store.Compact(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.Check(first, file)
		}
		left() // there is nothing to gain
		release := b.grow()
		b.Await("true", `select (`+dead+`) > 1000`)
		left() // all of it is still to be seen by somebody
		release()
		b.Exec(`vacuum mvsched.materialized_view_refresh_schedule`)
		b.Await("true", `select (`+dead+`) < 10`)
		if !b.tend().Scattered {
			t.Errorf("one row on %s pages is not scattered", b.Value(pages))
		}
		free := b.Hold(`lock table mvsched.materialized_view_refresh_schedule in access share mode`)
		left() // somebody is at it
		free()

		if err := b.store.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.Check("1", pages)
		if b.tend().Scattered {
			t.Error("it is still scattered")
		}
		if claims := b.claim(1); len(claims) != 1 {
			t.Errorf("claimed %v", claims)
		}
	})

	t.Run("is_left_to_who_may", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.grow()()
		if !b.tend().Scattered {
			t.Error("not for its owner either")
		}
		role := b.role()
		b.Exec(`grant all on schema mvsched to ` + role)
		b.Exec(`grant all on all tables in schema mvsched to ` + role)
		conn, err := b.Pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		if _, err := conn.Exec(t.Context(), `set role `+role); err != nil {
			t.Fatal(err)
		}
		defer conn.Exec(b.Context(), `reset role`)
		outlook, err := schedule.NewStore(conn).Tend(t.Context(), schedule.TendOptions{Limit: 1})
		if err != nil || outlook.Scattered {
			t.Errorf("%+v, %v", outlook, err)
		}
	})
}
