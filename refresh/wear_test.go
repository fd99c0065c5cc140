package refresh_test

import (
	"fmt"
	"testing"
)

// What a session keeps of each refresh makes the next ones slower, so there is a new one after some hundred; where there is none to
// be had, the old one goes on.
func TestConnectionsWear(t *testing.T) {
	const views = 410
	for name, test := range map[string]struct {
		connections int    // that the role may have: the control loop's, the slot's, who vacuums', and one more, or not even that
		want        string // sessions that have refreshed, and how many refreshes one of them had at the most
	}{
		"renewed":                 {4, "3 200"},
		"where_there_is_no_other": {2, "1 410"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.limit(test.connections)
			b.Exec(fmt.Sprintf(`do $$ begin
				for i in 1..%d loop
					execute format('create materialized view public.v%%s as select pg_backend_pid() as pid', i);
				end loop; end $$`, views))
			b.Exec(fmt.Sprintf(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
				select 'public.v' || i, '1 hour' from generate_series(1, %d) i`, views))
			if n := len(b.runDue()); n != views {
				t.Errorf("%d views were refreshed", n)
			}
			b.Exec(fmt.Sprintf(`create table public.sessions (pid integer);
				do $$ begin
					for i in 1..%d loop
						execute format('insert into public.sessions select pid from public.v%%s', i);
					end loop; end $$`, views))
			b.Check(test.want, `select count(*) || ' ' || max(n) from (select count(*) as n from public.sessions group by pid) s`)
			b.Check("true", `select bool_and(status = 'succeeded') and count(*) = count(distinct view_name) from mvsched.materialized_view_refresh_schedule_execution`)
			b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule where open_execution_id is not null`)
		})
	}
}
