package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// floorName is not a scheduler. It is what is left of mvsched when everything is taken away that is not needed to claim a
// view once and to record its refresh truthfully: a claim in one statement, the lock on the execution, the refresh, its
// record. No dependencies, windows, requests, change detection, failures, retries, limits, nor the end settled into the
// schedule. What it loses against the bare loop is what these tables cost.
const floorName = "the least that claims and records"

const (
	floorClaim = `
		with due as materialized (
			select s.id, s.view_oid, s.materialized_view_name
			from mvsched.materialized_view_refresh_schedule s
			where s.queue = 'default' and s.next_run_at <= now()
			and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null
			order by s.next_run_at
			limit 1
			for no key update skip locked
		), moved as (
			update mvsched.materialized_view_refresh_schedule s
			set next_run_at = now() + s.refresh_interval, last_attempted_at = now()
			from due where s.id = due.id
		)
		insert into mvsched.materialized_view_refresh_schedule_execution
			(materialized_view_refresh_schedule_id, view_name, view_oid, scheduled_at)
		select due.id, due.materialized_view_name, due.view_oid, now() from due
		returning id, view_name`
	floorLock   = `select from mvsched.materialized_view_refresh_schedule_execution where id = $1 and status = 'running' for no key update`
	floorRecord = `
		update mvsched.materialized_view_refresh_schedule_execution
		set status = 'succeeded', ended_at = clock_timestamp(), method = 'concurrently', data_as_of = now()
		where id = $1 and status = 'running'`
)

// burstFloor runs it with so many workers, on connections that are open already, with prepared statements.
func (b *bench) burstFloor(ctx context.Context, workers int) (time.Duration, error) {
	if err := b.makeDue(ctx); err != nil {
		return 0, err
	}
	return b.loops(ctx, workers, floorStep)
}

// floorStep refreshes one view.
func floorStep(ctx context.Context, conn *pgx.Conn) (more bool, err error) {
	var execution int64
	var view string
	err = conn.QueryRow(ctx, floorClaim).Scan(&execution, &view)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var batch pgx.Batch
	batch.Queue(`begin`)
	batch.Queue(floorLock, execution)
	batch.Queue(`savepoint refresh`)
	batch.Queue(`refresh materialized view concurrently ` + view)
	batch.Queue(floorRecord, execution)
	batch.Queue(`commit`)
	return true, conn.SendBatch(ctx, &batch).Close()
}
