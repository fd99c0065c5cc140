package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// articleTables are the article's two tables.
const articleTables = `
	create schema article;
	create table article.materialized_view_refresh_schedule (
		id int primary key generated always as identity,
		materialized_view_name text not null unique,
		refresh_interval interval not null,
		last_attempted_at timestamptz,
		maximum_execution_duration interval not null default '30 minutes'
	);
	create table article.materialized_view_refresh_schedule_execution (
		id int primary key generated always as identity,
		materialized_view_refresh_schedule_id int not null references article.materialized_view_refresh_schedule,
		started_at timestamptz not null default now(),
		ended_at timestamptz,
		execution_is_successful boolean
	);
	create index on article.materialized_view_refresh_schedule_execution (materialized_view_refresh_schedule_id) where ended_at is null;
	insert into article.materialized_view_refresh_schedule (materialized_view_name, refresh_interval)
	select c.oid::regclass, '1 day' from pg_class c where c.relkind = 'm'`

// The article's program: a claim in a transaction of its own, then the record, the refresh, and the record's end, each on
// its own.
const (
	articleClaim = `
		select s.id, s.materialized_view_name
		from article.materialized_view_refresh_schedule s
		where (s.last_attempted_at is null or s.last_attempted_at + s.refresh_interval < now())
		and not exists (
			select from article.materialized_view_refresh_schedule_execution e
			where e.materialized_view_refresh_schedule_id = s.id and e.ended_at is null
		)
		order by s.last_attempted_at nulls first
		limit 1
		for update of s skip locked`
	articleAttempt = `update article.materialized_view_refresh_schedule set last_attempted_at = now() where id = $1`
	articleBegin   = `insert into article.materialized_view_refresh_schedule_execution (materialized_view_refresh_schedule_id) values ($1) returning id`
	articleEnd     = `update article.materialized_view_refresh_schedule_execution set ended_at = now(), execution_is_successful = true where id = $1`
)

// burstArticle is the article's program with so many workers, on connections that are open already, with prepared
// statements.
func (b *bench) burstArticle(ctx context.Context, workers int) (time.Duration, error) {
	err := b.exec(ctx, `update article.materialized_view_refresh_schedule set last_attempted_at = null`,
		`vacuum article.materialized_view_refresh_schedule`)
	if err != nil {
		return 0, err
	}
	return b.loops(ctx, workers, articleStep)
}

// articleStep refreshes one view.
func articleStep(ctx context.Context, conn *pgx.Conn) (more bool, err error) {
	var schedule, execution int
	var view string
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, articleClaim).Scan(&schedule, &view); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, articleAttempt, schedule)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := conn.QueryRow(ctx, articleBegin, schedule).Scan(&execution); err != nil {
		return false, err
	}
	if _, err := conn.Exec(ctx, `refresh materialized view concurrently `+view, pgx.QueryExecModeSimpleProtocol); err != nil {
		return false, err
	}
	_, err = conn.Exec(ctx, articleEnd, execution)
	return err == nil, err
}
