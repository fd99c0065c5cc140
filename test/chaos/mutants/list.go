package main

const (
	schema      = "sql/schema.sql"
	transaction = "refresh/transaction.go"
	pool        = "refresh/pool.go"
	execution   = "schedule/execution.go"
)

// mutants, in the order of a refresh: claim, begin, refresh, record, rescue, settle; then cancel, names, output.
var mutants = []mutant{
	{
		name: "claim without SKIP LOCKED",
		edits: []edit{{
			schema, "e.lane = 0)\n         for no key update skip locked;",
			"e.lane = 0)\n         for no key update;",
		}},
		sampled: true,
		pkg:     "./schedule", tests: "^TestClaim$/^skips_a_row_another_worker_holds$",
	},
	{
		name:  "claim without its limit (as without MATERIALIZED)",
		edits: []edit{{schema, "      exit when taken >= wanted;\n    end loop;\n", "    end loop;\n"}},
		pkg:   "./schedule", tests: "^TestClaim$/^never_takes_more_than_its_limit_whatever_the_plan$",
	},
	{
		name: "no unique index on running executions",
		edits: []edit{
			{schema, "create unique index materialized_view_refresh_schedule_execution_running", "create index materialized_view_refresh_schedule_execution_running"},
			{schema, "      on conflict (view_oid, lane) where status = 'running' do nothing\n", ""},
			{"schedule/claim.go", "  on conflict (view_oid, lane) where status = 'running' do nothing\n", ""},
		},
		pkg: "./schedule", tests: "^TestASecondRunningExecutionCannotExist$",
	},
	{
		name:  "claim that does not move the slot",
		edits: []edit{{schema, "               next_run_at = next_slot,\n", ""}},
		pkg:   "./schedule", tests: "^TestClaim$/^records_the_claim_and_moves_the_slot_in_one_statement$",
	},
	{
		name:  "no fence at the begin",
		edits: []edit{{schema, "    for no key update;\n  if not found then\n", "    for no key update;\n  if false then\n"}},
		pkg:   "./schedule", tests: "^TestRescue$/^fences_off_the_worker_that_wakes_up_late$",
	},
	{
		name:    "no lock on the execution",
		edits:   []edit{{schema, "and e.ended_at is null\n    for no key update;\n", "and e.ended_at is null;\n"}},
		sampled: true,
		pkg:     "./schedule", tests: "^TestRescue$/^leaves_a_live_run_alone_however_old$",
	},
	{
		name:  "begin by the id only",
		edits: []edit{{schema, "where e.id = begin_refresh.execution and e.started_at = begin_refresh.claimed_at and", "where e.id = begin_refresh.execution and"}},
		pkg:   "./schedule", tests: "^TestClaimWhoseIDWasGivenOutAgain$",
	},
	{
		name:  "set for set local",
		edits: []edit{{schema, " * 1000 end)::bigint::text, true)", " * 1000 end)::bigint::text, false)"}},
		pkg:   "./refresh", tests: "^TestRunDue$/^leaves_nothing_set_on_its_connections$",
	},
	{
		name:  "lock_timeout below deadlock_timeout",
		edits: []edit{{schema, "case when method <> 'plain' then", "case when false then"}},
		pkg:   "./schedule", tests: "^TestLockLimit$",
	},
	{
		name:  "whatever isolation level the role has",
		edits: []edit{{transaction, "queue(pass, `begin isolation level read committed`)", "queue(pass, `begin`)"}},
		pkg:   "./refresh", tests: "^TestARefreshIsReadCommitted$",
	},
	{
		name:  "no savepoint",
		edits: []edit{{transaction, "queue(reach(&done.savepoint), `savepoint `+savepoint)", "queue(reach(&done.savepoint), `select 1`)"}},
		pkg:   "./refresh", tests: "^TestHowARefreshEnds$",
	},
	{
		name: "no pipeline: commit sent when the refresh has answered",
		edits: []edit{
			{transaction, "	p.queue(reach(committed), `commit`)\n	var schedules []int64\n", "	if true {\n		return\n	}\n	var schedules []int64\n"},
			{transaction, "	err = p.send(ctx, conn)\n	return done, err\n}\n", "	err = p.send(ctx, conn)\n	if err == nil {\n		_, err = conn.Exec(ctx, `commit`)\n		done.committed = err == nil\n	}\n	return done, err\n}\n"},
		},
		pkg: "./cmd/mvsched", tests: "^TestScript$/^worker_killed$",
	},
	{
		name:  "the role's client_connection_check_interval",
		edits: []edit{{schema, "then pg_catalog.set_config('client_connection_check_interval', '0', true) end", "then null end"}},
		pkg:   "./cmd/mvsched", tests: "^TestScript$/^worker_killed$",
	},
	{
		name:    "record in a second transaction",
		edits:   []edit{{transaction, "	p.queue(pass, `set local search_path = pg_catalog, pg_temp`)\n", "	p.queue(pass, `commit`)\n	p.queue(pass, `begin`)\n	p.queue(pass, `set local search_path = pg_catalog, pg_temp`)\n"}},
		sampled: true,
		pkg:     "./refresh", tests: "^TestTheRecordIsDeleted$",
	},
	{
		name:  "the view's OID is not compared before the commit",
		edits: []edit{{schema, "is distinct from view::pg_catalog.regclass then", "is distinct from view::pg_catalog.regclass and false then"}},
		pkg:   "./refresh", tests: "^TestTheNameGoesToAnotherViewDuringTheWait$",
	},
	{
		name:  "ended executions can change",
		edits: []edit{{schema, "for each row when (old.status <> 'running') execute", "for each row when (false) execute"}},
		pkg:   "./schedule", tests: "^TestExecutionStateMachine$",
	},
	{
		name:  "end by the id only",
		edits: []edit{{execution, " where e.id = $1 and e.started_at = $9::timestamptz and e.ended_at is null", " where e.id = $1 and coalesce(e.started_at = $9::timestamptz, true) is not null and e.ended_at is null"}},
		pkg:   "./schedule", tests: "^TestClaimWhoseIDWasGivenOutAgain$",
	},
	{
		name:  "every 57014 is a cancel",
		edits: []edit{{execution, "when t.timed_out then 'timed_out' else", "when false then 'timed_out' else"}},
		pkg:   "./schedule", tests: "^TestEndTellsATimeLimitFromACancel$",
	},
	{
		name:  "after a lost connection, abandoned without a look",
		edits: []edit{{execution, "   for no key update of e skip locked`\n\n// Outcome", "`\n\n// Outcome"}},
		pkg:   "./schedule", tests: "^TestOutcome$",
	},
	{
		name: "rescue by time only",
		edits: []edit{
			{execution, "   and (e.xmax::text <> '0' and e.batch_at is null or coalesce(", "   and (coalesce("},
			{execution, "     for no key update of e skip locked\n), verdict", "), verdict"},
		},
		pkg: "./schedule", tests: "^TestRescue$/^leaves_a_live_run_alone_however_old$",
	},
	{
		name:  "rescue without grace",
		edits: []edit{{execution, "e.started_at) + e.start_grace < clock_timestamp()", "e.started_at) <= clock_timestamp()"}},
		pkg:   "./schedule", tests: "^TestRescue$/^leaves_a_claim_in_its_grace_alone$",
	},
	{
		name:  "rescue by grace only, not by xmax",
		edits: []edit{{execution, "   and (e.xmax::text <> '0' and e.batch_at is null or coalesce(", "   and (coalesce("}},
		pkg:   "./schedule", tests: "^TestRescue$/^abandons_a_run_whose_transaction_is_gone_at_once$",
	},
	{
		name:  "a lost run is tried again without end",
		edits: []edit{{schema, "e.reason = 'worker_lost' and e.attempt < 3)", "e.reason = 'worker_lost')"}},
		pkg:   "./schedule", tests: "^TestSettle$/^gives_up_a_slot_that_was_lost_three_times$",
	},
	{
		name:  "the grace does not grow",
		edits: []edit{{schema, "then least(s.start_grace * 2, interval '5 minutes')", "then s.start_grace"}},
		pkg:   "./schedule", tests: "^TestSettle$/^doubles_the_grace_of_what_never_started_until_it_succeeds$",
	},
	{
		name:  "a settling that failed leaves its transaction open",
		edits: []edit{{transaction, "		r.leaveUsable(ctx, conn)\n", ""}},
		pkg:   "./refresh", tests: "^TestSettlingBehindARefreshFails$",
	},
	{
		name:  "whose slots are at work looks every 3 s, whenever a grace ends",
		edits: []edit{{"refresh/control.go", "if *slots > 0 && !next.grace.IsZero() {", "if false {"}},
		pkg:   "./refresh", tests: "^TestServe$/^looks_when_a_grace_ends_while_all_its_slots_are_at_work$",
	},
	{
		name:  "what was passed over is left to the next slot, or to nobody",
		edits: []edit{{"refresh/control.go", "if r.endless && r.passedOver {", "if false {"}},
		pkg:   "./refresh", tests: "^TestServe$/^looks_again_for_what_it_has_passed_over$",
	},
	{
		name:  "a worker that is told to stop goes on asking how a refresh ended",
		edits: []edit{{transaction, "stop := context.AfterFunc(late, cancel)", "stop := func() bool { return true }"}},
		pkg:   "./refresh", tests: "^TestServe$/^does_not_ask_for_long_how_a_refresh_ended_once_it_is_told_to_stop$",
	},
	{
		name:  "the worker's clock",
		edits: []edit{{"schedule/store.go", "	if s.Now == nil {\n		return nil\n	}\n", "	if s.Now == nil {\n		t := time.Now()\n		return &t\n	}\n"}},
		pkg:   "./schedule", tests: "^TestTheDatabaseHasTheClock$",
	},
	{
		name:  "LISTEN without poll",
		edits: []edit{{"refresh/served.go", "	if !v.ear.hears.Load() {\n		sooner(pollInterval)\n	}\n", ""}},
		pkg:   "./refresh", tests: "^TestServeThatDoesNotHearLooks$",
	},
	{
		name:  "pgx's own way to cancel: in the background",
		edits: []edit{{pool, "	config.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {\n		return &canceller{conn: conn}\n	}\n", "	_ = func(conn *pgconn.PgConn) ctxwatch.Handler { return &canceller{conn: conn} }\n"}},
		pkg:   "./refresh", tests: "^TestStop$",
	},
	{
		name:  "the view's name by concatenation",
		edits: []edit{{transaction, "view := schedule.ViewName{Schema: claim.Schema, Name: claim.Name}.Identifier().Sanitize()", "view := claim.Schema + `.` + claim.Name"}},
		pkg:   "./cmd/mvsched", tests: "^TestScript$/^names$",
	},
	{
		name:  "names over 63 bytes, by the program",
		edits: []edit{{"schedule/name.go", "const maxIdentifierBytes = 63", "const maxIdentifierBytes = 630"}},
		pkg:   "./schedule", tests: "^TestParseViewName$",
	},
	{
		name:  "names over 63 bytes, by hand",
		edits: []edit{{schema, "if pg_catalog.octet_length(part) > 63 then", "if pg_catalog.octet_length(part) > 630 then"}},
		pkg:   "./schedule", tests: "^TestHandWrittenSchedules$",
	},
	{
		name:  "control bytes in the output",
		edits: []edit{{"report/clean.go", "case r < 0x20, r >= 0x7f", "case r >= 0x7f"}},
		pkg:   "./report", tests: "^TestHostileText$",
	},
	{
		name:  "commands to CI services in the output",
		edits: []edit{{"report/clean.go", "	if strings.Contains(s, \"::\") {", "	if false {"}},
		pkg:   "./report", tests: "^TestNothingCommandsACIService$",
	},
	{
		name:  "formulas in CSV",
		edits: []edit{{"report/csv.go", "		return \"'\" + s\n", "		return s\n"}},
		pkg:   "./report", tests: ".",
	},
}
