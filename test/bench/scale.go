package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/throwaway"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// scaleFigures are what FIGURES=scale stands for: they take long, and are measured only when they are asked for.
const scaleFigures = "claim,claimers,graph,growth"

// sizes are how big the figures of scale are.
type sizes struct {
	schedules  int
	executions int
	held       int // claims while a transaction is open that began before them
	samples    int // claims that are timed
	claimers   int
	graph      int // views
	refreshes  int
	mixed      int // schedules
	mixedFor   time.Duration
	freshFor   time.Duration
}

func (s *sizes) register() {
	flag.IntVar(&s.schedules, "schedules", 1_000_000, "claim: how many schedules")
	flag.IntVar(&s.executions, "executions", 10_000_000, "claim: how many executions the history has")
	flag.IntVar(&s.held, "held", 200_000, "claim: how many claims while a transaction is open that began before them")
	flag.IntVar(&s.samples, "samples", 4000, "claim, growth: how many claims are timed")
	flag.IntVar(&s.claimers, "claimers", 2000, "claimers: how many at once, and of how many views")
	flag.IntVar(&s.graph, "graph", 2000, "graph: how many views")
	flag.IntVar(&s.refreshes, "refreshes", 200_000, "growth: how many refreshes")
	flag.IntVar(&s.mixed, "mixed", 1000, "mixed: how many schedules")
	flag.DurationVar(&s.mixedFor, "mixed-for", 10*time.Minute, "mixed: for how long, behind a minute that does not count")
	flag.DurationVar(&s.freshFor, "fresh-for", 10*time.Minute, "fresh: for how long, behind three minutes that do not count")
}

// quickly are sizes that show that it works.
func (s *sizes) quickly() {
	*s = sizes{schedules: 2000, executions: 5000, held: 400, samples: 100, claimers: 60, graph: 60, refreshes: 120, mixed: 30, mixedFor: 20 * time.Second, freshFor: 8 * time.Second}
}

// scale is a server of its own for one figure, since it is filled.
type scale struct {
	*bench
	server *throwaway.Server
	admin  *pgx.Conn
	views  int
	floor  schedule.Floor
}

// newScale starts a server with so many tiny views and nothing scheduled.
func (b *bench) newScale(ctx context.Context, views int, settings ...string) (_ *scale, err error) {
	s := &scale{bench: b, views: views}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.server, err = throwaway.Start(ctx, throwaway.Options{Fetch: true, Settings: append([]string{
		"fsync=on", "synchronous_commit=on", "full_page_writes=on", "shared_buffers=512MB", "max_wal_size=16GB",
		"checkpoint_timeout=1h", "max_connections=120", "jit=on", "client_min_messages=error",
	}, settings...)})
	if err != nil {
		return nil, err
	}
	if s.admin, err = pgx.Connect(ctx, s.server.DSN("postgres")); err != nil {
		return nil, err
	}
	if _, err := schedule.Install(ctx, s.admin); err != nil {
		return nil, err
	}
	return s, s.exec(ctx, fmt.Sprintf(`do $$ begin
		for i in 1..%d loop
			execute pg_catalog.format('create materialized view public.v%%s as select 1 as id', i);
			execute pg_catalog.format('create unique index on public.v%%s (id)', i);
			commit;
		end loop; end $$`, views))
}

func (s *scale) close() error {
	if s.admin != nil {
		_ = s.admin.Close(context.Background())
	}
	if s.server != nil {
		return s.server.Stop()
	}
	return nil
}

func (s *scale) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := s.admin.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%w, with: %.200s", err, sql)
		}
	}
	return nil
}

// schedule makes schedules, of which the first so many are due, in order. Several are of one view where there are more than
// views: a scheduler cannot tell, as long as no two of them run at once.
func (s *scale) schedule(ctx context.Context, schedules, due int) error {
	return s.exec(ctx, `insert into mvsched.queue values ('default') on conflict do nothing`, `alter table mvsched.materialized_view_refresh_schedule disable trigger user`, fmt.Sprintf(`
		insert into mvsched.materialized_view_refresh_schedule
		       (materialized_view_name, refresh_interval, next_run_at, database_identity, view_oid)
		select case when g <= %[1]d then 'public.v' || g else 'public.s' || g end, '30 days',
		       now() + case when g <= %[3]d then make_interval(secs => g * 1e-3) - interval '1 hour' else make_interval(secs => 864000 + g %% 864000) end,
		       mvsched.database_identity(), v.oid
		  from generate_series(1, %[2]d) g
		  join (select c.oid, substr(c.relname, 2)::integer as n from pg_catalog.pg_class c where c.relkind = 'm') v on v.n = (g - 1) %% %[1]d + 1
		 order by g`, s.views, schedules, due),
		`alter table mvsched.materialized_view_refresh_schedule enable trigger user`)
}

// history makes executions that have ended, as if the schedules had been served in turn.
func (s *scale) history(ctx context.Context, schedules, executions int) error {
	return s.exec(ctx, `alter table mvsched.materialized_view_refresh_schedule_execution disable trigger user`, fmt.Sprintf(`
		insert into mvsched.materialized_view_refresh_schedule_execution
		       (materialized_view_refresh_schedule_id, view_name, view_oid, status, method, scheduled_at, started_at, ended_at, data_as_of,
		        refreshed_at, rows_inserted, rows_deleted, rows_kept, worker)
		select s.id, s.materialized_view_name, s.view_oid, 'succeeded', 'concurrently', at, at, at + interval '1 second', at, at, g %% 2, 0, 100, 'bench:1'
		  from generate_series(1, %d) g
		  join mvsched.materialized_view_refresh_schedule s on s.id = 1 + g %% %d
		 cross join lateral (select now() - interval '20 days' + make_interval(secs => g * 1e-1) as at) t`, executions, schedules),
		`alter table mvsched.materialized_view_refresh_schedule_execution enable trigger user`)
}

// open opens connections of the kind that a worker has.
func (s *scale) open(ctx context.Context, n int, more string) (conns []*pgx.Conn, err error) {
	config, err := pgxpool.ParseConfig(s.server.DSN("postgres") + more)
	if err != nil {
		return nil, err
	}
	refresh.ConfigurePool(config, 1)
	for range n {
		conn, err := pgx.ConnectConfig(ctx, config.ConnConfig.Copy())
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

func closeAll(conns []*pgx.Conn) {
	for _, conn := range conns {
		_ = conn.Close(context.Background()) // it has done what it was for
	}
}

// each runs fn on all connections at once.
func each(conns []*pgx.Conn, fn func(i int, conn *pgx.Conn) error) error {
	errs := make(chan error)
	for i, conn := range conns {
		go func() { errs <- fn(i, conn) }()
	}
	var all error
	for range conns {
		all = errors.Join(all, <-errs)
	}
	return all
}

// logAll has a session's statements logged with what they take, or a database's (from the next connection on).
const (
	logAll       = `set log_min_duration_statement = 0`
	logAllOfBase = `alter database postgres set log_min_duration_statement = 0`
)

// claimTimes returns what reads the times, in milliseconds, of the claims that are logged from now on. They are the
// server's own: neither the way to it nor our processor time is in them.
func (s *scale) claimTimes() (func() ([]float64, error), error) {
	before, err := os.Stat(s.server.LogFile())
	if err != nil {
		return nil, err
	}
	return func() ([]float64, error) {
		text, err := os.ReadFile(s.server.LogFile())
		if err != nil {
			return nil, err
		}
		return loggedClaims(string(text[before.Size():]))
	}, nil
}

var executed = regexp.MustCompile(`^([0-9.]+) ms  execute [^:]*:`)

// loggedClaims are the times in a server log that claims took to be executed.
func loggedClaims(log string) (times []float64, err error) {
	for entry := range strings.SplitSeq(log, "duration: ") {
		entry, _, _ = strings.Cut(entry, "LOG: ")
		if match := executed.FindStringSubmatch(entry); match != nil && strings.Contains(entry, "mvsched.claim(") {
			ms, err := strconv.ParseFloat(match[1], 64)
			if err != nil {
				return nil, err
			}
			times = append(times, ms)
		}
	}
	if len(times) == 0 {
		return nil, errors.New("the server's log has no claim")
	}
	return times, nil
}

// timedClaims has workers claim one view each, now and then, so many altogether and a second, and returns what the server
// needed for each. What is claimed ends at once, as cancelled.
func (s *scale) timedClaims(ctx context.Context, workers, samples, perSecond int) ([]float64, error) {
	times, err := s.claimTimes()
	if err != nil {
		return nil, err
	}
	conns, err := s.open(ctx, workers, "")
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	for _, conn := range conns { // a session's first claim makes plans and fills caches
		if _, err := s.claimAndEnd(ctx, conn, 1); err != nil {
			return nil, err
		}
		if _, err := conn.Exec(ctx, logAll); err != nil {
			return nil, err
		}
	}
	gap := time.Second * time.Duration(workers) / time.Duration(perSecond)
	err = each(conns, func(i int, conn *pgx.Conn) error {
		if err := pause(ctx, gap*time.Duration(i)/time.Duration(workers)); err != nil {
			return err
		}
		tick := time.NewTicker(gap)
		defer tick.Stop()
		for range max(1, samples/workers) {
			if _, err := s.claimAndEnd(ctx, conn, 1); err != nil {
				return err
			}
			<-tick.C
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return times()
}

// claimAndEnd claims up to so many views, ends their executions, and settles them.
func (s *scale) claimAndEnd(ctx context.Context, conn *pgx.Conn, limit int) (int, error) {
	since := s.floor.Begin(schedule.ClaimMayPass)
	claims, err := schedule.NewStore(conn).Claim(ctx, schedule.ClaimOptions{Worker: "bench", Limit: limit, Settled: true, Since: since})
	if err != nil || len(claims) == 0 {
		return 0, err
	}
	s.floor.Seen(since, claims[0].FirstDue, claims[0].Passed)
	var ids []int64
	for _, c := range claims {
		ids = append(ids, c.ExecutionID)
	}
	var batch pgx.Batch
	batch.Queue(`begin`)
	batch.Queue(`update mvsched.materialized_view_refresh_schedule_execution e set status = 'cancelled', reason = 'requested', ended_at = clock_timestamp()
		where e.id = any ($1)`, ids)
	batch.Queue(`commit`)
	for _, c := range claims {
		before, settle, after := schedule.SettleStatements(*c.ScheduleID)
		for _, sql := range slices.Concat(before, []string{settle, after}) {
			batch.Queue(sql)
		}
	}
	return len(claims), conn.SendBatch(ctx, &batch).Close()
}

// hold opens a transaction with a snapshot, which keeps everything that dies from now on.
func (s *scale) hold(ctx context.Context) (release func(), err error) {
	conns, err := s.open(ctx, 1, "")
	if err != nil {
		return nil, err
	}
	for _, sql := range []string{`begin isolation level repeatable read`, `select pg_catalog.pg_current_xact_id()`} {
		if _, err := conns[0].Exec(ctx, sql); err != nil {
			closeAll(conns)
			return nil, err
		}
	}
	return func() { closeAll(conns) }, nil
}

// milliseconds says the middle and the worst of times.
func milliseconds(times []float64, percent float64) string {
	return fmt.Sprintf("%.2f ms", percentile(times, percent))
}
