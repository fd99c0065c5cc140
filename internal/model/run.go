package model

// The refresh transaction: what the server does.

// send is sendRefresh: begin to commit in one write. Through a pooler it also reaches a server that is not the one, or
// has not the memory, that the claim was made on.
func send(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase != claimed || worker.Frozen || worker.Stopping || worker.Cut {
		return false
	}
	worker.Phase, worker.Tx = sent, queued
	return true
}

// cannotSend is sendRefresh on a connection that is closed.
func cannotSend(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase != claimed || worker.Frozen || !worker.Cut {
		return false
	}
	worker.Phase, worker.Cut = awaiting, false
	return true
}

// begin is mvsched.begin_refresh: it waits for the row's lock, and raises MV001 unless the row is running.
func begin(m *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Tx != queued || m.isHeld(s, worker.ID) {
		return false
	}
	e := s.DB.row(worker.ID)
	switch {
	case (!own(s, worker, m.Design.FenceByID) || e.Status != running) && !m.Design.NoFence:
		worker.Tx = fenced
		return true
	case e.Status == running && !m.Design.NoRowLock:
		e.Locked = true
	}
	worker.Tx = locked
	return true
}

// refresh is "refresh materialized view …". PostgreSQL's own lock makes a second one wait: that it came so far is bad
// enough.
func refresh(m *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Tx != locked {
		return false
	}
	for i, other := range s.Workers {
		if i != w && other.View == worker.View && (other.Tx == refreshing || other.Tx == recorded) {
			s.breaks(i1)
		}
	}
	if m.Design.RecordFirst {
		s.DB.row(worker.ID).Status = succeeded
	}
	worker.Tx = refreshing
	return true
}

// fail is any error of the view's: the transaction stays open, behind its savepoint, until the client decides.
func fail(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Tx != refreshing {
		return false
	}
	worker.Tx = inError
	return true
}

// record is mvsched.refresh_succeeded: nobody sees it before the commit; it raises MV001 unless the row is running.
func record(m *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Tx != refreshing {
		return false
	}
	itRuns := own(s, worker, true) && s.DB.row(worker.ID).Status == running
	if !itRuns && (!m.Design.RecordByID || !m.Design.NoTrigger) && !m.Design.RecordApart && !m.Design.RecordFirst {
		worker.Tx = fenced
		return true
	}
	worker.Tx = recorded
	return true
}

// commit makes the contents and the record visible at once.
func commit(m *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Tx != recorded {
		return false
	}
	if e := s.DB.row(worker.ID); e.Claim != worker.Claim || e.Status != running && !m.Design.RecordFirst {
		s.breaks(i4)
	}
	s.DB.Contents[worker.View] |= 1 << worker.Claim
	switch {
	case m.Design.RecordFirst:
	case m.Design.RecordApart && worker.Phase == sent:
		worker.Phase, worker.Tx = recording, noTx
		m.commitNow(s, true)
		return true
	case !m.Design.RecordApart:
		m.end(s, worker.ID, succeeded, 0)
	}
	m.commitNow(s, !m.Design.RefreshAsync)
	worker.Tx = committed
	if worker.Phase != sent {
		*worker = worker.withoutTx()
	}
	return true
}

// endIdle is idle_in_transaction_session_timeout, or the end of the connection: only a transaction that waits for its
// client ends so; one that runs does not look.
func endIdle(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	gone := worker.Frozen || worker.Phase != sent
	if !gone || worker.Tx != inError && worker.Tx != fenced {
		return false
	}
	if worker.Phase == sent {
		worker.Phase = awaiting
	}
	*worker = worker.withoutTx()
	return true
}

// What the worker does with the answer.

func readAnswer(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase != sent || worker.Frozen || worker.Tx != committed {
		return false
	}
	s.Told |= 1 << worker.Claim
	*worker = worker.free()
	return true
}

// recordApart is the second transaction of a mutant.
func recordApart(m *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase != recording || worker.Frozen {
		return false
	}
	if own(s, worker, true) && s.DB.row(worker.ID).Status == running {
		m.end(s, worker.ID, succeeded, worker.Claim)
		m.commitNow(s, true)
	}
	*worker = worker.free()
	return true
}

// endUnderLock is refresher.endUnderLock: "rollback to savepoint", the record, "commit", under the lock from before.
func endUnderLock(m *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase != sent || worker.Frozen || worker.Tx != inError {
		return false
	}
	how := failed
	if worker.Stopping {
		how = cancelled
	}
	e := s.DB.row(worker.ID)
	if e.Claim != worker.Claim {
		s.breaks(i4)
	}
	if e.Status == running || m.Design.EndByID {
		m.end(s, worker.ID, how, worker.Claim)
	}
	m.commitNow(s, true)
	*worker = worker.free()
	return true
}

// endDetached is refresher.endDetached: the record of a refresh that did not come to its savepoint, in a transaction of
// its own (Store.End). Where the row has ended already, that stands.
func endDetached(m *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	unsent := worker.Phase == claimed && worker.Stopping && !worker.Cut
	if worker.Frozen || !unsent && (worker.Phase != sent || worker.Tx != fenced) || m.isHeldByOther(s, w) {
		return false
	}
	how := failed
	if worker.Stopping {
		how = cancelled
	}
	if own(s, worker, m.Design.OutcomeByID) && (s.DB.row(worker.ID).Status == running || m.Design.EndByID) {
		m.end(s, worker.ID, how, worker.Claim)
		m.commitNow(s, true)
	}
	*worker = worker.free()
	return true
}

// outcome is Store.Outcome: a row that is held is left alone; a free one that is still running has lost its transaction.
func outcome(m *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase != awaiting || worker.Frozen {
		return false
	}
	mine := own(s, worker, m.Design.OutcomeByID)
	e := s.DB.row(worker.ID)
	before := e.Status
	switch {
	case mine && e.Status == running && m.isHeld(s, worker.ID):
		return false // asks again
	case mine && e.Status == running:
		if s.isLive(e) {
			s.breaks(i5)
		}
		m.end(s, worker.ID, workerLost, worker.Claim)
		m.commitNow(s, true)
	case mine && e.Status == succeeded:
		s.Told |= 1 << worker.Claim
		if e.Claim != worker.Claim {
			s.breaks(i3) // told of another's success
		}
	}
	if worker.Tx != noTx {
		return e.Status != before // what was sent, and is still to begin, will find the row ended
	}
	*worker = worker.free()
	return true
}

// isHeldByOther reports whether another worker's transaction holds the row of the worker's execution.
func (m *Model) isHeldByOther(s *state, w int) bool {
	for i, other := range s.Workers {
		if i != w && other.holds(s.Workers[w].ID) && !m.Design.NoRowLock {
			return true
		}
	}
	return false
}
