// Package model is mvsched's claim, run, rescue and settling without a database: small enough to try everything that can
// happen, in every order. It is an explanation that can be run: docs/correctness.md tells what it shows.
//
//	state.go      what there is: two tables, what of them is on the disk, workers, and the transactions of workers
//	actions.go    what can happen: a list. Each action is a function, and says which lines of sql/schema.sql or Go it
//	              stands for: in claim.go, run.go (the refresh transaction), tend.go (rescue, settle), faults.go
//	model.go      the bounds, and the invariants, numbered as in package schedule
//	design.go     what it would be like without this or that: the mutants
//	article.go    the design that the tables come from
//	search.go     breadth first through all states, to the shortest way to a violation
//
// An action is a step that nobody can see the middle of: a statement, a commit, a decision of the client. Between two of
// them anything else may happen. The server executes what it was sent whether its client lives or not.
package model
