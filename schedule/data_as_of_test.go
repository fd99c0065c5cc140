package schedule_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/schedule"
)

// lastOf is a value of a view's last execution.
func (b *bundle) lastOf(view, value string) string {
	b.Helper()
	return b.Value(`select `+value+` from mvsched.materialized_view_refresh_schedule_execution
		where view_name = $1 order by id desc limit 1`, "public."+view)
}

// A view that reads another one is as old as that, however new its own refresh.
func TestDataIsAsOldAsWhatIsRead(t *testing.T) {
	b := setup(t)
	b.chain("a", "b")
	b.tend()
	b.succeed(b.claim(1)[0])
	b.tend()
	c := b.claim(1)[0]
	err := pgx.BeginFunc(t.Context(), b.Pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `select mvsched.begin_refresh($1, $2::bigint::oid, 'plain', '1 min', '1 s', $3)`, c.ExecutionID, int64(c.OID), c.ClaimedAt)
		if err != nil {
			return err
		}
		_, err = tx.Exec(t.Context(), `select mvsched.refresh_succeeded($1, $2::bigint::oid, $3, $4, 'plain')`,
			c.ExecutionID, int64(c.OID), c.Schema, c.Name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := b.lastOf("a", "data_as_of"), b.lastOf("b", "data_as_of"); a != b {
		t.Errorf("b's data is as of %s, and that of a, which it reads, of %s", b, a)
	}
}

// What a skip may claim to know: that nothing was written before its look, or, where somebody may have written whose
// counters come late, before the seconds that they take; and nothing that the views do not know which it reads.
func TestDataAsOfASkip(t *testing.T) {
	for name, c := range map[string]struct {
		innerSince, others bool
		want               string
	}{
		"nobody_else":                   {want: "now() - data_as_of < interval '10 seconds'"},
		"others":                        {others: true, want: "now() - data_as_of between interval '15 seconds' and interval '25 seconds'"},
		"a_view_that_it_reads_is_older": {innerSince: true, want: "now() - data_as_of between interval '30 minutes' and interval '31 minutes'"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			if !tellsChanges(b) {
				return
			}
			l := setupLooks(b)
			b.change("v", "max_staleness = '1 day'")
			l.refreshed("the first time")
			// As if the refresh had been an hour ago, by the server's clock.
			refreshed := func(view, ago string) {
				b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
					(view_name, view_oid, trigger, status, started_at, ended_at, method, rows_inserted, rows_deleted, data_as_of, refreshed_at, fingerprint)
					select 'public.' || $1, ('public.' || $1)::regclass, 'manual', 'succeeded', at, at, 'concurrently', 0, 0, at, at,
					       mvsched.fingerprint(('public.' || $1)::regclass)
					  from (select now() - $2::text::interval as at) x`, view, ago)
			}
			refreshed("v", "1 hour")
			if c.innerSince {
				refreshed("inner_view", "30 minutes")
			}
			l.next(time.Hour)
			if c.others {
				b.Hold(`select 1`)
				l.undecided("somebody is here")
				l.next(16 * time.Second)
			}
			l.skipped("nothing has changed")
			if b.lastOf("v", c.want) != "true" {
				t.Errorf("as of %s", b.lastOf("v", "now() - data_as_of"))
			}
		})
	}
}

// By hand, too, a view is skipped that says so, unless it is forced; but nobody waits for a second look.
func TestUnchangedByHand(t *testing.T) {
	b := setup(t)
	if !tellsChanges(b) {
		return
	}
	l := setupLooks(b)
	l.refreshed("the first time")
	byHand := func(force bool) schedule.Claim {
		t.Helper()
		c, err := b.store.ClaimView(t.Context(), schedule.ViewName{Schema: "public", Name: "v"}, schedule.Settings{},
			schedule.ClaimOptions{Force: force})
		if err != nil || c == nil {
			t.Fatalf("%+v, %v", c, err)
		}
		return *c
	}
	if c := byHand(false); c.Skipped != schedule.ReasonUnchanged {
		t.Errorf("%+v, want a skip", c)
	}
	if got := b.lastOf("v", "concat_ws(' ', status, reason, trigger, ended_at is not null, data_as_of > refreshed_at)"); got != "skipped unchanged manual t t" {
		t.Error(got)
	}
	if c := byHand(true); c.Skipped != "" {
		t.Errorf("forced: %+v", c)
	} else {
		l.refresh(c)
	}
	b.aside(`insert into public.base values (100, 1)`)
	if c := byHand(false); c.Skipped != "" {
		t.Errorf("changed: %+v", c)
	} else {
		l.refresh(c)
	}
	b.Hold(`select 1`)
	if c := byHand(false); c.Skipped != "" {
		t.Errorf("somebody is here: %+v", c)
	}
}
