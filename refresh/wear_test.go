package refresh_test

import (
	"fmt"
	"testing"
)

// What a session keeps of each refresh makes the next ones slower, so there is a new one after some hundred.
func TestConnectionsWear(t *testing.T) {
	b := setupJobs(t, 1)
	const views = 410
	b.Exec(fmt.Sprintf(`do $$ begin
		for i in 1..%d loop
			execute format('create materialized view public.v%%s as select pg_backend_pid() as pid', i);
		end loop; end $$`, views))
	b.Exec(fmt.Sprintf(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
		select 'public.v' || i, '1 hour' from generate_series(1, %d) i`, views))
	if n := len(b.runDue()); n != views {
		t.Errorf("%d views were refreshed", n)
	}
	pids := "select null::integer as pid where false"
	for i := range views {
		pids += fmt.Sprintf(" union all select pid from public.v%d", i+1)
	}
	b.Check("3 200", `select count(*) || ' ' || max(n) from (select count(*) as n from (`+pids+`) p group by pid) s`)
	b.Check("true", `select bool_and(status = 'succeeded') and count(*) = count(distinct view_name) from mvsched.materialized_view_refresh_schedule_execution`)
	b.Check("0", `select count(*) from mvsched.materialized_view_refresh_schedule where open_execution_id is not null`)
}
