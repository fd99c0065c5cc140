package model

import (
	"fmt"
	"slices"
	"strings"
)

// What the arrays below have room for.
const (
	maxWorkers = 3
	maxViews   = 2
	maxClaims  = 4
)

// state is everything at one instant: the database, what of it would survive, the workers, and what may still go wrong.
// It is small and comparable, for there are millions.
type state struct {
	DB   database // what is committed
	Kept database // what a crash or a failover would leave of it: an earlier DB

	Workers [maxWorkers]worker
	Now     uint8 // how many slots have come, the first is 0: the database's clock
	Claims  uint8 // how many claims there have been, those included that a crash took back
	Told    uint8 // claims, as bits, whose success somebody has been told of

	Faults uint8 // how many more there may be
	ByHand uint8 // how many more refreshes somebody asks for by hand

	Broken invariant
}

// database is what is committed.
type database struct {
	Schedules  [maxViews]schedule
	Executions [maxClaims]execution // by id, from 1
	NextID     uint8                // the sequence of the ids; a crash can take it back as well
	Contents   [maxViews]uint8      // the claims, as bits, whose refresh of this view has committed
}

// schedule is a row of mvsched.materialized_view_refresh_schedule: its view is the number of the row.
type schedule struct {
	Slot uint8 // next_run_at: due when Now has reached it
	Open uint8 // open_execution_id, 0 for null
}

// execution is a row of mvsched.materialized_view_refresh_schedule_execution.
type execution struct {
	Status status
	View   uint8
	Slot   uint8 // scheduled_at
	Next   uint8 // where the claim moved the schedule's slot to
	Manual bool  // trigger
	Locked bool  // xmax is not 0: a transaction has locked the row once
	Old    bool  // the start grace is over
	Claim  uint8 // not in the table: which claim, of all that there ever were, the row stands for
}

type status uint8

const (
	none status = iota // no such row
	running
	succeeded
	failed
	cancelled    // by a shutdown
	workerLost   // abandoned: its transaction has gone
	neverStarted // abandoned: it never had one
)

func (s status) String() string {
	return [...]string{"none", "running", "succeeded", "failed", "cancelled", "worker_lost", "never_started"}[s]
}

func (s status) ended() bool { return s > running }

// worker is a slot of a worker process, with its connection and the transaction that the server has open for that.
// The server does not need the process to go on.
type worker struct {
	Phase    phase
	Tx       transaction
	Frozen   bool  // stopped by SIGSTOP, or by a host that sleeps
	Stopping bool  // was told to by SIGTERM
	Cut      bool  // its connection is gone, and it will notice when it uses it
	View     uint8 // of the claim that it makes or has
	ID       uint8 // the execution's
	Slot     uint8 // what it read from the schedule
	Manual   bool
	Claim    uint8 // not known to the worker: which claim that is
}

type phase uint8

const (
	idle      phase = iota
	claiming        // inside mvsched.claim: holds the lock on the schedule row
	half            // a mutant's: between the two halves of a claim
	claimed         // has the claim, has not sent the refresh
	sent            // has sent begin to commit, waits for the answer
	recording       // a mutant's: the refresh has committed, the record is still to be written
	awaiting        // lost the connection, asks the row how it ended (Store.Outcome)
	dead            // kill -9
	exited
)

type transaction uint8

const (
	noTx       transaction = iota
	queued                 // sent, nothing executed
	locked                 // begin_refresh has passed: it holds the execution's row
	refreshing             // the REFRESH is running
	recorded               // refresh_succeeded has passed
	committed              // the answer has not been read
	inError                // an error behind the savepoint: holds the row, waits for its client
	fenced                 // an error before the savepoint: holds nothing
)

// holds reports whether the worker's transaction holds the row of an execution.
func (w worker) holds(id uint8) bool {
	return w.ID == id && (w.Tx == locked || w.Tx == refreshing || w.Tx == recorded || w.Tx == inError)
}

// alive reports whether it can be counted on: it has a control loop that tends the schedules.
func (w worker) alive() bool {
	return w.Phase != dead && w.Phase != exited && !w.Frozen && !w.Stopping
}

// row returns the execution of an id, or one without a status.
func (db *database) row(id uint8) *execution {
	if id == 0 || id > maxClaims {
		return &execution{}
	}
	return &db.Executions[id-1]
}

// isRunning reports whether there is a running execution of the view: what the unique index knows.
func (db *database) isRunning(view uint8) bool {
	return slices.ContainsFunc(db.Executions[:], func(e execution) bool { return e.Status == running && e.View == view })
}

// attempts is the how-manieth try at its slot an execution is.
func (db *database) attempts(id uint8) int {
	e, count := db.row(id), 0
	for _, other := range db.Executions[:id] {
		if !other.Manual && other.Status != none && other.View == e.View && other.Slot == e.Slot {
			count++
		}
	}
	return count
}

// dueAgain reports whether the slot of an execution that has ended is to be claimed once more.
func (db *database) dueAgain(id uint8) bool {
	e := db.row(id)
	return !e.Manual && (e.Status == neverStarted || e.Status == cancelled || e.Status == workerLost && db.attempts(id) < 3)
}

// last is the last execution of a view that its schedule has claimed and that is such a one, 0 when there is none.
func (db *database) last(view int, such func(id uint8) bool) (last uint8) {
	for i, e := range db.Executions {
		id := uint8(i + 1)
		if e.Status != none && int(e.View) == view && !e.Manual && such(id) {
			last = id
		}
	}
	return last
}

// isHeld reports whether a transaction of anybody holds the row of an execution.
func (m *Model) isHeld(s *state, id uint8) bool {
	return !m.Design.NoRowLock && slices.ContainsFunc(s.Workers[:], func(w worker) bool { return w.holds(id) })
}

// isLive reports whether the run of an execution is under way: the claim that the row stands for has its transaction.
func (s *state) isLive(e *execution) bool {
	return slices.ContainsFunc(s.Workers[:], func(w worker) bool {
		return w.Claim == e.Claim && (w.Tx == locked || w.Tx == refreshing || w.Tx == recorded || w.Tx == inError)
	})
}

// isClaiming reports whether a claim holds the row of a schedule.
func (s *state) isClaiming(view uint8) bool {
	return slices.ContainsFunc(s.Workers[:], func(w worker) bool { return w.Phase == claiming && w.View == view })
}

// someoneTends reports whether there is a worker that can be counted on.
func (s *state) someoneTends() bool { return slices.ContainsFunc(s.Workers[:], worker.alive) }

func (s *state) isDue(view uint8) bool { return s.DB.Schedules[view].Slot <= s.Now }

// describe is the database in a line: the schedules whose slot has come or whose execution is open, and all executions.
func (s *state) describe(views int) string {
	var parts []string
	for v := range views {
		sched := s.DB.Schedules[v]
		text := fmt.Sprintf("v%d:slot %d", v+1, sched.Slot)
		if s.isDue(uint8(v)) {
			text += " due"
		}
		if sched.Open != 0 {
			text += fmt.Sprintf(" open #%d", sched.Open)
		}
		parts = append(parts, text)
	}
	for i, e := range s.DB.Executions {
		if e.Status != none {
			parts = append(parts, fmt.Sprintf("#%d v%d %v", i+1, e.View+1, e.Status))
		}
	}
	return strings.Join(parts, ", ")
}
