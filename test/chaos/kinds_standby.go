package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/throwaway"
)

// standbyFaults lose what has been committed: an asynchronous standby takes over that did not have it yet.
func standbyFaults() []*kind {
	return []*kind{{name: "failover to a standby that lacks the last commits", weight: 1, phases: withBackend, strike: loseCommits}}
}

// loseCommits hits when something was lost that mvsched had recorded.
func loseCommits(f *fault, _ *link, _ []byte) (bool, error) {
	e := f.episode
	return false, e.alone(func(ctx context.Context) error {
		standby, err := e.server.NewStandby(ctx)
		if err != nil {
			return err
		}
		if err := e.outrun(ctx, standby, f.between(200*time.Millisecond, 4*time.Second)); err != nil {
			return errors.Join(err, standby.Remove())
		}
		var before, after int64
		_ = e.ask(`select max(seq) from chaos.ledger`, nil, &before)
		if err := standby.TakeOver(ctx); err != nil {
			return err
		}
		e.noteLost()
		var promoted bool
		for ctx.Err() == nil && !promoted {
			_ = e.ask(`select pg_catalog.pg_promote(true, 30)`, nil, &promoted)
		}
		for ctx.Err() == nil && after == 0 {
			_ = e.ask(`select max(seq) from chaos.ledger`, nil, &after)
		}
		e.say(fmt.Sprintf("lost with the primary: %d changes of executions", before-after))
		if after >= before {
			return errors.New("nothing was lost")
		}
		return ctx.Err()
	})
}

// outrun takes the standby off the primary, which goes on for a while.
func (e *episode) outrun(ctx context.Context, standby *throwaway.Standby, ahead time.Duration) error {
	conn, err := pgx.Connect(ctx, standby.DSN(e.database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	e.noteLag()
	for _, sql := range []string{`alter system set primary_conninfo = ''`, `select pg_catalog.pg_reload_conf()`} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	for follows := true; follows && ctx.Err() == nil; e.pause(5 * time.Millisecond) {
		if err := conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_stat_wal_receiver)`).Scan(&follows); err != nil {
			return err
		}
	}
	// Commits are on their way to it for a while, which the server may have written late: the last one that it replays tells
	// since when it lacks any.
	var last *time.Time
	var at, was string
	for replays := true; replays && ctx.Err() == nil; e.pause(20 * time.Millisecond) {
		was = at
		if err := conn.QueryRow(ctx, `select coalesce(pg_catalog.pg_last_wal_replay_lsn()::text, 'none'),
			pg_catalog.pg_last_xact_replay_timestamp()`).Scan(&at, &last); err != nil {
			return err
		}
		replays = at != was
	}
	if last != nil {
		e.lostSince(*last)
	}
	e.pause(ahead)
	return ctx.Err()
}
