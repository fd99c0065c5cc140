package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// follow takes one snapshot that follows before, and one that follows nothing, and compares them with each other, with the
// status, the history and the graph.
func (b *bundle) follow(what string, before *schedule.Snapshot) *schedule.Snapshot {
	b.Helper()
	following, err := b.store.Snapshot(b.Context(), before)
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
	fresh, err := b.store.Snapshot(b.Context(), nil)
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
	standings, err := b.store.Status(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	history, err := b.store.History(b.Context(), schedule.HistoryFilter{Limit: schedule.RecentLimit})
	if err != nil {
		b.Fatal(err)
	}
	graph, err := b.store.Graph(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, got := range []schedule.Snapshot{following, fresh} {
		if g, w := timeless(got.Standings), timeless(standings); !reflect.DeepEqual(g, w) {
			b.Errorf("%s: standings\n%+v, want\n%+v", what, g, w)
		}
		if !reflect.DeepEqual(got.Recent, history) && len(got.Recent)+len(history) > 0 {
			b.Errorf("%s: recent\n%v, want\n%v", what, got.Recent, history)
		}
		if !reflect.DeepEqual(got.Graph, graph) {
			b.Errorf("%s: graph\n%v, want\n%v", what, got.Graph, graph)
		}
		if !reflect.DeepEqual(got.Runs, fresh.Runs) {
			b.Errorf("%s: runs\n%v, want\n%v", what, got.Runs, fresh.Runs)
		}
	}
	return &following
}

// After the server's clock was set back nothing is younger than now.
func TestClockSetBack(t *testing.T) {
	b := setup(t)
	b.view("a", "1 hour")
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		       (view_name, view_oid, status, method, started_at, ended_at, data_as_of)
		select 'public.a', 'public.a'::regclass, e.status, e.method, clock.now, e.ended_at, e.data_as_of
		  from (select now() + interval '1 hour' as now) clock,
		       lateral (values ('succeeded', 'plain', clock.now, clock.now), ('running', null, null, null)) e (status, method, ended_at, data_as_of)`)
	activity, err := b.store.Activity(t.Context())
	if err != nil || activity.OldestRunning == nil || *activity.OldestRunning != 0 {
		t.Errorf("the oldest: %v, %v", activity.OldestRunning, err)
	}
	snapshot := b.follow("set back", nil)
	if s := snapshot.Standings[0]; s.Age == nil || *s.Age != 0 || s.RunningFor == nil || *s.RunningFor != 0 {
		t.Errorf("age %v, running for %v", s.Age, s.RunningFor)
	}
}

// timeless leaves out what depends on the instant.
func timeless(standings []schedule.Standing) []schedule.Standing {
	standings = slices.Clone(standings)
	for i := range standings {
		standings[i].Age, standings[i].NextRunIn, standings[i].RunningFor = nil, nil, nil
	}
	return standings
}

func TestSnapshot(t *testing.T) {
	t.Run("follows_what_happens_as_if_it_read_everything_anew", func(t *testing.T) {
		b := setup(t)
		snap := b.follow("nothing is scheduled", nil)
		b.view("a", "1 hour")
		b.view("b", "1 hour")
		b.view("c", "")
		b.Exec(`create materialized view public.d as select * from public.a`)
		snap = b.follow("views", snap)
		b.tend()
		claims := b.claim(2)
		snap = b.follow("two run", snap)
		if len(snap.Runs) != 2 || snap.Runs[0].Status != schedule.Running {
			t.Errorf("runs %+v", snap.Runs)
		}
		b.succeed(claims[0])
		snap = b.follow("one has ended", snap)
		snap = b.follow("nothing has happened", snap)
		b.end(claims[1], schedule.Ending{Status: schedule.Failed, ErrorName: "raise_exception", ErrorMessage: strings.Repeat("x", 2000)})
		snap = b.follow("the other one too", snap)
		if len(*snap.Recent[0].ErrorMessage) != 2000 && len(*snap.Recent[1].ErrorMessage) != 2000 {
			t.Error("the message is cut")
		}
		b.Exec(`alter materialized view public.a rename to "A|a"`)
		snap = b.follow("renamed", snap)
		b.Exec(`alter schema public rename to other`)
		b.Exec(`create schema public`)
		snap = b.follow("its schema is renamed", snap)
		b.Exec(`drop materialized view other.d`)
		snap = b.follow("dropped", snap)
		b.Exec(`set local session_replication_role = replica;
			insert into mvsched.materialized_view_refresh_schedule_execution (view_name, status, reason, started_at, ended_at)
			select 'other.b', 'skipped', 'unchanged', now() - g * interval '1 hour', now() - g * interval '1 hour'
			  from generate_series(100, 5, -1) g`, pgx.QueryExecModeSimpleProtocol)
		fresh := b.follow("a history that nobody has seen", nil)
		if within := len(fresh.Runs); within != 2+19 {
			t.Errorf("%d runs within a day", within)
		}
		b.Exec(`delete from mvsched.materialized_view_refresh_schedule_execution where status = 'skipped'`)
		b.claim(1)
		snap = b.follow("trimmed", snap)
		b.Exec(`delete from mvsched.materialized_view_refresh_schedule_execution where status = 'running'`)
		b.follow("an open one is gone", snap)
	})

	t.Run("sees_what_was_committed_after_a_look_although_it_had_ended_before", func(t *testing.T) {
		b := setup(t)
		tx, err := b.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if _, err := tx.Exec(t.Context(), `insert into mvsched.materialized_view_refresh_schedule_execution
			(view_name, status, reason, started_at, ended_at) values ('public.a', 'skipped', 'unchanged', clock_timestamp(), clock_timestamp())`); err != nil {
			t.Fatal(err)
		}
		snap := b.follow("not committed", nil)
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if snap = b.follow("committed", snap); len(snap.Runs) != 1 {
			t.Errorf("runs %v", snap.Runs)
		}
	})

	t.Run("is_one_statement_and_reads_a_run_once", func(t *testing.T) {
		b := setup(t)
		b.view("a", "1 hour")
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (view_name, status, reason, started_at, ended_at)
			select 'public.a', 'skipped', 'unchanged', now() - interval '1 hour', now() - interval '1 hour' from generate_series(1, 500) g`)
		counter := &statements{}
		config := b.Pool.Config()
		config.ConnConfig.Tracer = counter
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		store := schedule.NewStore(pool)
		first, err := store.Snapshot(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Snapshot(t.Context(), &first); err != nil {
			t.Fatal(err)
		}
		if got := counter.seen.Load(); got != 2 {
			t.Errorf("%d statements for two looks", got)
		}
		if got := counter.rows.Load(); got != 1+1+500+1+1+1 {
			t.Errorf("%d rows: the second look has read again what the first had", got)
		}
	})

	t.Run("keeps_to_the_newest_of_very_many", func(t *testing.T) {
		b := setup(t)
		b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (view_name, status, reason, error_name, error_message, started_at, ended_at)
			select 'public.a', 'failed', null, 'raise_exception', repeat('x', 1000), now() - interval '1 hour', now() - interval '1 hour'
			  from generate_series(1, 20100) g`)
		snap, err := b.store.Snapshot(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if n := len(snap.Runs); n != 20_000 || snap.Runs[n-1].ID != snap.Recent[0].ID {
				t.Errorf("%d runs, the last one %d", n, snap.Runs[n-1].ID)
			}
			b.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution (view_name, status, reason, started_at, ended_at)
				select 'public.a', 'skipped', 'unchanged', now(), now() from generate_series(1, 100) g`)
			if snap, err = b.store.Snapshot(t.Context(), &snap); err != nil {
				t.Fatal(err)
			}
		}
		if e := snap.Runs[0].ErrorMessage; len(*e) > 310 {
			t.Errorf("keeps %d bytes of a message", len(*e))
		}
	})

	t.Run("tells_what_is_not_installed", func(t *testing.T) {
		b := setup(t)
		b.Exec(`update mvsched.schema_version set version = 1000`)
		var version *schedule.SchemaVersionError
		if _, err := b.store.Snapshot(t.Context(), nil); !errors.As(err, &version) || version.Installed != 1000 {
			t.Errorf("another version: %v", err)
		}
		b.Exec(`drop schema mvsched cascade`)
		if _, err := b.store.Snapshot(t.Context(), nil); !errors.Is(err, schedule.ErrNoSchema) {
			t.Errorf("no schema: %v", err)
		}
	})

	t.Run("reads_all_anew_from_a_server_that_is_behind", func(t *testing.T) {
		b := setup(t)
		snap := b.follow("nothing", nil)
		snap.At = snap.At.Add(time.Hour)
		b.view("a", "1 hour")
		b.tend()
		b.succeed(b.claim(1)[0])
		if after := b.follow("behind", snap); len(after.Runs) != 1 {
			t.Errorf("runs %v", after.Runs)
		}
	})
}

// statements counts statements and the rows that they return.
type statements struct{ seen, rows atomic.Int64 }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.seen.Add(1)
	return ctx
}

func (s *statements) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	s.rows.Add(data.CommandTag.RowsAffected())
}

// A first look at 2,000 views, the next one, and the status; with all slots ahead, and with every other view due, most of which
// wait for what they read.
func BenchmarkSnapshot(b *testing.B) {
	for _, due := range []int{0, 1000} {
		pool := pgtest.New(b)
		store := schedule.NewStore(pool)
		if due > 0 {
			_, err := pool.Exec(b.Context(), `drop table public.o cascade; truncate mvsched.materialized_view_refresh_schedule_execution, mvsched.materialized_view_refresh_schedule`, pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				b.Fatal(err)
			}
		}
		for _, sql := range []string{
			`create table public.o (id int)`,
			`do $$ begin
			   for i in 1..2000 loop
			     execute format('create materialized view public.o%s as select id from public.o%s', i, nullif(greatest(i - 400, 0), 0));
			   end loop;
			 end $$`,
			`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
			 select c.oid::regclass, '1 hour', now() from pg_catalog.pg_class c where c.relkind = 'm'`,
			`insert into mvsched.materialized_view_refresh_schedule_execution
			        (materialized_view_refresh_schedule_id, view_name, view_oid, status, method, data_as_of, started_at, ended_at)
			 select s.id, s.materialized_view_name, s.view_oid, 'succeeded', 'plain', at, at, at
			   from generate_series(now() - interval '30 hours', now() - interval '1 minute', '30 minutes') at,
			        mvsched.materialized_view_refresh_schedule s`,
			`vacuum analyze`,
		} {
			if _, err := pool.Exec(b.Context(), sql); err != nil {
				b.Fatal(sql, err)
			}
		}
		if _, err := store.Tend(b.Context(), schedule.TendOptions{Limit: 1}); err != nil {
			b.Fatal(err)
		}
		_, err := pool.Exec(b.Context(), `update mvsched.materialized_view_refresh_schedule
			set next_run_at = now() + case when id % 2000 < $1 and id % 2 = 0 then interval '-1 second' else '1 hour' end`, 2*due)
		if err == nil {
			_, err = pool.Exec(b.Context(), `vacuum analyze`)
		}
		if err != nil {
			b.Fatal(err)
		}
		before, err := store.Snapshot(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		for name, look := range map[string]func() error{
			"first":  func() error { _, err := store.Snapshot(b.Context(), nil); return err },
			"next":   func() error { _, err := store.Snapshot(b.Context(), &before); return err },
			"status": func() error { _, err := store.Status(b.Context(), nil); return err },
		} {
			b.Run(fmt.Sprintf("due=%d/%s", due, name), func(b *testing.B) {
				for b.Loop() {
					if err := look(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
