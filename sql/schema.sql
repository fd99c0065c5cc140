-- Schema mvsched, version 1: the schedules of materialized views and the record of every refresh.
--
-- Run it once, in one transaction, as a role that may create schemas in this database (or own an empty schema
-- "mvsched"); no superuser and no extension is needed. PostgreSQL 13 or newer.
--
-- How the pieces move is told in the package documentation of schedule (`go doc ./schedule`). In one breath: a
-- worker claims a due row of materialized_view_refresh_schedule, which inserts a running row into
-- materialized_view_refresh_schedule_execution and moves the slot on; the refresh and the end of that row are then
-- one transaction; what the end means for the schedule is settled afterwards, by whoever comes first.

do $$
begin
  -- "create schema if not exists" would demand CREATE on the database even where a DBA has prepared the schema.
  if pg_catalog.to_regnamespace('mvsched') is null then
    create schema mvsched;
  end if;
end
$$;
comment on schema mvsched is 'mvsched, the materialized-view refresh scheduler: schedules, and the record of every refresh';

------------------------------------------------------------------------------------------------------------------------
-- Version
------------------------------------------------------------------------------------------------------------------------

create table mvsched.schema_version (
  singleton    boolean     not null default true,
  version      integer     not null,
  installed_at timestamptz not null default pg_catalog.now(),
  installed_by text        not null default current_user,
  constraint schema_version_pkey primary key (singleton),
  constraint schema_version_is_one_row check (singleton)
);
comment on table mvsched.schema_version is 'One row: the version of schema mvsched. A program that does not know the version keeps its hands off';
comment on column mvsched.schema_version.singleton is 'Always true; as the primary key it keeps this table at one row';
comment on column mvsched.schema_version.version is 'The version of schema.sql that is installed';
comment on column mvsched.schema_version.installed_at is 'When this version was installed';
comment on column mvsched.schema_version.installed_by is 'The role that installed it';

insert into mvsched.schema_version (version) values (1);

------------------------------------------------------------------------------------------------------------------------
-- Durations, names, and who this database is
------------------------------------------------------------------------------------------------------------------------

-- Months have no fixed length and 178 million years overflow every addition, so they stop here, before a row with
-- them can break a claim. An infinite interval (17 and newer) is above the upper bound.
create domain mvsched.duration as interval
  constraint duration_is_1_second_to_10_years_without_months check (
    value >= interval '1 second'
    and value <= interval '3650 days'
    and extract(year from value) = 0
    and extract(month from value) = 0
  );
comment on domain mvsched.duration is 'An interval from 1 second to 3650 days, without months; a day is 24 hours';

-- Whatever limits one column is a domain: a CHECK of the table would be worked out at every update of a row, and workers
-- update each schedule twice a refresh. (Measured: 29 CHECKs were 0.2 ms of an update of 0.24.)

-- Far enough from the ends of time that adding an interval cannot overflow and stop the claim for every view.
create domain mvsched.instant as timestamptz
  constraint instant_is_in_reach check (value between '1970-01-01 00:00+00' and '9999-12-31 00:00+00');
comment on domain mvsched.instant is 'A point in time from 1970 to 9999';

-- statement_timeout and lock_timeout are 32-bit milliseconds: 24.8 days.
create domain mvsched.server_timeout as mvsched.duration
  constraint server_timeout_fits check (value <= interval '24 days');
comment on domain mvsched.server_timeout is 'A duration that statement_timeout and lock_timeout can hold: up to 24 days';

create domain mvsched.start_grace as interval
  constraint start_grace_is_short check (value between interval '1 second' and interval '1 hour');
comment on domain mvsched.start_grace is 'From 1 second to 1 hour';

create domain mvsched.slot_offset as interval
  constraint slot_offset_is_in_reach check (value between interval '-3000000 days' and interval '3000000 days');
comment on domain mvsched.slot_offset is 'How far an instant lies behind its slot, or before it';

-- Two identifiers, quoted, have 255 bytes at the most. And the name goes into notifications, which are limited.
create domain mvsched.canonical_name as text
  constraint canonical_name_is_a_name check (pg_catalog.octet_length(value) between 1 and 255);
comment on domain mvsched.canonical_name is 'The name of a materialized view as in SQL: schema-qualified, and quoted where it needs to be';

-- The form only. Whether the fields are right is for the program to say, which suspends what it cannot read.
create domain mvsched.cron_expression as text
  constraint cron_expression_looks_like_one check (
    pg_catalog.octet_length(value) <= 255 and value ~ '^[[:space:]]*(@[A-Za-z]+|([0-9A-Za-z*,/?-]+[[:space:]]+){4}[0-9A-Za-z*,/?-]+)[[:space:]]*$');
comment on domain mvsched.cron_expression is 'Five fields as in crontab, or @daily and the like';

create domain mvsched.expression as text
  constraint expression_is_short check (pg_catalog.octet_length(value) between 1 and 4000);
comment on domain mvsched.expression is 'From 1 to 4000 bytes of SQL';

create domain mvsched.query as text
  constraint query_is_short check (pg_catalog.octet_length(value) between 1 and 1000000);
comment on domain mvsched.query is 'From 1 to 1,000,000 bytes of SQL';

create domain mvsched.batch_rows as integer
  constraint batch_rows_is_in_reach check (value between 1 and 10000);
comment on domain mvsched.batch_rows is 'From 1 to 10,000';

create domain mvsched.lanes as smallint
  constraint lanes_are_few check (value between 1 and 64);
comment on domain mvsched.lanes is 'From 1 to 64';

create domain mvsched.queue_name as text
  constraint queue_name_is_one check (pg_catalog.octet_length(value) between 1 and 63);
comment on domain mvsched.queue_name is 'Up to 63 bytes, and not empty';

create domain mvsched.group_name as text
  constraint group_name_is_one check (pg_catalog.octet_length(value) between 1 and 63);
comment on domain mvsched.group_name is 'Up to 63 bytes, and not empty';

-- The refresh transaction has to fit into one network buffer of the server, 8 kB.
create domain mvsched.search_path as text
  constraint search_path_is_short check (pg_catalog.octet_length(value) <= 4000);
comment on domain mvsched.search_path is 'Up to 4000 bytes';

create domain mvsched.refresh_settings as jsonb
  constraint refresh_settings_are_an_object check (pg_catalog.jsonb_typeof(value) = 'object')
  constraint refresh_settings_are_short check (pg_catalog.octet_length(value::text) <= 1000)
  constraint refresh_settings_are_single_values check (
    not pg_catalog.jsonb_path_exists(value, '$.* ? (@.type() == "object" || @.type() == "array" || @.type() == "null")'));
comment on domain mvsched.refresh_settings is 'Settings of the server and their values, {"work_mem": "256MB"}: up to 1000 bytes';

create domain mvsched.strategy as text
  constraint strategy_is_known check (value in ('auto', 'concurrently', 'plain'));
comment on domain mvsched.strategy is 'auto, concurrently, plain';

create domain mvsched.method as text
  constraint method_is_known check (value in ('concurrently', 'plain', 'merge', 'columns'));
comment on domain mvsched.method is 'concurrently, plain; merge, columns';

create domain mvsched.kind as text
  constraint kind_is_known check (value in ('view', 'merge', 'columns'));
comment on domain mvsched.kind is
  'What is materialized: a materialized view, a table kept equal to a plain view (merge), or computed columns of a table';

create domain mvsched.parent_failure as text
  constraint parent_failure_is_known check (value in ('skip', 'run'));
comment on domain mvsched.parent_failure is 'skip, run';

create domain mvsched.vacuum_mode as text
  constraint vacuum_mode_is_known check (value in ('auto', 'never', 'always'));
comment on domain mvsched.vacuum_mode is 'auto, never, always';

create domain mvsched.next_run_reason as text
  constraint next_run_reason_is_known check (value in ('retry', 'second_look', 'request'));
comment on domain mvsched.next_run_reason is 'retry, second_look, request';

create domain mvsched.execution_status as text
  constraint execution_status_is_known check (
    value in ('running', 'succeeded', 'failed', 'timed_out', 'cancelled', 'skipped', 'abandoned'));
comment on domain mvsched.execution_status is 'running, and the ways to end: succeeded, failed, timed_out, cancelled, skipped, abandoned';

create domain mvsched.execution_trigger as text
  constraint execution_trigger_is_known check (value in ('schedule', 'manual', 'parent', 'change', 'retry'));
comment on domain mvsched.execution_trigger is 'schedule, manual, parent, change, retry';

create domain mvsched.priority as integer
  constraint priority_is_in_reach check (value between -1000 and 1000);
comment on domain mvsched.priority is 'From -1000 to 1000';

create domain mvsched.retries as integer
  constraint retries_are_few check (value between 0 and 100);
comment on domain mvsched.retries is 'From 0 to 100';

create domain mvsched.count as integer
  constraint count_is_one check (value between 0 and 1000000);
comment on domain mvsched.count is 'From 0 to 1,000,000';

create domain mvsched.ordinal as integer
  constraint ordinal_is_one check (value between 1 and 1000000);
comment on domain mvsched.ordinal is 'From 1 to 1,000,000';

-- With its owner's rights: if one role could read the identifier and another one could not, each would find the database a stranger
-- to what the other has stored.
create function mvsched.database_identity() returns text
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  if pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute') then
    return (select pg_catalog.concat(c.system_identifier, '/', d.oid)
              from pg_catalog.pg_control_system() c, pg_catalog.pg_database d
             where d.datname = pg_catalog.current_database());
  end if;
  return (select pg_catalog.concat('?/', d.oid) from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());
end
$$;
comment on function mvsched.database_identity() is
  'The cluster''s system identifier and this database''s OID. A stored view OID means something only beside the same identity: after a restore it may be a stranger''s';

create function mvsched.parse_view_name(name text) returns text[]
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp as $$
declare
  parts text[] := pg_catalog.parse_ident(name);
  part  text;
begin
  if pg_catalog.cardinality(parts) > 2 then
    raise exception 'materialized view name % has too many parts', name
      using errcode = 'invalid_name', hint = 'Write view or schema.view.';
  end if;
  foreach part in array parts loop
    -- The server would cut it silently, and refresh whichever view has the name that is left.
    if pg_catalog.octet_length(part) > 63 then
      raise exception 'identifier % is longer than 63 bytes', pg_catalog.quote_ident(part)
        using errcode = 'name_too_long';
    end if;
  end loop;
  return case pg_catalog.cardinality(parts) when 1 then array[null, parts[1]] else parts end;
end
$$;
comment on function mvsched.parse_view_name(text) is
  'Splits a view name, written as in SQL, into schema (null when unqualified) and name; refuses what PostgreSQL would cut or misread';

-- This one has to see the caller's search_path, so it leaves nothing in itself to be looked up there: no operator, no type.
create function mvsched.find_relation(name pg_catalog.text) returns pg_catalog.oid
  language plpgsql stable as $$
declare
  parts pg_catalog.text[] := mvsched.parse_view_name(name);
begin
  if parts[1] is null then
    return pg_catalog.to_regclass(pg_catalog.quote_ident(parts[2]));
  end if;
  return (select c.oid
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
           where n.nspname operator(pg_catalog.=) parts[1] and c.relname operator(pg_catalog.=) parts[2]);
end
$$;
comment on function mvsched.find_relation(text) is
  'The OID of the relation that a name, written as in SQL, stands for in this session (an unqualified one by the search_path), or null. Waits for no lock';

create function mvsched.relation_name(relation oid) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off as $$
  select pg_catalog.format('%I.%I', n.nspname, c.relname)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where c.oid = relation
$$;
comment on function mvsched.relation_name(oid) is
  'The canonical name of any relation: schema-qualified, quoted where SQL needs it; null when there is none';

-- A list of views calls nothing for each of them: this is put in its place (so it sets nothing, and leaves nothing to be
-- looked up in the caller's search_path), and the call is for who has set quote_all_identifiers. The result has the
-- collation of names, with which no index on text is found: say which one is meant.
create function mvsched.view_name(view pg_catalog.oid, schema pg_catalog.name, name pg_catalog.name) returns pg_catalog.text
  language sql stable as $$
  select case
           when pg_catalog.current_setting('quote_all_identifiers') operator(pg_catalog.=) 'off'
           then pg_catalog.format('%I.%I', schema, name)
           else mvsched.relation_name(view)
         end
$$;
comment on function mvsched.view_name(oid, name, name) is
  'The canonical name of a materialization, for who has the names of its schema and its own already';

-- Like the one before it, it is put in the place of a call.
create function mvsched.can_be(relkind pg_catalog."char", kind pg_catalog.text) returns pg_catalog.bool
  language sql immutable as $$
  select case when kind operator(pg_catalog.=) 'view' then relkind operator(pg_catalog.=) 'm'
              else relkind operator(pg_catalog.=) any (array['r', 'p']::pg_catalog."char"[]) end
$$;
comment on function mvsched.can_be("char", text) is
  'Whether a relation (pg_class.relkind) can be what a schedule of this kind means: a materialized view, or a table';

-- Who may write a schedule may write this into another role's transaction. So it is only what decides how the server
-- gets at the rows of the view and how much memory that takes, what every role may set, and what holds for a transaction.
--
--   what the view says     DateStyle, TimeZone, extra_float_digits, gin_fuzzy_search_limit and so on: a refresh by hand would differ
--   what names mean        search_path has a column of its own; role, session_authorization, row_security: whose rights
--   limits                 statement_timeout and lock_timeout have columns of their own; others would end the record too
--   what a success means   synchronous_commit: others are told of it before it is safe. It does not make a refresh faster
--   too late               temp_buffers: only before a session's first temporary table, and the session has refreshed before
--   needs a superuser      temp_file_limit, session_replication_role and so on
--
-- One of these is worse than it looks, and refused by its value: without merge joins, CONCURRENTLY compares every row with
-- every other to find duplicates (a million rows: stopped after 6 minutes, instead of 4 seconds).
create function mvsched.may_be_set(setting pg_catalog.text) returns boolean
  language sql immutable as $$
  select setting operator(pg_catalog.~) '^enable_[a-z_]+$' or setting operator(pg_catalog.=) any (array[
    'work_mem', 'hash_mem_multiplier', 'maintenance_work_mem',
    'max_parallel_workers_per_gather', 'max_parallel_maintenance_workers', 'max_parallel_workers', 'parallel_leader_participation',
    'parallel_setup_cost', 'parallel_tuple_cost', 'min_parallel_table_scan_size', 'min_parallel_index_scan_size',
    'jit', 'jit_above_cost', 'jit_inline_above_cost', 'jit_optimize_above_cost',
    'seq_page_cost', 'random_page_cost', 'cpu_tuple_cost', 'cpu_index_tuple_cost', 'cpu_operator_cost', 'effective_cache_size',
    'effective_io_concurrency', 'maintenance_io_concurrency',
    'from_collapse_limit', 'join_collapse_limit', 'geqo', 'geqo_threshold', 'recursive_worktable_factor'])
$$;
comment on function mvsched.may_be_set(text) is
  'Whether a schedule may set this setting for its refresh: only what decides how the server computes it, and every role may set';

create function mvsched.check_refresh_settings(settings jsonb) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  one     record;
  before  text;
  problem text;
  cure    text;
begin
  for one in select e.key as name, e.value from jsonb_each_text(settings) e loop
    if not mvsched.may_be_set(one.name) then
      raise exception 'setting "%" may not be set for a refresh', one.name
        using errcode = 'invalid_parameter_value', constraint = 'refresh_settings_are_allowed',
              hint = case one.name
                when 'temp_buffers' then 'A session takes it only before its first temporary table. Set it for the role: alter role ... set temp_buffers.'
                when 'search_path' then 'It has a column of its own, and --search-path.'
                when 'statement_timeout' then 'It has a column of its own, maximum_execution_duration, and --timeout.'
                when 'lock_timeout' then 'It has a column of its own, and --lock-timeout.'
                when 'synchronous_commit' then 'A refresh is not faster without, and a crash could take back what others were told of.'
                else 'Allowed is what decides how the server computes a view, such as work_mem, jit, enable_... and the cost constants.'
              end;
    end if;
    -- The server itself says whether it is a value.
    begin
      before := current_setting(one.name);
      perform set_config(one.name, one.value, true);
      if one.name = 'enable_mergejoin' and not current_setting(one.name)::boolean then
        raise exception 'setting "enable_mergejoin" cannot be off for a refresh'
          using errcode = 'invalid_parameter_value',
                hint = 'CONCURRENTLY would compare every row with every other to find duplicates.';
      end if;
      perform set_config(one.name, before, true);
    exception when others then
      get stacked diagnostics problem = message_text, cure = pg_exception_hint;
      raise exception '%', problem
        using errcode = 'invalid_parameter_value', constraint = 'refresh_settings_are_allowed',
              hint = coalesce(nullif(cure, ''), 'The server''s documentation has its values.');
    end;
  end loop;
end
$$;
comment on function mvsched.check_refresh_settings(jsonb) is
  'Raises where one of these settings may not be set for a refresh, or the server does not take its value';

------------------------------------------------------------------------------------------------------------------------
-- Schedules
------------------------------------------------------------------------------------------------------------------------

create table mvsched.materialized_view_refresh_schedule (
  id                         bigint                 generated always as identity,
  materialized_view_name     mvsched.canonical_name not null,
  kind                       mvsched.kind           not null default 'view',
  refresh_interval           mvsched.duration,
  refresh_delay              mvsched.duration,
  cron                       mvsched.cron_expression,
  timezone                   text                   not null default 'UTC',
  after_parents              boolean                not null default false,
  on_change                  boolean                not null default false,
  debounce                   mvsched.duration,
  at_most_every              mvsched.duration,
  max_lag                    mvsched.duration,
  jitter                     mvsched.duration,
  window_start               time,
  window_end                 time,
  last_attempted_at          mvsched.instant,
  maximum_execution_duration mvsched.server_timeout not null default interval '30 minutes',
  lock_timeout               mvsched.server_timeout,
  strategy                   mvsched.strategy       not null default 'auto',
  queue                      mvsched.queue_name     not null default 'default',
  priority                   mvsched.priority       not null default 0,
  search_path                mvsched.search_path,
  settings                   mvsched.refresh_settings,
  retries                    mvsched.retries        not null default 3,
  suspend_after              mvsched.ordinal,
  on_parent_failure          mvsched.parent_failure not null default 'skip',
  skip_unchanged             boolean                not null default false,
  max_staleness              mvsched.duration       not null default interval '1 hour',
  vacuum                     mvsched.vacuum_mode    not null default 'auto',
  next_run_at                mvsched.instant,
  next_run_offset            mvsched.slot_offset    not null default interval '0',
  next_run_reason            mvsched.next_run_reason,
  slot_after_retry           mvsched.instant,
  spec_changed_at            mvsched.instant,
  requested_at               mvsched.instant,
  predicted_duration         interval,
  reachable_lag              interval,
  paused_at                  mvsched.instant,
  paused_reason              text,
  suspended_at               mvsched.instant,
  suspended_reason           text,
  consecutive_failures       mvsched.count          not null default 0,
  start_grace                mvsched.start_grace    not null default interval '3 seconds',
  view_oid                   oid,
  database_identity          text,
  open_execution_id          bigint,
  created_at                 mvsched.instant        not null default pg_catalog.now(),
  merge_source               mvsched.canonical_name,
  merge_source_oid           oid,
  merge_key                  text[],
  merge_window               mvsched.expression,
  full_interval              mvsched.duration,
  next_full_at               mvsched.instant,
  refresh_group              mvsched.group_name,
  columns_query              mvsched.query,
  columns_call               mvsched.expression,
  columns_list               text[],
  batch_rows                 mvsched.batch_rows     not null default 100,
  lanes                      mvsched.lanes          not null default 1,
  constraint materialized_view_refresh_schedule_pkey primary key (id),
  constraint materialized_view_refresh_schedule_name_key unique (materialized_view_name),
  constraint schedule_has_exactly_one_spec check (
    pg_catalog.num_nonnulls(refresh_interval, refresh_delay, cron, max_lag) + after_parents::integer + on_change::integer = 1),
  constraint debounce_is_for_on_change check (debounce is null or on_change),
  constraint at_most_every_is_for_on_change check (at_most_every is null or on_change),
  constraint jitter_fits_the_interval check (jitter <= coalesce(refresh_interval, max_lag)),
  constraint window_has_two_ends check ((window_start is null) = (window_end is null) and window_start <> window_end and window_start < time '24:00'),
  constraint paused_reason_needs_a_pause check (paused_reason is null or paused_at is not null),
  constraint suspended_reason_needs_a_suspension check (suspended_reason is null or suspended_at is not null)
);
comment on table mvsched.materialized_view_refresh_schedule is
  'One row a scheduled materialized view. Rows may be written by hand at any time: a trigger canonicalises the name, and a null next_run_at means "to be planned"';
comment on column mvsched.materialized_view_refresh_schedule.id is 'Identity; executions carry it without a foreign key, so that they outlive the schedule';
comment on column mvsched.materialized_view_refresh_schedule.materialized_view_name is 'The view, as in SQL; stored canonical: schema-qualified, quoted where needed. It follows a rename';
comment on column mvsched.materialized_view_refresh_schedule.kind is 'What is materialized: view (a materialized view), merge (a table that is kept equal to a plain view), columns (computed columns of a table)';
comment on column mvsched.materialized_view_refresh_schedule.refresh_interval is 'From slot to slot, anchored at the first run; a missed slot is run once, not n times. Null for other kinds of schedule';
comment on column mvsched.materialized_view_refresh_schedule.refresh_delay is 'From the end of a run to the start of the next. Null for other kinds of schedule';
comment on column mvsched.materialized_view_refresh_schedule.cron is 'Five fields as in crontab, or @daily and the like, read in timezone. Null for other kinds of schedule';
comment on column mvsched.materialized_view_refresh_schedule.timezone is 'The time zone that cron and the window are read in';
comment on column mvsched.materialized_view_refresh_schedule.last_attempted_at is 'When the view was last claimed for this schedule';
comment on column mvsched.materialized_view_refresh_schedule.maximum_execution_duration is 'The refresh is cancelled by the server (statement_timeout) when it takes longer';
comment on column mvsched.materialized_view_refresh_schedule.lock_timeout is 'How long a refresh may wait for a lock; null: 5 s concurrently, 1.5 s plain. Concurrently never below deadlock_timeout, since autovacuum gives way only after that';
comment on column mvsched.materialized_view_refresh_schedule.strategy is 'auto (concurrently where possible), concurrently, or plain';
comment on column mvsched.materialized_view_refresh_schedule.queue is 'The queue whose workers refresh this view';
comment on column mvsched.materialized_view_refresh_schedule.priority is 'Higher goes first: one step is worth a minute of waiting';
comment on column mvsched.materialized_view_refresh_schedule.search_path is 'search_path for the refresh; null: the one of the worker''s session. PostgreSQL 17 and newer ignore it (REFRESH sets its own)';
comment on column mvsched.materialized_view_refresh_schedule.settings is 'Settings of the server for the refresh, {"work_mem": "256MB"}: those that mvsched.may_be_set() allows. Null: none';
comment on column mvsched.materialized_view_refresh_schedule.after_parents is 'No clock: due whenever a materialized view that this one reads got new data';
comment on column mvsched.materialized_view_refresh_schedule.on_change is 'Due when what its query reads has changed (PostgreSQL 15 and newer), when somebody asks (mvsched.request_refresh), and after max_staleness';
comment on column mvsched.materialized_view_refresh_schedule.debounce is 'Changes that follow each other within this time are refreshed together. Null: half a second for requests, and no wait for changes that were seen';
comment on column mvsched.materialized_view_refresh_schedule.at_most_every is 'From the start of one refresh to the next at least. Null: 10 s for changes that were seen, and for requests without a pause';
comment on column mvsched.materialized_view_refresh_schedule.max_lag is 'As late as possible, but early enough that the data is never older than this. Null for other kinds of schedule';
comment on column mvsched.materialized_view_refresh_schedule.jitter is 'Spreads next_run_at around the slot, by up to half of this before and after it; the same for the same slot every time';
comment on column mvsched.materialized_view_refresh_schedule.window_start is 'Refreshes begin only from this time of the day on, in timezone';
comment on column mvsched.materialized_view_refresh_schedule.window_end is 'And before this one, which may be on the next day';
comment on column mvsched.materialized_view_refresh_schedule.retries is 'How often a slot is tried again after an error that may pass';
comment on column mvsched.materialized_view_refresh_schedule.suspend_after is 'Suspended after so many failed slots in a row; null: never';
comment on column mvsched.materialized_view_refresh_schedule.on_parent_failure is 'What becomes of a slot in which a view that this one reads has failed: skip, or run on the old data';
comment on column mvsched.materialized_view_refresh_schedule.skip_unchanged is 'Leave the view alone when nothing that its query reads has changed since its last refresh (PostgreSQL 15 and newer)';
comment on column mvsched.materialized_view_refresh_schedule.max_staleness is 'Refresh after this time even if nothing seems to have changed';
comment on column mvsched.materialized_view_refresh_schedule.vacuum is 'VACUUM and ANALYZE of the view after its refresh: auto (when dead rows or lost statistics call for it), never, always';
comment on column mvsched.materialized_view_refresh_schedule.next_run_at is 'When the next run may be claimed; null: to be planned by the next worker that looks';
comment on column mvsched.materialized_view_refresh_schedule.next_run_offset is 'How far next_run_at lies behind its slot (a retry, a second look) or beside it (jitter): the slot is next_run_at minus this';
comment on column mvsched.materialized_view_refresh_schedule.next_run_reason is 'Why next_run_at is not what the schedule alone says: retry, after a failure that may pass or a lock that was not to be had (such a view holds none that read it); second_look, since it seemed unchanged; request, as somebody asked for it, and the slot stays';
comment on column mvsched.materialized_view_refresh_schedule.slot_after_retry is 'Where a slot is tried again: the one that comes after it, which the slot itself does not tell where somebody had asked for it, or its group; null: counted from that one';
comment on column mvsched.materialized_view_refresh_schedule.spec_changed_at is 'When the schedule was changed last; slots before that do not count';
comment on column mvsched.materialized_view_refresh_schedule.requested_at is 'The last request (mvsched.request_refresh) that a run has answered';
comment on column mvsched.materialized_view_refresh_schedule.predicted_duration is 'Of a schedule with max_lag: how long the next refresh will take, as was assumed for next_run_at';
comment on column mvsched.materialized_view_refresh_schedule.reachable_lag is 'Of a schedule with max_lag: the shortest that could be kept, as far as history tells; where it is longer than max_lag, that cannot be kept';
comment on column mvsched.materialized_view_refresh_schedule.paused_at is 'Since when a person has paused it; null: not paused';
comment on column mvsched.materialized_view_refresh_schedule.paused_reason is 'Why, in that person''s words';
comment on column mvsched.materialized_view_refresh_schedule.suspended_at is 'Since when mvsched has given up on it after repeated failures; null: not suspended';
comment on column mvsched.materialized_view_refresh_schedule.suspended_reason is 'Why it was suspended';
comment on column mvsched.materialized_view_refresh_schedule.consecutive_failures is 'Failed slots since the last success; a refresh by hand that fails does not count';
comment on column mvsched.materialized_view_refresh_schedule.start_grace is 'How long a claim may go without beginning its refresh before it counts as never started; doubled each time that happens, reset by a success';
comment on column mvsched.materialized_view_refresh_schedule.view_oid is 'The view''s OID, which follows a rename; null: no such view when last looked';
comment on column mvsched.materialized_view_refresh_schedule.database_identity is 'Where view_oid was read (mvsched.database_identity()); elsewhere, as after a restore, the view is found again by name';
comment on column mvsched.materialized_view_refresh_schedule.open_execution_id is 'The claimed execution whose end has not been settled into this row yet; null: none';
comment on column mvsched.materialized_view_refresh_schedule.created_at is 'When the schedule was added';
comment on column mvsched.materialized_view_refresh_schedule.merge_source is 'Of a merge table: the plain view that it is kept equal to; stored canonical. Its query runs with the rights of the worker''s role';
comment on column mvsched.materialized_view_refresh_schedule.merge_source_oid is 'The plain view''s OID; null: no such view when last looked';
comment on column mvsched.materialized_view_refresh_schedule.merge_key is 'Of a merge table: the columns that say which rows are the same one';
comment on column mvsched.materialized_view_refresh_schedule.merge_window is 'Of a merge table: refresh the rows for which this is true, a boolean expression over its columns, and leave the others alone. It runs with the rights of the worker''s role';
comment on column mvsched.materialized_view_refresh_schedule.full_interval is 'Of a merge table with a window: from one refresh of all rows to the next at least; null: only when somebody asks';
comment on column mvsched.materialized_view_refresh_schedule.next_full_at is 'Of a merge table with a window: the first refresh from this instant on is one of all rows; null: none is planned';
comment on column mvsched.materialized_view_refresh_schedule.refresh_group is 'Refreshed together with the other schedules of this group, in one transaction, from one snapshot, all or none; due as soon as one of them is. Null: by itself';
comment on column mvsched.materialized_view_refresh_schedule.columns_query is 'Of a table with materialized columns: a query over batch(id) that gives id and the columns. It runs with the rights of the worker''s role';
comment on column mvsched.materialized_view_refresh_schedule.columns_call is 'Or the call of a function, which materializes some rows each time. It runs with the rights of the worker''s role';
comment on column mvsched.materialized_view_refresh_schedule.columns_list is 'The columns that columns_query gives, without id; written by a trigger. One that is new is filled alone';
comment on column mvsched.materialized_view_refresh_schedule.batch_rows is 'Of columns_query: how many rows the first batch of a run has; the others are as large as keeps them short';
comment on column mvsched.materialized_view_refresh_schedule.lanes is 'Of columns_query: how many workers may be at the table at the same time, each with rows of its own';

-- The claim reads this one, queue by queue in order of next_run_at, and nothing else.
create index materialized_view_refresh_schedule_due
    on mvsched.materialized_view_refresh_schedule (queue, next_run_at, id)
 where paused_at is null and suspended_at is null and open_execution_id is null;
create index materialized_view_refresh_schedule_after_parents
    on mvsched.materialized_view_refresh_schedule (view_oid)
 where after_parents and next_run_at is null;
create index materialized_view_refresh_schedule_unplanned
    on mvsched.materialized_view_refresh_schedule (id)
 where next_run_at is null;
create index materialized_view_refresh_schedule_unsettled
    on mvsched.materialized_view_refresh_schedule (open_execution_id)
 where open_execution_id is not null;
create index materialized_view_refresh_schedule_view_oid
    on mvsched.materialized_view_refresh_schedule (view_oid);
comment on index mvsched.materialized_view_refresh_schedule_due is 'What the claim scans: claimable schedules by due time';
comment on index mvsched.materialized_view_refresh_schedule_after_parents is 'Schedules without a clock that wait for new data in what they read';
comment on index mvsched.materialized_view_refresh_schedule_unplanned is 'Schedules whose next slot is still to be computed';
comment on index mvsched.materialized_view_refresh_schedule_unsettled is 'Schedules with a claim under way or not yet settled';
comment on index mvsched.materialized_view_refresh_schedule_view_oid is 'From a view to its schedule';
create index materialized_view_refresh_schedule_table
    on mvsched.materialized_view_refresh_schedule (view_oid)
 where kind <> 'view';
comment on index mvsched.materialized_view_refresh_schedule_table is 'Which tables are materializations';
create index materialized_view_refresh_schedule_group
    on mvsched.materialized_view_refresh_schedule (refresh_group, id)
 where refresh_group is not null;
comment on index mvsched.materialized_view_refresh_schedule_group is 'The members of a group';

------------------------------------------------------------------------------------------------------------------------
-- What is a materialization
--
-- Every materialized view is one, scheduled or not; a table is one because a schedule says so. Whoever asks, asks here.
------------------------------------------------------------------------------------------------------------------------

create view mvsched.materialization as
select c.oid, c.relname, c.relnamespace, c.relowner, c.relkind, 'view' as kind, null::oid as source
  from pg_catalog.pg_class c
 where c.relkind = 'm'
 union all
select c.oid, c.relname, c.relnamespace, c.relowner, c.relkind, s.kind::text, s.merge_source_oid
  from mvsched.materialized_view_refresh_schedule s
  join pg_catalog.pg_class c on c.oid = s.view_oid and mvsched.can_be(c.relkind, s.kind)
 where s.kind <> 'view'
   and s.database_identity = (select mvsched.database_identity());
comment on view mvsched.materialization is 'What can be refreshed: every materialized view, and the tables that schedules make merge tables or fill the columns of';
comment on column mvsched.materialization.oid is 'The relation';
comment on column mvsched.materialization.relname is 'Its name';
comment on column mvsched.materialization.relnamespace is 'Its schema';
comment on column mvsched.materialization.relowner is 'Its owner';
comment on column mvsched.materialization.relkind is 'm, or that of a table';
comment on column mvsched.materialization.kind is 'view, merge, columns';
comment on column mvsched.materialization.source is 'Of a merge table: the plain view that it is kept equal to';

create function mvsched.view_name(view oid) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off as $$
  select pg_catalog.format('%I.%I', n.nspname, m.relname)
    from mvsched.materialization m
    join pg_catalog.pg_namespace n on n.oid = m.relnamespace
   where m.oid = view
$$;
comment on function mvsched.view_name(oid) is
  'The canonical name of a materialization: schema-qualified, quoted where SQL needs it; null when the OID is none';

create function mvsched.resolve_view(view oid, identity text, name text, here text) returns oid
  language plpgsql stable
  set search_path = pg_catalog, pg_temp as $$
begin
  if identity = here and exists (select from mvsched.materialization m where m.oid = view) then
    return view;
  end if;
  return (select c.oid
            from pg_catalog.pg_class c
           where c.oid = mvsched.find_relation(name)
             and mvsched.can_be(c.relkind, coalesce(
                   (select s.kind from mvsched.materialized_view_refresh_schedule s where s.materialized_view_name = name), 'view')));
exception when invalid_parameter_value or invalid_name or name_too_long then
  return null; -- a name that came past the trigger: no view, rather than an error for every other row
end
$$;
comment on function mvsched.resolve_view(oid, text, text, text) is
  'The materialization that a schedule means: its OID as long as that counts here (database identity) and exists, else the one that has its name now, else null';

create function mvsched.check_schedule() returns trigger
  language plpgsql as $$
declare
  path     pg_catalog.text := pg_catalog.current_setting('search_path');
  parts    pg_catalog.text[];
  relation pg_catalog.oid;
  other    pg_catalog.text;
  what     pg_catalog.text;
begin
  -- The writer's search_path says what an unqualified name stands for, and nothing else.
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  what := case new.kind when 'view' then 'materialized view' else 'table' end;

  if tg_op = 'INSERT' or new.materialized_view_name is distinct from old.materialized_view_name or new.kind <> old.kind then
    parts := mvsched.parse_view_name(new.materialized_view_name);
    perform pg_catalog.set_config('search_path', path, true);
    relation := mvsched.find_relation(new.materialized_view_name);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    if (select mvsched.can_be(c.relkind, new.kind) from pg_class c where c.oid = relation) then
      new.materialized_view_name := mvsched.relation_name(relation);
    elsif relation is not null then
      raise exception '% is not a %', new.materialized_view_name, what using errcode = 'wrong_object_type';
    elsif parts[1] is null then
      raise exception '% % does not exist', what, new.materialized_view_name
        using errcode = 'undefined_table', hint = 'It is not in the search_path. Write schema.view.';
    else
      -- Taken all the same: a restore may load schedules before the views. It shows as "missing" until the view is there.
      new.materialized_view_name := (mvsched.names_in(null, new.materialized_view_name))[1];
      raise warning '% % does not exist', what, new.materialized_view_name;
    end if;
    new.view_oid := relation;
    new.database_identity := mvsched.database_identity();

    select s.materialized_view_name into other
      from mvsched.materialized_view_refresh_schedule s
     where s.view_oid = new.view_oid and s.database_identity = new.database_identity and s.id <> new.id
       and s.materialized_view_name <> new.materialized_view_name; -- the same name is for the unique key, and "on conflict"
    if found then
      raise exception '% % is scheduled already, as %', what, new.materialized_view_name, other
        using errcode = 'unique_violation';
    end if;
  end if;

  if tg_op = 'INSERT'
     or (new.kind, new.merge_source, new.merge_key, new.merge_window, new.full_interval, new.next_full_at)
        is distinct from (old.kind, old.merge_source, old.merge_key, old.merge_window, old.full_interval, old.next_full_at) then
    perform pg_catalog.set_config('search_path', path, true);
    relation := case when new.merge_source is not null then mvsched.find_relation(new.merge_source) end;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    new := mvsched.check_merge(new, relation);
  end if;

  if new.search_path is not null and (tg_op = 'INSERT' or new.search_path is distinct from old.search_path) then
    perform pg_catalog.set_config('search_path', new.search_path, true); -- the server itself says whether it is one
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  end if;

  if new.refresh_group is not null and new.kind <> 'view' then
    raise exception '% is a table, and only materialized views can be in a group', new.materialized_view_name
      using errcode = 'feature_not_supported';
  end if;

  if new.settings is not null and (tg_op = 'INSERT' or new.settings is distinct from old.settings) then
    perform mvsched.check_refresh_settings(new.settings);
  end if;

  if tg_op = 'INSERT' or new.timezone is distinct from old.timezone then
    perform timezone(new.timezone, now()); -- raises where there is no such zone
  end if;

  if tg_op = 'UPDATE'
     and (new.refresh_interval, new.refresh_delay, new.cron, new.timezone, new.after_parents, new.on_change, new.max_lag,
          new.jitter, new.window_start, new.window_end)
         is distinct from
         (old.refresh_interval, old.refresh_delay, old.cron, old.timezone, old.after_parents, old.on_change, old.max_lag,
          old.jitter, old.window_start, old.window_end) then
    new.spec_changed_at := now();
    if new.next_run_at is not distinct from old.next_run_at then
      new.next_run_at := null;
    end if;
    new.next_run_offset := interval '0';
    new.next_run_reason := null;
    new.slot_after_retry := null;
  end if;

  perform pg_catalog.set_config('search_path', path, true);
  return new;
end
$$;
comment on function mvsched.check_schedule() is
  'Makes a written schedule safe: canonical name and OID, a search_path and settings that the server accepts, and a changed spec planned anew';

create table mvsched.queue (
  name text not null,
  constraint queue_pkey primary key (name)
);
comment on table mvsched.queue is
  'One row a queue that a schedule is in, or was: to find them among the schedules, a claim would read over all that is due there, and was';
comment on column mvsched.queue.name is 'Its name';

create function mvsched.note_queue() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from mvsched.queue q where q.name = new.queue) then
    insert into mvsched.queue values (new.queue) on conflict do nothing;
  end if;
  return null;
end
$$;
comment on function mvsched.note_queue() is 'Keeps mvsched.queue';

create trigger note_queue
  after insert or update of queue on mvsched.materialized_view_refresh_schedule
  for each row execute function mvsched.note_queue();

-- Only these columns: what workers write (next_run_at, last_attempted_at, and so on) passes without it.
create trigger check_schedule
  before insert or update of materialized_view_name, kind, refresh_interval, refresh_delay, cron, timezone, after_parents, on_change,
                             max_lag, jitter, window_start, window_end, search_path, settings, merge_source, merge_key,
                             merge_window, full_interval, refresh_group
  on mvsched.materialized_view_refresh_schedule
  for each row execute function mvsched.check_schedule();

create function mvsched.announce_schedule() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_catalog.pg_notify('mvsched_schedule', '');
  return null;
end
$$;
comment on function mvsched.announce_schedule() is 'Wakes workers that listen on channel mvsched_schedule: something may be due sooner than they think';

create trigger announce_schedule
  after insert on mvsched.materialized_view_refresh_schedule
  for each statement execute function mvsched.announce_schedule();

-- By what changes, not by what is written: workers write these columns all the time, and what they settle and plan wakes
-- the others only where there is something sooner than those can know of.
create trigger announce_changed_schedule
  after update on mvsched.materialized_view_refresh_schedule
  for each row when (
    new.next_run_at < coalesce(old.next_run_at, 'infinity')
    or new.spec_changed_at is distinct from old.spec_changed_at
    or new.queue is distinct from old.queue
    or old.paused_at is not null and new.paused_at is null
    or old.suspended_at is not null and new.suspended_at is null)
  execute function mvsched.announce_schedule();

create function mvsched.names_in(schemas name[], name text) returns text[]
  language sql stable
  set search_path = pg_catalog, pg_temp
  set quote_all_identifiers = off as $$
  select array_agg(format('%I.%I', path.schema, parts[2]) order by path.position)
    from mvsched.parse_view_name(name) as parts
   cross join lateral unnest(case when parts[1] is null then schemas::text[] else parts[1:1] end)
                        with ordinality as path (schema, position)
$$;
comment on function mvsched.names_in(name[], text) is
  'The canonical names that a name, written as in SQL, may stand for: in each of the schemas, or, when it is qualified, in its own';

create function mvsched.find_schedule(name text, relation oid, schemas name[]) returns bigint
  language sql stable
  set search_path = pg_catalog, pg_temp as $$
  select found.id
    from (select mvsched.database_identity() as identity offset 0) here
   cross join lateral (
          -- by the view itself, whatever it was called when it was scheduled
          select s.id, 0 as rank
            from mvsched.materialized_view_refresh_schedule s
           where s.view_oid = relation and s.database_identity = here.identity
          union all
          -- by the stored name: the view is gone, or this is another database than the one it was scheduled in
          select s.id, possible.rank
            from unnest(mvsched.names_in(schemas, name)) with ordinality as possible (name, rank)
            join mvsched.materialized_view_refresh_schedule s on s.materialized_view_name = possible.name
           where mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, here.identity)
                 is not distinct from relation
        ) found
   order by found.rank, found.id
   limit 1
$$;
comment on function mvsched.find_schedule(text, oid, name[]) is
  'The schedule that a name, written as in SQL, means: of the relation that it stands for in the caller''s session (find_relation), or under that name in one of the schemas (current_schemas); null when there is none';

-- Stable, as is the subtraction: called immutable it could not be put in the place of its call.
create function mvsched.slot(next_run_at timestamptz, next_run_offset interval, next_run_reason text) returns timestamptz
  language sql stable as $$
  select case when next_run_reason operator(pg_catalog.=) 'request' then next_run_at
              -- A hand may have written two that do not go together, and that must not stop the claim for every view.
              when next_run_at is not null then greatest('1970-01-01 00:00+00', least('9999-12-31 00:00+00', next_run_at operator(pg_catalog.-) next_run_offset)) end
$$;
comment on function mvsched.slot(timestamptz, interval, text) is
  'The slot that a schedule is claimed for next; a request is its own, and leaves the schedule''s, which a null reason asks for, where it is';

create function mvsched.keep_clock() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  if new.next_run_at is not distinct from old.next_run_at or new.next_run_reason is distinct from old.next_run_reason
     or new.last_attempted_at is distinct from old.last_attempted_at then -- a claim that jitter leads to the offset that it had
    return new;
  elsif new.next_run_reason = 'request' and new.next_run_at is not null then
    new.next_run_offset := new.next_run_at - mvsched.slot(old.next_run_at, old.next_run_offset, null);
  else
    new.next_run_offset := interval '0';
    new.next_run_reason := null;
    new.slot_after_retry := null;
  end if;
  return new;
end
$$;
comment on function mvsched.keep_clock() is
  'Makes a next_run_at that somebody has written alone a slot of its own, whatever the one before was moved by; that of a request leaves the clock where it is';

-- Workers write both, so it is not called for what they do. A longer condition would cost them more: it is read anew for each statement.
create trigger keep_clock
  before update of next_run_at on mvsched.materialized_view_refresh_schedule
  for each row when (new.next_run_offset = old.next_run_offset and new.next_run_offset <> interval '0')
  execute function mvsched.keep_clock();

create function mvsched.in_window(at timestamptz, window_start time, window_end time, zone text) returns timestamptz
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp as $$
declare
  inside timestamptz := at;
  wall   timestamp;
  opens  timestamp;
begin
  if window_start is null then
    return at;
  end if;
  begin
    loop
      wall := inside at time zone zone;
      if (case when window_start < window_end then wall::time >= window_start and wall::time < window_end
               else wall::time >= window_start or wall::time < window_end end) is not false then
        return inside;
      end if;
      opens := wall::date + window_start;
      if opens <= wall then
        opens := opens + interval '1 day';
      end if;
      -- A time that the clocks skip comes at the end of the gap; the window may be over by then.
      while (opens at time zone zone) at time zone zone <> opens loop
        opens := opens + interval '1 minute';
      end loop;
      inside := opens at time zone zone;
    end loop;
  exception when invalid_parameter_value then
    return null; -- one that is raised would stop the claim for every view
  end;
end
$$;
comment on function mvsched.in_window(timestamptz, time, time, text) is
  'The instant itself when it lies in the daily window or there is none, else when the window opens next; null: the server does not know the time zone, as after a restore or an update of its zones';

-- As the planner does with a cron expression that cannot be read. Until it is claimed, it is planned without its window.
create function mvsched.suspended_without_zone(schedules bigint[], instant timestamptz) returns boolean
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  update mvsched.materialized_view_refresh_schedule s
     set suspended_at = instant, suspended_reason = 'there is no time zone ' || s.timezone
   where s.id = any (schedules) and mvsched.in_window(instant, s.window_start, s.window_end, s.timezone) is null;
  return found;
end
$$;
comment on function mvsched.suspended_without_zone(bigint[], timestamptz) is
  'Suspends those of the schedules whose window is in a time zone that the server does not know; whether there are any';

create function mvsched.planned(schedule mvsched.materialized_view_refresh_schedule, slot timestamptz)
  returns mvsched.materialized_view_refresh_schedule
  language plpgsql stable
  set search_path = pg_catalog, pg_temp as $$
declare
  opens   timestamptz;
  seconds float8;
begin
  slot := least(slot, '9999-12-31 00:00+00');
  opens := mvsched.in_window(slot, schedule.window_start, schedule.window_end, schedule.timezone);
  if opens > slot then
    if schedule.refresh_interval is not null then
      -- The grid goes on through the closed hours; only where none of it falls into the window, that is when it opens. The
      -- other way round, a window opens when it closes.
      seconds := extract(epoch from schedule.refresh_interval);
      slot := slot + make_interval(secs => ceil(extract(epoch from opens - slot)::float8 / seconds) * seconds);
      if mvsched.in_window(slot, schedule.window_start, schedule.window_end, schedule.timezone) > slot
         or mvsched.in_window(opens, schedule.window_end, schedule.window_start, schedule.timezone) <= slot then
        slot := opens;
      end if;
    else
      slot := opens;
    end if;
    slot := least(slot, '9999-12-31 00:00+00');
  end if;
  schedule.next_run_at := slot;
  if schedule.jitter is not null then
    -- From the slot and the schedule, so that whoever plans it comes to the same.
    seconds := (hashint8extended(schedule.id, extract(epoch from slot)::bigint) & 1048575) / 1048575.0 - 0.5;
    schedule.next_run_at := slot + make_interval(secs => seconds * extract(epoch from schedule.jitter)::float8);
    if schedule.max_lag is not null then
      schedule.next_run_at := least(schedule.next_run_at, slot); -- later, its data would be too old
    end if;
    if slot > schedule.last_attempted_at then
      -- A jitter that is longer than the way from run to run must not bring a run on behind the other.
      schedule.next_run_at := greatest(schedule.next_run_at, slot - (slot - schedule.last_attempted_at) / 2);
    end if;
    if mvsched.in_window(schedule.next_run_at, schedule.window_start, schedule.window_end, schedule.timezone)
       > schedule.next_run_at then
      schedule.next_run_at := slot;
    end if;
  end if;
  schedule.next_run_at := least(schedule.next_run_at, '9999-12-31 00:00+00');
  schedule.next_run_offset := schedule.next_run_at - slot;
  schedule.next_run_reason := null;
  return schedule;
end
$$;
comment on function mvsched.planned(mvsched.materialized_view_refresh_schedule, timestamptz) is
  'The schedule with this slot as its next one: moved into its window, and jittered';

------------------------------------------------------------------------------------------------------------------------
-- Requests
------------------------------------------------------------------------------------------------------------------------

create table mvsched.materialized_view_refresh_request (
  materialized_view_refresh_schedule_id bigint      not null,
  transaction                           xid8        not null default pg_catalog.pg_current_xact_id(),
  requested_at                          mvsched.instant not null default pg_catalog.clock_timestamp(),
  constraint materialized_view_refresh_request_pkey primary key (materialized_view_refresh_schedule_id, transaction)
);
comment on table mvsched.materialized_view_refresh_request is
  'Requests that no run has answered yet (mvsched.request_refresh). One a transaction, and never merged with one of another: that might be answered by a refresh that does not see this one''s changes';
comment on column mvsched.materialized_view_refresh_request.materialized_view_refresh_schedule_id is 'The schedule of the view';
comment on column mvsched.materialized_view_refresh_request.transaction is 'The transaction that asks';
comment on column mvsched.materialized_view_refresh_request.requested_at is 'When it asked first';

-- It runs with its owner's rights and under its caller's search_path, which says what an unqualified name stands for. So
-- everything in it is qualified until the path is a safe one.
create function mvsched.request_refresh(view pg_catalog.text) returns pg_catalog.void
  language plpgsql security definer as $$
declare
  path     pg_catalog.text := pg_catalog.current_setting('search_path');
  caller   pg_catalog.text;
  relation pg_catalog.oid;
  schemas  pg_catalog.name[];
  schedule pg_catalog.int8;
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  if view is null then
    raise exception 'name the materialized view' using errcode = 'null_value_not_allowed';
  end if;
  -- In here, "$user" would be the owner.
  caller := case current_setting('role') when 'none' then session_user::text else current_setting('role') end;
  perform set_config('search_path', regexp_replace(path, '(^|,)[[:space:]]*("[$]user"|[$]user)[[:space:]]*(?=,|$)',
    E'\\1' || replace(quote_ident(caller), E'\\', E'\\\\'), 'g'), true);
  relation := mvsched.find_relation(view);
  schemas := pg_catalog.current_schemas(true);
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  schedule := mvsched.find_schedule(view, relation, schemas);
  if schedule is null and mvsched.view_name(relation) is null then
    raise exception 'there is no materialized view %', view using errcode = 'undefined_table';
  elsif schedule is null then
    raise exception 'materialized view % has no schedule', view
      using errcode = 'undefined_object', hint = format('Schedule it with: mvsched add %L --on-change', mvsched.view_name(relation));
  end if;
  insert into mvsched.materialized_view_refresh_request (materialized_view_refresh_schedule_id)
  values (schedule) on conflict do nothing;
  perform pg_notify('mvsched_schedule', '');
  perform set_config('search_path', path, true);
end
$$;
comment on function mvsched.request_refresh(text) is
  'Asks for a refresh of a scheduled view as soon as this transaction has committed; its slots stay where they are. From any SQL client or trigger: grant execute to whom it is for';
revoke execute on function mvsched.request_refresh(text) from public;

------------------------------------------------------------------------------------------------------------------------
-- Executions
------------------------------------------------------------------------------------------------------------------------

-- One function for what would be eight CHECKs: those the server reads anew from their text for every statement (0.2 ms a
-- refresh).
create function mvsched.makes_sense(
  status text, reason text, started_at timestamptz, ended_at timestamptz, terminated_at timestamptz, method text,
  data_as_of timestamptz, error_name text, error_message text, rows_inserted bigint, rows_deleted bigint)
  returns boolean language plpgsql immutable
  set search_path = pg_catalog, pg_temp as $$
begin
  return (status = 'running') = (ended_at is null)
     and (ended_at is null or ended_at >= started_at)
     and (terminated_at is null or status in ('timed_out', 'cancelled', 'abandoned'))
     and (status <> 'skipped' or reason is not null)
     and (status not in ('running', 'succeeded') or (error_name is null and error_message is null))
     and (data_as_of is null or status in ('succeeded', 'skipped'))
     and (status <> 'succeeded' or (method is not null and data_as_of is not null))
     and ((rows_inserted is null and rows_deleted is null) or coalesce(method <> 'plain', true));
end
$$;
comment on function mvsched.makes_sense(text, text, timestamptz, timestamptz, timestamptz, text, timestamptz, text, text, bigint, bigint) is
  'Whether an execution can be: running until it ended, and not before it started; terminated only from outside; skipped for a reason; succeeded without an error, with method and data; rows counted but for a plain refresh';

create table mvsched.materialized_view_refresh_schedule_execution (
  id                      bigint                    generated always as identity,
  materialized_view_refresh_schedule_id bigint,
  view_name               mvsched.canonical_name    not null,
  view_oid                              oid,
  status                  mvsched.execution_status  not null default 'running',
  reason                                text,
  trigger                 mvsched.execution_trigger not null default 'schedule',
  scheduled_at                          mvsched.instant,
  attempt                 mvsched.ordinal           not null default 1,
  started_at              mvsched.instant           not null default pg_catalog.clock_timestamp(),
  ended_at                              mvsched.instant,
  terminated_at                         mvsched.instant,
  execution_is_successful boolean                   generated always as (
    case status when 'succeeded' then true when 'running' then null when 'skipped' then null else false end) stored,
  method                                mvsched.method,
  method_reason                         text,
  rows_inserted                         bigint,
  rows_deleted                          bigint,
  rows_kept                             bigint,
  data_as_of                            mvsched.instant,
  refreshed_at                          mvsched.instant,
  fingerprint                           text,
  tuples_written                        bigint,
  predicted_duration                    interval,
  error_name                            text,
  error_message                         text,
  worker                                text,
  start_grace             mvsched.start_grace       not null default interval '3 seconds',
  lane                    smallint                  not null default 0,
  batch_at                              mvsched.instant,
  refresh_group                         mvsched.group_name,
  rows_done                             bigint,
  rows_left                             bigint,
  constraint materialized_view_refresh_schedule_execution_pkey primary key (id),
  constraint execution_makes_sense check (mvsched.makes_sense(
    status, reason, started_at, ended_at, terminated_at, method, data_as_of, error_name, error_message, rows_inserted, rows_deleted))
);
comment on table mvsched.materialized_view_refresh_schedule_execution is
  'One row a refresh: inserted by the claim as running, ended exactly once, never changed after that. A run is alive exactly as long as its transaction holds the lock on this row';
comment on column mvsched.materialized_view_refresh_schedule_execution.id is 'Identity, one a claim: with started_at the token that every later step is fenced by, since a crash can take an id back';
comment on column mvsched.materialized_view_refresh_schedule_execution.materialized_view_refresh_schedule_id is 'The schedule, which may have been removed since; null: the view was not scheduled, or it is a lane beside the first one, which belongs to no slot';
comment on column mvsched.materialized_view_refresh_schedule_execution.view_name is 'The view''s canonical name at the claim';
comment on column mvsched.materialized_view_refresh_schedule_execution.view_oid is 'The view''s OID at the claim; null: there was no such view';
comment on column mvsched.materialized_view_refresh_schedule_execution.status is 'running, or how it ended: succeeded, failed, timed_out, cancelled, skipped, abandoned';
comment on column mvsched.materialized_view_refresh_schedule_execution.reason is 'Why it ended so, in one word: lock_busy, never_started, worker_lost, shutdown and others';
comment on column mvsched.materialized_view_refresh_schedule_execution.trigger is 'What asked for it: schedule, manual, parent, change, retry';
comment on column mvsched.materialized_view_refresh_schedule_execution.scheduled_at is 'The slot it was claimed for; null when nothing was scheduled';
comment on column mvsched.materialized_view_refresh_schedule_execution.attempt is 'The how-manieth try at this slot, from 1';
comment on column mvsched.materialized_view_refresh_schedule_execution.started_at is 'When it was claimed; the refresh begins milliseconds later';
comment on column mvsched.materialized_view_refresh_schedule_execution.ended_at is 'When it ended; null while running';
comment on column mvsched.materialized_view_refresh_schedule_execution.terminated_at is 'When it was ended from outside: by its time limit, by a cancel, or found dead';
comment on column mvsched.materialized_view_refresh_schedule_execution.execution_is_successful is 'True for succeeded; null while running and when skipped; else false';
comment on column mvsched.materialized_view_refresh_schedule_execution.method is 'How it was refreshed: concurrently or plain; a merge table by merge, columns by columns';
comment on column mvsched.materialized_view_refresh_schedule_execution.method_reason is 'Why that method, in one word: unique_index, no_unique_index, no_temp_privilege, first_fill, requested';
comment on column mvsched.materialized_view_refresh_schedule_execution.rows_kept is 'About how many rows of the view the refresh left alone, by the server''s counters; null for plain';
comment on column mvsched.materialized_view_refresh_schedule_execution.refreshed_at is 'When the refresh began whose contents the view had at the end: this one, or, when skipped as unchanged, an earlier one';
comment on column mvsched.materialized_view_refresh_schedule_execution.fingerprint is 'What the view''s query reads looked like at the claim (mvsched.fingerprint); null: not asked for, or not to be judged';
comment on column mvsched.materialized_view_refresh_schedule_execution.tuples_written is 'The view''s counters of rows inserted and deleted after this refresh: what goes beyond, somebody else has written';
comment on column mvsched.materialized_view_refresh_schedule_execution.predicted_duration is 'How long it would take, as was assumed to keep its schedule''s max_lag; null for other schedules';
comment on column mvsched.materialized_view_refresh_schedule_execution.rows_inserted is 'Rows that the refresh wrote into the view; null for plain';
comment on column mvsched.materialized_view_refresh_schedule_execution.rows_deleted is 'Rows that the refresh removed from the view; null for plain. A changed row counts in both';
comment on column mvsched.materialized_view_refresh_schedule_execution.data_as_of is 'The view''s contents are at least as new as this instant';
comment on column mvsched.materialized_view_refresh_schedule_execution.error_name is 'The condition name of the error''s SQLSTATE, such as division_by_zero';
comment on column mvsched.materialized_view_refresh_schedule_execution.error_message is 'The error''s primary message, never its DETAIL, which may carry row data';
comment on column mvsched.materialized_view_refresh_schedule_execution.worker is 'Which process claimed it: host and process id, for people';
comment on column mvsched.materialized_view_refresh_schedule_execution.start_grace is 'How long after started_at, or the last batch, an execution that no transaction has locked is left alone';
comment on column mvsched.materialized_view_refresh_schedule_execution.lane is 'Which of those that may run at the same time for one table; 0 where only one may';
comment on column mvsched.materialized_view_refresh_schedule_execution.batch_at is 'When its last batch was committed, or a group that somebody overtook began anew; null: neither has happened';
comment on column mvsched.materialized_view_refresh_schedule_execution.refresh_group is 'The group that it was claimed with: those with the same one and the same started_at are one transaction; null: by itself';
comment on column mvsched.materialized_view_refresh_schedule_execution.rows_done is 'How many rows its batches have materialized; null: it does not work in batches';
comment on column mvsched.materialized_view_refresh_schedule_execution.rows_left is 'How many rows of the table were left after the last one, in all lanes; beyond 20,000 the planner guesses';

-- The guard of guards: whatever the code does, a second running execution of one view cannot exist.
create unique index materialized_view_refresh_schedule_execution_running
    on mvsched.materialized_view_refresh_schedule_execution (view_oid, lane)
 where status = 'running';
create index materialized_view_refresh_schedule_execution_schedule
    on mvsched.materialized_view_refresh_schedule_execution (materialized_view_refresh_schedule_id, id);
create index materialized_view_refresh_schedule_execution_data
    on mvsched.materialized_view_refresh_schedule_execution (view_oid, id)
 where data_as_of is not null;
create index materialized_view_refresh_schedule_execution_new_data
    on mvsched.materialized_view_refresh_schedule_execution (view_oid, id)
 where status = 'succeeded' and not coalesce(rows_inserted = 0 and rows_deleted = 0, false);
create index materialized_view_refresh_schedule_execution_view
    on mvsched.materialized_view_refresh_schedule_execution (view_name, id);
comment on index mvsched.materialized_view_refresh_schedule_execution_running is 'At most one running execution a view and lane';
comment on index mvsched.materialized_view_refresh_schedule_execution_schedule is 'The last execution of a schedule';
comment on index mvsched.materialized_view_refresh_schedule_execution_data is 'The last execution that brought a view up to date';
comment on index mvsched.materialized_view_refresh_schedule_execution_new_data is 'The last execution that changed the contents of a view';
comment on index mvsched.materialized_view_refresh_schedule_execution_view is 'The history of a view';

create function mvsched.keep_terminal_execution() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'execution % has ended as % and cannot change', old.id, old.status
    using errcode = 'integrity_constraint_violation', hint = 'Insert a new execution, or delete this one.';
end
$$;
comment on function mvsched.keep_terminal_execution() is 'Refuses every change to an execution that has ended; the trigger is only for those';

create trigger keep_terminal_execution
  before update on mvsched.materialized_view_refresh_schedule_execution
  for each row when (old.status <> 'running') execute function mvsched.keep_terminal_execution();

create function mvsched.announce_execution() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_catalog.pg_notify('mvsched', pg_catalog.json_build_object(
    'execution', new.id, 'view', new.view_name, 'status', new.status)::text);
  return null;
end
$$;
comment on function mvsched.announce_execution() is
  'Tells listeners on channel mvsched, at the commit of the transaction that ended it, that an execution has ended; never the error text, since any role may listen';

create trigger announce_execution
  after insert or update of status on mvsched.materialized_view_refresh_schedule_execution
  for each row when (new.status <> 'running')
  execute function mvsched.announce_execution();

------------------------------------------------------------------------------------------------------------------------
-- What reads what
------------------------------------------------------------------------------------------------------------------------

-- What is called here has a plan of its own, and callers take it for a thousand rows whatever the catalog's statistics say: after
-- many views were created at once they know of none, and each join that expects none is a loop within a loop. Every step
-- looks up the next one by an index.
create function mvsched.dependencies() returns table (parent oid, child oid)
  language sql stable rows 1000
  set search_path = pg_catalog, pg_temp as $$
  with recursive tables as materialized (
    select m.oid, m.source
      from mvsched.materialization m
     where m.kind <> 'view'
  ), reach as (
    -- down from a materialized view, or from the plain one that a merge table is kept equal to, through plain ones, to the first
    -- materializations; union ends cycles and keeps diamonds small. Where it begins, a view is only what leads on.
    (select c.oid as child, c.oid as source, true as plain
       from pg_class c
      where c.relkind = 'm' and c.oid >= 16384
     union all
     select tables.oid, tables.source, true
       from tables
      where tables.source is not null)
    union
    select reach.child, c.oid, c.relkind = 'v'
      from reach
      join pg_rewrite r on r.ev_class = reach.source and r.rulename = '_RETURN'
      join pg_depend d
        on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass and d.refobjid <> r.ev_class
      join pg_class c on c.oid = d.refobjid and (c.relkind in ('v', 'm') or c.oid in (select tables.oid from tables))
     where reach.plain
  )
  select reach.source, reach.child
    from reach
   where not reach.plain
$$;
comment on function mvsched.dependencies() is 'What materialized_view_dependency shows';

create view mvsched.materialized_view_dependency as
select d.parent, d.child
  from mvsched.dependencies() d;
comment on view mvsched.materialized_view_dependency is
  'One row for each materialization (parent) that the query of another (child) reads, directly or through plain views, from the catalog as it is now. What a function''s body reads is not in the catalog';
comment on column mvsched.materialized_view_dependency.parent is 'OID of the materialized view, or table, that is read';
comment on column mvsched.materialized_view_dependency.child is 'OID of the materialized view, or merge table, whose query reads it';

create view mvsched.materialized_view_reads as
-- Put together by sorting, not by a join: see mvsched.dependencies.
with reads as materialized (
  select line.child, pg_catalog.array_agg(line.parent order by line.parent) filter (where line.parent is not null) as parents
    from (select d.child, mvsched.view_name(c.oid, n.nspname, c.relname) as parent
            from mvsched.materialized_view_dependency d
            join pg_catalog.pg_class c on c.oid = d.parent
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          union all
          select m.oid, null
            from mvsched.materialization m) line
   group by line.child
)
select c.oid                                                                            as view_oid,
       mvsched.view_name(c.oid, n.nspname, c.relname) collate pg_catalog."default"      as view_name,
       coalesce(reads.parents, '{}')                                                    as parents
  from reads
  join pg_catalog.pg_class c on c.oid = reads.child
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace;
comment on view mvsched.materialized_view_reads is 'One row for each materialization, scheduled or not: materialized_view_dependency by names';
comment on column mvsched.materialized_view_reads.view_oid is 'The materialized view, or table';
comment on column mvsched.materialized_view_reads.view_name is 'Its canonical name';
comment on column mvsched.materialized_view_reads.parents is 'Canonical names of the materialized views that its query reads, directly or through plain views';

create table mvsched.materialized_view_graph (
  view_oid     oid              not null,
  parents      oid[]            not null,
  ancestors    oid[]            not null,
  cyclic       boolean          not null,
  path_seconds double precision not null default 0,
  seconds      double precision,
  constraint materialized_view_graph_pkey primary key (view_oid)
);
comment on table mvsched.materialized_view_graph is
  'materialized_view_dependency, worked out for the claim: one row for each materialized view that reads or is read; where there is one, also for each scheduled one beside them. Written by workers when the catalog has changed';
comment on column mvsched.materialized_view_graph.view_oid is 'The materialized view';
comment on column mvsched.materialized_view_graph.parents is 'The materialized views that it reads, directly or through plain views';
comment on column mvsched.materialized_view_graph.ancestors is 'Those that it waits for: parents, theirs, and so on; of a cycle only the ones with a lower OID, so that there is an order';
comment on column mvsched.materialized_view_graph.cyclic is 'It is part of a cycle, which a replaced plain view can make';
comment on column mvsched.materialized_view_graph.path_seconds is 'How long it and the longest chain of views behind it usually take: what is longest goes first';
comment on column mvsched.materialized_view_graph.seconds is 'How long it usually takes by itself; null: there was no history';

create table mvsched.catalog_state (
  singleton boolean     not null default true,
  sign      text        not null,
  read_at   timestamptz not null default pg_catalog.now(),
  constraint catalog_state_pkey primary key (singleton),
  constraint catalog_state_is_one_row check (singleton)
);
comment on table mvsched.catalog_state is 'One row: which state of the catalog materialized_view_graph was worked out from';
comment on column mvsched.catalog_state.singleton is 'Always true; as the primary key it keeps this table at one row';
comment on column mvsched.catalog_state.sign is 'mvsched.catalog_sign() of that state';
comment on column mvsched.catalog_state.read_at is 'When it was read';
insert into mvsched.catalog_state (sign) values ('');

create function mvsched.catalog_sign() returns text
  language sql stable
  set search_path = pg_catalog, pg_temp as $$
  select concat_ws('/', count(*), sum(hashint8extended((r.oid::bigint << 32) + r.xmin::text::bigint, 0)), (
           select sum(hashint8extended((m.oid::bigint << 32) + coalesce(m.source::bigint, 0), 1))
             from mvsched.materialization m
            where m.kind <> 'view'))
    from pg_catalog.pg_rewrite r
   where r.ev_class >= 16384
$$;
comment on function mvsched.catalog_sign() is
  'Changes whenever a view or materialized view is created, replaced or dropped (each has a row in pg_rewrite, whose xmin tells a new version), and when a table becomes a materialization';

create function mvsched.data_of_parents(view oid) returns timestamptz
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select min(data.data_as_of)
      from mvsched.materialized_view_graph g
     cross join lateral unnest(g.parents) parent (oid)
     cross join lateral (
            select e.data_as_of
              from mvsched.materialized_view_refresh_schedule_execution e
             where e.view_oid = parent.oid and e.data_as_of is not null
             order by e.id desc
             limit 1
          ) data
     where g.view_oid = view and parent.oid <> view);
end
$$;
comment on function mvsched.data_of_parents(oid) is
  'The oldest data_as_of among the materialized views that a view reads; null: it reads none that mvsched has refreshed';

------------------------------------------------------------------------------------------------------------------------
-- Has anything changed?
------------------------------------------------------------------------------------------------------------------------

create table mvsched.materialized_view_source (
  view_oid    oid    not null,
  rules_sign  text   not null,
  views       oid[]  not null,
  relations   oid[]  not null,
  functions   oid[]  not null,
  obstacles   text[] not null,
  constraint materialized_view_source_pkey primary key (view_oid)
);
comment on table mvsched.materialized_view_source is
  'What the queries of materialized views read, parsed from their rules once for each version of them; for views that are skipped when unchanged';
comment on column mvsched.materialized_view_source.view_oid is 'The materialized view';
comment on column mvsched.materialized_view_source.rules_sign is 'mvsched.rules_sign() of the rules that were parsed';
comment on column mvsched.materialized_view_source.views is 'The plain views in it, all the way down';
comment on column mvsched.materialized_view_source.relations is 'The tables, materialized views and other relations that it ends in, without partitions';
comment on column mvsched.materialized_view_source.functions is 'The functions in it that are not PostgreSQL''s own';
comment on column mvsched.materialized_view_source.obstacles is 'What in the rules keeps changes from being seen; empty: nothing';

create function mvsched.rules_sign(views oid[]) returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp as $$
begin
  return (select string_agg(r.ev_class || ':' || r.xmin::text, ',' order by r.ev_class)
            from pg_catalog.pg_rewrite r
           where r.ev_class = any (views) and r.rulename = '_RETURN');
end
$$;
comment on function mvsched.rules_sign(oid[]) is 'Which versions of their queries these views have: xmin of the rule is new with each';

create function mvsched.query_of(view oid) returns oid
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  return coalesce((select m.source from mvsched.materialization m where m.oid = view), view);
end
$$;
comment on function mvsched.query_of(oid) is
  'The relation whose query a materialization holds the rows of: its own, or of a merge table the plain view that it is kept equal to';

create function mvsched.read_sources(view oid) returns mvsched.materialized_view_source
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  -- For the backslashes in its patterns.
  set standard_conforming_strings = on as $$
declare
  source mvsched.materialized_view_source;
  reader oid := mvsched.query_of(view);
begin
  source.view_oid := view;
  with recursive walk as (
    select reader as oid, 'm'::"char" as relkind, true as top
    union
    -- pg_depend knows what a rule names, except of the system's own relations: those are in the text of the rule
    select c.oid, c.relkind, false
      from walk
      join pg_catalog.pg_rewrite r on r.ev_class = walk.oid and r.rulename = '_RETURN'
     cross join lateral (
            select d.refobjid as oid
              from pg_catalog.pg_depend d
             where d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
               and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> r.ev_class
            union
            select m.g[1]::oid from regexp_matches(r.ev_action::text, ':relid (\d+)', 'g') m(g)
          ) n
      join pg_catalog.pg_class c on c.oid = n.oid
     where (walk.top or walk.relkind = 'v') and c.oid not in (view, reader)
  ), rules as (
    select r.ev_action::text as body
      from walk
      join pg_catalog.pg_rewrite r on r.ev_class = walk.oid and r.rulename = '_RETURN'
     where walk.top or walk.relkind = 'v'
  ), called as (
    select m.g[1]::oid as oid
      from rules cross join lateral regexp_matches(body, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') m(g)
    union
    select o.oprcode::oid
      from rules cross join lateral regexp_matches(body, ':opno (\d+)', 'g') m(g)
      join pg_catalog.pg_operator o on o.oid = m.g[1]::oid
  ), converted as (
    -- The types that a cast through text, SQL/JSON or XMLTABLE makes of text: :resultcollid follows on :resulttype, and
    -- :colexprs on the columns' collations, in those alone.
    select distinct t.oid::oid
      from rules
     cross join lateral regexp_matches(body, ':(?:resulttype (\d+) :resultcollid|typid (\d+)'
              '|coltypes \(o ([\d ]+)\) :coltypmods \(i [-\d ]+\) :colcollations \(o [\d ]+\) :colexprs)', 'g') m(g)
     cross join lateral regexp_split_to_table(concat(m.g[1], m.g[2], m.g[3]), ' ') t(oid)
  ), obstacle as (
    select 'relation ' || walk.oid::regclass as what
      from walk where walk.oid < 16384 and walk.relkind <> 'v'
    union all
    -- Stable functions of PostgreSQL's own that depend on settings alone, not on the time or on data, are harmless.
    select 'function ' || p.oid::regprocedure
      from called join pg_catalog.pg_proc p using (oid)
     where p.oid < 16384
       and (p.provolatile = 'v' or p.provolatile = 's' and p.proname <> all (array[
            'array_to_json', 'array_to_string', 'concat', 'concat_ws', 'date', 'date_part', 'date_trunc', 'extract', 'format',
            'generate_series', 'in_range', 'interval_pl_timestamptz', 'json_agg', 'json_agg_strict', 'json_build_array',
            'json_build_object', 'json_object_agg', 'json_object_agg_strict', 'json_object_agg_unique', 'jsonb_agg',
            'jsonb_agg_strict', 'jsonb_build_array', 'jsonb_build_object', 'jsonb_object_agg', 'row_to_json', 'to_json',
            'to_jsonb', 'quote_literal', 'quote_nullable', 'textanycat', 'anytextcat', 'time', 'timestamp', 'timestamptz',
            'timetz', 'timezone', 'to_char', 'to_date', 'to_number', 'to_timestamp', 'make_timestamptz',
            'timestamptz_mi_interval', 'timestamptz_pl_interval', 'date_add', 'date_subtract',
            'enum_first', 'enum_last', 'enum_range',
            'to_tsvector', 'to_tsquery', 'plainto_tsquery', 'phraseto_tsquery', 'websearch_to_tsquery', 'ts_headline'])
            and p.proname !~ '^(date|timestamp|timestamptz)_(cmp|eq|ge|gt|le|lt|ne)_(date|timestamp|timestamptz)$')
    union all
    select case m.g[1] when 'SQLVALUEFUNCTION' then 'current_date, current_user or the like'
                       when 'TABLESAMPLECLAUSE' then 'tablesample' else 'nextval' end
      from rules cross join lateral regexp_matches(body, '\{(SQLVALUEFUNCTION|TABLESAMPLECLAUSE|NEXTVALUEEXPR)\M', 'g') m(g)
    union all
    -- 'now'::text::timestamptz reads the clock, 'a'::text::regclass the catalog; others only settings, or the text alone.
    select 'a cast from text to ' || t.oid::regtype
      from converted join pg_catalog.pg_type t using (oid)
      left join pg_catalog.pg_type element on element.oid = t.typelem and t.typinput = 'pg_catalog.array_in'::regproc
      join pg_catalog.pg_proc p on p.oid = coalesce(element.typinput, t.typinput)
     where p.provolatile <> 'i' and p.oid <> all (array['interval_in', 'enum_in', 'cash_in', 'xml_in']::regproc[])
  )
  select array(select oid from walk where relkind = 'v' and not top order by oid),
         array(select oid from walk where relkind <> 'v' and not top order by oid),
         array(select oid from called where oid >= 16384 order by oid),
         array(select distinct what from obstacle order by what)
    into source.views, source.relations, source.functions, source.obstacles;
  source.rules_sign := mvsched.rules_sign(reader || source.views);
  return source;
end
$$;
comment on function mvsched.read_sources(oid) is
  'Parses what the query of a materialized view reads from its rules; costs milliseconds';

create function mvsched.with_parts(functions oid[]) returns oid[]
  language plpgsql stable
  set search_path = pg_catalog, pg_temp as $$
begin
  return functions || array(
    select part.oid
      from pg_catalog.pg_aggregate a
     cross join lateral unnest(array[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
                                     a.aggminvtransfn, a.aggmfinalfn]::oid[]) part (oid)
     where a.aggfnoid = any (functions) and part.oid <> 0);
end
$$;
comment on function mvsched.with_parts(oid[]) is
  'These functions, and those that the aggregates among them are made of now; a rule names the aggregate alone';

create function mvsched.obstacles(source mvsched.materialized_view_source) returns text[]
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  -- As in mvsched.fingerprint.
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off
  set enable_bitmapscan = off as $$
begin
  return source.obstacles || array(
    select 'relation ' || c.oid::regclass from pg_catalog.pg_class c
     where c.oid = any (source.relations) and c.relkind not in ('r', 'p', 'm')
    union all
    select 'row security on ' || c.oid::regclass from pg_catalog.pg_class c
     where c.oid = any (source.relations) and c.relrowsecurity
    union all
    select 'function ' || p.oid::regprocedure from pg_catalog.pg_proc p
     where p.oid = any (mvsched.with_parts(source.functions)) and p.provolatile <> 'i'
    union all
    select format('role %I may not execute %s', current_user, f) from unnest(array[
           'pg_control_checkpoint()', 'pg_stat_get_tuples_inserted(oid)', 'pg_stat_get_tuples_updated(oid)',
           'pg_stat_get_tuples_deleted(oid)']) f
     where not has_function_privilege('pg_catalog.' || f, 'execute')
    union all
    select format('role %I may not read %s', current_user, r) from unnest(array['pg_stat_database', 'pg_stat_archiver']) r
     where not has_table_privilege('pg_catalog.' || r, 'select')
    union all
    select 'the setting track_counts is off' where current_setting('track_counts') <> 'on'
    union all
    select 'PostgreSQL before 15' where current_setting('server_version_num')::integer < 150000);
end
$$;
comment on function mvsched.obstacles(mvsched.materialized_view_source) is
  'Why it cannot be told whether what a view reads has changed; empty: it can';

create function mvsched.fingerprint(view oid, besides oid[] default '{}') returns text
  language plpgsql
  set search_path = pg_catalog, pg_temp
  -- An array of few elements makes a custom plan look cheaper than a generic one, each time anew: planning took longer
  -- than all else in a skip.
  set plan_cache_mode = force_generic_plan
  -- Of a handful of relations and functions; but for an array whose length it does not know, the planner reads the whole
  -- catalog where that is small.
  set enable_seqscan = off
  set enable_bitmapscan = off as $$
declare
  source mvsched.materialized_view_source;
  leaves oid[];
  parts  oid[];
  reset  timestamptz; -- when the counters began anew; that of the archiver moves at crash recovery
begin
  select * into source from mvsched.materialized_view_source m where m.view_oid = view;
  if source.view_oid is null or source.rules_sign is distinct from mvsched.rules_sign(mvsched.query_of(view) || source.views) then
    source := mvsched.read_sources(view);
    insert into mvsched.materialized_view_source values (source.*)
    on conflict (view_oid) do update
       set rules_sign = excluded.rules_sign, views = excluded.views, relations = excluded.relations,
           functions = excluded.functions, obstacles = excluded.obstacles;
  end if;
  -- As mvsched.obstacles has it for people; what a role may not look at raises below.
  if source.obstacles <> '{}' or current_setting('server_version_num')::integer < 150000 or current_setting('track_counts') <> 'on' then
    return null;
  end if;
  if source.functions <> '{}' then
    parts := mvsched.with_parts(source.functions);
    if exists (select from pg_catalog.pg_proc p where p.oid = any (parts) and p.provolatile <> 'i') then
      return null;
    end if;
  end if;

  -- Partitions and inheritance children, as they are now.
  with recursive leaf as (
    select unnest(source.relations) as oid
    union
    select i.inhrelid from leaf join pg_catalog.pg_inherits i on i.inhparent = leaf.oid
  )
  select array(select oid from leaf order by oid) into leaves;
  if exists (select from pg_catalog.pg_class c
              where c.oid = any (leaves) and (c.relkind not in ('r', 'p', 'm') or c.relrowsecurity)) then
    return null;
  end if;

  reset := greatest((select d.stats_reset from pg_catalog.pg_stat_database d where d.datname = current_database()),
                    (select a.stats_reset from pg_catalog.pg_stat_archiver a));
  return md5(concat_ws('|', source.rules_sign,
    (select concat_ws(',', s.merge_window, s.merge_key)
       from mvsched.materialized_view_refresh_schedule s
      where s.view_oid = view and s.kind <> 'view'),
    (select string_agg(concat_ws(',', c.oid, c.relfilenode,
              case when c.relkind <> 'm' then concat_ws(',', pg_stat_get_tuples_inserted(c.oid),
                     pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid))
                   -- Of a view that mvsched refreshes its own record tells more, and sooner, than the counters.
                   else concat_ws(',', last.id, greatest(0, pg_stat_get_tuples_inserted(c.oid)
                     + pg_stat_get_tuples_deleted(c.oid)
                     - case when reset > last.refreshed_at then 0 else coalesce(last.tuples_written, 0) end)) end), ';' order by c.oid)
       from pg_catalog.pg_class c
       left join lateral (
              select e.id, e.tuples_written, e.refreshed_at
                from mvsched.materialized_view_refresh_schedule_execution e
               where c.relkind = 'm' and e.view_oid = c.oid and e.status = 'succeeded'
                 and not coalesce(e.rows_inserted = 0 and e.rows_deleted = 0, false)
               order by e.id desc
               limit 1
            ) last on true
      where c.oid = any (leaves) and c.oid <> all (besides)),
    (select string_agg(p.oid || ':' || p.xmin::text, ',' order by p.oid)
       from pg_catalog.pg_proc p where p.oid = any (parts)),
    reset,
    (select c.timeline_id from pg_catalog.pg_control_checkpoint() c)));         -- moves at failover
exception when others then -- a cancel is not among them
  -- One view that cannot be judged must not hold up the claim of all others.
  return null;
end
$$;
comment on function mvsched.fingerprint(oid, oid[]) is
  'Changes when what the query of a materialized view reads, besides these, may have changed; null: that cannot be told. The counters in it are up to 10 s late, and later while a session writes without a pause';

create function mvsched.nobody_else_here() returns boolean
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  return not exists (
    select
      from pg_catalog.pg_stat_activity a
      join pg_catalog.pg_database d on d.oid = a.datid
     where d.datname = current_database()
       and a.pid <> pg_backend_pid()
       and not (a.usename = session_user and a.application_name = 'mvsched')
       and a.backend_type is distinct from 'autovacuum worker'
       and not coalesce(a.state = 'idle' and a.state_change < clock_timestamp() - interval '15 seconds', false));
exception when insufficient_privilege then
  return false;
end
$$;
comment on function mvsched.nobody_else_here() is
  'No session but ours (role, and application_name mvsched) is in this database that may have written within 15 seconds: then the counters are complete. A session reports them at its end, and after 10 seconds of idleness';

create function mvsched.busy_since() returns timestamptz
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select min(a.state_change)
      from pg_catalog.pg_stat_activity a
      join pg_catalog.pg_database d on d.oid = a.datid
     where d.datname = current_database() and a.pid <> pg_backend_pid() and a.state <> 'idle');
exception when insufficient_privilege then
  return '-infinity';
end
$$;
comment on function mvsched.busy_since() is
  'Since when some session of this database has not been idle, as far as this role may see: what it has committed meanwhile, as in a CALL, may not be in the counters. Null: none; -infinity: it may not look';

------------------------------------------------------------------------------------------------------------------------
-- Materialized columns
--
-- A table with a column materialized_at and columns that a query, or a function of the user's, computes. Null means: to be
-- computed. One transaction takes one batch of such rows: the newest first, locked, those that somebody holds left out;
-- then it computes and writes them. These are two statements, each with a snapshot of its own: what the query reads of
-- the locked rows is what they are now, and not what they were before somebody's change that the lock has waited for.
--
-- A row that cannot be computed gets materialized_at = '-infinity': it is set aside, out of the way of the query, of a
-- function of whatever kind, and of the partial index. Null again, by mvsched invalidate or by hand, and it is tried again.
--
-- The text of query and function runs with the rights of the worker, under its search_path or the schedule's. Everything
-- else runs under a safe one.
------------------------------------------------------------------------------------------------------------------------

create table mvsched.materialization_poison (
  materialized_view_refresh_schedule_id bigint          not null,
  row_key                               text            not null,
  execution_id                          bigint          not null,
  error_name                            text            not null,
  error_message                         text            not null,
  set_aside_at                          mvsched.instant not null default pg_catalog.clock_timestamp(),
  constraint materialization_poison_pkey primary key (materialized_view_refresh_schedule_id, row_key)
);
comment on table mvsched.materialization_poison is
  'One row a row of a table whose columns could not be materialized, and why. That row has materialized_at = ''-infinity''; with null it is tried again';
comment on column mvsched.materialization_poison.materialized_view_refresh_schedule_id is 'The schedule of the table';
comment on column mvsched.materialization_poison.row_key is 'The key of the row, as text';
comment on column mvsched.materialization_poison.execution_id is 'The execution that set it aside';
comment on column mvsched.materialization_poison.error_name is 'The SQLSTATE of the error';
comment on column mvsched.materialization_poison.error_message is 'The primary message of the error';
comment on column mvsched.materialization_poison.set_aside_at is 'When it was set aside';

create table mvsched.materialization_fill (
  id                                    bigint          generated always as identity,
  materialized_view_refresh_schedule_id bigint          not null,
  columns                               text[]          not null,
  condition                             text,
  below                                 text,
  requested_at                          mvsched.instant not null default pg_catalog.clock_timestamp(),
  constraint materialization_fill_pkey primary key (id)
);
comment on table mvsched.materialization_fill is
  'Columns that are to be computed anew while the others, and materialized_at, stay: one that was added, or mvsched invalidate --columns. From the newest row down, behind the rows that have never been materialized';
comment on column mvsched.materialization_fill.id is 'Identity: the oldest is first';
comment on column mvsched.materialization_fill.materialized_view_refresh_schedule_id is 'The schedule of the table';
comment on column mvsched.materialization_fill.columns is 'The columns';
comment on column mvsched.materialization_fill.condition is 'Of which rows: a boolean expression; null: of all';
comment on column mvsched.materialization_fill.below is 'Rows whose key is below this are still to be done; null: all';
comment on column mvsched.materialization_fill.requested_at is 'When it was asked for';

create function mvsched.columns_key(target oid) returns name
  language sql stable
  set search_path = pg_catalog, pg_temp as $$
  select a.attname
    from pg_catalog.pg_index i
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] and a.attnotnull
   where i.indrelid = target and i.indisunique and i.indisvalid and i.indimmediate and i.indnkeyatts = 1
     and i.indpred is null and i.indexprs is null
   order by i.indisprimary desc, a.attname = 'id' desc, i.indexrelid
   limit 1
$$;
comment on function mvsched.columns_key(oid) is
  'The column that names a row of a table: its primary key, or another unique one that is not null; null: there is none of one column';

create function mvsched.column_type(target oid, name name) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp as $$
  select pg_catalog.format_type(a.atttypid, a.atttypmod)
    from pg_catalog.pg_attribute a
   where a.attrelid = target and a.attname = name and a.attnum > 0 and not a.attisdropped
$$;
comment on function mvsched.column_type(oid, name) is 'The type of a column, as SQL writes it under a search_path without schemas; null: there is no such column';

create function mvsched.over_batch(target oid, query text) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
  set standard_conforming_strings = on as $$
  -- A line of its own for the end: the query may close with a comment. A semicolon at the end is no part of it.
  select format(E'with batch (id) as materialized (\n  select k.id::%s from pg_catalog.unnest($1::pg_catalog.text[]) k (id)\n), computed as materialized (\n  select * from (\n%s\n) q\n)\n',
                k.type, regexp_replace(query, '\s*;(\s|;|--[^\n]*(\n|$))*$', ''))
    from (select mvsched.column_type(target, mvsched.columns_key(target)) as type) k
   where k.type is not null
$$;
comment on function mvsched.over_batch(oid, text) is
  'The beginning of a statement that computes columns: batch(id), the keys given as text[] in $1, and the query''s rows in computed; null where the table has no key';

create function mvsched.query_columns(target oid, query text) returns text[]
  language plpgsql stable as $$
declare
  path    pg_catalog.text := pg_catalog.current_setting('search_path');
  sql     pg_catalog.text;
  columns pg_catalog.text[];
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  -- A row of nulls, which has names all the same; the query itself is planned and not run.
  sql := mvsched.over_batch(target, query)
    || 'select pg_catalog.row_to_json(r) from (select computed.* from (values (1)) one left join computed on false) r';
  perform pg_catalog.set_config('search_path', path, true);
  execute 'select array(select pg_catalog.json_object_keys((' || sql || ')))' into columns using '{}'::pg_catalog.text[];
  return columns;
end
$$;
comment on function mvsched.query_columns(oid, text) is
  'The columns that a query over batch(id) gives, in their order; raises what is wrong with it. It runs with the caller''s rights and search_path';

create function mvsched.blames_row(state text) returns boolean
  language sql immutable
  set search_path = pg_catalog, pg_temp as $$
  select left(state, 2) = any (array['21', '22', '23', '2F', '38', '39', '44', '54', 'P0'])
$$;
comment on function mvsched.blames_row(text) is
  'Whether an error, by its SQLSTATE, may be the doing of one row: of data, constraints, functions. A missing table, a lock or a full disk are not';

create function mvsched.only_row(copies bigint, id text) returns boolean
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  if copies > 1 then
    raise exception 'the query gives more than one row for id %', id using errcode = 'cardinality_violation';
  end if;
  return true;
end
$$;
comment on function mvsched.only_row(bigint, text) is 'True, or raises: a query over batch(id) gives an id more than once';

-- What a batch needs to know of its table; it is looked up once a batch, so that a definition that changes under way is
-- the one of the next batch.
create type mvsched.columns_target as (
  schedule_id  bigint,
  execution_id bigint,
  oid          oid,
  name         text,
  key          name,
  query        text,
  call         text,
  columns      text[],
  filling      boolean,
  path         text
);
comment on type mvsched.columns_target is 'A table with materialized columns, and how they are computed';

-- How many rows of a table this transaction has changed. For a partitioned one they are counted where they are.
create function mvsched.rows_changed(target oid) returns bigint
  language sql volatile
  set search_path = pg_catalog, pg_temp as $$
  select coalesce(sum(pg_catalog.pg_stat_get_xact_tuples_updated(p.relid)), pg_catalog.pg_stat_get_xact_tuples_updated(target))::bigint
    from pg_catalog.pg_partition_tree(target) p
$$;
comment on function mvsched.rows_changed(oid) is 'How many row updates this transaction has made in a table and its partitions';

-- In the middle of a drain the statistics are those of its beginning: by them any row is one to be materialized, and reading
-- the table from its start finds one at once. Hence no sequential scans, here and where rows are picked, hidden and counted.
create function mvsched.has_backlog(target oid) returns boolean
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off as $$
declare
  found_one boolean;
begin
  execute format('select exists (select from %s t where t.materialized_at is null)', mvsched.relation_name(target)) into found_one;
  return found_one;
end
$$;
comment on function mvsched.has_backlog(oid) is 'Whether a table has rows that are to be materialized';

-- As long as it is quick, and there is something to do: the cost of a transaction is shared by several calls. A call that
-- changes nothing cannot do more now: somebody holds the rows, or the function leaves them out.
create function mvsched.call_for(target mvsched.columns_target, until timestamptz) returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  before  bigint := mvsched.rows_changed(target.oid);
  start   bigint := before;
  changed bigint := before;
  call    text   := 'select ' || target.call;
begin
  if not mvsched.has_backlog(target.oid) then
    return 0;
  end if;
  perform set_config('search_path', target.path, true);
  loop
    execute call;
    changed := mvsched.rows_changed(target.oid);
    exit when changed operator(pg_catalog.=) before or pg_catalog.clock_timestamp() operator(pg_catalog.>=) until;
    before := changed;
  end loop;
  return changed operator(pg_catalog.-) start;
end
$$;
comment on function mvsched.call_for(mvsched.columns_target, timestamptz) is
  'Calls the function of a table again and again, until that instant or until there is nothing left to do; how many row updates that made';

create function mvsched.hide_rows(target mvsched.columns_target) returns text[]
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off as $$
declare
  ids text[];
begin
  execute format('with hidden as (update %1$s t set materialized_at = ''-infinity'' where t.materialized_at is null returning t.%2$I as k) select array(select k::text from hidden order by k desc)',
                 target.name, target.key) into ids;
  return ids;
end
$$;
comment on function mvsched.hide_rows(mvsched.columns_target) is
  'Hides all rows that are to be materialized from a function, until show_rows, and returns their keys, the newest first';

create function mvsched.show_rows(target mvsched.columns_target, ids text[]) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  execute format('update %s set materialized_at = null where %I = any ($1::%s[]) and materialized_at = ''-infinity''',
                 target.name, target.key, mvsched.column_type(target.oid, target.key)) using ids;
end
$$;
comment on function mvsched.show_rows(mvsched.columns_target, text[]) is 'Takes back what hide_rows has done to these rows';

create function mvsched.batch_statement(target mvsched.columns_target) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp as $$
  -- By number, so that no name of the table's can be one of ours.
  select mvsched.over_batch(target.oid, target.query) || format(
           ', written as (update %s t set %s from (select b.id, c.copies, %s from batch b left join (select computed.id, %s, pg_catalog.count(*) over (partition by computed.id) as copies from computed) c on c.id operator(pg_catalog.=) b.id) r where t.%I operator(pg_catalog.=) r.id and mvsched.only_row(r.copies, r.id::pg_catalog.text) returning %s as done) select pg_catalog.count(*) from written where done',
           target.name,
           concat_ws(', ', case when not target.filling then 'materialized_at = pg_catalog.now()' end,
                     string_agg(format('%I = r.c%s', c.name, c.n), ', ' order by c.n)),
           string_agg('c.c' || c.n, ', ' order by c.n),
           string_agg(format('computed.%I as c%s', c.name, c.n), ', ' order by c.n),
           target.key,
           case when target.filling then 'true' else 't.materialized_at is not null' end) -- a trigger may have taken it back
    from unnest(target.columns) with ordinality c (name, n)
$$;
comment on function mvsched.batch_statement(mvsched.columns_target) is
  'The statement that computes a table''s columns by its query, for the rows whose keys are given as text[] in $1; it returns how many it has done';

create function mvsched.materialize_rows(target mvsched.columns_target, ids text[]) returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  done bigint;
  come text[];
  sql  text;
begin
  if target.call is not null then
    come := mvsched.hide_rows(target); -- and would be taken for one of these
    perform mvsched.show_rows(target, ids);
    done := mvsched.call_for(target, 'infinity');
    perform mvsched.show_rows(target, come);
    return done;
  end if;
  sql := mvsched.batch_statement(target);
  perform set_config('search_path', target.path, true);
  execute sql into done using ids;
  return done;
end
$$;
comment on function mvsched.materialize_rows(mvsched.columns_target, text[]) is
  'Computes and writes the columns of these rows, which this transaction has locked; a function is shown these alone, which are hidden from it. A row that the query leaves out gets nulls';

create function mvsched.set_aside(target mvsched.columns_target, id text, state text, message text) returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  done bigint;
begin
  begin
    execute format('update %s set materialized_at = ''-infinity'' where %I = $1::%s', target.name, target.key,
                   mvsched.column_type(target.oid, target.key)) using id;
    get diagnostics done = row_count;
    set constraints all immediate;
  exception when others or assert_failure then
    if not mvsched.blames_row(sqlstate) then
      raise;
    end if;
    done := 0; -- nor can it be marked: it goes against a constraint that is not valid, say
  end;
  insert into mvsched.materialization_poison (materialized_view_refresh_schedule_id, row_key, execution_id, error_name, error_message)
  values (target.schedule_id, id, target.execution_id, state, left(message, 1000))
  on conflict (materialized_view_refresh_schedule_id, row_key) do update
     set execution_id = excluded.execution_id, error_name = excluded.error_name, error_message = excluded.error_message,
         set_aside_at = excluded.set_aside_at;
  return done;
end
$$;
comment on function mvsched.set_aside(mvsched.columns_target, text, text, text) is
  'Sets one row aside that cannot be computed; 0: it is only noted, since it cannot be changed at all';

-- One try costs a subtransaction; so this is for a batch that has failed. Of n rows with one that cannot be computed, it
-- takes about 2 log n tries, and all rows but that one are materialized.
create function mvsched.materialize_by_halves(target mvsched.columns_target, ids text[], out done bigint, out poisoned bigint)
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  half    integer := cardinality(ids) / 2;
  state   text;
  message text;
  part    record;
begin
  begin
    done := mvsched.materialize_rows(target, ids);
    set constraints all immediate; -- what would fail at the commit fails here
    poisoned := 0;
    return;
  exception when others or assert_failure then -- a cancel is not among them
    get stacked diagnostics state = returned_sqlstate, message = message_text;
    if not mvsched.blames_row(state) then
      raise;
    end if;
  end;
  if half = 0 then
    poisoned := mvsched.set_aside(target, ids[1], state, message);
    done := 0;
    return;
  end if;
  done := 0;
  poisoned := 0;
  for part in
    select h.* from (values (ids[:half]), (ids[half + 1:])) parts (ids)
     cross join lateral mvsched.materialize_by_halves(target, parts.ids) h
  loop
    done := done + part.done;
    poisoned := poisoned + part.poisoned;
  end loop;
end
$$;
comment on function mvsched.materialize_by_halves(mvsched.columns_target, text[]) is
  'As materialize_rows, but rows that cannot be computed are found by halving, and set aside';

-- A function takes the rows that it likes. So all are hidden from it, and shown block by block, in one transaction:
-- nobody else sees any of that. Where there are too many to hide, that is left to people. It stops well before the run's own
-- limit: what it has done would be lost with it, and the next run would begin there again, and so on.
create function mvsched.call_by_blocks(target mvsched.columns_target, out done bigint, out poisoned bigint)
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  most  constant integer := 100000;
  block constant integer := 100;
  until timestamptz := clock_timestamp() + least(interval '10 seconds', nullif(current_setting('statement_timeout'), '0')::interval / 2);
  ids   text[];
  later text[] := '{}'; -- has come meanwhile, or was left out by the function
  part  record;
  i     integer := 0;
begin
  execute format('select count(*) from (select from %s t where t.materialized_at is null limit %s) pending', target.name, most + 1) into i;
  if i > most then
    raise exception '% fails at one of more than % rows, which are too many to find out which one it is', target.call, most
      using errcode = 'program_limit_exceeded', hint = 'A query (--from) finds it however many there are.';
  end if;
  done := 0;
  poisoned := 0;
  i := 0;
  ids := mvsched.hide_rows(target);
  while i < cardinality(ids) and clock_timestamp() < until loop
    part := mvsched.materialize_by_halves(target, ids[i + 1:i + block]);
    done := done + part.done;
    poisoned := poisoned + part.poisoned;
    i := i + block;
    later := later || mvsched.hide_rows(target);
  end loop;
  perform mvsched.show_rows(target, ids[i + 1:] || later);
end
$$;
comment on function mvsched.call_by_blocks(mvsched.columns_target) is
  'As call_for, but rows at which the function fails are found by showing it a few of them at a time, and set aside';

create function mvsched.rows_left(target oid) returns bigint
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off as $$
declare
  most     constant bigint := 20000;
  counted  bigint;
  estimate json;
begin
  execute format('select count(*) from (select from %s t where t.materialized_at is null limit %s) pending', mvsched.relation_name(target), most)
     into counted;
  if counted = most then
    execute format('explain (format json) select from %s t where t.materialized_at is null', mvsched.relation_name(target)) into estimate;
    counted := greatest(counted, (estimate -> 0 -> 'Plan' ->> 'Plan Rows')::bigint);
  end if;
  return counted;
end
$$;
comment on function mvsched.rows_left(oid) is
  'How many rows of a table are to be materialized: up to 20,000 they are counted, from there on the planner guesses';

create function mvsched.rows_left_now(target oid) returns bigint
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '10ms' as $$
begin
  return mvsched.rows_left(target);
exception when others then
  return null; -- somebody holds the table, or this role may not read it
end
$$;
comment on function mvsched.rows_left_now(oid) is 'The same for who only looks: null where that cannot be told at once';

create function mvsched.keys_below(target oid, below text, most integer, out how_many bigint, out low text, out inside text)
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  key      text := quote_ident(mvsched.columns_key(target));
  key_type text := mvsched.column_type(target, mvsched.columns_key(target));
  upper    text := case when below is null then 'true' else format('t.%s operator(pg_catalog.<) %L::%s', key, below, key_type) end;
begin
  execute format('with keys as materialized (select t.%1$s as k from %2$s t where %3$s order by t.%1$s desc limit %4$s) select (select count(*) from keys), (select k::text from keys order by k limit 1)',
                 key, mvsched.relation_name(target), upper, most) into how_many, low;
  inside := format('t.%s operator(pg_catalog.>=) %L::%s and %s', key, low, key_type, upper);
end
$$;
comment on function mvsched.keys_below(oid, text, integer) is
  'The next so many rows of a table below a key (null: from the top): how many there are, the lowest of their keys, and a condition for them, who are called t';

create function mvsched.fill_batch(target mvsched.columns_target, wanted integer, careful boolean,
                                   out picked bigint, out done bigint, out poisoned bigint)
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  fill mvsched.materialization_fill;
  keys record;
  ids  text[];
begin
  picked := 0;
  done := 0;
  poisoned := 0;
  -- The row is this lane's until the commit: another one finds none, and is done.
  select f.* into fill
    from mvsched.materialization_fill f
   where f.materialized_view_refresh_schedule_id = target.schedule_id
   order by f.id
   limit 1
     for no key update skip locked;
  if not found then
    return;
  end if;
  target.filling := true;
  target.columns := array(select c from unnest(fill.columns) c where c = any (target.columns)); -- those that it still has
  -- A window of keys, whatever the condition says of them, so that a rare one does not make it a long transaction.
  keys := mvsched.keys_below(target.oid, fill.below, wanted);
  picked := keys.how_many;
  if picked = 0 or cardinality(target.columns) = 0 then
    delete from mvsched.materialization_fill f where f.id = fill.id;
    picked := 1; -- there may be another one
    return;
  end if;
  -- Not skip locked: a row that is passed over here would not come again. And it waits for who materializes a row by the
  -- query of before.
  loop
    begin
      perform set_config('search_path', target.path, true);
      execute format('select array(select t.%I::pg_catalog.text from %s t where %s and (%s'
                     || E'\n) and t.materialized_at is distinct from ''-infinity'' for no key update)',
                     target.key, target.name, keys.inside, coalesce(fill.condition, 'true'))
         into ids;
      perform set_config('search_path', 'pg_catalog, pg_temp', true);
      exit;
    exception when others or assert_failure then
      perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
      if fill.condition is null or not coalesce(careful, true) or not (mvsched.blames_row(sqlstate) or sqlstate like '42%') then
        raise;
      end if;
      fill.condition := null; -- which of these rows it means cannot be told: all of them, then, which makes none of them wrong
    end;
  end loop;
  if coalesce(careful, true) then
    select h.* into done, poisoned from mvsched.materialize_by_halves(target, ids) h;
  else
    done := mvsched.materialize_rows(target, ids);
  end if;
  update mvsched.materialization_fill f set below = keys.low where f.id = fill.id;
end
$$;
comment on function mvsched.fill_batch(mvsched.columns_target, integer, boolean) is
  'Computes some columns of the next so many rows of a table that materialization_fill asks for';

create function mvsched.forget_poison(target mvsched.columns_target) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select from mvsched.materialization_poison p where p.materialized_view_refresh_schedule_id = target.schedule_id) then
    execute format('delete from mvsched.materialization_poison p where p.materialized_view_refresh_schedule_id = $1
                       and not exists (select from %s t where t.%I = p.row_key::%s and t.materialized_at = ''-infinity'')',
                   target.name, target.key, mvsched.column_type(target.oid, target.key)) using target.schedule_id;
  end if;
end
$$;
comment on function mvsched.forget_poison(mvsched.columns_target) is 'Forgets rows that are not set aside any more: they were tried again, or are gone';

create function mvsched.pick_rows(target mvsched.columns_target, wanted integer, below text) returns text[]
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off as $$
declare
  ids text[];
begin
  execute format('select array(select t.%1$I::text from %2$s t where t.materialized_at is null and %4$s order by t.%1$I desc limit %3$s for no key update skip locked)',
                 target.key, target.name, wanted,
                 case when below is null then 'true' else format('t.%I < %L::%s', target.key, below, mvsched.column_type(target.oid, target.key)) end)
     into ids;
  return ids;
end
$$;
comment on function mvsched.pick_rows(mvsched.columns_target, integer, text) is
  'Locks the next so many rows that are to be materialized and that nobody else has, and returns their keys, the newest first';

-- A snapshot that somebody holds keeps the index entries of rows that were materialized meanwhile, all of them above what is
-- left. So a batch begins below the one before it, and only now and then from the top.
create function mvsched.next_batch(target mvsched.columns_target, wanted integer, careful boolean, below text,
                                   out picked bigint, out done bigint, out poisoned bigint, out low text)
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  ids text[];
begin
  done := 0;
  poisoned := 0;
  if target.call is not null then
    if coalesce(careful, false) then
      select h.* into done, poisoned from mvsched.call_by_blocks(target) h;
    else
      done := mvsched.call_for(target, clock_timestamp() + interval '100 milliseconds');
    end if;
    picked := done + poisoned;
    return;
  end if;

  ids := mvsched.pick_rows(target, wanted, below);
  picked := cardinality(ids);
  low := ids[picked];
  if picked = 0 then -- there may be some above again, but those must not keep this waiting for ever
    select f.* into picked, done, poisoned from mvsched.fill_batch(target, wanted, careful) f;
    return;
  end if;
  if coalesce(careful, true) then
    select h.* into done, poisoned from mvsched.materialize_by_halves(target, ids) h;
  else
    done := mvsched.materialize_rows(target, ids);
  end if;
end
$$;
comment on function mvsched.next_batch(mvsched.columns_target, integer, boolean, text) is 'One batch: of rows that have never been materialized first';

create function mvsched.materialize_batch(
  execution bigint, schedule bigint, relation oid, wanted integer, careful boolean, count_again boolean, below text,
  out picked bigint, out done bigint, out poisoned bigint, out low text, out left_over bigint)
  language plpgsql as $$
#variable_conflict use_variable
declare
  path   pg_catalog.text := pg_catalog.current_setting('search_path');
  target mvsched.columns_target;
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  select s.id, execution, relation, coalesce(mvsched.relation_name(relation), s.materialized_view_name), mvsched.columns_key(relation), s.columns_query, s.columns_call,
         s.columns_list, false, path
    into target
    from mvsched.materialized_view_refresh_schedule s
   where s.id = schedule and s.kind = 'columns';
  if found and target.columns is null and target.query is not null then -- the table was not there when it was scheduled
    perform pg_catalog.set_config('search_path', path, true);
    target.columns := pg_catalog.array_remove(mvsched.query_columns(relation, target.query), 'id');
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  end if;
  if target.schedule_id is null then
    raise exception 'the schedule of % has been removed, or is of another kind now', mvsched.relation_name(relation)
      using errcode = 'undefined_object';
  elsif target.key is null then
    raise exception '% is gone, or has no primary key of one column any more', target.name using errcode = 'object_not_in_prerequisite_state';
  elsif row_security_active(relation) then
    raise exception 'row security of table % applies to role %', target.name, quote_ident(current_user) using errcode = 'insufficient_privilege';
  end if;
  select b.* into picked, done, poisoned, low from mvsched.next_batch(target, wanted, careful, below) b;
  if picked = 0 then
    perform mvsched.forget_poison(target);
  end if;
  update mvsched.materialized_view_refresh_schedule_execution e
     set batch_at = clock_timestamp(),
         rows_done = coalesce(e.rows_done, 0) + done,
         rows_left = case when count_again then mvsched.rows_left(relation)
                          else greatest(0, e.rows_left - done - poisoned) end
   where e.id = execution
  returning e.rows_left into left_over;
  perform pg_catalog.set_config('search_path', path, true);
end
$$;
comment on function mvsched.materialize_batch(bigint, bigint, oid, integer, boolean, boolean, text) is
  'The middle of each transaction of a drain: one batch, and the note of it in the execution. Careful: rows that are to blame for an error are looked for; null: only if that costs little. Below: only rows with a key below this, null: all; low is what to begin the next one below. Nothing picked: there is nothing left to do, but perhaps above';

create function mvsched.invalidate_chunk(schedule bigint, condition text, below text, chunk integer,
                                         out looked_at bigint, out changed bigint, out low text)
  language plpgsql as $$
#variable_conflict use_variable
declare
  relation pg_catalog.oid := (select s.view_oid from mvsched.materialized_view_refresh_schedule s where s.id operator(pg_catalog.=) schedule);
  inside   pg_catalog.text;
begin
  select k.how_many, k.low, k.inside into looked_at, low, inside from mvsched.keys_below(relation, below, chunk) k;
  execute pg_catalog.format(E'update %s t set materialized_at = null where %s and t.materialized_at is not null and (%s\n)',
                            mvsched.relation_name(relation), inside, condition);
  get diagnostics changed = row_count;
end
$$;
comment on function mvsched.invalidate_chunk(bigint, text, text, integer) is
  'Has those among the next so many rows of a table materialized again for which a condition is true';

create function mvsched.has_work(schedule bigint, target oid) returns boolean
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '100ms' as $$
begin
  return exists (select from mvsched.materialization_fill f where f.materialized_view_refresh_schedule_id = schedule)
         or row_security_active(target) -- which may hide that there is, and the run refuses it
         or mvsched.has_backlog(target);
exception
  when lock_not_available then
    return false; -- the next look tells
  when others then
    return true; -- and the run tells what is wrong
end
$$;
comment on function mvsched.has_work(bigint, oid) is 'Whether there is something to do for a schedule of columns; it hardly waits for locks, and raises nothing';

create function mvsched.check_columns() returns trigger
  language plpgsql as $$
declare
  path    pg_catalog.text := pg_catalog.current_setting('search_path');
  given   pg_catalog.text[];
  wrong   pg_catalog.text;
  sql     pg_catalog.text;
  target  mvsched.columns_target;
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  if new.kind <> 'columns' then
    raise exception 'a query or function for columns is for schedules of kind columns' using errcode = 'invalid_parameter_value';
  elsif num_nonnulls(new.columns_query, new.columns_call) <> 1 then
    raise exception 'columns are materialized by a query or by a function: one of the two' using errcode = 'invalid_parameter_value';
  elsif new.columns_call is not null and new.lanes > 1 then
    raise exception 'a function chooses its rows itself, and two calls at the same time may choose the same ones'
      using errcode = 'invalid_parameter_value', hint = 'Leave out --parallel, or use a query: --from.';
  elsif new.skip_unchanged then
    raise exception 'columns are never skipped as unchanged: where nothing is to be done, nothing is'
      using errcode = 'invalid_parameter_value';
  end if;
  if tg_op = 'UPDATE' and num_nonnulls(old.columns_list, new.columns_call) > 0
     and (new.kind, new.view_oid, new.columns_query, new.columns_call, new.search_path)
         is not distinct from (old.kind, old.view_oid, old.columns_query, old.columns_call, old.search_path) then
    new.columns_list := old.columns_list;
    perform set_config('search_path', path, true);
    return new; -- what was read under the search_path of one session is not read again under that of another
  end if;
  new.columns_list := null;
  if new.view_oid is null then
    perform set_config('search_path', path, true);
    return new; -- no such table yet, as in a restore; a run says so
  end if;

  if mvsched.columns_key(new.view_oid) is null then
    raise exception '% has no primary key of one column', new.materialized_view_name
      using errcode = 'invalid_parameter_value', hint = 'A batch names its rows by it; or by another unique column that is not null.';
  elsif coalesce(mvsched.column_type(new.view_oid, 'materialized_at'), '') <> 'timestamp with time zone' then
    raise exception '% has no column materialized_at of type timestamptz', new.materialized_view_name
      using errcode = 'invalid_parameter_value',
            hint = format('alter table %s add column materialized_at timestamptz', new.materialized_view_name);
  end if;

  -- The program says here what its session's search_path is; a hand-written row is read under the one of its session.
  perform set_config('search_path', coalesce(new.search_path, nullif(current_setting('mvsched.columns_path', true), ''), path), true);
  if new.columns_call is not null then
    execute 'explain select ' || new.columns_call; -- planned, and not run
  else
    given := mvsched.query_columns(new.view_oid, new.columns_query);
  end if;
  perform set_config('search_path', 'pg_catalog, pg_temp', true);
  if tg_op = 'UPDATE' and old.columns_query is not null and new.columns_query is null then
    delete from mvsched.materialization_fill f where f.materialized_view_refresh_schedule_id = new.id;
  end if;
  if given is not null then
    if 'id' <> all (given) then
      raise exception 'the query gives no column id' using errcode = 'invalid_parameter_value', hint = 'It is the id of batch.';
    end if;
    given := array_remove(given, 'id');
    if cardinality(given) = 0 then
      raise exception 'the query gives no column but id' using errcode = 'invalid_parameter_value';
    end if;
    select g.name into wrong
      from unnest(given) with ordinality g (name, n)
      left join pg_catalog.pg_attribute a on a.attrelid = new.view_oid and a.attname = g.name and a.attnum > 0 and not a.attisdropped
     where a.attname is null or a.attgenerated <> '' or a.attidentity = 'a' or g.name in ('materialized_at', mvsched.columns_key(new.view_oid))
     order by g.n
     limit 1;
    if found then
      raise exception 'the query gives column %, which is none of % that it could be written to', quote_ident(wrong), new.materialized_view_name
        using errcode = 'invalid_parameter_value', hint = 'Each of its columns but id has to be a column of the table.';
    end if;
    new.columns_list := given;
    -- The server says whether the types fit. It is parsed, which takes no right to write to the table, and not planned.
    target.oid := new.view_oid;
    target.name := mvsched.relation_name(new.view_oid);
    target.key := mvsched.columns_key(new.view_oid);
    target.query := new.columns_query;
    target.columns := given;
    target.filling := false;
    sql := 'prepare mvsched_check_columns (pg_catalog.text[]) as ' || mvsched.batch_statement(target);
    perform set_config('search_path', coalesce(new.search_path, nullif(current_setting('mvsched.columns_path', true), ''), path), true);
    execute sql;
    deallocate mvsched_check_columns;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    if tg_op = 'UPDATE' and old.columns_list is not null and not given <@ old.columns_list then
      insert into mvsched.materialization_fill (materialized_view_refresh_schedule_id, columns)
      values (new.id, array(select c from unnest(given) c where c <> all (old.columns_list)));
    end if;
  end if;
  if tg_op = 'UPDATE' and new.last_attempted_at is not null
     and (new.columns_query, new.columns_call) is distinct from (old.columns_query, old.columns_call) then
    -- What has failed by the one before does not count, and nothing is waited for: as if somebody had asked.
    new.spec_changed_at := now();
    if coalesce(new.next_run_at > now(), true) then
      new.next_run_offset := coalesce(now() - (new.next_run_at - new.next_run_offset), interval '0');
      new.next_run_at := now();
      new.next_run_reason := 'request';
    end if;
  end if;
  perform set_config('search_path', path, true);
  return new;
end
$$;
comment on function mvsched.check_columns() is
  'Refuses a query or function for columns that could not work, notes the columns, has new ones filled, and what is new tried at once';

create function mvsched.forget_columns() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  delete from mvsched.materialization_poison p where p.materialized_view_refresh_schedule_id = old.id;
  delete from mvsched.materialization_fill f where f.materialized_view_refresh_schedule_id = old.id;
  return null;
end
$$;
comment on function mvsched.forget_columns() is 'Removes what belongs to a schedule of columns that is removed';

create trigger forget_columns
  after delete on mvsched.materialized_view_refresh_schedule
  for each row when (old.kind = 'columns')
  execute function mvsched.forget_columns();

create trigger check_schedule_columns -- behind check_schedule, which finds the table
  before insert or update of materialized_view_name, kind, columns_query, columns_call, columns_list, lanes, skip_unchanged
  on mvsched.materialized_view_refresh_schedule
  for each row when (new.kind = 'columns' or new.columns_query is not null or new.columns_call is not null)
  execute function mvsched.check_columns();

------------------------------------------------------------------------------------------------------------------------
-- Settle, wait, claim
------------------------------------------------------------------------------------------------------------------------

create function mvsched.may_pass(error_name text) returns boolean
  language sql immutable
  set search_path = pg_catalog, pg_temp as $$
  select coalesce(error_name = any (array[
    'serialization_failure', 'deadlock_detected', 'transaction_rollback', 'statement_completion_unknown', 'lock_not_available',
    'insufficient_resources', 'disk_full', 'out_of_memory', 'too_many_connections', 'configuration_limit_exceeded',
    'operator_intervention', 'admin_shutdown', 'crash_shutdown', 'cannot_connect_now', 'idle_session_timeout',
    'connection_exception', 'connection_does_not_exist', 'connection_failure', 'sqlclient_unable_to_establish_sqlconnection',
    'sqlserver_rejected_establishment_of_sqlconnection', 'transaction_resolution_unknown', 'protocol_violation',
    'read_only_sql_transaction']), false)
$$;
comment on function mvsched.may_pass(text) is
  'Whether an error, by its condition name, may be over at the next try: of classes 40, 53, 57P and 08, a lock that was not to be had, a server that has become a standby';

-- Carries the end of executions into their schedules: failures are counted, a success resets them, and a slot that was
-- claimed for nothing becomes due again.
--
--   - never started: the worker died between claim and refresh, or could not begin in time. No failure; due again, with
--     twice the grace, up to 5 minutes.
--   - worker lost: the transaction is gone without a record. Due again, but at most three times a slot, or a view that
--     crashes its server would do so without end.
--   - shutdown: the worker was told to stop and cancelled its refresh. No failure; due again.
--   - lock busy, and errors that may pass: tried again after 1 second, 2, 4, and so on, up to 5 minutes, within a fifth,
--     so that what failed together does not come together; as often as the schedule says, and before its next slot.
--   - everything else waits for the next slot; where there is no clock, it is called again after a minute, 2, 4, up to an
--     hour, or the view would stay as it is until what it reads changes once more.
--
-- A slot that has failed for good counts once, and when there are as many in a row as the schedule says, it is suspended.
-- A refresh by hand that fails does not count; one that succeeds ends the row, and a suspension.
--
-- The row of a schedule that somebody holds is skipped and settled by whoever looks next; until then it is not claimed.
-- An execution that was deleted settles as nothing.
create function mvsched.settle(schedule bigint default null) returns timestamptz
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  -- Whatever the statistics say, the index is what finds what has ended, here and in what this calls.
  set enable_hashjoin = off
  set enable_mergejoin = off
  set enable_seqscan = off
  set enable_bitmapscan = off
  set jit = off as $$
declare
  open      record;
  ended     record;
  view      oid;
  bad       bigint[]; -- schedules whose executions were no success
  refreshed oid[];
  slots     timestamptz[];
  others    timestamptz;
  children  timestamptz;
begin
  -- One row at a time, each found by its key: as a join it was planned by statistics, and those of a young history had all
  -- that ever succeeded read each time.
  for open in
    select s.id, s.open_execution_id as execution
      from mvsched.materialized_view_refresh_schedule s
     where s.id = schedule and num_nonnulls(s.open_execution_id) = 1 -- in other words than those of an index
    union all
    (select s.id, s.open_execution_id
       from mvsched.materialized_view_refresh_schedule s
      where schedule is null and s.open_execution_id is not null
      order by s.open_execution_id
      limit 10000)
  loop
    select e.status, e.scheduled_at, coalesce(e.rows_inserted = 0 and e.rows_deleted = 0, false) as same_data, e.method_reason
      into ended
      from mvsched.materialized_view_refresh_schedule_execution e
     where e.id = open.execution;
    continue when ended.status = 'running';
    if ended.status is distinct from 'succeeded' then
      bad := bad || open.id;
      continue;
    end if;
    -- Mostly it is a success, after which nothing is to be decided.
    perform from mvsched.materialized_view_refresh_schedule s
      where s.id = open.id and s.open_execution_id = open.execution
        for no key update skip locked;
    continue when not found;
    update mvsched.materialized_view_refresh_schedule s
       set open_execution_id = null,
           consecutive_failures = 0,
           suspended_at = null,
           suspended_reason = null,
           start_grace = interval '3 seconds',
           next_full_at = case when ended.method_reason = 'whole' then now() + s.full_interval else s.next_full_at end
     where s.id = open.id
    returning s.view_oid into view;
    if not ended.same_data then
      refreshed := refreshed || view;
      slots := slots || ended.scheduled_at::timestamptz; -- up to 13, arrays know nothing of domains
    end if;
  end loop;

  if bad is not null then
    others := mvsched.settle_others(bad);
  end if;

  -- In the slot of their parent, so that what waits for that slot waits for them too. Who holds a row here keeps its view
  -- waiting until the next look at the schedules.
  if refreshed is not null and exists (
       select from mvsched.materialized_view_refresh_schedule c where c.after_parents and c.next_run_at is null) then
    with woken as materialized (
      -- A slot of its own after the one before, even if a parent had two runs in one. The ancestors end cycles.
      select c.id, min(greatest(coalesce(parent.slot, now()), last.scheduled_at + interval '1 microsecond')) as slot
        from mvsched.materialized_view_refresh_schedule c
        join mvsched.materialized_view_graph g on g.view_oid = c.view_oid
        join unnest(refreshed, slots) parent (oid, slot) on parent.oid = any (g.parents) and parent.oid = any (g.ancestors)
        left join lateral (
               select e.scheduled_at
                 from mvsched.materialized_view_refresh_schedule_execution e
                where e.materialized_view_refresh_schedule_id = c.id
                order by e.id desc
                limit 1
             ) last on true
       where c.after_parents and c.next_run_at is null
         -- With a parent in its group it has been refreshed from what that one got.
         and (c.refresh_group is null or mvsched.newer_parent(c.view_oid) is not null)
       group by c.id
    ), free as materialized (
      select c.id
        from mvsched.materialized_view_refresh_schedule c
       where c.id in (select woken.id from woken) and c.next_run_at is null
         for no key update of c skip locked
    ), due as (
      update mvsched.materialized_view_refresh_schedule c
         set next_run_at = p.next_run_at, next_run_offset = p.next_run_offset, next_run_reason = p.next_run_reason
        from woken join free using (id)
       cross join lateral mvsched.planned(
              (select f from mvsched.materialized_view_refresh_schedule f where f.id = woken.id), woken.slot) p
       where c.id = woken.id
      returning c.next_run_at
    )
    select min(due.next_run_at) into children from due;
  end if;
  return least(others, children);
end
$$;
comment on function mvsched.settle(bigint) is
  'Carries the end of executions into their schedules (null: all; else this one), and makes schedules due that wait for new data in what they read. Returns the earliest instant that it has made one due at; null: it has not';

create function mvsched.settle_others(schedules bigint[]) returns timestamptz
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
declare
  earliest timestamptz;
begin
  with ended as materialized (
    select s.id, e.status, e.reason, e.scheduled_at, e.trigger, e.ended_at,
           -- It leaves the slots of a clock where they are, also when it is answered a second time.
           coalesce((e.trigger = 'change' or e.refresh_group is not null) and num_nonnulls(s.refresh_interval, s.cron) > 0
                    and e.scheduled_at < s.next_run_at - s.next_run_offset, false) as request,
           scheduled and (e.reason = 'never_started' or e.reason = 'shutdown' or e.reason = 'worker_lost' and e.attempt < 3)
             as due_again,
           scheduled and (e.status in ('failed', 'timed_out') or e.reason = 'worker_lost' and e.attempt >= 3) as failed,
           case when scheduled and e.attempt <= s.retries
                     and (e.reason = 'lock_busy' or e.status = 'failed' and mvsched.may_pass(e.error_name))
                then e.ended_at + make_interval(secs => least(300, 2 ^ (e.attempt - 1)) * (0.8 + 0.4 * random())) end as retry_at,
           -- How long it is at least until a slot that is planned only when the run has been settled.
           make_interval(secs => extract(epoch from coalesce(s.refresh_delay, s.max_lag / 2))::float8) as at_least,
           case when scheduled and (s.after_parents or s.on_change) and s.next_run_at is null
                     and (e.status in ('failed', 'timed_out', 'cancelled', 'abandoned') or e.reason in ('lock_busy', 'group_failed'))
                then e.ended_at + make_interval(mins => least(60, 2 ^ least(failures.most, 6))::integer) end as call_again_at
      from mvsched.materialized_view_refresh_schedule s
      left join mvsched.materialized_view_refresh_schedule_execution e on e.id = s.open_execution_id
     -- A schedule that was changed meanwhile counts anew.
     cross join lateral (select e.trigger <> 'manual' and coalesce(s.spec_changed_at <= e.started_at, true)) of (scheduled)
     -- Of a group, those of the member that fails: what fails with it is no failure of its own.
     cross join lateral (
            select greatest(s.consecutive_failures, (select max(x.consecutive_failures)
                                                       from mvsched.materialized_view_refresh_schedule x
                                                      where x.refresh_group = s.refresh_group)) as most) failures
     where s.id = any (schedules) and s.open_execution_id is not null
       and coalesce(e.status, '') not in ('running', 'succeeded')
     order by s.open_execution_id
       for no key update of s skip locked
  ), judged as materialized (
    select ended.*, ended.failed and next.reason is distinct from 'retry' as slot_failed, next.at as next_at, next.reason as next_reason
      from ended
      join mvsched.materialized_view_refresh_schedule s using (id)
     cross join lateral (
            select case when ended.due_again and coalesce(ended.scheduled_at < s.next_run_at, true) then 'again'
                        when coalesce(ended.retry_at < coalesce(s.next_run_at, ended.ended_at + ended.at_least), ended.retry_at is not null) then 'retry'
                        when ended.call_again_at is not null then 'call' end) choice (made)
     cross join lateral (
            select case choice.made when 'again' then ended.scheduled_at when 'retry' then ended.retry_at
                                    when 'call' then ended.call_again_at end as at,
                   choice.made as reason) next
     -- Whether there is time for another try is known when a cron has its next slot, which the next look gives it.
     where ended.retry_at is null or s.cron is null or num_nonnulls(s.next_run_at, s.suspended_at) > 0
  ), settled as (
    update mvsched.materialized_view_refresh_schedule s
       set open_execution_id = null,
           consecutive_failures = case when judged.slot_failed then least(s.consecutive_failures + 1, 1000000)
                                       else s.consecutive_failures end,
           suspended_at = case when judged.slot_failed and s.consecutive_failures + 1 >= s.suspend_after
                                 then coalesce(s.suspended_at, now())
                               else s.suspended_at end,
           suspended_reason = case when judged.slot_failed and s.consecutive_failures + 1 >= s.suspend_after
                                     then coalesce(s.suspended_reason, s.consecutive_failures + 1 || ' failed slots in a row')
                                   else s.suspended_reason end,
           start_grace = case when judged.reason = 'never_started' then least(s.start_grace * 2, interval '5 minutes')
                              else s.start_grace end,
           next_run_at = least(coalesce(judged.next_at, s.next_run_at), case when judged.next_at > '9999-12-31 00:00+00' then '9999-12-31 00:00+00'::timestamptz end),
           next_run_offset = case judged.next_reason
             when 'again' then case when judged.request then judged.scheduled_at - mvsched.slot(s.next_run_at, s.next_run_offset, null) else interval '0' end
             when 'retry' then judged.next_at - judged.scheduled_at
             when 'call' then interval '0'
             else s.next_run_offset
           end,
           next_run_reason = case when judged.next_reason = 'retry' then 'retry'
                                  when judged.next_reason = 'again' and judged.request then 'request'
                                  when judged.next_at is null then s.next_run_reason end,
           slot_after_retry = case when judged.next_at is null then s.slot_after_retry
                                   when s.refresh_interval is not null and not (judged.next_reason = 'again' and judged.request)
                                     then mvsched.slot(s.next_run_at, s.next_run_offset, null) end
      from judged
     where s.id = judged.id
    returning case when judged.next_at is not null then s.next_run_at end as next_run_at
  )
  select min(settled.next_run_at) into earliest from settled;
  return earliest;
end
$$;
comment on function mvsched.settle_others(bigint[]) is
  'Carries the end of executions that were no success into these schedules: failures counted, tried again, suspended. Returns as mvsched.settle does';

-- A view waits for each ancestor whose slot is not later than its own, once: the slot of an ancestor moves past it when
-- the ancestor is claimed, and a later run is not waited for. In a round (a one-shot run), what was due when it began
-- counts as one slot.
create function mvsched.awaited(
  view oid, slot timestamptz, round timestamptz, clock timestamptz, queues text[] default null, one_will_do boolean default false)
  returns table (view_oid oid, because text)
  language plpgsql stable rows 5
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
declare
  horizon   timestamptz := greatest(slot, round);
  ancestors oid[]       := (select g.ancestors from mvsched.materialized_view_graph g where g.view_oid = view);
begin
  return query
    select p.view_oid, 'due'
      from mvsched.materialized_view_refresh_schedule p
     where p.view_oid = any (ancestors)
       and mvsched.slot(p.next_run_at, p.next_run_offset, p.next_run_reason) <= horizon
       and p.paused_at is null and p.suspended_at is null and p.next_run_reason is distinct from 'retry'
       -- One that nobody begins for so long, because its row is held or there are not workers enough, holds nothing up.
       and clock < greatest(p.next_run_at, round) + p.maximum_execution_duration
       -- A queue of others, in which nothing runs although this one is due, is one that nobody serves.
       and (queues is null or p.queue = any (queues) or clock < greatest(p.next_run_at, round) + interval '10 seconds'
            or exists (
              select
                from mvsched.materialized_view_refresh_schedule_execution e
                join mvsched.materialized_view_refresh_schedule r on r.id = e.materialized_view_refresh_schedule_id
               where e.status = 'running' and r.queue = p.queue));
  if found and one_will_do then
    return; -- the claim asks for every view that it passes over
  end if;
  return query
    select e.view_oid, 'running'
      from mvsched.materialized_view_refresh_schedule_execution e
     where e.view_oid = any (ancestors) and e.status = 'running'
       and coalesce(e.scheduled_at <= horizon, true);
  if found and one_will_do then
    return;
  end if;
  return query
    -- It has ended, and what that means for those that read it is still to be settled.
    select p.view_oid, 'ended'
      from mvsched.materialized_view_refresh_schedule p
      join mvsched.materialized_view_refresh_schedule_execution e on e.id = p.open_execution_id
     where p.view_oid = any (ancestors) and e.status <> 'running' and coalesce(e.scheduled_at <= horizon, true)
       -- Whoever holds the row so that it cannot be settled holds nobody else for longer than this.
       and e.ended_at > clock - interval '10 seconds';
end
$$;
comment on function mvsched.awaited(oid, timestamptz, timestamptz, timestamptz, text[], boolean) is
  'The ancestors that a view due in this slot (or round) has to wait for at this instant, and whether they are due, running or just ended. The queues are those that the asking worker serves; null: all';

-- Of many at once: each by itself took five times as long.
create function mvsched.newer_parents(views oid[]) returns table (view oid, parent oid)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  return query
    select v.oid, newer.oid
      from unnest(views) v (oid)
      left join lateral (
            select e.refreshed_at
              from mvsched.materialized_view_refresh_schedule_execution e
             where e.view_oid = v.oid and e.data_as_of is not null
             order by e.id desc
             limit 1
          ) own on true
     cross join lateral (
            select p.oid
              from mvsched.materialized_view_graph g
             cross join lateral unnest(g.parents) p (oid)
             cross join lateral (
                    select e.ended_at, e.refreshed_at
                      from mvsched.materialized_view_refresh_schedule_execution e
                     where e.view_oid = p.oid and e.status = 'succeeded' and not coalesce(e.rows_inserted = 0 and e.rows_deleted = 0, false)
                     order by e.id desc
                     limit 1
                  ) data
             where g.view_oid = v.oid and p.oid = any (g.ancestors)
               and data.ended_at > coalesce(own.refreshed_at, '-infinity')
               and data.refreshed_at is distinct from own.refreshed_at -- a group's members begin at the same instant, each after its parents
             limit 1
          ) newer;
end
$$;
comment on function mvsched.newer_parents(oid[]) is
  'Those of these views that read one that got new data since they were refreshed, and such a one';

create function mvsched.newer_parent(view oid) returns oid
  language sql stable
  set search_path = pg_catalog, pg_temp as $$
  select n.parent from mvsched.newer_parents(array[view]) n
$$;
comment on function mvsched.newer_parent(oid) is
  'A materialized view that this one reads and that got new data since this one was refreshed; null: none';

create function mvsched.failed_ancestor(view oid, since timestamptz, besides oid[] default '{}') returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select last.view_name
      from mvsched.materialized_view_graph g
     cross join lateral unnest(g.ancestors) ancestor (oid)
      join mvsched.materialized_view_refresh_schedule p on p.view_oid = ancestor.oid
     cross join lateral (
            select e.view_name, e.status, e.ended_at
              from mvsched.materialized_view_refresh_schedule_execution e
             where e.materialized_view_refresh_schedule_id = p.id and e.status <> 'running'
               and (e.trigger <> 'manual' or e.status = 'succeeded')
               and coalesce(e.reason not in ('shutdown', 'never_started'), true)
             order by e.id desc
             limit 1
          ) last
     where g.view_oid = view
       and last.status in ('failed', 'timed_out', 'cancelled', 'abandoned')
       and last.ended_at > coalesce(since, '-infinity')
       and ancestor.oid <> all (besides)
     order by last.ended_at
     limit 1);
end
$$;
comment on function mvsched.failed_ancestor(oid, timestamptz, oid[]) is
  'The first of a view''s ancestors, besides these, that has failed since that instant and not succeeded after that; null: none';

create view mvsched.refreshable_relation as
select c.oid, c.relkind, n.nspname as schema_name, c.relname as relation_name, c.relispopulated as populated,
       -- Usable by CONCURRENTLY is a valid, immediate unique index on columns only and without a predicate.
       exists (select
                 from pg_catalog.pg_index i
                where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
                  and i.indpred is null and i.indexprs is null) as unique_index,
       pg_catalog.has_database_privilege(c.relowner, pg_catalog.current_database(), 'TEMP') as owner_temp
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace;
comment on view mvsched.refreshable_relation is 'What the choice of a method needs of a relation, for who knows that it is a materialization';
comment on column mvsched.refreshable_relation.oid is 'The materialized view, or table';
comment on column mvsched.refreshable_relation.relkind is 'm, or that of a table';
comment on column mvsched.refreshable_relation.schema_name is 'Its schema';
comment on column mvsched.refreshable_relation.relation_name is 'Its name';
comment on column mvsched.refreshable_relation.populated is 'It has contents: CONCURRENTLY needs some';
comment on column mvsched.refreshable_relation.unique_index is 'It has a unique index that CONCURRENTLY can use';
comment on column mvsched.refreshable_relation.owner_temp is 'Its owner may create temporary tables, as CONCURRENTLY has to';

create view mvsched.refreshable as
select m.kind, r.*
  from mvsched.materialization m
  join mvsched.refreshable_relation r on r.oid = m.oid;
comment on view mvsched.refreshable is 'The same of everything that is a materialization';
comment on column mvsched.refreshable.oid is 'The materialized view, or table';
comment on column mvsched.refreshable.kind is 'view, merge, columns';
comment on column mvsched.refreshable.relkind is 'm, or that of a table';
comment on column mvsched.refreshable.schema_name is 'Its schema';
comment on column mvsched.refreshable.relation_name is 'Its name';
comment on column mvsched.refreshable.populated is 'It has contents: CONCURRENTLY needs some';
comment on column mvsched.refreshable.unique_index is 'It has a unique index that CONCURRENTLY can use';
comment on column mvsched.refreshable.owner_temp is 'Its owner may create temporary tables, as CONCURRENTLY has to';

create function mvsched.usual_seconds(name text, fraction float8 default 0.5) returns double precision
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  return (
    select percentile_cont(fraction) within group (order by extract(epoch from e.ended_at - e.started_at)::float8)
      from (select e.started_at, e.ended_at
              from mvsched.materialized_view_refresh_schedule_execution e
             where e.view_name = name and e.status = 'succeeded'
             order by e.id desc
             limit 20) e);
end
$$;
comment on function mvsched.usual_seconds(text, float8) is 'The duration, in seconds, that so large a fraction of a view''s last 20 successes stayed within; null: there is none';

create type mvsched.claim as (
  execution_id  bigint,
  claimed_at    timestamptz,
  schedule_id   bigint,
  view_name     text,
  scheduled_at  timestamptz,
  attempt       integer,
  time_limit    double precision,
  lock_limit    double precision,
  strategy      text,
  search_path   text,
  settings      text,
  view_oid      bigint,
  schema_name   text,
  relation_name text,
  populated     boolean,
  unique_index  boolean,
  owner_temp    boolean,
  renamed       boolean,
  usual         double precision,
  skipped       text,
  kind          text,
  whole         boolean,
  batch_rows    integer,
  lane          integer,
  lanes         integer,
  refresh_group text,
  first_due_at  timestamptz,
  first_due_id  bigint,
  passed        bigint
);
comment on type mvsched.claim is 'One claimed view, or, with the reason in skipped, one whose execution ended with its claim';

-- It is put in the place of a call (so it sets nothing, leaves nothing to be looked up in the caller's search_path, and uses no
-- argument twice that is volatile or takes long), and is one expression. The server makes the state of each that it comes by anew in every
-- transaction, and goes through the plans that a session keeps of them for every message about a changed table, of which a
-- REFRESH ... CONCURRENTLY sends dozens to all: an assignment for each column took the claim a tenth of its time.
create function mvsched.claim_of(
  schedule mvsched.materialized_view_refresh_schedule, view mvsched.refreshable_relation, execution_id bigint, claimed_at timestamptz,
  view_name text, scheduled_at timestamptz, attempt integer, usual double precision, skipped text, whole boolean,
  first_due_at timestamptz default null, first_due_id bigint default null, passed bigint default null)
  returns mvsched.claim
  language sql stable as $$
  select row(
    execution_id, claimed_at, (schedule).id, view_name, scheduled_at, attempt,
    extract(epoch from (schedule).maximum_execution_duration), extract(epoch from (schedule).lock_timeout),
    (schedule).strategy, (schedule).search_path, (schedule).settings::pg_catalog.text,
    coalesce((view).oid::pg_catalog.int8, 0), coalesce((view).schema_name::pg_catalog.text, ''),
    coalesce((view).relation_name::pg_catalog.text, ''), coalesce((view).populated, false), coalesce((view).unique_index, false),
    coalesce((view).owner_temp, false),
    (view).oid is not null and view_name operator(pg_catalog.<>) (schedule).materialized_view_name::pg_catalog.text,
    usual, skipped, (schedule).kind, whole, (schedule).batch_rows, 0, (schedule).lanes, (schedule).refresh_group,
    first_due_at, first_due_id, passed
  )::mvsched.claim
$$;
comment on function mvsched.claim_of(mvsched.materialized_view_refresh_schedule, mvsched.refreshable_relation, bigint, timestamptz, text,
  timestamptz, integer, double precision, text, boolean, timestamptz, bigint, bigint) is
  'What a worker is told of a claim on the first lane of a schedule';

create function mvsched.queues() returns text[]
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  return array(select q.name from mvsched.queue q);
end
$$;
comment on function mvsched.queues() is 'The queues that a schedule is in, or was';

create table mvsched.claim_turn (
  singleton boolean not null default true,
  constraint claim_turn_pkey primary key (singleton),
  constraint claim_turn_is_one_row check (singleton)
);
comment on table mvsched.claim_turn is
  'One row, which a claim locks while it counts what is running, where settings.max_concurrent_refreshes is set. Not an advisory lock, which any role could hold';
comment on column mvsched.claim_turn.singleton is 'Always true; as the primary key it keeps this table at one row';
insert into mvsched.claim_turn default values;

create function mvsched.free_runs() returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
declare
  cap integer := (select settings.max_concurrent_refreshes from mvsched.settings where settings.singleton);
begin
  if cap is null then
    return 1000000;
  end if;
  -- Two claims that count at the same time would both find room. The lock ends with the claim's transaction.
  perform from mvsched.claim_turn for no key update;
  return greatest(0, cap - (select count(*) from mvsched.materialized_view_refresh_schedule_execution e where e.status = 'running'));
end
$$;
comment on function mvsched.free_runs() is
  'How many refreshes may begin under settings.max_concurrent_refreshes. Where there is such a cap, it keeps other claims waiting until this transaction has ended';

-- Those that can be seen: what they asked for is committed, and the refresh that is being claimed is going to see it.
create function mvsched.answer_requests(schedule bigint) returns timestamptz
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  -- Whatever the statistics say, the key is what finds them, and each is gone to once.
  set enable_seqscan = off
  set enable_bitmapscan = off
  set jit = off as $$
declare
  latest timestamptz;
begin
  with answered as (
    delete from mvsched.materialized_view_refresh_request r
     where r.ctid = any (array(
             select x.ctid
               from mvsched.materialized_view_refresh_request x
              where x.materialized_view_refresh_schedule_id = schedule
                for update skip locked))
    returning r.requested_at
  )
  select max(answered.requested_at) into latest from answered;
  return latest;
end
$$;
comment on function mvsched.answer_requests(bigint) is
  'Deletes the requests of a schedule that a refresh is going to answer, and returns when the latest was made; null: there are none';

create function mvsched.group_views(name text) returns oid[]
  language sql stable
  set search_path = pg_catalog, pg_temp as $$
  select coalesce(array_agg(s.view_oid), '{}') from mvsched.materialized_view_refresh_schedule s where s.refresh_group = name
$$;
comment on function mvsched.group_views(text) is 'The views of a group. What its members read of each other calls for no refresh';

-- Claims a group: all of its schedules that are neither paused nor suspended, as soon as one of them is due, or none. The
-- one with the lowest id is locked first, so that two who claim the same group do not take half of it each.
--
-- It waits for the ancestors outside of it, as a view would; but not for one that itself waits for a member, or neither
-- could ever begin. Inside of it there is nothing to wait for: the members are refreshed in the order of the rows that
-- this returns.
--
-- A member whose own slot has not come is claimed for the group's, and its clock stays where it is.
--
-- By hand it is claimed due or not, waits for nothing, and leaves all clocks where they are.
create function mvsched.claim_group(
  name text, worker text, queues text[], round timestamptz, instant timestamptz, with_usual boolean, by_hand boolean default false)
  returns setof mvsched.claim
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_variable
declare
  members    mvsched.materialized_view_refresh_schedule[];
  m          mvsched.materialized_view_refresh_schedule;
  v          mvsched.refreshable_relation;
  claims     mvsched.claim[] := '{}';
  execution  bigint;
  view_name  text;
  slot       timestamptz;
  attempt    integer;
  skipped    text;
  views      oid[];
  due        timestamptz[]; -- the slots of those that are
  group_slot timestamptz;
  horizon    timestamptz;
  opens      timestamptz;
  clock_slot timestamptz;
  failed     text;
  failed_for bigint; -- the schedule that waits for it
  claimed_at timestamptz;
  last       mvsched.materialized_view_refresh_schedule_execution;
begin
  perform
     from mvsched.materialized_view_refresh_schedule s
    where s.id = (select min(x.id) from mvsched.materialized_view_refresh_schedule x where x.refresh_group = name)
      for no key update skip locked;
  if not found then
    return;
  end if;
  select array_agg(s), array_agg(s.view_oid),
         array_agg(mvsched.slot(s.next_run_at, s.next_run_offset, s.next_run_reason)) filter (where s.next_run_at <= instant)
    into members, views, due
    from (select x.*
            from mvsched.materialized_view_refresh_schedule x
           where x.refresh_group = name and x.paused_at is null and x.suspended_at is null
             for no key update of x skip locked) s;
  group_slot := (select min(d) from unnest(due) d);
  horizon := greatest(instant, (select max(d) from unnest(due) d));
  if group_slot is null and not by_hand
     or cardinality(members) < (select count(*) from mvsched.materialized_view_refresh_schedule x
                                 where x.refresh_group = name and x.paused_at is null and x.suspended_at is null)
     or exists (select from unnest(members) x
                 where x.open_execution_id is not null or x.database_identity is distinct from mvsched.database_identity()
                    or x.view_oid is not null
                       and not exists (select from pg_class c where c.oid = x.view_oid and mvsched.can_be(c.relkind, x.kind)))
     or exists (select from mvsched.materialized_view_refresh_schedule_execution e where e.status = 'running' and e.view_oid = any (views))
     or mvsched.free_runs() = 0
     or not by_hand and exists (select
                  from unnest(views) as view (oid)
                 cross join lateral mvsched.awaited(view.oid, group_slot, round, instant, queues) a
                 where a.view_oid <> all (views)
                   and not exists (select from mvsched.materialized_view_graph g where g.view_oid = a.view_oid and g.ancestors && views))
  then
    return;
  end if;

  if not by_hand and mvsched.suspended_without_zone(array(select x.id from unnest(members) x), instant) then
    return;
  end if;
  opens := (select max(mvsched.in_window(instant, x.window_start, x.window_end, x.timezone)) from unnest(members) x);
  if opens > instant and not by_hand then
    -- There may be no instant at which all windows are open; then each of these brings it one step on.
    update mvsched.materialized_view_refresh_schedule s
       set next_run_at = least(opens, '9999-12-31 00:00+00'),
           next_run_offset = least(opens, '9999-12-31 00:00+00') - mvsched.slot(s.next_run_at, s.next_run_offset, null)
     where s.id = any (array(select x.id from unnest(members) x)) and s.next_run_at <= instant;
    return;
  end if;

  select x.id, mvsched.failed_ancestor(x.view_oid, x.last_attempted_at, views) into failed_for, failed
    from unnest(members) x
   where not by_hand and x.on_parent_failure = 'skip' and mvsched.failed_ancestor(x.view_oid, x.last_attempted_at, views) is not null
   limit 1;

  claimed_at := clock_timestamp();
  foreach m in array array(
    select x
      from unnest(members) x
      left join mvsched.materialized_view_graph g on g.view_oid = x.view_oid
      left join mvsched.refreshable_relation r on r.oid = x.view_oid
     order by (select count(*) from unnest(g.ancestors) a (oid) where a.oid = any (views)),
              -- Readers wait for a plain refresh to the end of the transaction: the later, the better.
              x.strategy = 'plain' or not coalesce(r.populated and r.unique_index and r.owner_temp, false), x.id)
  loop
    select x.* into v from mvsched.refreshable_relation x where x.oid = m.view_oid;
    select e.* into last
      from mvsched.materialized_view_refresh_schedule_execution e
     where e.materialized_view_refresh_schedule_id = m.id
     order by e.id desc
     limit 1;

    clock_slot := m.next_run_at - m.next_run_offset;
    -- A slot that jitter or a retry has put off belongs to this run too, or it would come again behind it.
    slot := case
      when by_hand then null
      when m.next_run_at <= instant or clock_slot <= horizon then mvsched.slot(m.next_run_at, m.next_run_offset, m.next_run_reason)
      else group_slot end;
    view_name := case when v.oid is null then m.materialized_view_name else mvsched.view_name(v.oid, v.schema_name, v.relation_name) end;
    attempt := case when last.scheduled_at = slot then least(last.attempt + 1, 1000000) else 1 end;
    skipped := case when failed is null then null when m.id = failed_for then 'upstream_failed' else 'group_failed' end;
    insert into mvsched.materialized_view_refresh_schedule_execution as e
           (materialized_view_refresh_schedule_id, view_name, view_oid, trigger, scheduled_at, attempt, worker, start_grace,
            fingerprint, started_at, status, reason, error_message, ended_at, predicted_duration, refresh_group)
    values (m.id, view_name, m.view_oid,
            case when by_hand then 'manual' when last.scheduled_at = slot then 'retry' when m.on_change then 'change'
                 when m.after_parents then 'parent' else 'schedule' end,
            slot, attempt, worker, m.start_grace,
            case when m.on_change and v.populated and failed is null then mvsched.fingerprint(m.view_oid, mvsched.group_views(name)) end,
            claimed_at,
            case when failed is null then 'running' else 'skipped' end, skipped, failed || ' failed',
            case when failed is not null then greatest(claimed_at, clock_timestamp()) end, m.predicted_duration, name)
    returning e.id into execution;

    m.requested_at := coalesce(case when failed is null and not by_hand then mvsched.answer_requests(m.id) end, m.requested_at);
    m.last_attempted_at := instant;
    clock_slot := coalesce(m.slot_after_retry, clock_slot);
    clock_slot := case
      when clock_slot > horizon and num_nonnulls(m.refresh_interval, m.cron) > 0 then clock_slot
      when failed is not null and (m.after_parents or m.on_change) then instant + interval '1 minute'
      else clock_slot + make_interval(secs =>
             greatest(1, floor(extract(epoch from instant - clock_slot) / extract(epoch from m.refresh_interval)) + 1)::float8
             * extract(epoch from m.refresh_interval)::float8) end;
    m.next_run_at := least(clock_slot, case when clock_slot is not null then '9999-12-31 00:00+00'::timestamptz end);
    m.next_run_offset := interval '0';
    if m.next_run_at is not null and num_nonnulls(m.jitter, m.window_start) > 0 then
      m := mvsched.planned(m, m.next_run_at);
    end if;
    update mvsched.materialized_view_refresh_schedule x
       set last_attempted_at = case when by_hand then x.last_attempted_at else instant end,
           open_execution_id = case when failed is null then execution end,
           requested_at = m.requested_at,
           next_run_at = case when by_hand then x.next_run_at else m.next_run_at end,
           next_run_offset = case when by_hand then x.next_run_offset else m.next_run_offset end,
           next_run_reason = case when by_hand then x.next_run_reason end,
           slot_after_retry = case when by_hand then x.slot_after_retry end
     where x.id = m.id;

    claims := claims || mvsched.claim_of(m, v, execution, claimed_at, view_name, slot, attempt,
                                         case when with_usual then mvsched.usual_seconds(view_name) end, skipped, true);
  end loop;
  return query select c.* from unnest(claims) c;
exception when unique_violation then
  return; -- for a moment now somebody has been refreshing a member by hand; what was written for the others is undone
end
$$;
comment on function mvsched.claim_group(text, text, text[], timestamptz, timestamptz, boolean, boolean) is
  'Claims all members of a group, in the order in which they are to be refreshed, or none; the arguments are those of mvsched.claim';

-- A table that a drain is at may have further lanes (schedule.lanes): other workers who drain it too. The first lane is
-- what the slot is claimed for, and what is settled. The others come and go with it: each once in a run of the first,
-- when that has come to know that there is work for more than one. They belong to no slot and to no schedule, so that
-- nothing is decided by how they end; what a dead one leaves, the first one does.
create function mvsched.free_lanes(queues text[]) returns table (schedule_id bigint, view_oid oid, lane smallint, trigger text)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  return query
    select s.id, e.view_oid, free.lane::smallint, e.trigger::text
      from mvsched.materialized_view_refresh_schedule_execution e
      join mvsched.materialized_view_refresh_schedule s on s.id = e.materialized_view_refresh_schedule_id
     cross join lateral (
            select generate_series(1, s.lanes - 1) as lane
             except
            select x.lane
              from mvsched.materialized_view_refresh_schedule_execution x
             where x.view_name = e.view_name and x.id > e.id and x.lane > 0) free
     where e.status = 'running' and e.lane = 0 and e.rows_left > 2 * s.batch_rows
       and s.kind = 'columns' and s.lanes > 1 and s.paused_at is null and (queues is null or s.queue = any (queues))
       and not exists (select from mvsched.materialized_view_refresh_schedule_execution x
                        where x.status = 'running' and x.view_oid = e.view_oid and x.lane = free.lane);
end
$$;
comment on function mvsched.free_lanes(text[]) is 'The lanes that workers of these queues (null: of all) may take beside the first one of a drain';

create function mvsched.claim_lane(worker text, wanted bigint, queues text[], with_usual boolean) returns setof mvsched.claim
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_variable
declare
  free    record;
  claimed mvsched.claim;
begin
  for free in select f.* from mvsched.free_lanes(queues) f order by f.lane, f.schedule_id loop
    exit when wanted <= 0;
    select null, null, s.id, mvsched.view_name(v.oid), null, 1, extract(epoch from s.maximum_execution_duration),
           extract(epoch from s.lock_timeout), s.strategy, s.search_path, s.settings::text, v.oid::bigint, v.schema_name, v.relation_name,
           v.populated, v.unique_index, v.owner_temp, false,
           case when with_usual then mvsched.usual_seconds(mvsched.view_name(v.oid)) end, null, s.kind, false, s.batch_rows, free.lane, s.lanes,
           null, null, null, null
      into claimed
      from mvsched.materialized_view_refresh_schedule s
      join mvsched.refreshable v on v.oid = free.view_oid
     where s.id = free.schedule_id;
    continue when not found;
    insert into mvsched.materialized_view_refresh_schedule_execution as e (view_name, view_oid, trigger, worker, lane)
    values (claimed.view_name, free.view_oid, free.trigger, worker, free.lane)
    on conflict (view_oid, lane) where status = 'running' do nothing
    returning e.id, e.started_at into claimed.execution_id, claimed.claimed_at;
    continue when not found;
    return next claimed;
    wanted := wanted - 1;
  end loop;
end
$$;
comment on function mvsched.claim_lane(text, bigint, text[], boolean) is 'Claims up to so many further lanes of drains that are under way';

-- What has been claimed leaves entries in the index on what is due that lead nowhere. As long as a transaction is open that
-- could still see them, all of them would be read by every claim (20,000 of them: 0.3 s). So a claim tells where in the
-- index the first schedule was that is due, and how many entries it passed that lead nowhere; one that is told where (since_at,
-- since_id) begins there. It leaves out what has become due before that place meanwhile: who claims has to begin anew from
-- time to time.
--
-- Claims what has been due for longest. The lock on the schedule, the execution and the advanced slot commit together, so
-- no claim is without its record and no record without its claim. A row that another claimer holds is skipped; the
-- conditions are checked again with the lock. An execution of another transaction is caught by the unique index on
-- running executions: "do nothing" then leaves the slot where it is.
--
-- One step of priority is worth a minute of waiting, and a chain of views behind it as much as it usually takes, so
-- nothing starves. That reorders only what has been due for longest, in each queue a window of the index in order of
-- next_run_at; when nothing in it can be claimed, because it is held or waits, a wider one is looked at.
--
-- A schedule whose OID does not count, or not any more, is left to the next look at the schedules.
--
-- The slot of an interval advances by whole intervals from itself, so there is no drift, past now, so there is no
-- backlog. An interval is added as seconds: a day is 24 hours whatever the session's time zone. Of every other kind the
-- next slot is left open: it is planned when it can be known.
create function mvsched.claim(worker text, wanted integer, queues text[], round timestamptz, clock timestamptz, with_usual boolean,
                              since_at timestamptz default null, since_id bigint default null)
  returns setof mvsched.claim
  language plpgsql
  set search_path = pg_catalog, pg_temp
  -- Plans are kept: made anew for every call, they took as long as the claim itself.
  set plan_cache_mode = force_generic_plan
  -- Whatever the statistics say, the index is what finds what is due.
  set enable_seqscan = off
  set enable_bitmapscan = off
  -- Nor what it takes the work for: compiling it would take longer.
  set jit = off as $$
#variable_conflict use_variable
declare
  instant     timestamptz;
  looked_at   timestamptz; -- once: within a transaction the server reads its counters once
  served      text[];
  capped      boolean;
  here        text;
  opens       timestamptz;
  clock_slot  timestamptz; -- what the next slot is counted from
  depth       integer;
  seen        integer;
  taken       integer := 0;
  candidate   record;
  s           mvsched.materialized_view_refresh_schedule;
  v           mvsched.refreshable_relation;
  known       mvsched.materialized_view_refresh_schedule_execution;
  claimed     mvsched.claim;
  groups      text[]; -- that were met
  read_before bigint;
  live        bigint := 0; -- entries that led to a schedule
begin
  -- In one statement, and without mvsched.queues(): for as little as a claim is, each one more counts.
  select coalesce(clock, clock_timestamp()), clock_timestamp(), coalesce(queues, array(select q.name from mvsched.queue q)),
         settings.max_concurrent_refreshes is not null, mvsched.database_identity(), 30 + wanted,
         -- The server counts the entries that this session has read, also those that lead nowhere.
         pg_stat_get_xact_tuples_returned('mvsched.materialized_view_refresh_schedule_due'::regclass)
    into instant, looked_at, served, capped, here, depth, read_before
    from (values (true)) as one (singleton)
    left join mvsched.settings using (singleton);
  if capped then
    wanted := least(wanted, mvsched.free_runs());
    if wanted <= 0 then
      return;
    end if;
  end if;
  loop
    seen := 0;
    for candidate in
      select w.id, w.view_oid, mvsched.slot(w.next_run_at, w.next_run_offset, w.next_run_reason) as slot, g.ancestors, w.refresh_group,
             first_value(w.next_run_at) over place as first_due_at, first_value(w.id) over place as first_due_id, count(*) over () as many
        from unnest(served) as q (queue)
       cross join lateral (
              select x.id, x.view_oid, x.next_run_at, x.next_run_offset, x.next_run_reason, x.priority, x.refresh_group
                from mvsched.materialized_view_refresh_schedule x
               where x.queue = q.queue and x.next_run_at <= instant
                 and (x.next_run_at, x.id) >= (coalesce(since_at, '-infinity'), coalesce(since_id, 0))
                 and x.paused_at is null and x.suspended_at is null and x.open_execution_id is null
                 and (round is null or x.next_run_at <= round
                      or x.next_run_reason in ('retry', 'second_look') and x.next_run_at - x.next_run_offset <= round)
               order by x.next_run_at, x.id
               limit depth) w
        left join mvsched.materialized_view_graph g on g.view_oid = w.view_oid
      window place as (order by w.next_run_at, w.id)
       order by w.next_run_at - make_interval(mins => w.priority, secs => coalesce(g.path_seconds, 0)), w.id
    loop
      live := live + case when seen = 0 then candidate.many else 0 end;
      seen := seen + 1;
      if candidate.refresh_group is not null then
        continue when candidate.refresh_group = any (groups);
        groups := groups || candidate.refresh_group::text;
        for claimed in
          select c.* from mvsched.claim_group(candidate.refresh_group, worker, queues, round, instant, with_usual) c
        loop
          claimed.first_due_at := candidate.first_due_at;
          claimed.first_due_id := candidate.first_due_id;
          claimed.passed := pg_stat_get_xact_tuples_returned('mvsched.materialized_view_refresh_schedule_due'::regclass) - read_before - live;
          return next claimed;
          taken := taken + 1;
        end loop;
        exit when taken >= wanted;
        continue;
      end if;
      continue when coalesce(cardinality(candidate.ancestors), 0) > 0 and exists (
        select from mvsched.awaited(candidate.view_oid, candidate.slot, round, instant, queues, true));

      select x.* into s
        from mvsched.materialized_view_refresh_schedule x
       where x.id = candidate.id and x.refresh_group is null and x.next_run_at <= instant
         and mvsched.slot(x.next_run_at, x.next_run_offset, x.next_run_reason) = candidate.slot
         -- In other words than those of the index on what is due, which would be read from its beginning where statistics
         -- say that it is short.
         and num_nonnulls(x.paused_at, x.suspended_at, x.open_execution_id) = 0
         and x.database_identity = here
         -- The index would tell, too; but it would wait for one that is just ending, or for a whole group.
         and not exists (
               select from mvsched.materialized_view_refresh_schedule_execution e
                where e.status = 'running' and e.view_oid = candidate.view_oid and e.lane = 0)
         for no key update skip locked;
      continue when not found;
      select x.* into v from mvsched.refreshable_relation x where x.oid = s.view_oid and mvsched.can_be(x.relkind, s.kind);
      continue when not found and s.view_oid is not null;

      opens := case when s.window_start is null then instant
                    else mvsched.in_window(instant, s.window_start, s.window_end, s.timezone) end;
      continue when opens is null and mvsched.suspended_without_zone(array[s.id], instant);
      if opens > instant then
        clock_slot := coalesce(s.slot_after_retry, s.next_run_at - s.next_run_offset);
        s := mvsched.planned(s, case when s.refresh_interval is null then instant else
               clock_slot + make_interval(secs =>
                 greatest(0, ceil(extract(epoch from instant - clock_slot) / extract(epoch from s.refresh_interval)))::float8
                 * extract(epoch from s.refresh_interval)::float8) end);
        update mvsched.materialized_view_refresh_schedule x
           set next_run_at = s.next_run_at, next_run_offset = s.next_run_offset, next_run_reason = s.next_run_reason, slot_after_retry = null
         where x.id = s.id;
        continue;
      end if;

      declare
        slot         timestamptz := candidate.slot;
        last_slot    timestamptz; -- that it was tried for
        last_attempt integer;
        asked        boolean;
        view_name    text;
        attempt      integer;
        sure         boolean;
        print        text;
        reason       text;
        message      text;
        data         timestamptz;
        execution    bigint;
        claimed_at   timestamptz;
        next_slot    timestamptz;
        next_offset  interval;
      begin
        select last.scheduled_at, last.attempt, exists (
                 select from mvsched.materialized_view_refresh_request r where r.materialized_view_refresh_schedule_id = s.id)
          into last_slot, last_attempt, asked
          from (values (s.id)) as schedule (id)
          left join lateral (
                 select e.scheduled_at, e.attempt
                   from mvsched.materialized_view_refresh_schedule_execution e
                  where e.materialized_view_refresh_schedule_id = schedule.id
                  order by e.id desc
                  limit 1
               ) last on true;

        if cardinality(candidate.ancestors) > 0 and s.on_parent_failure = 'skip' then
          message := mvsched.failed_ancestor(s.view_oid, s.last_attempted_at);
          if message is not null then
            reason := 'upstream_failed';
            message := message || ' failed';
          end if;
        end if;

        if (s.skip_unchanged or s.on_change) and s.kind <> 'columns' and v.populated and reason is null then
          -- In this order: a session that ends in between has reported its counters by the time that they are read.
          sure := mvsched.nobody_else_here();
          print := mvsched.fingerprint(s.view_oid);
        end if;
        if s.skip_unchanged and print is not null and not asked and coalesce(s.next_full_at > instant, true) then
          select e.* into known
            from mvsched.materialized_view_refresh_schedule_execution e
           where e.view_oid = s.view_oid and e.data_as_of is not null
           order by e.id desc
           limit 1;
          if print = known.fingerprint and known.refreshed_at > instant - s.max_staleness then
            -- The counters are late. What was written before the slot is in them 15 seconds after it, or when nobody else
            -- can have written.
            if not sure and instant < greatest(slot, round) + interval '15 seconds' then
              update mvsched.materialized_view_refresh_schedule x
                 set next_run_at = greatest(slot, round) + interval '15 seconds',
                     next_run_offset = greatest(slot, round) + interval '15 seconds' - slot,
                     next_run_reason = 'second_look'
               where x.id = s.id;
              continue;
            end if;
            reason := 'unchanged';
            data := greatest(known.data_as_of,
              least(case when sure then looked_at else least(looked_at - interval '15 seconds', mvsched.busy_since()) end,
                    mvsched.data_of_parents(s.view_oid)));
          end if;
        end if;

        view_name := case when v.oid is null then s.materialized_view_name else mvsched.view_name(v.oid, v.schema_name, v.relation_name) end;
        attempt := case when last_slot = slot then least(last_attempt + 1, 1000000) else 1 end;
        insert into mvsched.materialized_view_refresh_schedule_execution as e
               (materialized_view_refresh_schedule_id, view_name, view_oid, trigger, scheduled_at, attempt, worker, start_grace,
                fingerprint, status, reason, error_message, ended_at, data_as_of, refreshed_at, predicted_duration)
        values (s.id, view_name, s.view_oid,
                case when s.next_run_reason = 'request' then 'change' when last_slot = slot then 'retry' when s.on_change then 'change'
                     when s.after_parents then 'parent' else 'schedule' end,
                slot, attempt, worker, s.start_grace,
                print, case when reason is null then 'running' else 'skipped' end, reason, message,
                case when reason is not null then clock_timestamp() end, data, case when data is not null then known.refreshed_at end,
                s.predicted_duration)
        on conflict (view_oid, lane) where status = 'running' do nothing
        returning e.id, e.started_at into execution, claimed_at;
        continue when not found;

        if asked and reason is null then
          s.requested_at := coalesce(mvsched.answer_requests(s.id), s.requested_at);
        end if;

        clock_slot := coalesce(s.slot_after_retry, s.next_run_at - s.next_run_offset);
        next_slot := case
          when reason = 'upstream_failed' and (s.after_parents or s.on_change)
            then instant + interval '1 minute' -- without a clock nobody else would call again
          when (s.next_run_reason = 'request' or s.slot_after_retry is not null) and clock_slot > instant
               and num_nonnulls(s.refresh_interval, s.cron) > 0
            then clock_slot -- a request leaves the clock alone, and so does what is tried again for one
          else clock_slot + make_interval(secs =>
                 greatest(1, floor(extract(epoch from instant - clock_slot) / extract(epoch from s.refresh_interval)) + 1)::float8
                 * extract(epoch from s.refresh_interval)::float8) end;
        if next_slot > '9999-12-31 00:00+00' then
          next_slot := '9999-12-31 00:00+00';
        end if;
        next_offset := interval '0';
        if next_slot is not null and num_nonnulls(s.jitter, s.window_start) > 0 then
          s.last_attempted_at := instant;
          s := mvsched.planned(s, next_slot);
          next_slot := s.next_run_at;
          next_offset := s.next_run_offset;
        end if;
        update mvsched.materialized_view_refresh_schedule x
           set last_attempted_at = instant,
               open_execution_id = case when reason is null then execution end,
               requested_at = s.requested_at,
               next_run_at = next_slot,
               next_run_offset = next_offset,
               next_run_reason = null,
               slot_after_retry = null
         where x.id = s.id;

        return next mvsched.claim_of(
          s, v, execution, claimed_at, view_name, slot, attempt, case when with_usual then mvsched.usual_seconds(view_name) end, reason,
          s.merge_window is null or coalesce(s.next_full_at <= instant, false), candidate.first_due_at, candidate.first_due_id,
          pg_stat_get_xact_tuples_returned('mvsched.materialized_view_refresh_schedule_due'::regclass) - read_before - live);
      end;
      taken := taken + 1;
      exit when taken >= wanted;
    end loop;
    exit when taken > 0 or seen < depth;
    depth := depth * 10;
  end loop;
  if taken < wanted then
    return query select * from mvsched.claim_lane(worker, wanted - taken, queues, with_usual);
  end if;
end
$$;
comment on function mvsched.claim(text, integer, text[], timestamptz, timestamptz, boolean, timestamptz, bigint) is
  'Claims up to so many due views of these queues (null: of all) for a worker. A round is the instant that a one-shot run began: what was due then counts as one slot, and nothing else is claimed. The clock is null but in tests';

------------------------------------------------------------------------------------------------------------------------
-- The two ends of a refresh transaction
--
--   begin; begin_refresh(...); savepoint; refresh materialized view ...; refresh_succeeded(...); commit
--
-- is sent as one pipeline, so the client cannot decide anything between the statements: what must stop it, raises.
------------------------------------------------------------------------------------------------------------------------

-- An id alone does not name a claim. A crash of the server takes back claims whose commit had not reached the disk, and a
-- failover those that had not reached the standby, and with them the sequence of the ids: the next claim gets the same id
-- again. So whoever made a claim also says when that was.
create function mvsched.begin_refresh(execution bigint, view oid, method text, time_limit interval, lock_limit interval, claimed_at timestamptz)
  returns void language plpgsql
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  perform pg_catalog.set_config('statement_timeout', (extract(epoch from time_limit) * 1000)::bigint::text, true),
          -- Below deadlock_timeout it would lose to every autovacuum: those give way only when the deadlock check runs.
          pg_catalog.set_config('lock_timeout', greatest(extract(epoch from lock_limit) * 1000, case when method <> 'plain' then
            500 + extract(epoch from pg_catalog.current_setting('deadlock_timeout')::interval) * 1000 end)::bigint::text, true),
          -- A worker that vanishes between an error and its record must not hold the view's lock for long.
          pg_catalog.set_config('idle_in_transaction_session_timeout', '15s', true),
          -- A NOTICE or WARNING sent to a client that has died would abort the refresh.
          pg_catalog.set_config('client_min_messages', 'error', true),
          -- CONCURRENTLY builds statements of its own, and breaks where every identifier is quoted.
          pg_catalog.set_config('quote_all_identifiers', 'off', true),
          -- A worker that has died must not end what it has sent: the refresh commits and is recorded.
          case when pg_catalog.current_setting('server_version_num')::integer >= 140000
               then pg_catalog.set_config('client_connection_check_interval', '0', true) end,
          case when pg_catalog.current_setting('server_version_num')::integer >= 170000
               then pg_catalog.set_config('transaction_timeout', '0', true) end;

  -- Fence and liveness in one: whoever can take this lock knows that the run is gone; held to the end. It is asked for what is
  -- running in other words than those of the index on that: as long as a transaction is open, that index keeps an entry of
  -- every run since, and where it seems short, all of them would be read.
  perform from mvsched.materialized_view_refresh_schedule_execution e
    where e.id = begin_refresh.execution and e.started_at = begin_refresh.claimed_at and e.ended_at is null
    for no key update;
  if not found then
    raise exception 'execution % is no longer running', execution using errcode = 'MV001';
  end if;

  -- Before the refresh takes its snapshot: what its parents get meanwhile may be in it, or not.
  perform pg_catalog.set_config('mvsched.data_of_parents',
            case when exists (select from mvsched.materialized_view_graph g where g.view_oid = view)
                 then coalesce(mvsched.data_of_parents(view)::text, '') else '' end, true),
          -- The counters include what this session has not reported yet; only the difference is the refresh's.
          pg_catalog.set_config('mvsched.rows_inserted_before', pg_catalog.pg_stat_get_xact_tuples_inserted(view)::text, true),
          pg_catalog.set_config('mvsched.rows_deleted_before', pg_catalog.pg_stat_get_xact_tuples_deleted(view)::text, true),
          -- Up to 14 the counters may not have come yet, and a crash loses them: then the catalog's count.
          pg_catalog.set_config('mvsched.rows_live_before', coalesce(nullif(pg_catalog.pg_stat_get_live_tuples(view), 0),
            (select greatest(c.reltuples, 0)::bigint from pg_catalog.pg_class c where c.oid = view), 0)::text, true);
end
$$;
comment on function mvsched.begin_refresh(bigint, oid, text, interval, interval, timestamptz) is
  'First step of a refresh transaction: its limits, and the lock on its execution. Raises MV001 when the claim was taken away';

create function mvsched.refresh_succeeded(
  execution bigint, view oid, view_schema text, view_name text, method text, method_reason text default null)
  returns setof mvsched.materialized_view_refresh_schedule_execution language plpgsql
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  -- REFRESH looks its view up by name, again after every wait; its lock now keeps that name where it is. So this looks where REFRESH
  -- does: a group's snapshot may be from before somebody changed the view's row, and has that version beside our own.
  if pg_catalog.to_regclass(pg_catalog.format('%I.%I', view_schema, view_name)) is distinct from view::pg_catalog.regclass then
    raise exception 'the name %.% no longer stands for the materialized view that was claimed',
      pg_catalog.quote_ident(view_schema), pg_catalog.quote_ident(view_name) using errcode = 'MV002';
  end if;
  if pg_catalog.current_setting('server_version_num')::integer >= 150000 then
    -- Otherwise the refresh's counters may stay with this session for a minute; whether to vacuum is asked at once.
    perform pg_catalog.pg_stat_force_next_flush();
  end if;
  return query
    update mvsched.materialized_view_refresh_schedule_execution e
       set status = 'succeeded',
           reason = case when pg_catalog.clock_timestamp() - e.started_at > e.predicted_duration then 'outlasted_prediction'
                         when e.rows_done is not null and exists (
                           select from mvsched.materialization_poison p where p.execution_id = e.id) then 'rows_set_aside' end,
           ended_at = greatest(e.started_at, pg_catalog.clock_timestamp()),
           method = refresh_succeeded.method,
           method_reason = refresh_succeeded.method_reason,
           -- The start of this transaction: nothing in the view can be older, except what was read from views that are.
           data_as_of = least(pg_catalog.now(), nullif(pg_catalog.current_setting('mvsched.data_of_parents', true), '')::timestamptz),
           refreshed_at = pg_catalog.now(),
           tuples_written = counted.written,
           rows_inserted = coalesce(e.rows_done, counted.inserted),
           rows_deleted = coalesce(e.rows_done, counted.deleted),
           rows_kept = case when counted.deleted is not null then greatest(counted.before - counted.deleted, 0) end
      from (select case when known then pg_catalog.pg_stat_get_xact_tuples_inserted(view)
                          - pg_catalog.current_setting('mvsched.rows_inserted_before')::bigint end as inserted,
                   case when known then pg_catalog.pg_stat_get_xact_tuples_deleted(view)
                          - pg_catalog.current_setting('mvsched.rows_deleted_before')::bigint end as deleted,
                   case when known then pg_catalog.current_setting('mvsched.rows_live_before')::bigint end as before,
                   pg_catalog.pg_stat_get_tuples_inserted(view) + pg_catalog.pg_stat_get_xact_tuples_inserted(view)
                   + pg_catalog.pg_stat_get_tuples_deleted(view) + pg_catalog.pg_stat_get_xact_tuples_deleted(view) as written
              from (select refresh_succeeded.method = 'concurrently' and pg_catalog.current_setting('track_counts') = 'on'
                           or refresh_succeeded.method = 'merge' as known) k) counted
     where e.id = execution and e.ended_at is null -- that is, running: see begin_refresh
    returning e.*;
  if not found then
    raise exception 'execution % is no longer running', execution using errcode = 'MV001';
  end if;
end
$$;
comment on function mvsched.refresh_succeeded(bigint, oid, text, text, text, text) is
  'Last step of a refresh transaction: the record of its success. Raises MV002 when another view was refreshed than the one claimed';

------------------------------------------------------------------------------------------------------------------------
-- Merge tables
--
-- A merge table is made equal to a plain view by key: what differs is written, and nothing else. Where there is a window,
-- rows outside of it stay as they are, unless the view now has in its window what they were, or the table what has left it.
------------------------------------------------------------------------------------------------------------------------

create function mvsched.resolve_source(source oid, name text) returns oid
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan as $$
begin
  return coalesce((select c.oid from pg_class c where c.oid = source and c.relkind = 'v'),
                  (select c.oid from pg_class c where c.oid = mvsched.find_relation(name) and c.relkind = 'v'));
end
$$;
comment on function mvsched.resolve_source(oid, text) is
  'The plain view that a merge table is kept equal to: by its OID as long as it exists, which follows a rename, else by its name';

-- Without JIT: where somebody has told the planner off some way to join, it takes these few rows of the catalog for so much work
-- that it would compile the query, each time, for longer than everything else takes.
create function mvsched.merge_columns(relation oid, source oid) returns text[]
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set jit = off as $$
declare
  odd    record;
  common text[];
begin
  -- What the table generates is left to it; an identity only where the view does not have it.
  for odd in
    select coalesce(t.attname, v.attname) as name, t.attname is null as extra, v.attname is null as missing,
           format_type(t.atttypid, t.atttypmod) as has, format_type(v.atttypid, v.atttypmod) as gives
      from (select * from pg_attribute a where a.attrelid = relation and a.attnum > 0 and not a.attisdropped) t
      full join (select * from pg_attribute a where a.attrelid = source and a.attnum > 0 and not a.attisdropped) v using (attname)
     where coalesce(t.attgenerated, '') = ''
       and (t.attname is null
            or v.attname is null and t.attidentity = ''
            or t.atttypid <> v.atttypid or t.atttypmod not in (-1, v.atttypmod))
     order by t.attnum, v.attnum
     limit 1
  loop
    if odd.extra then
      raise exception 'view % has a column % that table % does not have',
        mvsched.relation_name(source), quote_ident(odd.name), mvsched.relation_name(relation)
        using errcode = 'undefined_column', hint = 'Add the column to the table, or take it out of the view.';
    elsif odd.missing then
      raise exception 'table % has a column % that view % does not have',
        mvsched.relation_name(relation), quote_ident(odd.name), mvsched.relation_name(source)
        using errcode = 'undefined_column', hint = 'Add the column to the view, drop it from the table, or have the table generate it.';
    end if;
    raise exception 'column % is % in table %, and % in view %',
      quote_ident(odd.name), odd.has, mvsched.relation_name(relation), odd.gives, mvsched.relation_name(source)
      using errcode = 'datatype_mismatch', hint = 'Give both the same type.';
  end loop;

  select array_agg(quote_ident(t.attname) order by t.attnum) into common
    from pg_attribute t
    join pg_attribute v on v.attrelid = source and v.attname = t.attname and v.attnum > 0
   where t.attrelid = relation and t.attnum > 0 and t.attgenerated = '';
  return common;
end
$$;
comment on function mvsched.merge_columns(oid, oid) is
  'The columns, quoted, that a merge table has from its view; raises an error that names the column where the two do not fit';

create function mvsched.merge_equalities(relation oid, key text[]) returns text[]
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set jit = off as $$
begin
  return (
    select array_agg(format('operator(%I.%s)', n.nspname, o.oprname) order by wanted.position)
      from (select i.indexrelid, i.indkey, i.indclass
              from pg_index i
             where i.indrelid = relation and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
               and i.indnkeyatts = cardinality(key)
               and not exists (select from unnest(i.indkey::smallint[]) with ordinality as k (attnum, position)
                                 join pg_attribute a on a.attrelid = relation and a.attnum = k.attnum
                                where k.position <= i.indnkeyatts and a.attname::text <> all (key))
             order by i.indisprimary desc, i.indexrelid
             limit 1) i
     cross join unnest(key) with ordinality as wanted (name, position)
      join pg_attribute a on a.attrelid = relation and a.attname::text = wanted.name
     cross join unnest(i.indkey::smallint[], i.indclass::oid[]) as part (attnum, opclass)
      join pg_opclass c on c.oid = part.opclass and part.attnum = a.attnum
      join pg_amop m on m.amopfamily = c.opcfamily and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype and m.amopstrategy = 3
      join pg_operator o on o.oid = m.amopopr
      join pg_namespace n on n.oid = o.oprnamespace);
end
$$;
comment on function mvsched.merge_equalities(oid, text[]) is
  'By which operators the columns of a key are equal: those of the unique index on them; null: there is no such index';

-- Only one that PostgreSQL takes for an expression whichever brackets it stands in is one, and does not close them. That of WHERE
-- comes first: what the server says there speaks least of the brackets.
create function mvsched.check_merge_window(relation oid, expression text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  trial refcursor;
begin
  open trial for execute format(e'select 1 from %s where (%s\n) limit 0', mvsched.relation_name(relation), expression);
  close trial;
  open trial for execute format(e'select 1 from %s where (array[%s\n])[1] limit 0', mvsched.relation_name(relation), expression);
  close trial;
exception when others then -- a cancel is not among them
  raise exception 'the window is no boolean expression over the columns of %', mvsched.relation_name(relation)
    using errcode = 'syntax_error', constraint = 'merge_window_is_a_condition', detail = sqlerrm,
          hint = 'Functions and types that are not PostgreSQL''s own need their schema.';
end
$$;
comment on function mvsched.check_merge_window(oid, text) is
  'Refuses a window that is not one boolean expression over the columns of this relation';

create function mvsched.check_merge(schedule mvsched.materialized_view_refresh_schedule, source oid)
  returns mvsched.materialized_view_refresh_schedule
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  relkind "char" := (select c.relkind from pg_class c where c.oid = source);
  columns text[];
  odd     text;
begin
  if schedule.kind <> 'merge' then
    if num_nonnulls(schedule.merge_source, schedule.merge_key, schedule.merge_window, schedule.full_interval, schedule.next_full_at) > 0 then
      raise exception 'merge_source, merge_key, merge_window, full_interval and next_full_at are for a merge table'
        using errcode = 'check_violation', constraint = 'merge_settings_are_for_merge_tables',
              detail = schedule.materialized_view_name, hint = 'Set kind to merge.';
    end if;
    schedule.merge_source_oid := null;
    return schedule;
  end if;
  if schedule.merge_source is null or coalesce(cardinality(schedule.merge_key), 0) = 0 then
    raise exception 'a merge table needs merge_source and merge_key' using errcode = 'check_violation';
  end if;
  schedule.merge_source_oid := case when relkind = 'v' then source end;
  if relkind is null then
    if (mvsched.parse_view_name(schedule.merge_source))[1] is null then
      raise exception 'view % does not exist', schedule.merge_source
        using errcode = 'undefined_table', hint = 'It is not in the search_path. Write schema.view.';
    end if;
    raise warning 'view % does not exist', schedule.merge_source; -- as with the table itself
  elsif relkind <> 'v' then
    raise exception '% is not a plain view', schedule.merge_source using errcode = 'wrong_object_type';
  else
    schedule.merge_source := mvsched.relation_name(source);
  end if;
  if schedule.merge_source_oid is null or schedule.view_oid is null then
    return schedule;
  end if;
  columns := mvsched.merge_columns(schedule.view_oid, source);
  select key.name into odd from unnest(schedule.merge_key) as key (name) where quote_ident(key.name) <> all (columns) limit 1;
  if odd is not null then
    raise exception 'there is no column % in table % and view %', quote_ident(odd), schedule.materialized_view_name, schedule.merge_source
      using errcode = 'undefined_column';
  elsif cardinality(schedule.merge_key) > (select count(distinct key.name) from unnest(schedule.merge_key) as key (name)) then
    raise exception 'a column of the key is named twice' using errcode = 'duplicate_column';
  elsif schedule.merge_window is not null then
    perform mvsched.check_merge_window(schedule.view_oid, schedule.merge_window),
            mvsched.check_merge_window(source, schedule.merge_window);
  end if;
  return schedule;
end
$$;
comment on function mvsched.check_merge(mvsched.materialized_view_refresh_schedule, oid) is
  'The schedule with what makes it one of a merge table in canonical form; raises what is wrong with it';

create function mvsched.execute(statement text, path text, answers boolean default true) returns json
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  answer pg_catalog.json;
begin
  perform pg_catalog.set_config('search_path', path, true); -- until the end of this function
  if answers then
    execute statement into answer;
  else
    execute statement;
  end if;
  return answer;
end
$$;
comment on function mvsched.execute(text, text, boolean) is 'Runs a statement under this search_path, and returns its answer';

create function mvsched.merge_statement(
  relation text, source text, query text, columns text[], fixed text[], key text[], equalities text[], inside text, slow boolean,
  anew boolean) returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp as $$
declare
  -- By number, so that no name of the table's can be one of ours.
  at       integer[] := array(select array_position(columns, k.name) from unnest(key) with ordinality as k (name, n) order by k.n);
  list     text      := (select string_agg('c' || i, ', ' order by i) from generate_subscripts(columns, 1) i);
  numbered text      := (select string_agg(format('%s as c%s', columns[i], i), ', ' order by i) from generate_subscripts(columns, 1) i);
  changes  text      := (select string_agg(format('%s = d.c%s', columns[i], i), ', ' order by i) from generate_subscripts(columns, 1) i
                          where columns[i] <> all (fixed));
  here     text      := (select string_agg(format('t.c%s %s s.c%1$s', at[k], equalities[k]), ' and ' order by k) from generate_subscripts(at, 1) k);
  same     text      := 't.tableoid operator(pg_catalog.=) d.part and t.ctid operator(pg_catalog.=) d.tid';
  windowed boolean   := inside <> '';
begin
  return concat(
    'with source as ', case when not slow then 'not ' end, 'materialized (', query, '), diff as materialized (select t.part, t.tid, s.found, ',
    (select string_agg(format(case when i = any (at) then 'case when s.found then s.c%s else t.c%1$s end as c%1$s' else 's.c%s' end, i), ', ' order by i)
       from generate_subscripts(columns, 1) i),
    ' from (select true as found, * from source) s full join (select tableoid as part, ctid as tid, ', numbered, ' from ', relation, inside,
    ') t on ', here, ' where s.found is null or t.tid is null or (row(', 's.' || replace(list, ', c', ', s.c'),
    ')::pg_catalog.record) operator(pg_catalog.*<>) (row(', 't.' || replace(list, ', c', ', t.c'), ')::pg_catalog.record)), ',
    case when windowed then concat(
      'moved as materialized (select t.part, t.tid, s.* from (select * from diff where found is null) t join (select ', numbered,
      ' from ', source, ') s on ', here, '), ') end,
    'deleted as (delete from ', relation, ' t using diff d where ', same, ' and d.found is null',
    case when windowed then ' and not exists (select from moved m where m.part operator(pg_catalog.=) d.part and m.tid operator(pg_catalog.=) d.tid)' end,
    ' returning 1), changed as (select part, tid, ', list, ' from diff where found and tid is not null',
    case when windowed then concat(' union all select part, tid, ', list, ' from moved') end,
    '), updated as (', case when anew then concat('delete from ', relation, ' t using changed d')
                            else concat('update ', relation, ' t set ', changes, ' from changed d') end,
    ' where ', same, ' and (select pg_catalog.count(*) from deleted) operator(pg_catalog.>=) 0 returning 1), ',
    'inserted as (insert into ', relation, ' (', array_to_string(columns, ', '), ') overriding system value select ', list,
    ' from (select ', list, ' from diff where found and tid is null', case when anew then concat(' union all select ', list, ' from changed') end,
    ') d where (select pg_catalog.count(*) from updated) operator(pg_catalog.>=) 0',
    case when windowed then concat(' on conflict (', array_to_string(key, ', '), ') do update set ',
      (select string_agg(format('%s = excluded.%1$s', c), ', ' order by n) from unnest(columns) with ordinality as u (c, n) where c <> all (fixed))) end,
    ' returning 1)',
    ' select pg_catalog.json_build_object(''viewed'', (select pg_catalog.count(*) from source),',
    ' ''stored'', (select pg_catalog.count(*) from ', relation, inside, '),',
    ' ''gone'', (select pg_catalog.count(*) from diff where found is null),',
    ' ''new'', (select pg_catalog.count(*) from diff where found and tid is null),',
    ' ''nulls'', (select pg_catalog.count(*) from diff where found and tid is null and (c', array_to_string(at, ' is null or c'), ' is null)),',
    ' ''deleted'', (select pg_catalog.count(*) from deleted), ''updated'', (select pg_catalog.count(*) from updated),',
    ' ''inserted'', (select pg_catalog.count(*) from inserted)', case when anew then ' operator(pg_catalog.-) (select pg_catalog.count(*) from updated)' end,
    ', ''there'', ',
    case when windowed then concat('(select pg_catalog.count(*) from diff s where found and tid is null and exists (select from ', relation, ' t where ',
      (select string_agg(format('t.%s %s s.c%s', key[k], equalities[k], at[k]), ' and ' order by k) from generate_subscripts(at, 1) k), '))') else '0' end, ')');
end
$$;
comment on function mvsched.merge_statement(text, text, text, text[], text[], text[], text[], text, boolean, boolean) is
  'The statement that makes a table equal to a view, and returns what it has counted. Columns that are fixed cannot be updated. Anew: what has changed is deleted and inserted';

create function mvsched.notices_a_delete(relation oid, columns text[]) returns boolean
  language plpgsql stable
  set search_path = pg_catalog, pg_temp as $$
begin
  return (
    select c.relkind <> 'r'
           or exists (select from pg_inherits i where i.inhparent = c.oid)
           or exists (select from pg_trigger t
                       where t.tgrelid = c.oid and (not t.tgisinternal or t.tgtype & 8 > 0)) -- on delete: foreign keys that refer to it
           or exists (select from pg_attribute a where a.attrelid = c.oid and a.attidentity <> '' and quote_ident(a.attname) <> all (columns))
      from pg_class c
     where c.oid = relation);
end
$$;
comment on function mvsched.notices_a_delete(oid, text[]) is
  'Whether it makes a difference if a row of a table is deleted and inserted anew with these columns, in place of an update: a trigger, a foreign key to it, a table that inherits from it, an identity that would be another one';

create function mvsched.refuse_key(source text, inside text, key text[], path text, is_null boolean) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  columns text := array_to_string(key, ', ');
  value   json := mvsched.execute(concat(
    'select pg_catalog.to_json(pg_catalog.left(pg_catalog.concat_ws('', '', ',
    (select string_agg(format('coalesce(%s::pg_catalog.text, ''NULL'')', k.name), ', ' order by k.n) from unnest(key) with ordinality as k (name, n)),
    '), 200)) from ', source, inside,
    case when is_null then concat(case when inside = '' then ' where (' else ' and (' end, array_to_string(key, ' is null or '), ' is null)')
         else concat(' group by ', columns, ' having pg_catalog.count(*) operator(pg_catalog.>) 1') end, ' limit 1'), path);
begin
  if value is not null and is_null then
    raise exception 'view % has a row with a NULL in its key: (%) = (%)', source, columns, value #>> '{}' using errcode = 'not_null_violation';
  elsif value is not null then
    raise exception 'view % has two rows with the same key: (%) = (%)', source, columns, value #>> '{}' using errcode = 'cardinality_violation';
  end if;
end
$$;
comment on function mvsched.refuse_key(text, text, text[], text, boolean) is
  'Raises an error that names a row of a view whose key has a NULL, or is there twice; where it finds none, it does nothing';

-- The lock keeps writers out, but no reader. Then it is one statement, of one snapshot: view and table are joined by key,
-- and of the rows that differ, byte for byte, those that are gone are deleted before others are changed, and those are
-- changed before new ones are inserted, since the one may make room for the other in a second unique index.
--
-- A view that takes long for few rows is read into a temporary table first: that can be done in parallel, which a
-- statement that writes cannot. Not so with a window, since what has left the window is looked up in the view, and in the
-- same snapshot.
--
-- Rows that have exchanged what such an index allows once make no room for each other: they are deleted and inserted anew, where nobody
-- would notice that they were gone.
--
-- A key that the view has twice would go unnoticed where both rows are as the table's. So they are counted: the rows of
-- the view that are not new have to be as many as the rows of the table that are not gone.
create function mvsched.merge(view oid, whole boolean) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
declare
  s        mvsched.materialized_view_refresh_schedule;
  relation text := mvsched.relation_name(view);
  path     text;
  source   text;
  query    text;
  columns  text[];
  key      text[];
  fixed    text[];
  equal    text[];
  inside   text := '';
  plan     json;
  cost     float8;
  slow     boolean;
  anew     boolean;
  n        record;
begin
  select x.* into s
    from mvsched.materialized_view_refresh_schedule x
   where x.view_oid = view and x.kind = 'merge' and x.database_identity = mvsched.database_identity();
  if not found then
    raise exception 'table % is no merge table any more', relation using errcode = 'object_not_in_prerequisite_state';
  end if;
  execute format('lock table %s in share row exclusive mode', relation);
  if mvsched.find_relation(relation) is distinct from view then
    raise exception 'the name % no longer stands for the table that was claimed', relation using errcode = 'MV002';
  elsif row_security_active(view) then
    raise exception 'row security of table % applies to role %', relation, quote_ident(current_user) using errcode = 'insufficient_privilege';
  end if;

  s.merge_source_oid := mvsched.resolve_source(s.merge_source_oid, s.merge_source);
  source := mvsched.relation_name(s.merge_source_oid);
  if source is null then
    raise exception 'view % does not exist', s.merge_source using errcode = 'undefined_table';
  end if;
  columns := mvsched.merge_columns(view, s.merge_source_oid);
  key := array(select quote_ident(k.name) from unnest(s.merge_key) with ordinality as k (name, n) order by k.n);
  equal := mvsched.merge_equalities(view, s.merge_key);
  -- Of two equal keys of such a type the bytes are equal too.
  fixed := array(select quote_ident(a.attname) from pg_attribute a where a.attrelid = view and a.attidentity = 'a' and a.attname::text = any (s.merge_key));
  if not key <@ columns then
    raise exception 'the key (%) is not in table % and view %', array_to_string(key, ', '), relation, source using errcode = 'undefined_column';
  elsif equal is null then
    raise exception 'table % has no unique index on (%)', relation, array_to_string(key, ', ')
      using errcode = 'object_not_in_prerequisite_state';
  elsif not whole and s.merge_window is not null then
    inside := format(e' where (%s\n)', s.merge_window);
  end if;

  -- As REFRESH has it from 17 on: what the functions of the query name is not looked up in the worker's path.
  path := coalesce(s.search_path, 'pg_catalog, pg_temp');
  query := concat('select ', (select string_agg(format('%s as c%s', columns[i], i), ', ' order by i) from generate_subscripts(columns, 1) i),
                  ' from ', source, inside);
  plan := mvsched.execute('explain (format json) ' || query, path);
  cost := plan #>> '{0,Plan,Total Cost}';
  slow := cost > 10000 and cost > (plan #>> '{0,Plan,Plan Rows}')::float8;
  if slow and inside = '' and has_database_privilege(current_database(), 'TEMP') then
    perform mvsched.execute('create temporary table mvsched_merge on commit drop as ' || query, path, false);
    query := 'select * from pg_temp.mvsched_merge';
  end if;

  foreach anew in array array[false, true] loop
    begin
      select * into n
        from json_to_record(mvsched.execute(mvsched.merge_statement(relation, source, query, columns, fixed, key, equal, inside, slow, anew), path))
             as (viewed bigint, stored bigint, gone bigint, new bigint, nulls bigint, deleted bigint, updated bigint, inserted bigint, there bigint);
      if n.nulls > 0 then
        raise exception 'view % has a NULL in its key (%)', source, array_to_string(key, ', ') using errcode = 'not_null_violation';
      elsif n.viewed + n.gone <> n.stored + n.new then
        raise exception 'view % has two rows with the same key (%)', source, array_to_string(key, ', ') using errcode = 'cardinality_violation';
      end if;
      exit;
    exception
      when not_null_violation then
        perform mvsched.refuse_key(source, inside, key, path, true);
        raise;
      when unique_violation or cardinality_violation then
        perform mvsched.refuse_key(source, inside, key, path, false);
        if sqlstate <> '23505' or anew or mvsched.notices_a_delete(view, columns) then
          raise;
        end if;
    end;
  end loop;
  drop table if exists pg_temp.mvsched_merge;

  -- What is recorded is what the counters gain from here on, and those of a partitioned table do not move.
  perform set_config('mvsched.rows_inserted_before', (pg_stat_get_xact_tuples_inserted(view) - n.inserted - n.updated)::text, true),
          set_config('mvsched.rows_deleted_before', (pg_stat_get_xact_tuples_deleted(view) - n.deleted - n.updated - n.there)::text, true);
end
$$;
comment on function mvsched.merge(oid, boolean) is
  'Makes a merge table equal to its view, in all rows or in those of its window, within a refresh transaction';

------------------------------------------------------------------------------------------------------------------------
-- Settings
------------------------------------------------------------------------------------------------------------------------

create table mvsched.settings (
  singleton                boolean          not null default true,
  max_concurrent_refreshes integer,
  keep_failures            mvsched.duration          default interval '90 days',
  keep_successes           mvsched.duration          default interval '30 days',
  keep_skips               mvsched.duration          default interval '7 days',
  keep_last                integer          not null default 100,
  pruned_at                timestamptz,
  constraint settings_pkey primary key (singleton),
  constraint settings_is_one_row check (singleton),
  constraint max_concurrent_refreshes_is_in_reach check (max_concurrent_refreshes between 1 and 10000),
  -- What is under way, with its retries, must find what went before.
  constraint keep_failures_is_long_enough check (keep_failures >= interval '1 hour'),
  constraint keep_successes_is_long_enough check (keep_successes >= interval '1 hour'),
  constraint keep_skips_is_long_enough check (keep_skips >= interval '1 hour'),
  constraint keep_last_is_a_count check (keep_last between 0 and 1000000),
  constraint pruned_at_is_in_reach check (pruned_at between '1970-01-01 00:00+00' and '9999-12-31 00:00+00')
);
comment on table mvsched.settings is 'One row: what holds for all schedules of this database. Change it by hand at any time';
comment on column mvsched.settings.singleton is 'Always true; as the primary key it keeps this table at one row';
comment on column mvsched.settings.max_concurrent_refreshes is 'How many refreshes may run at a time, over all workers, those by hand included; null: as many as the workers have slots';
comment on column mvsched.settings.keep_failures is 'How long executions stay that failed, timed out, were cancelled or abandoned; null: for ever';
comment on column mvsched.settings.keep_successes is 'How long executions stay that succeeded, and the record of vacuums; null: for ever';
comment on column mvsched.settings.keep_skips is 'How long executions stay that were skipped; null: for ever';
comment on column mvsched.settings.keep_last is 'So many of the last successes of each view stay however old they are';
comment on column mvsched.settings.pruned_at is 'When the history was last found trimmed; run does it again when that is an hour ago. Null: never yet, or to be done by the next run';
insert into mvsched.settings default values;

------------------------------------------------------------------------------------------------------------------------
-- Cancel
--
-- The refresh transaction holds the lock on its execution row, so a request has a row of its own. There is no foreign key
-- either: its check would lock the execution too.
------------------------------------------------------------------------------------------------------------------------

create table mvsched.materialized_view_refresh_cancel (
  execution_id    bigint      not null,
  requested_at    timestamptz not null default pg_catalog.clock_timestamp(),
  requested_by    text        not null default session_user,
  acknowledged_at timestamptz,
  constraint materialized_view_refresh_cancel_pkey primary key (execution_id),
  constraint requested_at_is_in_reach check (requested_at between '1970-01-01 00:00+00' and '9999-12-31 00:00+00'),
  constraint acknowledged_at_is_in_reach check (acknowledged_at between '1970-01-01 00:00+00' and '9999-12-31 00:00+00'),
  constraint requested_by_is_a_name check (pg_catalog.octet_length(requested_by) between 1 and 63)
);
comment on table mvsched.materialized_view_refresh_cancel is
  'One row a running execution that is to be cancelled. Its worker looks every half second; what is over is removed with the history';
comment on column mvsched.materialized_view_refresh_cancel.execution_id is 'The running execution';
comment on column mvsched.materialized_view_refresh_cancel.requested_at is 'When somebody asked';
comment on column mvsched.materialized_view_refresh_cancel.requested_by is 'The role that asked';
comment on column mvsched.materialized_view_refresh_cancel.acknowledged_at is 'When the worker took note; null: not yet, or there is none';

create function mvsched.announce_cancel() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_catalog.pg_notify('mvsched_cancel', new.execution_id::text);
  return null;
end
$$;
comment on function mvsched.announce_cancel() is 'Tells workers that listen on channel mvsched_cancel which execution is to be cancelled';

create trigger announce_cancel
  after insert on mvsched.materialized_view_refresh_cancel
  for each row execute function mvsched.announce_cancel();

------------------------------------------------------------------------------------------------------------------------
-- Retention
------------------------------------------------------------------------------------------------------------------------

create index materialized_view_refresh_schedule_execution_ended
    on mvsched.materialized_view_refresh_schedule_execution (status, ended_at)
 where ended_at is not null;
create index materialized_view_refresh_schedule_execution_success
    on mvsched.materialized_view_refresh_schedule_execution (view_name, ended_at)
 where status = 'succeeded';
comment on index mvsched.materialized_view_refresh_schedule_execution_ended is 'The oldest executions of each outcome, which prune begins with';
comment on index mvsched.materialized_view_refresh_schedule_execution_success is 'The oldest and the last successes of each view';

-- Which executions other statements decide by, however old they are:
--
--   - the last that has ended of a schedule (the attempt of the next one, the status, whether those that read it may run),
--     and the last that says anything about the view: a manual failure or a shutdown does not;
--   - the last that brought a view up to date, and the last that changed its contents (age, fingerprint, --after-parents);
--   - the one that a schedule has open.
--
-- The newest of anything is never deleted, so what displaces a row here stays until something newer displaces that.
create function mvsched.is_decided_by(e mvsched.materialized_view_refresh_schedule_execution) returns boolean
  language plpgsql stable
  set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select from mvsched.materialized_view_refresh_schedule s where s.id = e.materialized_view_refresh_schedule_id) and (
       not exists (
         select from mvsched.materialized_view_refresh_schedule_execution n
          where n.materialized_view_refresh_schedule_id = e.materialized_view_refresh_schedule_id
            and n.id > e.id and n.status <> 'running')
       or (e.trigger <> 'manual' or e.status = 'succeeded') and coalesce(e.reason not in ('shutdown', 'never_started'), true)
       and not exists (
         select from mvsched.materialized_view_refresh_schedule_execution n
          where n.materialized_view_refresh_schedule_id = e.materialized_view_refresh_schedule_id
            and n.id > e.id and n.status <> 'running'
            and (n.trigger <> 'manual' or n.status = 'succeeded') and coalesce(n.reason not in ('shutdown', 'never_started'), true))) then
    return true;
  end if;
  if e.data_as_of is not null
     and exists (select from mvsched.materialization m where m.oid = e.view_oid) and (
       not exists (
         select from mvsched.materialized_view_refresh_schedule_execution n
          where n.view_oid = e.view_oid and n.id > e.id and n.data_as_of is not null)
       or e.status = 'succeeded' and not coalesce(e.rows_inserted = 0 and e.rows_deleted = 0, false)
       and not exists (
         select from mvsched.materialized_view_refresh_schedule_execution n
          where n.view_oid = e.view_oid and n.id > e.id and n.status = 'succeeded'
            and not coalesce(n.rows_inserted = 0 and n.rows_deleted = 0, false))) then
    return true;
  end if;
  return exists (select from mvsched.materialized_view_refresh_schedule s where s.open_execution_id = e.id);
end
$$;
comment on function mvsched.is_decided_by(mvsched.materialized_view_refresh_schedule_execution) is
  'Something is decided by this execution, however old it is: the history is trimmed around it';

-- A row that somebody holds is left to the next time, so two that trim at the same time do not wait for each other.
create function mvsched.prune(batch integer) returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
  -- Whatever the statistics say, the indexes are what finds what is old, and "order by" says which one. Of a table of one
  -- row there is none to use: the cost of what is off would set the JIT compiler to work, for 100 ms.
  set enable_seqscan = off
  set enable_bitmapscan = off
  set jit = off as $$
declare
  keep    mvsched.settings;
  kind    record;
  before  timestamptz;
  removed bigint := 0;
  counted bigint;
begin
  select s.* into keep from mvsched.settings s;
  if not found or batch < 1 then
    return 0;
  end if;

  for kind in
    select ended.status, now() - case ended.status when 'skipped' then keep.keep_skips else keep.keep_failures end as before
      from unnest(array['skipped', 'failed', 'timed_out', 'cancelled', 'abandoned']) as ended (status)
  loop
    with old as materialized (
      select e.id
        from mvsched.materialized_view_refresh_schedule_execution e
       where e.status = kind.status and e.ended_at < kind.before
         and not mvsched.is_decided_by(e)
       order by e.ended_at
       limit batch - removed
         for update of e skip locked
    )
    delete from mvsched.materialized_view_refresh_schedule_execution e using old where e.id = old.id;
    get diagnostics counted = row_count;
    removed := removed + counted;
  end loop;

  before := now() - keep.keep_successes;
  if removed < batch and before > (
    select min(e.ended_at) from mvsched.materialized_view_refresh_schedule_execution e where e.status = 'succeeded')
  then
    -- From view to view along the index, to each one's oldest success; where that is old, to the last of those that stay.
    with recursive oldest as (
      (select e.view_name, e.ended_at
         from mvsched.materialized_view_refresh_schedule_execution e
        where e.status = 'succeeded'
        order by e.view_name, e.ended_at
        limit 1)
      union all
      select next.view_name, next.ended_at
        from oldest
       cross join lateral (
              select e.view_name, e.ended_at
                from mvsched.materialized_view_refresh_schedule_execution e
               where e.status = 'succeeded' and e.view_name > oldest.view_name
               order by e.view_name, e.ended_at
               limit 1
            ) next
    ), old as materialized (
      select success.id
        from oldest
       cross join lateral (
              select (select e.ended_at
                        from mvsched.materialized_view_refresh_schedule_execution e
                       where e.status = 'succeeded' and e.view_name = oldest.view_name
                       order by e.ended_at desc
                      offset greatest(keep.keep_last, 1) - 1
                       limit 1) as ended_at
               offset 0
            ) nth
       cross join lateral (
              select e.id
                from mvsched.materialized_view_refresh_schedule_execution e
               where e.status = 'succeeded' and e.view_name = oldest.view_name
                 and e.ended_at < case when keep.keep_last > 0 then least(before, nth.ended_at) else before end
                 and not mvsched.is_decided_by(e)
               order by e.ended_at
                 for update skip locked
            ) success
       where oldest.ended_at < before and (keep.keep_last = 0 or nth.ended_at is not null)
       limit batch - removed
    )
    delete from mvsched.materialized_view_refresh_schedule_execution e using old where e.id = old.id;
    get diagnostics counted = row_count;
    removed := removed + counted;
  end if;

  with old as materialized (
    select v.id
      from mvsched.materialized_view_vacuum v
     where v.ended_at < before
     order by v.ended_at
     limit batch - removed
       for update skip locked
  )
  delete from mvsched.materialized_view_vacuum v using old where v.id = old.id;
  get diagnostics counted = row_count;
  removed := removed + counted;

  with over as materialized (
    select c.execution_id
      from mvsched.materialized_view_refresh_cancel c
     where not exists (select from mvsched.materialized_view_refresh_schedule_execution e
                        where e.id = c.execution_id and e.ended_at is null)
     limit batch
       for update skip locked
  )
  delete from mvsched.materialized_view_refresh_cancel c using over where c.execution_id = over.execution_id;

  if removed < batch then
    update mvsched.settings s
       set pruned_at = now()
     where s.singleton in (select x.singleton from mvsched.settings x where x.singleton for no key update skip locked);
  end if;
  return removed;
end
$$;
comment on function mvsched.prune(integer) is
  'Trims the history by mvsched.settings, at most so many rows, and says how many; fewer than asked for: nothing is left to trim';

------------------------------------------------------------------------------------------------------------------------
-- Status
------------------------------------------------------------------------------------------------------------------------

create view mvsched.status as
select s.id                                                as materialized_view_refresh_schedule_id,
       coalesce(v.name, s.materialized_view_name)         as view_name,
       case
         when v.oid is null then 'missing'
         when running.id is not null then 'running'
         when s.paused_at is not null then 'paused'
         when s.suspended_at is not null then 'suspended'
         when last.status in ('failed', 'timed_out', 'cancelled', 'abandoned') then 'failing'
         when last.status = 'skipped' and last.reason = 'lock_busy' then 'blocked'
         when s.next_run_at <= pg_catalog.now() and s.open_execution_id is null
              and exists (select from mvsched.materialized_view_graph g
                           where g.view_oid = v.oid and pg_catalog.cardinality(g.ancestors) > 0)
              and exists (select
                            from mvsched.awaited(v.oid, mvsched.slot(s.next_run_at, s.next_run_offset, s.next_run_reason), null,
                                                 pg_catalog.now(), null, true)) then 'blocked'
         when data.data_as_of is null then 'never'
         when pg_catalog.now() - data.data_as_of > s.max_lag then 'late'
         -- By its own runs: how old its data is may be the doing of what it reads.
         when pg_catalog.now() - data.ended_at > 2 * s.refresh_interval
              and (s.window_start is null or s.next_run_at <= pg_catalog.now()) then 'late'
         when pg_catalog.num_nonnulls(s.max_lag, s.refresh_interval) = 0 and s.next_run_at < pg_catalog.now() - interval '1 minute' then 'late'
         when next_run.at is null and pg_catalog.num_nonnulls(s.refresh_interval, s.cron) > 0 and s.open_execution_id is null
              or mvsched.slot(s.next_run_at, s.next_run_offset, s.next_run_reason) <= pg_catalog.now()
              or s.on_change and s.next_run_at is null and queued.columns is not null then 'due'
         else 'fresh'
       end                                                 as state,
       data.data_as_of,
       pg_catalog.now() - data.data_as_of                  as age,
       s.max_lag::interval                                 as max_lag,
       s.reachable_lag,
       next_run.at                                         as next_run_at,
       running.started_at                                  as running_since,
       last.id                                             as last_execution_id,
       last.status                                         as last_status,
       last.reason                                         as last_reason,
       last.method                                         as last_method,
       last.scheduled_at                                   as last_scheduled_at,
       last.started_at                                     as last_started_at,
       last.ended_at                                       as last_ended_at,
       last.ended_at - last.started_at                     as last_duration,
       last.rows_inserted                                  as last_rows_inserted,
       last.rows_deleted                                   as last_rows_deleted,
       last.error_name                                     as last_error_name,
       last.error_message                                  as last_error_message,
       s.consecutive_failures,
       s.queue,
       s.kind::text                                        as kind,
       case when s.kind = 'columns' then coalesce(drain.rows_left, mvsched.rows_left_now(v.oid)) end as rows_left,
       drain.rows_per_second,
       case when s.kind = 'columns' then
         (select count(*) from mvsched.materialization_poison p where p.materialized_view_refresh_schedule_id = s.id) end as rows_set_aside,
       -- From the catalog's page count: pg_relation_size would wait behind a plain refresh.
       greatest(v.relpages, 0)::bigint * pg_catalog.current_setting('block_size')::bigint as size_bytes,
       reads.parents,
       (select max(e.ended_at)
          from mvsched.materialized_view_refresh_schedule_execution e
         where e.view_name = coalesce(v.name, s.materialized_view_name) and e.status = 'succeeded') as succeeded_at,
       queued.columns                                      as columns_queued
  from mvsched.materialized_view_refresh_schedule s
 cross join (select mvsched.database_identity() as identity offset 0) here
  -- A new one is planned by who looks first, and for no sooner than its window opens.
 cross join lateral (
         select case when s.next_run_at is null and s.last_attempted_at is null and s.window_start is not null
                       then nullif(mvsched.in_window(pg_catalog.now(), s.window_start, s.window_end, s.timezone), pg_catalog.now())
                     else s.next_run_at::timestamptz end as at
       ) next_run
  -- The ordinary case of mvsched.resolve_view, which is called for the others only.
  left join pg_catalog.pg_class known
    on known.oid = s.view_oid and mvsched.can_be(known.relkind, s.kind) and s.database_identity = here.identity
  left join lateral (
         select c.oid, c.relpages, mvsched.view_name(c.oid, n.nspname, c.relname) collate pg_catalog."default" as name
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where c.oid = case when known.oid is not null then known.oid
                             else mvsched.resolve_view(s.view_oid, s.database_identity, s.materialized_view_name, here.identity) end
       ) v on true
  left join lateral (
         select e.id, e.started_at
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.status = 'running' and e.view_oid = v.oid
          order by e.lane
          limit 1
       ) running on true
  left join lateral (
         -- What is left is left for all lanes; who has counted last knows best.
         select (pg_catalog.array_agg(e.rows_left order by e.batch_at desc))[1] as rows_left,
                sum(e.rows_done / nullif(extract(epoch from e.batch_at - e.started_at)::float8, 0)) as rows_per_second
           from mvsched.materialized_view_refresh_schedule_execution e
          where s.kind = 'columns' and e.status = 'running' and e.view_oid = v.oid and e.batch_at is not null
       ) drain on true
  left join lateral (
         select pg_catalog.array_agg(distinct c.name order by c.name) as columns
           from mvsched.materialization_fill f
          cross join unnest(f.columns) as c (name)
          where s.kind = 'columns' and f.materialized_view_refresh_schedule_id = s.id
       ) queued on true
  left join lateral (
         select e.*
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.materialized_view_refresh_schedule_id = s.id and e.status <> 'running'
          order by e.id desc
          limit 1
       ) last on true
  left join lateral (
         select e.data_as_of, e.ended_at
           from mvsched.materialized_view_refresh_schedule_execution e
          where e.view_oid = v.oid and e.data_as_of is not null
          order by e.id desc
          limit 1
       ) data on true
  left join mvsched.materialized_view_reads reads on reads.view_oid = v.oid;
comment on view mvsched.status is 'One row a schedule: how its view stands. What `mvsched status` prints; it waits for no lock on any view';
comment on column mvsched.status.materialized_view_refresh_schedule_id is 'The schedule';
comment on column mvsched.status.view_name is 'The view''s canonical name, the new one after a rename';
comment on column mvsched.status.state is 'The first that holds: missing, running, paused, suspended, failing (the last run was neither success nor skip), blocked (a lock was not to be had, or it waits for what it reads), never (no success yet), late (its data older than max_lag, not refreshed for two intervals, or a slot missed by a minute), due, fresh';
comment on column mvsched.status.data_as_of is 'The view''s contents are at least as new as this instant; null: never refreshed by mvsched';
comment on column mvsched.status.age is 'Now minus data_as_of';
comment on column mvsched.status.max_lag is 'How old the data may get, where the schedule says so';
comment on column mvsched.status.reachable_lag is 'The shortest max_lag that could be kept, as far as history tells; longer than max_lag: that cannot be kept';
comment on column mvsched.status.next_run_at is 'When the next run may begin; null: about to be planned, or nothing to do';
comment on column mvsched.status.running_since is 'When the refresh that is running now was claimed';
comment on column mvsched.status.last_execution_id is 'The last execution that has ended';
comment on column mvsched.status.last_status is 'How it ended';
comment on column mvsched.status.last_reason is 'Why it ended so, in one word';
comment on column mvsched.status.last_method is 'concurrently, plain, merge, columns';
comment on column mvsched.status.last_scheduled_at is 'Its slot';
comment on column mvsched.status.last_started_at is 'When it was claimed';
comment on column mvsched.status.last_ended_at is 'When it ended';
comment on column mvsched.status.last_duration is 'From claim to end';
comment on column mvsched.status.last_rows_inserted is 'Rows it wrote; null for plain';
comment on column mvsched.status.last_rows_deleted is 'Rows it removed; null for plain';
comment on column mvsched.status.last_error_name is 'Condition name of its error';
comment on column mvsched.status.last_error_message is 'Primary message of its error';
comment on column mvsched.status.consecutive_failures is 'Failed slots since the last success';
comment on column mvsched.status.queue is 'The queue whose workers refresh the view';
comment on column mvsched.status.kind is 'What is materialized: view, merge, columns';
comment on column mvsched.status.rows_left is 'Of columns: how many rows are still to be materialized; beyond 20,000 the planner guesses. Null: of another kind, or somebody holds a lock on the table';
comment on column mvsched.status.rows_per_second is 'Of columns: how fast they are being materialized, all lanes together; null: they are not';
comment on column mvsched.status.rows_set_aside is 'Of columns: how many rows could not be materialized (mvsched.materialization_poison)';
comment on column mvsched.status.size_bytes is 'The view''s size by the catalog''s page count, as of its last VACUUM, ANALYZE or plain refresh';
comment on column mvsched.status.parents is 'Canonical names of the materialized views that its query reads, directly or through plain views; null: the view is gone';
comment on column mvsched.status.succeeded_at is 'The end of the last success under its name; null: none that is kept';
comment on column mvsched.status.columns_queued is 'Of columns: which of them somebody has asked for again, or are new, in rows that rows_left does not count; null: none';

create view mvsched.materialized_view_refresh_backend as
select e.id as execution_id, e.xmax as transaction_id, backend.pid
  from mvsched.materialized_view_refresh_schedule_execution e
  join pg_catalog.pg_locks backend
    on backend.locktype = 'transactionid' and backend.transactionid = e.xmax and backend.mode = 'ExclusiveLock' and backend.granted
 where e.status = 'running';
comment on view mvsched.materialized_view_refresh_backend is
  'The backends that refresh: found by the lock on the execution''s row, since behind a pooler the pid that a client knows is not the server''s';
comment on column mvsched.materialized_view_refresh_backend.execution_id is 'The execution';
comment on column mvsched.materialized_view_refresh_backend.transaction_id is 'The transaction that holds its row';
comment on column mvsched.materialized_view_refresh_backend.pid is 'The server process; null: a prepared transaction';

create view mvsched.materialized_view_refresh_blocker as
select e.id as execution_id, coalesce(mvsched.view_name(e.view_oid), e.view_name) as view_name, blocker.pid, a.usename::text as user_name,
       case when a.query <> '<insufficient privilege>' then pg_catalog.left(a.query, 2000) end as query
  from mvsched.materialized_view_refresh_backend backend
  join mvsched.materialized_view_refresh_schedule_execution e on e.id = backend.execution_id
 cross join lateral pg_catalog.unnest(pg_catalog.pg_blocking_pids(backend.pid)) as blocker (pid)
  left join pg_catalog.pg_stat_activity a on a.pid = blocker.pid;
comment on view mvsched.materialized_view_refresh_blocker is
  'Who holds a lock that a running refresh waits for; there is something to see only while it waits';
comment on column mvsched.materialized_view_refresh_blocker.execution_id is 'The execution that waits';
comment on column mvsched.materialized_view_refresh_blocker.view_name is 'The canonical name of the view that is refreshed';
comment on column mvsched.materialized_view_refresh_blocker.pid is 'Who is waited for; 0: a prepared transaction';
comment on column mvsched.materialized_view_refresh_blocker.user_name is 'Whose session that is; null where the server does not say';
comment on column mvsched.materialized_view_refresh_blocker.query is 'Its last query, with literals; null where the server does not show it';

create function mvsched.look(since timestamptz, open bigint[], graph text, recent integer, most integer)
  returns table (
    at timestamptz, version integer, sign text,
    standing mvsched.status, execution mvsched.materialized_view_refresh_schedule_execution, reader mvsched.materialized_view_reads,
    blocker mvsched.materialized_view_refresh_blocker)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set jit = off as $$ -- compiling it takes longer than running it
begin
  at := now();
  version := (select v.version from mvsched.schema_version v);
  sign := concat_ws('/', mvsched.catalog_sign(), (
    select sum(hashtextextended(concat(c.oid, ' ', n.nspname, ' ', c.relname), 0)) -- a rename leaves catalog_sign as it is
      from mvsched.materialization c
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace));
  return next;

  for standing in select * from mvsched.status st order by st.view_name loop
    return next;
  end loop;
  standing := null;

  for execution in
    with wanted as (
      select unnest(look.open) as id
      union
      select e.id from mvsched.materialized_view_refresh_schedule_execution e where e.status = 'running'
      union
      (select e.id
         from unnest(array['succeeded', 'failed', 'timed_out', 'cancelled', 'skipped', 'abandoned']) terminal (status) -- the index begins with it
         join mvsched.materialized_view_refresh_schedule_execution e on e.status = terminal.status
        where e.ended_at >= coalesce(look.since, now() - interval '1 day')
        order by e.id desc
        limit look.most)
      union
      (select e.id
         from mvsched.materialized_view_refresh_schedule_execution e
        where look.since is null
        order by e.id desc
        limit look.recent)
    )
    select e.*
      from wanted
      join mvsched.materialized_view_refresh_schedule_execution e on e.id = wanted.id
     order by e.id
  loop
    return next;
  end loop;
  execution := null;

  if look.graph is distinct from sign then
    for reader in select * from mvsched.materialized_view_reads r order by r.view_oid loop
      return next;
    end loop;
    reader := null;
  end if;

  if exists (select from mvsched.materialized_view_refresh_schedule_execution e where e.status = 'running') then -- who asks for locks holds them all up
    for blocker in select * from mvsched.materialized_view_refresh_blocker b order by b.execution_id, b.pid loop
      return next;
    end loop;
  end if;
end
$$;
comment on function mvsched.look(timestamptz, bigint[], text, integer, integer) is
  'What a page shows, in one statement: a row with the instant, the version of the schema and a sign of the catalog, then one row for each standing; for each execution that is open, was open at the look before, or has ended since then (null: within a day, at most so many, and the most recent ones); where the sign is another one than before, for each materialized view; and for each who holds a lock that a refresh waits for';

------------------------------------------------------------------------------------------------------------------------
-- Vacuum
------------------------------------------------------------------------------------------------------------------------

create table mvsched.materialized_view_vacuum (
  id                                    bigint      generated always as identity,
  materialized_view_refresh_schedule_id bigint,
  view_name                             text        not null,
  view_oid                              oid         not null,
  command                               text        not null,
  dead_rows                             bigint      not null,
  started_at                            timestamptz not null,
  ended_at                              timestamptz not null default pg_catalog.clock_timestamp(),
  status                                text        not null,
  error_name                            text,
  error_message                         text,
  worker                                text,
  constraint materialized_view_vacuum_pkey primary key (id),
  constraint command_is_known check (command in ('vacuum', 'vacuum analyze', 'analyze')),
  constraint status_is_known check (status in ('succeeded', 'skipped', 'cancelled', 'failed')),
  constraint succeeded_without_an_error check (status <> 'succeeded' or (error_name is null and error_message is null)),
  constraint dead_rows_is_a_count check (dead_rows >= 0),
  constraint ended_after_it_started check (ended_at >= started_at),
  constraint started_at_is_in_reach check (started_at between '1970-01-01 00:00+00' and '9999-12-31 00:00+00'),
  constraint ended_at_is_in_reach check (ended_at <= '9999-12-31 00:00+00'),
  constraint view_name_is_a_name check (pg_catalog.octet_length(view_name) between 1 and 255)
);
comment on table mvsched.materialized_view_vacuum is
  'One row a VACUUM or ANALYZE of a view behind its refresh, written at its end. An execution has ended by then, and never changes';
comment on column mvsched.materialized_view_vacuum.id is 'Identity';
comment on column mvsched.materialized_view_vacuum.materialized_view_refresh_schedule_id is 'The schedule, which may have been removed since; null: the view was not scheduled';
comment on column mvsched.materialized_view_vacuum.view_name is 'The view''s canonical name at the time';
comment on column mvsched.materialized_view_vacuum.view_oid is 'The view''s OID';
comment on column mvsched.materialized_view_vacuum.command is 'What was sent: vacuum, vacuum analyze, analyze';
comment on column mvsched.materialized_view_vacuum.dead_rows is 'About how many dead rows the view had before, by the server''s counters';
comment on column mvsched.materialized_view_vacuum.started_at is 'When it was sent';
comment on column mvsched.materialized_view_vacuum.ended_at is 'When it ended';
comment on column mvsched.materialized_view_vacuum.status is 'How it ended: succeeded; skipped, since somebody held a lock on the view; cancelled, as for the next refresh of the view; failed';
comment on column mvsched.materialized_view_vacuum.error_name is 'The condition name of the error''s SQLSTATE';
comment on column mvsched.materialized_view_vacuum.error_message is 'The error''s primary message, or what it was cancelled for';
comment on column mvsched.materialized_view_vacuum.worker is 'Which process did it: host and process id, for people';

create index materialized_view_vacuum_view
    on mvsched.materialized_view_vacuum (view_oid, id);
comment on index mvsched.materialized_view_vacuum_view is 'The last one of a view';
create index materialized_view_vacuum_ended
    on mvsched.materialized_view_vacuum (ended_at);
comment on index mvsched.materialized_view_vacuum_ended is 'The oldest ones, which prune begins with';

------------------------------------------------------------------------------------------------------------------------
-- Alerts
--
-- What each target has been told about each view, and what it is still to be told. Whoever looks has the target's row
-- locked, and writes down what is another alert state than before. Telling is apart from looking: a row is claimed by
-- moving its next attempt on, so that what one leaves undone another one does. From then on nobody knows what the target
-- believes, until an attempt has succeeded: a view that is well again is told as well. There is a row only for what is not
-- well, and for what is still to be told.
------------------------------------------------------------------------------------------------------------------------

create table mvsched.alert_target (
  target    text            not null,
  host      text            not null,
  looked_at mvsched.instant not null default '1970-01-01 00:00+00',
  constraint alert_target_pkey primary key (target),
  constraint target_is_a_hash check (target ~ '^[0-9a-f]{64}$'),
  constraint host_is_short check (pg_catalog.octet_length(host) between 1 and 255)
);
comment on table mvsched.alert_target is 'One row a place that is told of alerts (--notify-url). The URL itself is a secret, and is nowhere in the database';
comment on column mvsched.alert_target.target is 'SHA-256 of its URL and format: the same for every process that has been given the same';
comment on column mvsched.alert_target.host is 'Its host, for people';
comment on column mvsched.alert_target.looked_at is 'When a process last looked for what it is to be told. After 30 days without, it is forgotten';

create table mvsched.alert (
  target          text                   not null,
  view_name       mvsched.canonical_name not null,
  id              uuid                   not null default pg_catalog.gen_random_uuid(),
  state           text                   not null,
  severity        text                   not null,
  since           mvsched.instant        not null,
  previous_state  text                   not null,
  message         text                   not null,
  repeated        boolean                not null default false,
  told_state      text                            default 'fresh',
  told_severity   text                            default 'ok',
  told_at         mvsched.instant,
  pending_since   mvsched.instant,
  attempts        mvsched.count          not null default 0,
  next_attempt_at mvsched.instant,
  last_error      text,
  constraint alert_pkey primary key (target, view_name),
  constraint alert_target_fkey foreign key (target) references mvsched.alert_target on delete cascade,
  constraint severity_is_known check (severity in ('ok', 'warning', 'critical')),
  constraint told_severity_is_known check (told_severity in ('ok', 'warning', 'critical')),
  constraint told_is_known_or_not check ((told_state is null) = (told_severity is null)),
  constraint pending_has_its_next_attempt check ((pending_since is null) = (next_attempt_at is null))
);
comment on table mvsched.alert is 'One row a target and view that is not well, or of which the target is still to be told that it is well again';
comment on column mvsched.alert.target is 'Who is told';
comment on column mvsched.alert.view_name is 'The view';
comment on column mvsched.alert.id is 'The alert: another for each change and each repetition, the same for each attempt at telling it';
comment on column mvsched.alert.state is 'The alert state: what monitoring goes by, as in mvsched check; for what is well the state itself, unscheduled when its schedule was removed';
comment on column mvsched.alert.severity is 'ok, warning, critical';
comment on column mvsched.alert.since is 'When the state was first seen';
comment on column mvsched.alert.previous_state is 'The alert state that the target was told before';
comment on column mvsched.alert.message is 'What is wrong, in one line';
comment on column mvsched.alert.repeated is 'It has been told before, and a day later nothing has changed';
comment on column mvsched.alert.told_state is 'What the target was told last; null: an attempt was made, and it is not known to have succeeded';
comment on column mvsched.alert.told_severity is 'With which severity';
comment on column mvsched.alert.told_at is 'When';
comment on column mvsched.alert.pending_since is 'Since when there is something to tell; null: there is nothing';
comment on column mvsched.alert.attempts is 'How often it was tried to tell it';
comment on column mvsched.alert.next_attempt_at is 'When that may be tried next; a process that tries moves it on first, so that no other one does';
comment on column mvsched.alert.last_error is 'Why the last attempt failed; never with the URL';

create index alert_pending on mvsched.alert (target, next_attempt_at) where next_attempt_at is not null;
comment on index mvsched.alert_pending is 'What is to be told, the longest due first';
