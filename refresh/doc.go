// Package refresh refreshes claimed materialized views: how one view is refreshed, and the worker that does it for many.
//
// # One transaction, one pipeline
//
// REFRESH MATERIALIZED VIEW CONCURRENTLY is legal in a transaction block, and everything here follows from that:
//
//	begin
//	select mvsched.begin_refresh(…)                limits; fence and lock on the execution row
//	savepoint
//	set_config(…, true), …                         the settings of the view's schedule, undone behind the refresh
//	refresh materialized view concurrently …       under the search_path of the view's schedule
//	set local search_path = pg_catalog, pg_temp
//	select mvsched.refresh_succeeded(…)            is it still that view? then the record
//	commit                                         contents, record and NOTIFY at once
//	begin; select mvsched.settle(…); commit        what that means for the schedules
//
// The statements go out in one write, with one Sync behind them. From then on the server needs nobody: when the
// worker dies, by kill -9 or with its machine, the refresh completes and is recorded. Two settings make that true, and
// begin_refresh makes them: client_connection_check_interval = 0, or the server would stop for a client that is gone,
// and client_min_messages = error, or a NOTICE to that client would break the transaction.
//
// The price of one write is that the client can decide nothing in between. What must stop the transaction raises: the
// fence, when the claim has been given up (MV001), and the look at the name before the record, when REFRESH, which
// looks its view up by name after every wait, got another one (MV002).
//
// After an error the transaction is still open, and so the execution row is still locked: the failure is recorded under
// the same lock, after a rollback to the savepoint, and no rescuer can come between. When the connection is lost nobody
// guesses: the row tells, over another connection, once the server is done with it.
//
// # Drains
//
// The columns of a table (docs/columns.md) are materialized by one such transaction after the other, each with a batch in
// place of the REFRESH and, but for the last, without the record:
//
//	begin; begin_refresh(…); savepoint; materialize_batch(…); commit      until a batch finds nothing
//	begin; begin_refresh(…); savepoint; materialize_batch(…); refresh_succeeded(…); commit
//
// Each notes its time in the execution. Between two of them nobody holds the row, and a rescuer leaves it alone for the
// grace that a claim has, counted from there. It must not go by xmax then: a transaction that locks a row and writes it
// leaves its lock in the new version. A batch that fails is sent again behind the savepoint, and so under the same lock, for
// the server to find the rows that are to blame.
//
// # Limits
//
// The server's limits come first: statement_timeout ends a refresh at its time limit with a definite answer. The
// client's own deadline is 5 s later. A cancel of the context becomes a cancel request, and its answer is waited for.
// statement_timeout and a cancel by somebody else share SQLSTATE 57014; the server's clock tells them apart, since
// messages are localised.
//
// # The worker
//
// Worker.RunDue claims and refreshes what is due. One connection tends the schedules: it rescues dead runs, settles,
// plans, and watches what refreshes wait for and which ones somebody asked to end: each has a context of its own. Each of
// up to Jobs others refreshes one view after the other. It claims before that: one of several over the first connection
// while that is free, else over its own. So neither claim nor rescue nor record waits behind a refresh. Connections are
// opened as there is work for them; where the server has none left, the worker goes on with fewer.
//
// # The server
//
// Worker.Serve is the same without an end. Its control loop looks at the schedules, which also rescues, settles and plans,
// and learns when the next slots come up. When one does, a slot of the worker claims at once, without another look, and
// also while one is under way: so the delay of a start is that of a claim. The look comes behind it, at most every 100 ms, however much happens, and every
// 20 ms where views wait for one another.
//
//	sleeps until        the next known slot; 3 s while an execution is open anywhere (somebody may die); 3 s where
//	                    schedules wait for changes; else 10 minutes
//	is woken by         NOTIFY mvsched_schedule: something is due sooner than the others can know of
//	                    NOTIFY mvsched: an execution has ended, if something due here waits for one
//	                    NOTIFY mvsched_cancel: somebody wants a refresh ended
//	cannot listen       behind a pooler, or while its connection is lost: it looks every 2 s
//
// Notifications are hints; whoever misses one finds out by the next look. They are sent where a row's values change, not
// where it is written: or the look that settles and plans would wake the next one.
//
// When a look fails, slots come to their end, the connections are dropped (they may lead to a primary that is none any
// more), and it asks again, after 100 ms at first and a second at the most, with jitter. What no patience cures, a schema
// or a right that is missing, ends it. Each queue with places of its own has a control loop of its own.
//
// A pool is prepared with ConfigurePool. The package reads no environment, takes no flags and never exits.
package refresh
