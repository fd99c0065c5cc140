package schedule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// In the session's own search_path, which says what an unqualified name stands for: so there is no operator and no type in
// it that could be looked up there. Where the name stands for something else by now, its schedule is still to be had.
const describeSQL = `
select coalesce(mvsched.find_schedule($1, relation.oid, pg_catalog.current_schemas(true)),
                case when relation.oid is not null and mvsched.view_name(relation.oid) is null
                     then mvsched.find_schedule(mvsched.relation_name(relation.oid), null, pg_catalog.current_schemas(true)) end),
       relation.oid::pg_catalog.int8,
       mvsched.view_name(relation.oid), mvsched.relation_name(relation.oid), mvsched.names_in(pg_catalog.current_schemas(true), $1)
  from (select mvsched.find_relation($1) as oid) relation`

// description is what a name that a person wrote stands for.
type description struct {
	scheduleID *int64
	oid        *int64
	name       *string  // canonical; nil when it is no materialization
	relation   *string  // canonical, whatever it is
	names      []string // canonical, of what it could mean: in each schema of the search_path, or in its own
	problem    error    // ErrNoView or ErrNotAView in a *ViewError, or nil
}

func (s *Store) describe(ctx context.Context, view ViewName) (d description, err error) {
	to := []any{&d.scheduleID, &d.oid, &d.name, &d.relation, &d.names}
	if err := s.readInSessionPath(ctx, to, describeSQL, view.String()); err != nil {
		return description{}, err
	}
	switch {
	case d.oid == nil:
		d.problem = &ViewError{View: view.String(), Err: ErrNoView}
	case d.name == nil:
		d.problem = &ViewError{View: view.String(), Err: ErrNotAView}
	}
	return d, nil
}

// find describes what is to be worked on. A schedule knows its table by an OID, which counts for nothing behind a restore, or where the
// table has been dropped and created again: then it is looked for by its name first, as every run would do when it is due.
func (s *Store) find(ctx context.Context, view ViewName) (description, error) {
	found, err := s.describe(ctx, view)
	if err != nil || found.scheduleID == nil || !errors.Is(found.problem, ErrNotAView) {
		return found, err
	}
	if _, err := read(ctx, s, "finding a table again", scanMoved, locateOneSQL, found.scheduleID); err != nil {
		return description{}, err
	}
	return s.describe(ctx, view)
}

// needSchedule returns why the view has no schedule: there is no such view, or it is not scheduled.
func (d description) needSchedule(view ViewName) error {
	switch {
	case d.scheduleID != nil:
		return nil
	case d.problem != nil:
		return d.problem
	default:
		return &ViewError{View: view.String(), Err: ErrNotScheduled}
	}
}

// A schedule whose view was renamed still bears the old name until its next run; the name may be wanted by now.
const releaseNameSQL = `
update mvsched.materialized_view_refresh_schedule s
   set materialized_view_name = mvsched.view_name(s.view_oid)
 where s.materialized_view_name = $1::text
   and s.database_identity = mvsched.database_identity()
   and mvsched.view_name(s.view_oid) <> s.materialized_view_name`

const addSQL = `
insert into mvsched.materialized_view_refresh_schedule as s
       (materialized_view_name, refresh_interval, refresh_delay, cron, after_parents, on_change, max_lag, timezone, debounce,
        at_most_every, jitter, window_start, window_end, retries, suspend_after, on_parent_failure, skip_unchanged,
        max_staleness, maximum_execution_duration, lock_timeout, strategy, vacuum, queue, priority, search_path, settings, paused_at,
        kind, columns_query, columns_call, batch_rows, lanes, merge_source, merge_key, merge_window, full_interval, next_full_at,
        refresh_group)
values (@view, make_interval(secs => @every::float8), make_interval(secs => @after::float8), @cron::text,
        coalesce(@kind::text = 'after_parents', false), coalesce(@kind::text = 'on_change', false),
        make_interval(secs => @max_lag::float8), coalesce(@timezone::text, 'UTC'),
        make_interval(secs => nullif(@debounce::float8, 0)), make_interval(secs => nullif(@at_most_every::float8, 0)),
        make_interval(secs => nullif(@jitter::float8, 0)), @window_start::text::time, @window_end::text::time,
        coalesce(@retries::integer, 3), nullif(@suspend_after::integer, 0), coalesce(@on_parent_failure::text, 'skip'),
        coalesce(@skip_unchanged::boolean, false), coalesce(make_interval(secs => @max_staleness::float8), interval '1 hour'),
        coalesce(make_interval(secs => @timeout::float8), interval '30 minutes'),
        make_interval(secs => nullif(@lock_timeout::float8, 0)), coalesce(@strategy::text, 'auto'),
        coalesce(@vacuum::text, 'auto'), coalesce(@queue::text, 'default'), coalesce(@priority::integer, 0),
        nullif(@search_path::text, ''), nullif(jsonb_strip_nulls(@settings::jsonb), '{}'), case when @paused::boolean then coalesce(@now::timestamptz, now()) end,
        @of::text, @columns_query::text, @columns_call::text, coalesce(@batch_rows::integer, 100), coalesce(@lanes::smallint, 1),
        @source::text, @key::text[], nullif(@merge_window::text, ''), make_interval(secs => nullif(@full_every::float8, 0)),
        case when @merge_window::text is null then null when @create::boolean then now()
             else now() + make_interval(secs => nullif(@full_every::float8, 0)) end,
        nullif(@group::text, ''))
    on conflict (materialized_view_name) do nothing
returning s.id`

// Add schedules views, all of them or none: ErrNoView, ErrNotAView or, unless ifNotExists, ErrScheduled in a
// *ViewError say which one was in the way. A new schedule is due at once. It returns how many were added.
func (s *Store) Add(ctx context.Context, views []ViewName, settings Settings, ifNotExists bool) (added int, err error) {
	if settings.Columns, err = settings.Columns.read(ctx, s); err != nil {
		return 0, err
	}
	var names []string
	for _, view := range views {
		found, err := s.describe(ctx, view)
		switch {
		case err != nil:
			return 0, fmt.Errorf("adding a schedule: %w", err)
		case settings.Columns != nil && found.name == nil && found.relation != nil:
			found.name = found.relation // the trigger says whether it is a table
		case found.problem != nil:
			return 0, found.problem
		case found.scheduleID != nil && ifNotExists:
			continue
		case found.scheduleID != nil:
			return 0, &ViewError{View: view.String(), Err: ErrScheduled}
		}
		if !slices.Contains(names, *found.name) { // one view, named twice
			names = append(names, *found.name)
		}
	}
	err = s.edit(ctx, "adding a schedule", func(ctx context.Context, tx pgx.Tx) (err error) {
		added, err = s.insert(ctx, tx, names, settings, ifNotExists)
		return err
	})
	return added, err
}

// A view counts as scheduled also where its schedule bears another name by now.
const unscheduledSQL = `
with scheduled as materialized (
  select mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, here.identity) as oid
    from mvsched.materialized_view_refresh_schedule s
   cross join (select mvsched.database_identity() as identity offset 0) here
)
select mvsched.view_name(c.oid)
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'm'
   and ($1::text is null or n.nspname = $1::text)
   and not exists (select from scheduled where scheduled.oid = c.oid)
 order by 1`

const schemaExistsSQL = `select exists (select from pg_catalog.pg_namespace n where n.nspname = $1)`

// AddAll schedules every materialized view that has no schedule, of the whole database or, when schema is not nil, of
// that schema: all of them or none. It returns how many were added.
func (s *Store) AddAll(ctx context.Context, schema *string, settings Settings) (int, error) {
	var added int
	err := s.edit(ctx, "adding schedules", func(ctx context.Context, tx pgx.Tx) error {
		if schema != nil {
			var exists bool
			if err := tx.QueryRow(ctx, schemaExistsSQL, *schema).Scan(&exists); err != nil {
				return err
			}
			if !exists {
				return &InvalidError{
					What: "schema", Value: *schema, Problem: "it does not exist", Hint: "a name with capitals needs double quotes, as in SQL",
				}
			}
		}
		rows, err := tx.Query(ctx, unscheduledSQL, schema)
		if err != nil {
			return err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		added, err = s.insert(ctx, tx, names, settings, true)
		return err
	})
	return added, err
}

// insert adds schedules of views by their canonical names, and returns how many: unless ifNotExists, one that somebody
// else has added meanwhile is ErrScheduled.
func (s *Store) insert(ctx context.Context, tx pgx.Tx, names []string, settings Settings, ifNotExists bool) (int, error) {
	var ids []int64
	var batch pgx.Batch
	args := s.arguments(settings)
	for _, name := range names {
		batch.Queue(releaseNameSQL, name)
		args["view"] = name
		if err := settings.Columns.check(ctx, tx, name, settings.SearchPath); err != nil {
			return 0, err
		}
		batch.Queue(addSQL, maps.Clone(args)).QueryRow(func(row pgx.Row) error {
			var id int64
			err := row.Scan(&id)
			switch {
			case errors.Is(err, pgx.ErrNoRows) && ifNotExists:
				return nil
			case errors.Is(err, pgx.ErrNoRows) || isScheduled(err):
				return &ViewError{View: name, Err: ErrScheduled}
			case err != nil:
				return refusedSetting(err, settings)
			}
			ids = append(ids, id)
			return nil
		})
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return 0, err
	}
	if err := settings.together(ctx, tx, ids); err != nil {
		return 0, err
	}
	return len(ids), needParents(ctx, tx, ids, settings)
}

const parentlessSQL = `
select mvsched.view_name(v.oid)
  from mvsched.materialized_view_refresh_schedule s
 cross join lateral (
        select mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, mvsched.database_identity()) as oid
        offset 0) v
 where s.id = any ($1::bigint[])
   and v.oid is not null
   and v.oid not in (select d.child from mvsched.materialized_view_dependency d where d.parent <> d.child)
 order by 1
 limit 1`

// needParents refuses a schedule after parents for a view that has none: it would never be due again.
func needParents(ctx context.Context, tx pgx.Tx, ids []int64, settings Settings) error {
	if settings.kind() != KindAfterParents {
		return nil
	}
	var view string
	switch err := tx.QueryRow(ctx, parentlessSQL, ids).Scan(&view); {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return &ViewError{View: view, Err: ErrNoParents}
}

// isScheduled reports whether err says that the view has a schedule: by its name (the constraint) or its OID (the trigger,
// which names no constraint).
func isScheduled(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == pgerrcode.UniqueViolation &&
		(pgErr.ConstraintName == "materialized_view_refresh_schedule_name_key" || pgErr.ConstraintName == "")
}

// setSQL: with another kind of schedule goes what belongs to the one before.
const setSQL = `
update mvsched.materialized_view_refresh_schedule s
   set refresh_interval = case when @kind::text is null then s.refresh_interval else make_interval(secs => @every::float8) end,
       refresh_delay = case when @kind::text is null then s.refresh_delay else make_interval(secs => @after::float8) end,
       cron = case when @kind::text is null then s.cron else @cron::text end,
       after_parents = coalesce(@kind::text = 'after_parents', s.after_parents),
       on_change = coalesce(@kind::text = 'on_change', s.on_change),
       max_lag = case when @kind::text is null then s.max_lag else make_interval(secs => @max_lag::float8) end,
       timezone = coalesce(@timezone::text,
                           case when @kind::text is null or @kind::text = 'cron' and s.cron is not null
                                  or s.window_start is not null and not (@window::boolean and @window_start::text is null)
                                then s.timezone else 'UTC' end),
       debounce = case when @kind::text <> 'on_change' then null
                       else make_interval(secs => nullif(coalesce(@debounce::float8, extract(epoch from s.debounce)::float8), 0)) end,
       at_most_every = case when @kind::text <> 'on_change' then null
                            else make_interval(secs => nullif(coalesce(@at_most_every::float8, extract(epoch from s.at_most_every)::float8), 0)) end,
       jitter = make_interval(secs => nullif(coalesce(@jitter::float8, extract(epoch from s.jitter)::float8), 0)),
       window_start = case when @window::boolean then @window_start::text::time else s.window_start end,
       window_end = case when @window::boolean then @window_end::text::time else s.window_end end,
       retries = coalesce(@retries::integer, s.retries),
       suspend_after = nullif(coalesce(@suspend_after::integer, s.suspend_after), 0),
       on_parent_failure = coalesce(@on_parent_failure::text, s.on_parent_failure),
       skip_unchanged = coalesce(@skip_unchanged::boolean, s.skip_unchanged),
       max_staleness = coalesce(make_interval(secs => @max_staleness::float8), s.max_staleness),
       maximum_execution_duration = coalesce(make_interval(secs => @timeout::float8), s.maximum_execution_duration),
       lock_timeout = make_interval(secs => nullif(coalesce(@lock_timeout::float8, extract(epoch from s.lock_timeout)::float8), 0)),
       strategy = coalesce(@strategy::text, s.strategy),
       vacuum = coalesce(@vacuum::text, s.vacuum),
       queue = coalesce(@queue::text, s.queue),
       refresh_group = nullif(coalesce(@group::text, s.refresh_group), ''),
       priority = coalesce(@priority::integer, s.priority),
       search_path = nullif(coalesce(@search_path::text, s.search_path), ''),
       settings = case when @settings::jsonb is null then s.settings
                       else nullif(jsonb_strip_nulls(coalesce(s.settings, '{}') || @settings::jsonb), '{}') end,
       columns_query = case when num_nonnulls(@columns_query::text, @columns_call::text) = 0 then s.columns_query else @columns_query::text end,
       columns_call = case when num_nonnulls(@columns_query::text, @columns_call::text) = 0 then s.columns_call else @columns_call::text end,
       batch_rows = coalesce(@batch_rows::integer, s.batch_rows),
       lanes = coalesce(@lanes::smallint, s.lanes),
       paused_at = case when @paused::boolean is null then s.paused_at
                        when @paused::boolean then coalesce(s.paused_at, @now::timestamptz, now()) end,
       paused_reason = case when @paused::boolean is distinct from false then s.paused_reason end,
       merge_window = nullif(coalesce(@merge_window::text, s.merge_window), ''),
       full_interval = make_interval(secs => nullif(coalesce(@full_every::float8, extract(epoch from s.full_interval)::float8), 0)),
       next_full_at = case when @full_every::float8 is null then s.next_full_at
                           else now() + make_interval(secs => nullif(@full_every::float8, 0)) end
 where s.id = @id`

// Set changes of the views' schedules what settings give, all of them or none.
func (s *Store) Set(ctx context.Context, views []ViewName, settings Settings) (err error) {
	if settings.Columns, err = settings.Columns.read(ctx, s); err != nil {
		return err
	}
	return s.editAll(ctx, "changing a schedule", views, func(ctx context.Context, tx pgx.Tx, ids []int64) error {
		args := s.arguments(settings)
		for _, id := range ids {
			args["id"] = id
			if err := settings.Columns.fits(ctx, tx, id, settings.SearchPath); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, setSQL, args); err != nil {
				return refusedSetting(err, settings)
			}
		}
		if err := settings.together(ctx, tx, ids); err != nil {
			return err
		}
		return needParents(ctx, tx, ids, settings)
	})
}

const removeSQL = `delete from mvsched.materialized_view_refresh_schedule s where s.id = $1`

// Remove deletes the views' schedules, all of them or none. A refresh under way goes on and is recorded; the history
// stays.
func (s *Store) Remove(ctx context.Context, views []ViewName) error {
	return s.editEach(ctx, "removing a schedule", views, func(ctx context.Context, tx pgx.Tx, id int64) error {
		_, err := tx.Exec(ctx, removeSQL, id)
		return err
	})
}

const pauseSQL = `
update mvsched.materialized_view_refresh_schedule s
   set paused_at = coalesce(s.paused_at, $2::timestamptz, now()), paused_reason = coalesce($3::text, s.paused_reason)
 where s.id = any ($1::bigint[]) or ($1::bigint[] is null and s.paused_at is null)`

// Pause keeps the views from being claimed until Resume; views nil means all. The reason may be nil.
func (s *Store) Pause(ctx context.Context, views []ViewName, reason *string) error {
	return s.editAll(ctx, "pausing a schedule", views, func(ctx context.Context, tx pgx.Tx, ids []int64) error {
		_, err := tx.Exec(ctx, pauseSQL, ids, s.now(), reason)
		return err
	})
}

const resumeSQL = `
update mvsched.materialized_view_refresh_schedule s
   set paused_at = null, paused_reason = null, suspended_at = null, suspended_reason = null,
       consecutive_failures = case when s.suspended_at is null then s.consecutive_failures else 0 end
 where s.id = any ($1::bigint[])
    or ($1::bigint[] is null and (s.paused_at is not null or s.suspended_at is not null))`

// Resume ends a pause or a suspension; views nil means all. Slots missed meanwhile are made up for by one run.
func (s *Store) Resume(ctx context.Context, views []ViewName) error {
	return s.editAll(ctx, "resuming a schedule", views, func(ctx context.Context, tx pgx.Tx, ids []int64) error {
		_, err := tx.Exec(ctx, resumeSQL, ids)
		return err
	})
}

// editAll gives fn the ids of the views' schedules, or nil for all of them.
func (s *Store) editAll(ctx context.Context, what string, views []ViewName,
	fn func(context.Context, pgx.Tx, []int64) error,
) error {
	ids, err := s.scheduleIDs(ctx, views)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return s.edit(ctx, what, func(ctx context.Context, tx pgx.Tx) error { return fn(ctx, tx, ids) })
}

// editEach gives fn the id of each of the views' schedules.
func (s *Store) editEach(ctx context.Context, what string, views []ViewName,
	fn func(context.Context, pgx.Tx, int64) error,
) error {
	return s.editAll(ctx, what, views, func(ctx context.Context, tx pgx.Tx, ids []int64) error {
		for _, id := range ids {
			if err := fn(ctx, tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// scheduleIDs finds the views' schedules, nil for no views. A view without one is ErrNotScheduled, unless there is no such
// view either.
func (s *Store) scheduleIDs(ctx context.Context, views []ViewName) ([]int64, error) {
	ctx, cancel := withDeadline(ctx, "looking up a view")
	defer cancel()
	var ids []int64
	for _, view := range views {
		found, err := s.find(ctx, view)
		if err != nil {
			return nil, fmt.Errorf("looking up %s: %w", view, err)
		}
		if err := found.needSchedule(view); err != nil {
			return nil, err
		}
		ids = append(ids, *found.scheduleID)
	}
	return ids, nil
}

// Resolve returns the canonical names of views: ErrNoView or ErrNotAView in a *ViewError for the first that is none.
func (s *Store) Resolve(ctx context.Context, views []ViewName) ([]string, error) {
	ctx, cancel := withDeadline(ctx, "looking up a view")
	defer cancel()
	all, err := s.describeAll(ctx, views)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, found := range all {
		names = append(names, *found.name)
	}
	return names, nil
}

// describeAll describes views that are to be there.
func (s *Store) describeAll(ctx context.Context, views []ViewName) (all []description, err error) {
	for _, view := range views {
		found, err := s.find(ctx, view)
		if err != nil {
			return nil, fmt.Errorf("looking up %s: %w", view, err)
		}
		if found.problem != nil {
			return nil, found.problem
		}
		all = append(all, found)
	}
	return all, nil
}
