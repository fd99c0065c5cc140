package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// strippedName is the program as it is, while its functions do no more than the statements of [floorName]. What it needs less
// than the program with its own functions is what they decide; what it needs more than those statements is the process, its
// connections, and that nothing is prepared.
const strippedName = "mvsched, `run -j` that decides nothing"

// strip replaces the functions that a refresh calls.
func strip() []string {
	settings := `language plpgsql set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan`
	return []string{
		`create or replace function mvsched.claim(worker text, wanted integer, queues text[], round timestamptz, clock timestamptz,
			with_usual boolean, since_at timestamptz default null, since_id bigint default null)
			returns setof mvsched.claim ` + settings + ` as $$
		declare
		  taken   record;
		  claimed mvsched.claim;
		begin
		  for taken in ` + fmt.Sprintf(floorClaim, "wanted",
			"id, view_name, view_oid, started_at, scheduled_at, materialized_view_refresh_schedule_id as schedule_id") + ` loop
		    claimed := row(taken.id, taken.started_at, taken.schedule_id, taken.view_name, taken.scheduled_at, 1, 1800, null, 'auto',
		      null, null, taken.view_oid, split_part(taken.view_name, '.', 1), split_part(taken.view_name, '.', 2), true, true, true,
		      false, null, null, 'view', true, 0, 0, 1, null, null, null, 0)::mvsched.claim;
		    return next claimed;
		  end loop;
		end $$`,
		`create or replace function mvsched.begin_refresh(
			execution bigint, view oid, method text, time_limit interval, lock_limit interval, claimed_at timestamptz)
			returns void ` + settings + ` as $$
		begin
		  perform ` + floorLock[len("select"):] + `;
		end $$`,
		`create or replace function mvsched.refresh_succeeded(
			execution bigint, view oid, view_schema text, view_name text, method text, method_reason text default null)
			returns setof mvsched.materialized_view_refresh_schedule_execution ` + settings + ` as $$
		#variable_conflict use_column
		begin
		  return query ` + floorRecord + ` returning *;
		end $$`,
		`create or replace function mvsched.settle(schedule bigint default null) returns timestamptz ` + settings + ` as $$
		begin
		  return null;
		end $$`,
	}
}

// burstStripped is [bench.burstProcess] with these, and gives the functions back.
func (b *bench) burstStripped(ctx context.Context, workers int) (took time.Duration, err error) {
	var own []string
	err = b.admin.QueryRow(ctx, `
		select pg_catalog.array_agg(pg_catalog.pg_get_functiondef(p.oid))
		from pg_catalog.pg_proc p
		where p.pronamespace = 'mvsched'::regnamespace and p.proname in ('claim', 'begin_refresh', 'refresh_succeeded', 'settle')`).Scan(&own)
	if err != nil {
		return 0, err
	}
	if err := b.exec(ctx, strip()...); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.exec(context.WithoutCancel(ctx), own...)) }()
	return b.burstProcess(ctx, workers)
}
