package refresh_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// The plan of the record is kept by the session: it must not be made under the settings of a view.
func TestSettingsHoldForTheRefreshAlone(t *testing.T) {
	b := setupJobs(t, 1)
	const seen = "current_setting('work_mem') || ' ' || current_setting('enable_indexscan')"
	b.view("v", "select 1 as id, "+seen+" as seen")
	b.set("v", `settings = '{"work_mem": "77MB", "enable_indexscan": "off"}'`)
	b.view("w", "select 1 as id, "+seen+" as seen")
	b.Exec(`create table public.recorded as select ` + seen + ` as seen with no data`)
	b.Exec(`create function public.note() returns trigger language plpgsql as $$
		begin insert into public.recorded select ` + seen + `; return new; end $$`)
	b.Exec(`create trigger note before update on mvsched.materialized_view_refresh_schedule_execution
		for each row execute function public.note()`)
	b.runDue()
	b.Check("77MB off", `select seen from public.v`)
	own := b.Value("select " + seen)
	b.Check(own, `select seen from public.w`)
	b.Check(own, `select distinct seen from public.recorded`)
}

// The longest names, search_path and settings: still one write, which fits into one buffer of the server.
func TestThePipelineFitsIntoABuffer(t *testing.T) {
	b := setupJobs(t, 1)
	watch := &writes{contains: []byte("refresh materialized view")}
	config := b.Pool.Config()
	refresh.ConfigurePool(config, 1)
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &watchedConn{conn, watch}, err
	}
	b.connect(config, 1)
	schema, name := strings.Repeat(`"`, 62), strings.Repeat(`""`, 62)
	b.Exec(`create schema "` + name + `"`)
	b.Exec(`create materialized view "` + name + `"."` + name + `" as select 1 as id`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, search_path, settings)
		values ($1, interval '1 hour', $2, $3::jsonb)`, schedule.ViewName{Schema: schema, Name: schema}.String(),
		strings.Repeat("a, ", 1331)+"public", `{"work_mem": "77MB`+strings.Repeat(" ", 970)+`"}`)
	if executions := b.runDue(); len(executions) != 1 {
		t.Fatal(executions)
	}
	b.Check("succeeded", `select string_agg(status || coalesce(error_message, ''), ', ') from mvsched.materialized_view_refresh_schedule_execution`)
	watch.Lock()
	defer watch.Unlock()
	if watch.seen != 1 || watch.most > 8192 {
		t.Errorf("%d writes, the longest of %d bytes", watch.seen, watch.most)
	}
}

// writes counts those that contain some text.
type writes struct {
	sync.Mutex
	contains   []byte
	seen, most int
}

type watchedConn struct {
	net.Conn
	writes *writes
}

func (c *watchedConn) Write(p []byte) (int, error) {
	c.writes.Lock()
	if bytes.Contains(p, c.writes.contains) {
		c.writes.seen++
		c.writes.most = max(c.writes.most, len(p))
	}
	c.writes.Unlock()
	return c.Conn.Write(p)
}
