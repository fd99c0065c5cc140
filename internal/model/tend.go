package model

// What any worker does for all.

// rescue is rescueSQL. Locking the row and changing it is one step: who comes in between waits for the lock and reads
// the row anew.
func rescue(m *Model, s *state, _, v int) (can bool) {
	if !s.someoneTends() || m.Design.NoRescue || m.Design.RescueInTwo {
		return false
	}
	for i := range s.DB.Executions {
		id := uint8(i + 1)
		e := &s.DB.Executions[i]
		if e.Status == running && int(e.View) == v && m.looksDead(s, id) {
			m.abandon(s, id)
			can = true
		}
	}
	return can
}

// looksDead is the condition of rescueSQL.
func (m *Model) looksDead(s *state, id uint8) bool {
	e := s.DB.row(id)
	switch {
	case m.isHeld(s, id):
		return false
	case m.Design.NoGrace:
		return true
	case m.Design.OnlyLocked:
		return e.Locked
	}
	return e.Locked || e.Old
}

func (m *Model) abandon(s *state, id uint8) {
	e := s.DB.row(id)
	if s.isLive(e) || !e.Locked && !e.Old {
		s.breaks(i5)
	}
	how := neverStarted
	if e.Locked {
		how = workerLost
	}
	m.end(s, id, how, 0)
	m.commitNow(s, true)
}

// selectDead is the first half of a mutant's rescue; the second changes what it has selected, by id.
func selectDead(m *Model, s *state, w, v int) bool {
	worker := &s.Workers[w]
	if !m.Design.RescueInTwo || !worker.alive() {
		return false
	}
	if worker.Phase == half { // here: between the two
		e := s.DB.row(worker.ID)
		if int(worker.View) != v {
			return false
		}
		switch {
		case m.isHeld(s, worker.ID):
			return false // an update waits for the lock
		case e.Status == running:
			m.abandon(s, worker.ID)
		case e.Status.ended():
			m.end(s, worker.ID, workerLost, 0)
			m.commitNow(s, true)
		}
		*worker = worker.free()
		return true
	}
	if worker.Phase != idle {
		return false
	}
	for i, e := range s.DB.Executions {
		id := uint8(i + 1)
		if e.Status == running && int(e.View) == v && m.looksDead(s, id) {
			worker.Phase, worker.View, worker.ID = half, e.View, id
			return true
		}
	}
	return false
}

// settle is mvsched.settle for the schedule of a view: nothing that is still running, nothing that was settled before;
// it skips a row that a claim holds. Its commit does not wait for the disk.
func settle(m *Model, s *state, _, v int) bool {
	sched := &s.DB.Schedules[v]
	if !s.someoneTends() || s.isClaiming(uint8(v)) { //nolint:gosec // below maxViews
		return false
	}
	before := *sched
	id := sched.Open
	switch {
	case m.Design.SettleIgnoresOpen:
		id = s.DB.last(v, func(id uint8) bool { return s.DB.row(id).Status.ended() && s.DB.dueAgain(id) })
	case m.Design.SlotAtEnd:
		id = s.DB.last(v, func(uint8) bool { return true })
	}
	e := s.DB.row(id)
	if id == 0 || e.Status == running {
		return false
	}
	sched.Open = 0
	switch {
	case s.DB.row(id).Status == none: // deleted settles as nothing
	case m.Design.SlotAtEnd && !s.DB.dueAgain(id):
		sched.Slot = max(sched.Slot, e.Next)
	case s.DB.dueAgain(id) && e.Slot < sched.Slot && !m.Design.SettleForgetsLost:
		sched.Slot = e.Slot
	}
	m.commitNow(s, false)
	return *sched != before
}
