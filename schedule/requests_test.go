package schedule_test

import (
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// request asks for a refresh of public.v, as if it had been at that time.
func (c *course) request(at string) {
	c.Helper()
	c.Exec(`select mvsched.request_refresh('public.v')`)
	c.Exec(`update mvsched.materialized_view_refresh_request r set requested_at = $1
		where r.transaction::text::bigint = (select max(x.transaction::text::bigint) from mvsched.materialized_view_refresh_request x)`,
		when(c.TB, at))
}

func (c *course) pending(want string) {
	c.Helper()
	c.Check(want, `select count(*) from mvsched.materialized_view_refresh_request`)
}

func TestRequest(t *testing.T) {
	t.Parallel()
	t.Run("those_that_are_pending_are_answered_together_and_the_slots_stay", func(t *testing.T) {
		for name, settings := range map[string]schedule.Settings{
			"every": {Every: ptr(time.Hour)}, "cron": {Cron: ptr("0 * * * *")},
			"jitter": {Every: ptr(time.Hour), Jitter: ptr(time.Second)},
		} {
			t.Run(name, func(t *testing.T) {
				c := setupCourse(t, settings)
				c.run("12:00")
				next := c.next()
				c.request("12:20")
				c.request("12:20:01")
				c.Exec(`do $$ begin perform mvsched.request_refresh('public.v'); perform mvsched.request_refresh('public.v'); end $$`)
				c.pending("3") // one a transaction
				c.Exec(`update mvsched.materialized_view_refresh_request set requested_at = least(requested_at, '2026-03-02 12:20:02Z')`)
				c.now = when(t, "12:20:10")
				if due, err := c.store.Due(t.Context(), nil, 0); err != nil || len(due) != 1 || clockOf(*due[0].ScheduledAt) != "12:20:00" {
					t.Errorf("due: %+v, %v", due, err)
				}
				c.goes(step{"12:20:10", "12:20:10", next})
				c.pending("0")
				c.Check("change", `select trigger from mvsched.materialized_view_refresh_schedule_execution order by id desc limit 1`)
				if got := c.run("13:00:01"); got != "13:00:00" {
					t.Errorf("the slot after that: %s", got)
				}
			})
		}
	})

	t.Run("one_that_commits_after_the_claim_is_answered_by_another_refresh", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{OnChange: ptr(true)})
		c.run("12:00")
		tx, err := c.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()
		if _, err := tx.Exec(t.Context(), `select mvsched.request_refresh('public.v')`); err != nil {
			t.Fatal(err)
		}
		c.request("12:20")
		c.now = when(t, "12:20")
		c.tend()
		claims := c.claimAll()
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(claims) != 1 {
			t.Fatalf("claimed %v", views(claims))
		}
		c.Exec(`update mvsched.materialized_view_refresh_request set requested_at = '2026-03-02 12:19:59Z'`)
		c.succeed(claims[0])
		c.goes(step{"12:21", "12:21:00", ""})
		c.pending("0")
	})

	// I10: its run was sooner than its slot, which the clock of a cron goes on from.
	t.Run("one_that_commits_while_jitter_has_a_slot_refreshed_leaves_that_slot_to_it", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Cron: ptr("0 * * * *"), Jitter: ptr(50 * time.Minute)})
		c.run("12:00")
		c.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = '2026-03-02 12:40Z', next_run_offset = '-20 minutes'`)
		c.now = when(t, "12:40")
		claim := c.trying()
		c.request("12:40:01")
		c.now = when(t, "12:40:02")
		c.succeed(claim)
		c.tend()
		c.run("12:40:03")
		c.Check("14:00:00", `select (next_run_at - next_run_offset) at time zone 'UTC' - date '2026-03-02' from mvsched.materialized_view_refresh_schedule`)
	})

	t.Run("one_whose_run_was_stopped_is_answered_again_and_the_slots_stay", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Every: ptr(time.Hour)})
		c.run("12:00")
		c.request("12:20")
		c.now = when(t, "12:20")
		for attempt := 1; attempt <= 2; attempt++ {
			c.tend()
			claims := c.claimAll()
			if len(claims) != 1 || claims[0].Attempt != attempt || !claims[0].ScheduledAt.Equal(c.now) {
				t.Fatalf("%+v", claims)
			}
			c.end(claims[0], schedule.Ending{Status: schedule.Cancelled, Reason: schedule.ReasonShutdown})
		}
		c.goes(step{"12:20", "12:20:00", "13:00:00"})
	})

	t.Run("one_alone_is_answered_at_once_and_a_burst_when_it_is_over", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{OnChange: ptr(true)})
		c.run("12:00")
		c.request("12:01")
		c.goes(step{"12:01", "12:01:00", ""})
		c.request("12:01:00.200")
		c.goes(step{"12:01:00.300", "", ""})
		if ripe := c.tend().Ripe; ripe == nil || *ripe != 400*time.Millisecond {
			t.Errorf("ripe in %v", ripe)
		}
		c.request("12:01:00.400")
		c.goes(
			step{"12:01:00.700", "", ""}, // the second one has moved it
			step{"12:01:00.900", "12:01:00.9", ""},
		)
		// Never a pause: at the latest 10 s after the start of the one before.
		for _, at := range []string{"00.8", "01.2", "05.0", "10.0", "10.5"} {
			c.request("12:01:" + at)
		}
		c.goes(
			step{"12:01:10.6", "", ""},
			step{"12:01:10.900", "12:01:10.9", ""},
		)
	})

	t.Run("debounce_and_at_most_every", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{OnChange: ptr(true), Debounce: ptr(5 * time.Second), AtMostEvery: ptr(30 * time.Second)})
		c.run("12:00")
		c.request("12:00:10")
		c.goes(
			step{"12:00:29", "", ""},
			step{"12:00:30", "12:00:30", ""},
		)
		c.request("12:00:31")
		c.goes(
			step{"12:00:59", "", ""},
			step{"12:01:00", "12:01:00", ""},
		)
		c.request("12:03")
		c.goes(step{"12:03", "12:03:00", ""})
		c.request("12:03:31") // alone, more than the debounce after the one before
		c.goes(step{"12:03:31", "12:03:31", ""})
		c.request("12:03:33")
		c.request("12:04:00")
		c.goes(
			step{"12:04:00", "", ""},
			step{"12:04:01", "12:04:01", ""}, // calm would be at 12:04:05
		)
	})

	t.Run("a_slot_that_has_come_meanwhile_is_answered_too_and_the_grid_stays", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Every: ptr(time.Hour)})
		c.run("12:00")
		c.request("12:59:55")
		c.now = when(t, "12:59:55")
		c.tend()
		c.goes(step{"13:00:30", "12:59:55", "14:00:00"}, step{"13:59:59", "", "14:00:00"})
	})

	t.Run("waits_for_the_end_of_a_pause", func(t *testing.T) {
		c := setupCourse(t, schedule.Settings{Every: ptr(time.Hour)})
		c.run("12:00")
		c.change("v", "paused_at = now()")
		c.request("12:20")
		if got := c.run("12:21"); got != "" {
			t.Errorf("refreshed for %s", got)
		}
		c.pending("1")
		c.change("v", "paused_at = null")
		if got := c.run("12:22"); got == "" {
			t.Error("not refreshed")
		}
	})
}

func TestWhoMayRequest(t *testing.T) {
	b := setup(t)
	b.view("v", "1 hour")
	role := b.role()
	b.Exec("revoke all on all tables in schema mvsched from " + role)
	conn, err := pgx.ConnectConfig(t.Context(), b.Pool.Config().ConnConfig.Copy())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), "set role "+role); err != nil {
		t.Fatal(err)
	}
	request := func(view string) string {
		t.Helper()
		_, err := conn.Exec(t.Context(), `select mvsched.request_refresh($1)`, view)
		return sqlState(err)
	}
	if code := request("public.v"); code != pgerrcode.InsufficientPrivilege {
		t.Errorf("without a grant: %q", code)
	}
	b.Exec("grant execute on function mvsched.request_refresh(text) to " + role)
	if code := request("public.v"); code != "" {
		t.Errorf("with the grant: %s", code)
	}
	b.Check("1", `select count(*) from mvsched.materialized_view_refresh_request`)
	for view, want := range map[string]string{
		"public.unscheduled": pgerrcode.UndefinedTable, "public.unknown": pgerrcode.UndefinedTable, "v": pgerrcode.UndefinedTable,
		`"`: pgerrcode.InvalidParameterValue, "a.b.c": pgerrcode.InvalidName,
	} {
		if code := request(view); code != want {
			t.Errorf("%s: %q, want %s", view, code, want)
		}
	}

	// In the caller's own schema, and not in the owner's.
	if _, err := conn.Exec(t.Context(), `set search_path = "$user", public`); err != nil {
		t.Fatal(err)
	}
	b.Exec("create schema if not exists authorization " + role)
	b.Exec("create materialized view " + role + ".mine as select 1 as id")
	b.Schedule(role+".mine", "1 hour")
	for _, path := range []string{`$user, public`, `public,$user`, `"$user"`, `"$user", public`} {
		if _, err := conn.Exec(t.Context(), `select pg_catalog.set_config('search_path', $1, false)`, path); err != nil {
			t.Fatal(err)
		}
		if code := request("mine"); code != "" {
			t.Errorf("its own, under %s: %s", path, code)
		}
	}
	b.Exec("delete from mvsched.materialized_view_refresh_schedule where materialized_view_name = $1", role+".mine")
	if code := request("mine"); code != pgerrcode.UndefinedObject {
		t.Errorf("its own, without a schedule: %q", code)
	}
	b.Exec("drop materialized view " + role + ".mine")

	// It runs with its owner's rights: nothing that a caller puts into the search_path is to be called in it.
	b.Exec("create schema evil")
	b.Exec(`create function evil.strike() returns text language plpgsql as $$begin raise exception 'as %', current_user using errcode = 'XX666'; end$$`)
	for _, function := range []string{
		"pg_notify(text, text) returns void", "concat(text, text) returns text", "set_config(text, text, boolean) returns text",
		"current_setting(text) returns text", "quote_ident(text) returns text", "to_regclass(text) returns regclass", "clock_timestamp() returns timestamptz",
		"current_schemas(boolean) returns name[]", "parse_ident(text) returns text[]", "pg_current_xact_id() returns xid8",
	} {
		b.Exec("create function evil." + function + " language plpgsql as $$begin perform evil.strike(); end$$")
	}
	for name, args := range map[string]string{"=": "oid", "||": "text", "-": "timestamptz"} {
		b.Exec("create function evil.operate(" + args + ", " + args + ") returns boolean language plpgsql as $$begin perform evil.strike(); return null; end$$")
		b.Exec("create operator evil." + name + " (leftarg = " + args + ", rightarg = " + args + ", function = evil.operate)")
	}
	b.Exec("create domain evil.text as pg_catalog.text check (evil.strike() is null)")
	b.Exec("create domain evil.int8 as pg_catalog.int8 check (evil.strike() is null)")
	b.Exec("grant usage on schema evil to " + role)
	b.Exec("grant usage on schema public to " + role)
	const path = "evil, public, pg_catalog"
	if _, err := conn.Exec(t.Context(), "set search_path = "+path); err != nil {
		t.Fatal(err)
	}
	for view, want := range map[string]string{"v": "", "public.v": "", "unknown": pgerrcode.UndefinedTable} {
		if code := request(view); code != want {
			t.Errorf("%s under a hostile search_path: %q, want %q", view, code, want)
		}
	}
	var after string
	if err := conn.QueryRow(t.Context(), `select pg_catalog.current_setting('search_path')`).Scan(&after); err != nil || after != path {
		t.Errorf("%q afterwards, %v", after, err)
	}
}

func TestOnChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if !tellsChanges(b) {
		return
	}
	l := setupLooks(b)
	b.change("v", "skip_unchanged = false, refresh_interval = null, on_change = true, max_staleness = '1 hour'")
	watch := func() *schedule.Claim {
		t.Helper()
		outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1, Look: true})
		if err != nil {
			t.Fatal(err)
		}
		claims := l.claimAll()
		if len(claims) == 0 {
			b.Check("true", `select next_run_at is null or next_run_at > $1 from mvsched.materialized_view_refresh_schedule`, l.now)
			if watching := b.Value(`select next_run_at is null from mvsched.materialized_view_refresh_schedule`) == "true"; outlook.Changed == 0 && outlook.Watching != watching {
				t.Errorf("watching: %v", outlook.Watching)
			}
			return nil
		}
		return &claims[0]
	}
	refreshed := func(why string) {
		t.Helper()
		c := watch()
		if c == nil {
			t.Fatal(why + ": not refreshed")
		}
		l.refresh(*c)
		l.tend()
	}
	calm := func(why string) {
		t.Helper()
		if watch() != nil {
			t.Fatal(why + ": refreshed")
		}
	}
	refreshed("the first time")
	l.next(20 * time.Second)
	calm("nothing has changed")

	b.aside(`insert into public.base values (100, 1)`)
	refreshed("changed")
	b.Check("change", `select trigger from mvsched.materialized_view_refresh_schedule_execution order by id desc limit 1`)
	l.next(9 * time.Second)
	b.aside(`insert into public.base values (101, 1)`)
	calm("changed, but 9 seconds after the last one")
	l.next(time.Second)
	refreshed("10 seconds after the last one")

	l.next(time.Minute)
	calm("nothing has changed")
	b.change("v", "debounce = '20 seconds'")
	b.aside(`insert into public.base values (102, 1)`)
	calm("changed: the debounce begins")
	l.next(19 * time.Second)
	calm("the debounce")
	l.next(time.Second)
	refreshed("the debounce is over")

	b.change("v", "debounce = null, at_most_every = '5 minutes'")
	b.aside(`insert into public.base values (103, 1)`)
	l.next(4 * time.Minute)
	calm("at most every five minutes")
	l.next(time.Minute)
	refreshed("five minutes are over")

	l.next(30 * time.Minute)
	calm("not stale yet") // a refresh begins by the server's clock, which is behind the test's
	b.change("v", "max_staleness = '30 minutes'")
	refreshed("older than its maximum staleness")
	b.change("v", "max_staleness = '1 day', at_most_every = null")

	// One that fails still differs, and is called again after a minute and not every 10 seconds.
	l.next(time.Minute)
	b.aside(`insert into public.base values (104, 1)`)
	for _, minutes := range []time.Duration{1, 2, 4} {
		c := watch()
		if c == nil {
			t.Fatal("not called again")
		}
		e := b.end(*c, schedule.Ending{Status: schedule.Failed, ErrorName: "division_by_zero"})
		l.now = e.EndedAt.Add(minutes*time.Minute - time.Second)
		b.change("v", "last_attempted_at = last_attempted_at - interval '1 day'") // no other pause is in the way
		calm("it has just failed")
		l.next(time.Second)
	}
	refreshed("called again")
	l.next(time.Minute)
	calm("what had changed is in it")
}

// To look for changes takes longest of all in a look: it is done once, also where something has to be planned meanwhile.
func TestChangesAreLookedForOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, name := range []string{"a", "b"} {
		b.Exec(`create materialized view public.` + name + ` as select 1 as id`)
	}
	b.Exec(`create sequence public.looks`)
	b.Exec(`alter function mvsched.fingerprint(oid, oid[]) rename to fingerprint_itself`)
	b.Exec(`create function mvsched.fingerprint(view oid, besides oid[] default '{}') returns text language sql as
		$$select case when nextval('public.looks') > 0 then mvsched.fingerprint_itself(view, besides) end$$`)
	b.add("a", schedule.Settings{OnChange: ptr(true)})
	b.add("b", schedule.Settings{Cron: ptr("0 5 * * *")})
	look := func() {
		t.Helper()
		if _, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1, Look: true}); err != nil {
			t.Fatal(err)
		}
	}
	look() // takes in the catalog
	const refreshed = `insert into mvsched.materialized_view_refresh_schedule_execution
		(materialized_view_refresh_schedule_id, view_name, view_oid, trigger, status, method, started_at, ended_at, data_as_of, refreshed_at, fingerprint)
		select id, materialized_view_name, view_oid, 'manual', 'succeeded', 'plain', now(), now(), now(), now(), coalesce($1, mvsched.fingerprint(view_oid))
		  from mvsched.materialized_view_refresh_schedule where on_change`
	b.Exec(refreshed, nil)
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = null, last_attempted_at = now() - interval '1 hour'`)
	b.Exec(`alter sequence public.looks restart`)
	look()
	b.Check("1 true", `select last_value || ' ' || is_called from public.looks`)
	b.Check("true", `select next_run_at is not null from mvsched.materialized_view_refresh_schedule where cron is not null`)

	if !tellsChanges(b) {
		return
	}
	// And when that finds something, who looks again anyway hears of it before anything is planned.
	const planned = `select string_agg((next_run_at is not null)::text, ' ' order by on_change) from mvsched.materialized_view_refresh_schedule`
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = null`)
	b.Exec(refreshed, "another")
	outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1, Look: true, Again: true})
	if err != nil || outlook.Changed != 1 || outlook.Due != 1 || !outlook.Unplanned {
		t.Errorf("%+v, %v", outlook, err)
	}
	b.Check("false true", planned)
	if _, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 1, Again: true}); err != nil {
		t.Fatal(err)
	}
	b.Check("true true", planned)
}

// Many transactions have asked for a view, and the plan was made when there was no request, as mostly: they are
// found by the key of their schedule, and each is read once.
func TestManyRequestsAreAnsweredByTheirKeys(t *testing.T) {
	db := pgtest.NewDB(t)
	db.Exec(`create materialized view public.v as select 1 as id`)
	db.Schedule("public.v", "1 hour")
	db.Exec(`vacuum analyze mvsched.materialized_view_refresh_request`)
	session, err := db.Pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Release()
	answer := func(requests int) (entries int64) {
		t.Helper()
		db.Exec(`insert into mvsched.materialized_view_refresh_request (materialized_view_refresh_schedule_id, transaction)
			select s.id, n::text::xid8 from mvsched.materialized_view_refresh_schedule s, pg_catalog.generate_series(1, $1) n`, requests)
		err := session.QueryRow(t.Context(), `
			with answered as materialized (select mvsched.answer_requests(s.id) from mvsched.materialized_view_refresh_schedule s),
			     counted as materialized (select count(*) from answered)
			select pg_catalog.pg_stat_get_xact_tuples_returned('mvsched.materialized_view_refresh_request_pkey'::regclass) from counted`).Scan(&entries)
		if err != nil {
			t.Fatal(err)
		}
		db.Check("0", `select count(*) from mvsched.materialized_view_refresh_request`)
		return entries
	}
	answer(0)
	if entries := answer(2000); entries < 2000 || entries > 3000 {
		t.Errorf("%d index entries were read for 2000 requests", entries)
	}
}

// What somebody else notices may be too late for the round of who refreshes it.
func TestChangesAreLookedForInOwnQueues(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.view("v", "1 hour")
	b.set("v", schedule.Settings{OnChange: ptr(true), MaxStaleness: ptr(time.Second), Queue: ptr("heavy")})
	b.tend()
	b.succeed(b.claim(1)[0])
	b.tend()
	b.Exec(`update mvsched.materialized_view_refresh_schedule set last_attempted_at = now() - interval '1 day'`)
	b.Exec(`select pg_sleep(1)`)
	for _, queue := range []string{"default", "heavy"} {
		outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 10, Look: true, Queues: []string{queue}})
		if err != nil {
			t.Fatal(err)
		}
		if want := queue == "heavy"; outlook.Changed > 0 != want {
			t.Errorf("who serves %s notices %d", queue, outlook.Changed)
		}
	}
}

func TestALongLookForChangesPutsNoSlotOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.view("v", "1 hour")
	b.view("later", "1 hour")
	b.set("v", schedule.Settings{OnChange: ptr(true)})
	b.tend()
	for _, claim := range b.claimAll() {
		b.succeed(claim)
	}
	b.tend()
	b.Exec(`update mvsched.materialized_view_refresh_schedule set last_attempted_at = now() - interval '1 day'`)
	b.Exec(`alter function mvsched.fingerprint(oid, oid[]) rename to print_it`)
	b.Exec(`create function mvsched.fingerprint(view oid, besides oid[] default '{}') returns text language plpgsql as $$
		begin
			perform pg_sleep(1);
			return mvsched.print_it(view, besides);
		end $$`)
	const until = `select extract(epoch from next_run_at - clock_timestamp())::float8 from mvsched.materialized_view_refresh_schedule
		where materialized_view_name = 'public.later'`
	outlook, err := b.store.Tend(t.Context(), schedule.TendOptions{Limit: 10, Look: true})
	if err != nil {
		t.Fatal(err)
	}
	var left float64
	if err := b.Pool.QueryRow(t.Context(), until).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if len(outlook.Next) != 1 || outlook.Next[0].Seconds() > left+0.5 {
		t.Errorf("next in %v, and it is %v s", outlook.Next, left)
	}
}
