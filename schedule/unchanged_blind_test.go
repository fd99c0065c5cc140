package schedule_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/schedule"
)

// Where one view's changes cannot be told, for whatever reason, it is refreshed, and the others have their turn.
func TestAFingerprintThatFailsHoldsNobody(t *testing.T) {
	for name, c := range map[string]struct{ harm, obstacle string }{
		"no_right_to_a_function": {
			`revoke execute on function pg_catalog.pg_control_checkpoint() from public`, "may not execute pg_control_checkpoint()",
		},
		"no_right_to_a_view":     {`revoke select on pg_catalog.pg_stat_archiver from public`, "may not read pg_stat_archiver"},
		"no_right_to_the_others": {`revoke select on pg_catalog.pg_stat_activity from public`, ""},
		"whatever": {`create function public.fail() returns trigger language plpgsql as $$begin raise 'no'; end$$;
			create trigger fail before insert on mvsched.materialized_view_source for each row execute function public.fail()`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			if !tellsChanges(b) {
				return
			}
			b.view("a", "1 hour")
			b.view("b", "1 hour")
			b.change("a", "skip_unchanged = true")
			b.aside(c.harm)
			b.asRunner()
			b.run()
			b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
			b.tend()
			if got := views(b.claimAll()); c.obstacle != "" && len(got) != 2 || !slices.Contains(got, "public.b") {
				t.Errorf("claimed %v", got)
			}
			if c.obstacle == "" {
				return
			}
			if got := reason(t, b.why("public.a"), "changes_unseen").Message; !strings.Contains(got, c.obstacle) {
				t.Error(got)
			}
			findings, err := b.store.Doctor(t.Context())
			if err != nil || !slices.ContainsFunc(findings, func(f schedule.Finding) bool {
				return f.View == "public.a" && f.Check == "cannot_tell_changes" && strings.Contains(f.Message, c.obstacle)
			}) {
				t.Errorf("%+v, %v", findings, err)
			}
		})
	}
}

// asRunner has the store connect as a role that is no superuser.
func (b *bundle) asRunner() {
	b.Helper()
	role := "runner_" + b.Value("current_database()")
	b.Exec("create role " + role + " login")
	b.Exec("grant usage on schema mvsched to " + role)
	b.Exec("grant select, insert, update, delete on all tables in schema mvsched to " + role)
	config := b.Pool.Config()
	config.ConnConfig.User = role
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		pool.Close()
		for _, statement := range []string{"drop owned by ", "drop role "} { // the test's own context has ended
			if _, err := b.Pool.Exec(context.Background(), statement+role); err != nil {
				b.Error(err)
			}
		}
	})
	b.store = schedule.NewStore(pool)
}
