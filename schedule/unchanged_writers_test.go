package schedule_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// writer is a session of somebody else, which stays.
func (b *bundle) writer() *pgx.Conn {
	b.Helper()
	conn, err := pgx.ConnectConfig(b.Context(), b.Pool.Config().ConnConfig.Copy())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// seenBy is what is promised: how long after the writer's session goes idle its changes are seen.
const seenBy = 15 * time.Second

func (l *looks) fingerprint() string {
	l.Helper()
	return l.Value(`select mvsched.fingerprint('public.v'::regclass)`)
}

// A procedure that commits inside CALL, and goes on: the server keeps its counters back until the call is over.
func TestUnchangedBehindAWriterWithoutAPause(t *testing.T) {
	t.Parallel() // it waits for 10 seconds
	b := setup(t)
	if !tellsChanges(b) {
		return
	}
	l := setupLooks(b)
	b.change("v", "max_staleness = '90 minutes'")
	b.Exec(`create procedure public.write_on() language plpgsql as $$
		begin
			insert into public.base values (100, 1);
			commit;
			perform pg_catalog.pg_advisory_lock(1);
			insert into public.base values (101, 1);
			commit;
		end $$`)
	release := b.Hold(`select pg_catalog.pg_advisory_xact_lock(1)`)
	l.refreshed("the first time")
	before := l.fingerprint()

	writer := b.writer()
	done := make(chan error, 1)
	go func() {
		_, err := writer.Exec(t.Context(), `call public.write_on()`, pgx.QueryExecModeSimpleProtocol)
		done <- err
	}()
	b.Await("11", `select count(*) from public.base`)
	b.Check("true", `select not mvsched.nobody_else_here()`)

	l.next(time.Hour)
	l.undecided("somebody writes")
	if l.fingerprint() == before { // it is hidden, so this is what can be had
		l.next(16 * time.Second)
		l.skipped("it goes on")
		l.next(time.Hour)
	}
	l.refreshed("it goes on, and the maximum staleness is over")

	before = l.fingerprint()
	release()
	idle := time.Now()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	pgtest.WaitFor(t, t.Context(), "it is seen", func() bool { return l.fingerprint() != before })
	if took := time.Since(idle); took > seenBy {
		t.Errorf("seen after %v", took)
	}
	l.next(time.Hour)
	l.refreshed("changed")
}

// A session that wrote a moment ago, has written again and stays: the server keeps the second write back for 10 seconds.
func TestUnchangedAfterAWriteJustBefore(t *testing.T) {
	t.Parallel() // it waits for 10 seconds
	b := setup(t)
	if !tellsChanges(b) {
		return
	}
	l := setupLooks(b)
	b.change("v", "max_staleness = '1 day'")
	writer := b.writer()
	write := func(id int) {
		if _, err := writer.Exec(t.Context(), `insert into public.base values ($1, 1)`, id); err != nil {
			t.Fatal(err)
		}
	}
	write(100)
	l.refreshed("the first time")
	before := l.fingerprint()
	write(101)
	idle := time.Now()

	l.next(time.Hour)
	if c := l.look(); c != nil && c.Skipped != "" {
		t.Fatal("skipped at the first look")
	} else if c != nil { // this machine is slow
		l.refresh(*c)
	} else {
		pgtest.WaitFor(t, t.Context(), "it is seen", func() bool { return l.fingerprint() != before })
		if took := time.Since(idle); took > seenBy {
			t.Errorf("seen after %v", took)
		}
		l.next(16 * time.Second)
		l.refreshed("the second look")
	}
	b.Check("true", `select exists (select from public.base where id = 101)`)
}

// The server loses all counters in a crash. What was written before it, the write itself having come back from the
// log, is not taken for unchanged, even if the counters look as they did.
func TestUnchangedAcrossACrash(t *testing.T) {
	db := pgtest.NewServerDB(t, "synchronous_commit=on")
	b := &bundle{db, schedule.NewStore(db.Pool)}
	if !tellsChanges(b) {
		return
	}
	l := setupLooks(b)
	b.change("v", "max_staleness = '1 day'")

	// A backend that is killed takes the server down, as `pg_ctl stop -m immediate` would: all sessions end, and it
	// recovers from its log.
	crash := func() {
		t.Helper()
		witness := b.writer()
		if _, err := b.Pool.Exec(t.Context(), `copy (select 1) to program 'kill -9 $PPID'`); err == nil {
			t.Fatal("it lives")
		}
		pgtest.WaitFor(t, t.Context(), "the server is down", func() bool { return witness.Ping(t.Context()) != nil })
		b.Pool.Reset()
		pgtest.WaitFor(t, t.Context(), "the server is back", func() bool { return b.Pool.Ping(t.Context()) == nil })
	}
	crash()
	l.refreshed("the first time")
	l.next(time.Hour)
	l.skipped("nothing has changed")

	writer := b.writer()
	if _, err := writer.Exec(t.Context(), `insert into public.base values (100, 1)`); err != nil {
		t.Fatal(err)
	}
	crash()
	b.Check("11", `select count(*) from public.base`)
	b.Check("0", `select pg_catalog.pg_stat_get_tuples_inserted('public.base'::regclass)`)
	l.next(time.Hour)
	l.refreshed("written before the crash")
}
