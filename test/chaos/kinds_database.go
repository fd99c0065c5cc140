package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// The faults of the planner, which have a theme of their own too.
const statisticsFault, plansFault = "statistics of mvsched's tables lost or absurd", "planner told off indexes or joins, 1 to 5 s"

// databaseFaults are what other people's sessions do.
func databaseFaults() []*kind {
	return []*kind{
		{name: "view locked, 0.1 to 7 s", weight: 3, phases: unasked, strike: lockView},
		{name: "schedule row held, 0.1 to 3 s", weight: 3, phases: unasked, strike: holdSchedule},
		{name: "execution row held, 0.1 to 3 s", weight: 3, phases: unasked, strike: holdExecution},
		{name: "view dropped and created again", weight: 3, phases: unasked, strike: onItsView(recreateView)},
		{name: "unique index dropped and created again", weight: 3, phases: unasked, strike: onItsView(recreateIndex)},
		{name: "view renamed, and back", weight: 3, phases: unasked, strike: onItsView(renameView)},
		{name: "view given to another owner, and back", weight: 2, phases: unasked, strike: onItsView(changeOwner)},
		{name: "refresh by hand in psql", weight: 4, phases: unasked, strike: refreshByHand},
		{name: "schedule deleted and inserted again", weight: 2, phases: unasked, strike: onItsView(rescheduleView)},
		{name: statisticsFault, weight: 2, phases: unasked, strike: spoilStatistics},
		{name: plansFault, weight: 2, phases: unasked, strike: spoilPlans},
		{name: "connections exhausted, 0.5 to 2 s", weight: 1, phases: unasked, strike: exhaust},
		{name: "role may not log in, 0.5 to 2 s", weight: 1, phases: unasked, strike: noLogin},
	}
}

// session is a connection of somebody else.
func (e *episode) session(ctx context.Context, user string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(e.server.DSN(e.database))
	if err != nil {
		return nil, err
	}
	config.User = user
	config.RuntimeParams["application_name"] = "psql"
	config.RuntimeParams["lock_timeout"] = "2s"
	return pgx.ConnectConfig(ctx, config)
}

// inSession runs statements in one transaction, which stays open for a while.
func (f *fault) inSession(open time.Duration, statements ...string) error {
	e := f.episode
	e.serverLock.RLock()
	defer e.serverLock.RUnlock()
	ctx, cancel := context.WithTimeout(e.ctx, 15*time.Second)
	defer cancel()
	conn, err := e.session(ctx, "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err = conn.Exec(ctx, `begin`); err != nil {
		return err
	}
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if open > 0 {
		e.pause(open)
	}
	_, err = conn.Exec(ctx, `commit`)
	return err
}

// onItsView makes a fault the only one of its kind at its view: who takes it away brings it back.
func onItsView(strike func(*fault, *link, []byte) (bool, error)) func(*fault, *link, []byte) (bool, error) {
	return func(f *fault, l *link, held []byte) (bool, error) {
		lock, _ := f.episode.viewLocks.LoadOrStore(f.view().name, &sync.Mutex{})
		if !lock.(*sync.Mutex).TryLock() {
			return false, errors.New("another fault is at this view")
		}
		defer lock.(*sync.Mutex).Unlock()
		return strike(f, l, held)
	}
}

// view is the view that the fault is for.
func (f *fault) view() view { return f.episode.views[f.victim%len(f.episode.views)] }

// lockView holds a lock that a refresh conflicts with. LOCK TABLE takes no materialized view; these do.
func lockView(f *fault, _ *link, _ []byte) (bool, error) {
	v := f.view()
	statements := []string{
		`alter table chaos.%s set (fillfactor = 90)`,         // access exclusive
		`comment on ` + v.relation() + ` chaos.%s is 'held'`, // share update exclusive
		`analyze chaos.%s`,     // the same
		`select from chaos.%s`, // access share, which only a plain refresh minds
	}
	if v.kind != "" {
		statements = append(statements, `lock table chaos.%s in share mode`, `select from chaos.%s where id % 3 = 0 for update`)
	}
	return false, f.inSession(f.between(100*time.Millisecond, 7*time.Second),
		strings.ReplaceAll(statements[f.victim/7%len(statements)], "%s", v.name))
}

func holdSchedule(f *fault, _ *link, _ []byte) (bool, error) {
	return false, f.inSession(f.between(100*time.Millisecond, 3*time.Second), fmt.Sprintf(
		`select from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'chaos.%s' for update`, f.view().name))
}

func holdExecution(f *fault, _ *link, _ []byte) (bool, error) {
	return false, f.inSession(f.between(100*time.Millisecond, 3*time.Second), fmt.Sprintf(
		`select from mvsched.materialized_view_refresh_schedule_execution
		  where view_name = 'chaos.%s' order by id desc limit 2 for update skip locked`, f.view().name))
}

func recreateView(f *fault, _ *link, _ []byte) (bool, error) {
	v := f.view()
	if v.kind == kindColumns {
		return false, errors.New("its rows are not to be had anywhere else")
	}
	return false, f.inSession(0, append([]string{`drop ` + v.relation() + ` if exists chaos.` + v.name}, v.create()...)...)
}

func recreateIndex(f *fault, _ *link, _ []byte) (bool, error) {
	v := f.view()
	if !v.unique {
		return false, errors.New("it has none")
	}
	if err := f.inSession(0, fmt.Sprintf(`drop index if exists chaos.%s_id`, v.name)); err != nil {
		return false, err
	}
	f.episode.pause(f.between(0, time.Second))
	return false, f.episode.insist(func() error { return f.inSession(0, v.createIndex()) })
}

func renameView(f *fault, _ *link, _ []byte) (bool, error) {
	name := f.view().name
	err := f.inSession(f.between(0, 300*time.Millisecond), fmt.Sprintf(`alter table chaos.%s rename to %s_away`, name, name))
	if err != nil {
		return false, err
	}
	f.episode.pause(f.between(0, 2*time.Second))
	return false, f.episode.insist(func() error {
		return f.inSession(0, fmt.Sprintf(`alter table if exists chaos.%s_away rename to %s`, name, name))
	})
}

func changeOwner(f *fault, _ *link, _ []byte) (bool, error) {
	name := f.view().name
	if err := f.inSession(0, fmt.Sprintf(`alter table chaos.%s owner to postgres`, name)); err != nil {
		return false, err
	}
	f.episode.pause(f.between(100*time.Millisecond, 2*time.Second))
	return false, f.episode.insist(func() error {
		return f.inSession(0, fmt.Sprintf(`alter table if exists chaos.%s owner to worker`, name))
	})
}

func refreshByHand(f *fault, _ *link, _ []byte) (bool, error) {
	v := f.view()
	if v.group != "" {
		return false, errors.New("then it is of another instant than its siblings")
	}
	return false, f.inSession(0, v.byHand())
}

func rescheduleView(f *fault, _ *link, _ []byte) (bool, error) {
	v := f.view()
	return false, f.inSession(0,
		fmt.Sprintf(`delete from mvsched.materialized_view_refresh_schedule where materialized_view_name = 'chaos.%s'`, v.name), v.schedule())
}

// spoilStatistics leaves the planner with none for mvsched's own tables, or with lies. Autovacuum may mend it.
func spoilStatistics(f *fault, _ *link, _ []byte) (bool, error) {
	const ours = `(select oid from pg_catalog.pg_class where relnamespace = 'mvsched'::regnamespace and relkind in ('r', 'i'))`
	lies := []string{
		"reltuples = 0, relpages = 0", "reltuples = 1e6, relpages = 1e4::integer", "reltuples = 1, relpages = 1e4::integer",
		"reltuples = 1e9, relpages = 1", // on each page that there really is: whatever is asked seems to cost more than anything
	}
	return false, f.inSession(0,
		`delete from pg_catalog.pg_statistic where starelid in `+ours,
		`update pg_catalog.pg_class set `+lies[f.victim/7%len(lies)]+` where oid in `+ours)
}

var plannerSettings = [...]string{
	"enable_indexscan", "enable_bitmapscan", "enable_seqscan", "enable_sort", "enable_nestloop", "enable_hashjoin", "enable_mergejoin",
}

// spoilPlans makes the database's default of the planner's settings a bad one, and ends the workers' sessions, so that the
// next ones have it.
func spoilPlans(f *fault, _ *link, _ []byte) (bool, error) {
	setting := plannerSettings[f.victim/7%len(plannerSettings)]
	err := f.inSession(0, fmt.Sprintf(`alter database %s set %s = off`, f.episode.database, setting),
		`select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity where usename = 'worker' and datname = current_database()`)
	if err != nil {
		return false, err
	}
	f.episode.pause(f.between(time.Second, 5*time.Second))
	return false, f.episode.insist(func() error {
		return f.inSession(0, fmt.Sprintf(`alter database %s reset %s`, f.episode.database, setting))
	})
}

// exhaust takes every connection that is left for those who are no superusers.
func exhaust(f *fault, _ *link, _ []byte) (bool, error) {
	e := f.episode
	e.serverLock.RLock()
	defer e.serverLock.RUnlock()
	ctx, cancel := context.WithTimeout(e.ctx, 10*time.Second)
	defer cancel()
	var taken []*pgx.Conn
	var err error
	for ctx.Err() == nil {
		var conn *pgx.Conn
		if conn, err = e.session(ctx, "worker"); err != nil {
			break
		}
		taken = append(taken, conn)
	}
	landed := err != nil && strings.Contains(err.Error(), "53300")
	if landed {
		e.pause(f.between(500*time.Millisecond, 2*time.Second))
	}
	for _, conn := range taken {
		_ = conn.Close(context.WithoutCancel(ctx))
	}
	if !landed {
		return false, fmt.Errorf("not exhausted: %w", err)
	}
	return false, nil
}

// noLogin keeps new connections out, and ends the old ones.
func noLogin(f *fault, _ *link, _ []byte) (bool, error) {
	err := f.inSession(0, `alter role worker nologin`,
		`select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity where usename = 'worker' and datname = current_database()`)
	if err != nil {
		return false, err
	}
	f.episode.pause(f.between(500*time.Millisecond, 2*time.Second))
	return false, f.episode.insist(func() error { return f.inSession(0, `alter role worker login`) })
}
