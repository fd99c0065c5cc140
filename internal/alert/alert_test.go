package alert_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/alert"
	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// receiver takes alerts, and answers as its test wants.
type receiver struct {
	url    string
	answer atomic.Int64 // the status of the next answers

	mu    sync.Mutex
	asked []string // "before>state" of each request
	ids   []string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.answer.Store(http.StatusOK)
	r.url = server(t, func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		var m map[string]any
		if err := json.Unmarshal(body, &m); err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.asked = append(r.asked, m["previous_state"].(string)+">"+m["state"].(string))
		r.ids = append(r.ids, m["id"].(string))
		r.mu.Unlock()
		w.WriteHeader(int(r.answer.Load()))
	}).URL
	return r
}

func (r *receiver) got() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.asked, ", ")
}

func (r *receiver) distinct() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := map[string]bool{}
	for _, id := range r.ids {
		ids[id] = true
	}
	return len(ids)
}

func (r *receiver) awaits(t *testing.T, want string) {
	t.Helper()
	pgtest.WaitFor(t, t.Context(), "it got "+want, func() bool { return r.got() == want })
}

// run has an alerter run until it is stopped.
func run(t *testing.T, db *pgtest.DB, url string, log io.Writer) (a *alert.Alerter, stop func()) {
	t.Helper()
	a, tellToStop := begin(t, db, url, log)
	return a, func() { <-tellToStop() }
}

// begin has an alerter run until it is told to stop, which is done when the channel is closed.
func begin(t *testing.T, db *pgtest.DB, url string, log io.Writer) (a *alert.Alerter, stop func() (stopped <-chan struct{})) {
	t.Helper()
	hook, err := alert.NewHook(url+secretPath, alert.JSON, nil)
	if err != nil {
		t.Fatal(err)
	}
	a = &alert.Alerter{
		Store: schedule.NewStore(db.Pool), Log: slog.New(slog.NewTextHandler(log, nil)), Hooks: []*alert.Hook{hook}, Interval: 50 * time.Millisecond,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() <-chan struct{} {
		cancel()
		return done
	}
	t.Cleanup(func() { <-stop() })
	return a, stop
}

// setup is a database with one view that is well.
func setup(t *testing.T) *pgtest.DB {
	t.Helper()
	db := pgtest.NewDB(t)
	prepare(db)
	return db
}

func prepare(db *pgtest.DB) {
	db.Helper()
	db.Exec(`create materialized view public.v as select 1 as id`)
	db.Schedule("public.v", "1 hour")
	db.Exec(`insert into mvsched.materialized_view_refresh_schedule_execution
		(materialized_view_refresh_schedule_id, view_name, view_oid, status, trigger, scheduled_at, attempt, started_at, ended_at, data_as_of, refreshed_at, method)
		select id, materialized_view_name, view_oid, 'succeeded', 'schedule', now(), 1, now(), now(), now(), now(), 'plain'
		  from mvsched.materialized_view_refresh_schedule`)
	suspend(db, false)
	db.Check("fresh", `select state from mvsched.status`)
}

func suspend(db *pgtest.DB, is bool) {
	db.Helper()
	db.Exec(`update mvsched.materialized_view_refresh_schedule
		set suspended_at = case when $1 then now() end, next_run_at = now() + interval '1 hour'`, is)
}

const pending = `select count(*) from mvsched.alert where next_attempt_at is not null`

func TestAlerter(t *testing.T) {
	t.Run("one_of_several_tells_each_change_once", func(t *testing.T) {
		db, r := setup(t), newReceiver(t)
		for range 3 {
			run(t, db, r.url, io.Discard)
		}
		suspend(db, true)
		r.awaits(t, "fresh>suspended")
		db.Await("0", pending)
		suspend(db, false)
		r.awaits(t, "fresh>suspended, suspended>fresh")
		db.Await("0", `select count(*) from mvsched.alert`)
		suspend(db, true)
		r.awaits(t, "fresh>suspended, suspended>fresh, fresh>suspended")
	})

	t.Run("what_was_lost_is_tried_again_by_another_process", func(t *testing.T) {
		db, r := setup(t), newReceiver(t)
		r.answer.Store(http.StatusBadGateway)
		log := &pgtest.Buffer{}
		_, stop := run(t, db, r.url, log)
		suspend(db, true)
		db.Await("the answer was 502 Bad Gateway", `select last_error from mvsched.alert`)
		db.Check("true", `select next_attempt_at - clock_timestamp() between '5 s' and '15 s' from mvsched.alert`)
		pgtest.WaitFor(t, t.Context(), "it says so", func() bool { return strings.Contains(log.String(), "alerts do not get through") })
		looked := db.Value(`select looked_at from mvsched.alert_target`)
		db.Await("true", `select looked_at > $1::timestamptz from mvsched.alert_target`, looked)
		stop()
		if strings.Contains(log.String(), "get through again") {
			t.Errorf("it says that what waits gets through: %s", log.String())
		}
		r.answer.Store(http.StatusNoContent)
		db.Exec(`update mvsched.alert set next_attempt_at = now()`)
		run(t, db, r.url, log)
		r.awaits(t, "fresh>suspended, fresh>suspended")
		db.Await("0", pending)
		if r.distinct() != 1 {
			t.Errorf("%d alerts", r.distinct())
		}
		if text := log.String(); strings.Contains(text, "s3cr3t") {
			t.Error(text)
		}
		db.Check("0", `select count(*) from mvsched.alert a, mvsched.alert_target t where concat(a, t) like '%s3cr3t%'`)
	})

	t.Run("what_one_receiver_refuses_holds_up_no_other_alert", func(t *testing.T) {
		db := setup(t)
		db.Exec(`create materialized view public.w as select 1 as id`)
		db.Schedule("public.w", "1 hour")
		told := make(chan string, 100)
		s := server(t, func(w http.ResponseWriter, request *http.Request) {
			body, _ := io.ReadAll(request.Body)
			if strings.Contains(string(body), "public.v") {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			told <- string(body)
		})
		suspend(db, true)
		run(t, db, s.URL, io.Discard)
		if !strings.Contains(receive(t, told), "public.w") {
			t.Error("another one was told")
		}
	})

	t.Run("a_refresh_that_ends_badly_wakes_it", func(t *testing.T) {
		db, r := setup(t), newReceiver(t)
		a, _ := run(t, db, r.url, io.Discard)
		db.Await("1", `select count(*) from mvsched.alert_target`)
		suspend(db, true)
		a.Ended(schedule.Execution{View: "public.v", Status: schedule.Failed})
		r.awaits(t, "fresh>suspended")
	})

	t.Run("it_stops_while_a_receiver_hangs", func(t *testing.T) {
		db := setup(t)
		entered := make(chan string, 1)
		s := server(t, func(_ http.ResponseWriter, request *http.Request) {
			_, _ = io.Copy(io.Discard, request.Body)
			entered <- "request"
			<-request.Context().Done()
		})
		_, stop := run(t, db, s.URL, io.Discard)
		suspend(db, true)
		receive(t, entered)
		stop()
		db.Check("1", pending) // another one's, when the lease is over
		db.Check("null", `select last_error from mvsched.alert`)
	})

	t.Run("it_stops_while_it_claims_and_gives_back_what_it_claimed", func(t *testing.T) {
		db, r := setup(t), newReceiver(t)
		for _, sql := range []string{
			`create function public.wait() returns trigger language plpgsql as $$
			 begin perform pg_catalog.pg_advisory_xact_lock(1); return new; end $$`,
			`create trigger wait before update of attempts on mvsched.alert
			 for each row when (new.attempts = 1) execute function public.wait()`,
		} {
			db.Exec(sql)
		}
		release := db.Hold(`select pg_catalog.pg_advisory_xact_lock(1)`)
		_, stop := begin(t, db, r.url, io.Discard)
		suspend(db, true)
		db.Await("1", `select count(*) from pg_catalog.pg_locks where locktype = 'advisory' and not granted
			and database = (select oid from pg_catalog.pg_database where datname = current_database())`)
		stopped := stop()
		release()
		<-stopped
		db.Check("1 t", `select concat_ws(' ', attempts, next_attempt_at <= clock_timestamp()) from mvsched.alert`)
		if got := r.got(); got != "" {
			t.Errorf("it was told: %s", got)
		}
		run(t, db, r.url, io.Discard)
		r.awaits(t, "fresh>suspended")
	})

	t.Run("it_survives_a_restart_of_the_database", func(t *testing.T) {
		db, r := pgtest.NewServerDB(t), newReceiver(t)
		prepare(db)
		r.answer.Store(http.StatusServiceUnavailable)
		run(t, db, r.url, io.Discard)
		suspend(db, true)
		r.awaits(t, "fresh>suspended")
		db.Await("1", `select count(*) from mvsched.alert where last_error is not null`)
		if err := db.Server.Restart(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		r.answer.Store(http.StatusOK)
		pgtest.WaitFor(t, t.Context(), "the database is back", func() bool {
			_, err := db.Pool.Exec(t.Context(), `update mvsched.alert set next_attempt_at = now()`)
			return err == nil
		})
		r.awaits(t, "fresh>suspended, fresh>suspended")
		if r.distinct() != 1 {
			t.Errorf("%d alerts", r.distinct())
		}
		db.Await("0", pending)
	})

	t.Run("it_survives_a_schema_that_is_installed_anew", func(t *testing.T) {
		db, r := setup(t), newReceiver(t)
		log := &pgtest.Buffer{}
		run(t, db, r.url, log)
		db.Await("1", `select count(*) from mvsched.alert_target`)
		db.Exec(`delete from mvsched.alert_target`)
		db.Await("1", `select count(*) from mvsched.alert_target`)
		db.Exec(`alter table mvsched.alert rename to gone`)
		pgtest.WaitFor(t, t.Context(), "it says that it cannot look", func() bool { return strings.Contains(log.String(), "do not get through") })
		db.Exec(`alter table mvsched.gone rename to alert`)
		suspend(db, true)
		r.awaits(t, "fresh>suspended")
		pgtest.WaitFor(t, t.Context(), "it says that it can", func() bool { return strings.Contains(log.String(), "get through again") })
	})
}

func receive(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case text := <-from:
		return text
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain")
		return ""
	}
}

func TestPinger(t *testing.T) {
	db := setup(t)
	paths := make(chan string)
	s := server(t, func(_ http.ResponseWriter, request *http.Request) {
		select {
		case paths <- request.Method + " " + request.URL.RequestURI():
		case <-request.Context().Done():
		}
	})
	log := &pgtest.Buffer{}
	pinger, err := alert.NewPinger(s.URL+"/ping?rid=1", schedule.NewStore(db.Pool), slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		pinger.Run(ctx, time.Millisecond)
	}()
	awaits := func(want string) {
		t.Helper()
		pgtest.WaitFor(t, t.Context(), want, func() bool { return receive(t, paths) == want })
	}
	awaits("GET /ping?rid=1")
	suspend(db, true)
	awaits("GET /ping/fail?rid=1")
	suspend(db, false)
	awaits("GET /ping?rid=1")
	stop()
	<-done
}

// A bug ends what tells, with its stack, and not the refreshes of the process.
func TestABugIsTold(t *testing.T) {
	hook, err := alert.NewHook("http://127.0.0.1:1/", alert.JSON, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &alert.Alerter{Log: slog.New(slog.DiscardHandler), Hooks: []*alert.Hook{hook}, Interval: time.Minute} // without a store
	if err := a.Run(t.Context()); !errors.Is(err, schedule.ErrBug) || !strings.Contains(err.Error(), "alert.go:") {
		t.Errorf("%v", err)
	}
}
