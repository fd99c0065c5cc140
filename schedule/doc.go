// Package schedule decides which materialized view is due, and when, and keeps the record of every refresh. Everything
// it knows is in the user's database, in schema mvsched: it has no state of its own, no leader and no clock. A worker is
// any process that calls Store; it may be one of fifty, and it may die at any moment.
//
// # One refresh, from due to done
//
// Two tables carry it. materialized_view_refresh_schedule has one row a view: what is configured, and the next slot,
// next_run_at. materialized_view_refresh_schedule_execution has one row a refresh.
//
//	        schedule row                      execution row
//	        ────────────                      ─────────────
//	plan    next_run_at: null → a slot
//	                │
//	due     next_run_at <= now()
//	                │
//	claim   ┌─ slot moves on ───────────────┬─ inserted: running ┐  one statement
//	        └─ open_execution_id = it ──────┴────────────────────┘
//	                                               │
//	run                                     locked: alive            one transaction, sent as
//	                                               │                 one pipeline (package refresh)
//	record                                  succeeded, failed, … ────┘
//	                │                              │
//	settle  open_execution_id = null  ◄────────────┤
//	        failures counted; a slot lost          │
//	        is due again, or tried again           │
//	                                               │
//	rescue                                  running, but nobody holds the lock: abandoned
//
// Plan. A null slot means "to be planned": a new row, a row typed into psql and a changed spec all start so, and any
// worker plans them before it claims. Slots are computed once and stored, because SQL can compare them in an index and
// cannot compute every kind of them. There are six kinds, and they differ in when their next slot can be known:
//
//	every          at the claim, from the slot before: no drift. Intervals are counted in seconds, so days have 24 hours
//	cron           after the claim, since it takes more than SQL (planByClock, Cron)
//	after          when the run has ended
//	max_lag        when the run has ended: from what the data is as of, less how long the refreshes on the longest way to
//	               each target usually take (lags)
//	after_parents  when a parent has got new data, which is settled with the end of its refresh
//	on_change      when a fingerprint differs, which somebody has to look at (TendOptions.Look), or after max_staleness
//
// A window moves a slot to when it opens, and jitter moves next_run_at beside the slot, by a hash of both, so that
// whoever plans it comes to the same (mvsched.planned). next_run_offset remembers how far, so the slot itself is never
// lost: not by jitter, nor by a retry or a second look.
//
// Request. mvsched.request_refresh writes a row in its caller's transaction. Tend makes the view due; the claim deletes the
// rows that it can see, in its own transaction: what they asked for is committed, so the refresh sees it, and a request that
// commits later is still there for the next. That is why requests of two transactions are never merged when they are
// written. The slots stay where they are.
//
// Due. A schedule is due when its slot has come, nobody paused or suspended it, and no run of its view is open. Slots
// that nobody served are made up for by one run, not by many.
//
// Wait. A due view waits for its ancestors, the views that it reads directly or through others, whose slot is not later
// than its own: while they are due, running, or ended and not settled (mvsched.awaited). The slot of an ancestor moves
// past that of the view when it is claimed, so each is waited for once and a busy parent starves no child; and because
// the ancestors of a view are never its descendants, not even in a cycle (arrange), somebody can always go on. The
// edges come from the catalog; a sign of its state, compared at every look, says when to read them again.
//
// Skip. A claim can end its execution in the same statement: as upstream_failed, when an ancestor has failed since the
// view last ran, or as unchanged, when the fingerprint of what the view reads is the one that was taken before its last
// refresh. The counters in it are late, so "unchanged" is believed only 15 seconds after the slot, or when nobody else
// is there who could have written.
//
// Claim. One statement locks due schedules (SKIP LOCKED), inserts their executions and moves their slots on; so there
// is no claim without a record, and none is lost between two steps. A unique index on the OID of the view among running
// executions makes a second run of a view impossible, whatever else goes wrong. Where settings cap the refreshes, claims
// count under a transaction lock, one after the other. A worker claims only what it begins at
// once, because a claim that waits looks like one whose worker has died.
//
// Run. Package refresh does it: one transaction that locks the execution row, refreshes the view and ends the row. The
// success is recorded by the transaction that makes the new contents visible, so the one cannot be without the other.
//
// Record. An execution ends once, as succeeded, failed, timed_out, cancelled, skipped or abandoned; a trigger refuses
// every later change. Retention may delete it.
//
// Settle. The refresh transaction writes its own execution and nothing else: somebody who holds the schedule row in an
// open psql session must not be able to throw a finished refresh away, and a deleted schedule must not wait for its
// view's refresh. What the end means for the schedule is carried over afterwards, in a statement of its own, by the same
// worker or, should that be dead, by any other: failures are counted, what may pass is tried again within the slot, and
// what fails too often is suspended.
//
// Rescue. A run is alive exactly as long as its transaction holds the lock on its execution row. Whoever gets that lock
// with SKIP LOCKED, and finds the row still running, knows that the transaction is gone, and records the run as
// abandoned. There are no heartbeats, no leases and no advisory locks, so nothing expires: a run of six hours is as
// safe as one of six milliseconds, and it all works behind a transaction pooler. One thing takes a time rule: a claim
// whose transaction has not begun holds no lock yet. It is left alone for its start grace, 3 seconds by the database's
// clock; then it is abandoned as never_started, which counts as no failure and doubles that schedule's next grace. Its
// worker, waking up late, finds the row taken: the first thing its transaction does is to check that. It knows its row by
// the id and by started_at, since a crash or a failover can take back the last claims, and the sequence of the ids with them.
//
// Cancel. The refresh transaction holds the execution's lock, so who wants it ended writes a row beside it. The worker
// looks for those, cancels its own refresh and records that like any other end. Where no worker takes note within 3
// seconds, whoever asked has the server cancel the backend that holds the lock (never a remembered pid, which by then may
// be another session's), and rescue records the run as cancelled rather than abandoned, so that it is not tried again.
//
// Trim. Executions are deleted by outcome and age, oldest first, in small transactions; never one that something above
// is decided by (is_decided_by in schema.sql).
//
// # Names and OIDs
//
// A view is known by its canonical name and by its OID. The OID follows a rename, and it counts only in the database in
// which it was read: the cluster's system identifier and the database's OID are stored beside it. After a restore into
// another database, or when a view was dropped and created again, the name finds it, and the OID is stored anew. Names
// are parsed as SQL parses them (ParseViewName), and one that PostgreSQL would silently cut is refused, since that would
// refresh another view.
//
// # The clock
//
// Every decision is taken by the database's clock: now() in SQL. A test gives Store.Now, and the statements see
// coalesce($n, now()).
//
// # Invariants
//
// Tests refer to them by number.
//
//	I1   No two backends refresh one view at the same time for mvsched.
//	I2   Every claim ends as exactly one terminal record, and a terminal record never changes.
//	I3   succeeded if and only if that refresh committed.
//	I4   A run whose claim was taken away can never commit.
//	I5   A live run is never declared abandoned.
//	I6   Only the named view is touched.
//	I7   No decision depends on a worker's clock.
//	I8   No secret and no raw control byte leaves the program; an error's DETAIL, which carries row data, is not stored.
//	I9   After a normal exit, nothing of that process still runs on the server.
//	I10  At most one success a slot, and no claimed slot without a terminal record.
//	L1   After a worker's death a due view is claimed within 5 s.
//	L2   A failing, hanging or poisoned view delays no other view by more than its slot; no view starves.
//	L3   Every database call has a deadline.
//	L4   From SIGTERM to exit it takes at most the grace and 5 s.
package schedule
