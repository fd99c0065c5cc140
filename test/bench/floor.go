package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// floorName is not a scheduler. It is what is left of mvsched when everything is taken away that is not needed to claim a
// view once and to record its refresh truthfully: a claim in one statement, the lock on the execution, the refresh, its
// record. No dependencies, windows, requests, change detection, failures, retries, limits, nor the end settled into the
// schedule. What it loses against the bare loop is what these tables cost.
const floorName = "the least that claims and records"

// floorEightName claims eight views at a time, by one worker: what that would spare. mvsched does not, since a view would be
// claimed, for all to see, that waits for up to seven others, while another worker may be free; and its record would tell that it
// began then.
const floorEightName = "the same, eight claimed at a time"

const (
	floorClaim = `
		with due as materialized (
			select s.id, s.view_oid, s.materialized_view_name
			from mvsched.materialized_view_refresh_schedule s
			where s.queue = 'default' and s.next_run_at <= now()
			and s.paused_at is null and s.suspended_at is null and s.open_execution_id is null
			order by s.next_run_at
			limit %s
			for no key update skip locked
		), moved as (
			update mvsched.materialized_view_refresh_schedule s
			set next_run_at = now() + s.refresh_interval, last_attempted_at = now()
			from due where s.id = due.id
		)
		insert into mvsched.materialized_view_refresh_schedule_execution
			(materialized_view_refresh_schedule_id, view_name, view_oid, scheduled_at)
		select due.id, due.materialized_view_name, due.view_oid, now() from due
		returning %s`
	floorLock   = `select from mvsched.materialized_view_refresh_schedule_execution where id = $1 and status = 'running' for no key update`
	floorRecord = `
		update mvsched.materialized_view_refresh_schedule_execution
		set status = 'succeeded', ended_at = clock_timestamp(), method = 'concurrently', data_as_of = now()
		where id = $1 and status = 'running'`
)

// burstFloor runs it with so many workers, on connections that are open already, with prepared statements, and so many views
// claimed at a time.
func burstFloor(atOnce int) func(*bench, context.Context, int) (time.Duration, error) {
	return func(b *bench, ctx context.Context, workers int) (time.Duration, error) {
		if err := b.makeDue(ctx); err != nil {
			return 0, err
		}
		return b.loops(ctx, workers, func(ctx context.Context, conn *pgx.Conn) (more bool, err error) {
			return floorStep(ctx, conn, atOnce)
		})
	}
}

type floorClaimed struct {
	Execution int64
	View      string
}

// floorStep refreshes so many views.
func floorStep(ctx context.Context, conn *pgx.Conn, atOnce int) (more bool, err error) {
	rows, err := conn.Query(ctx, fmt.Sprintf(floorClaim, strconv.Itoa(atOnce), "id, view_name")) // no parameter: it is planned once
	if err != nil {
		return false, err
	}
	claims, err := pgx.CollectRows(rows, pgx.RowToStructByPos[floorClaimed])
	if err != nil {
		return false, err
	}
	for _, claim := range claims {
		var batch pgx.Batch
		batch.Queue(`begin`)
		batch.Queue(floorLock, claim.Execution)
		batch.Queue(`savepoint refresh`)
		batch.Queue(`refresh materialized view concurrently ` + claim.View)
		batch.Queue(floorRecord, claim.Execution)
		batch.Queue(`commit`)
		if err := conn.SendBatch(ctx, &batch).Close(); err != nil {
			return false, err
		}
	}
	return len(claims) > 0, nil
}
