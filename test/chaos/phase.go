package main

import "strings"

// phase is where a connection of a worker is. The proxy sees it in the messages that pass.
type phase string

const (
	connecting     phase = "connecting"            // the startup message has come, and is not sent on yet
	connected      phase = "connected"             // the server is ready, which the worker does not know yet
	schemaChecked  phase = "schema checked"        // the same with the answer about the schema's version
	tendSent       phase = "look sent"             // rescue, settling and planning are sent
	tendAnswered   phase = "look answered"         // and committed, which the worker does not know yet
	claimSent      phase = "claim sent"            // the server has the claim
	claimCommitted phase = "claim committed"       // and has claimed a view, which the worker does not know yet
	halfSent       phase = "refresh half sent"     // the server has the first statements of the refresh: limits and lock
	sent           phase = "refresh sent"          // the server has all of it, up to the commit
	refreshing     phase = "refreshing"            // a moment later; what it does then is looked up at the server
	committed      phase = "commit executed"       // refreshed and recorded; what settles it, in the same pipeline, is held back
	settleSent     phase = "settle sent"           // the server has that too
	settled        phase = "settle executed"       // and has done it, or failed; the worker does not know yet of either
	answered       phase = "settle answered"       // and knows it now
	failed         phase = "error not answered"    // the refresh has failed, which the worker does not know yet
	rollbackSent   phase = "rollback sent"         // the worker goes back to the savepoint
	recordSent     phase = "failure record sent"   // and records the failure under the lock
	failureEnded   phase = "failure not committed" // it is recorded, and the worker does not know; the commit is to come
	anyTime        phase = "any time"              // of faults that wait for nobody
)

// phases in which the proxy can hit, in the order of a refresh.
var phases = []phase{
	connecting, connected, schemaChecked, tendSent, tendAnswered, claimSent, claimCommitted, halfSent, sent, refreshing,
	committed, settleSent, settled, answered, failed, rollbackSent, recordSent, failureEnded, anyTime,
}

// purpose is what a batch of messages, up to a Sync, is for.
type purpose int

const (
	other purpose = iota
	toCheck
	toTend
	toClaim
	toRefresh
	toRollBack
	toRecord
)

// purposeOf says it by one of the batch's statements.
func purposeOf(sql string) purpose {
	switch {
	case strings.Contains(sql, "mvsched.begin_refresh("):
		return toRefresh
	case strings.Contains(sql, "mvsched.claim("):
		return toClaim
	case strings.Contains(sql, "with gone as materialized"):
		return toTend
	case strings.Contains(sql, "mvsched.schema_version"):
		return toCheck
	case strings.HasPrefix(sql, "rollback to savepoint"):
		return toRollBack
	case strings.Contains(sql, "set status = verdict.status"):
		return toRecord
	}
	return other
}
