package model

// lockSchedule is mvsched.claim up to "for no key update skip locked": the conditions are checked under the lock.
func lockSchedule(m *Model, s *state, w, v int) bool {
	worker, view := &s.Workers[w], uint8(v) //nolint:gosec // below maxViews
	if worker.Phase != idle || !worker.alive() || !s.isDue(view) || int(s.Claims) >= m.Claims ||
		s.DB.Schedules[v].Open != 0 && !m.Design.ClaimIgnoresOpen || s.DB.isRunning(view) ||
		s.isClaiming(view) && !m.Design.ClaimWithoutLock {
		return false
	}
	worker.Phase, worker.View, worker.Slot = claiming, view, s.DB.Schedules[v].Slot
	return true
}

// commitClaim is the rest of it: the execution ("on conflict … do nothing" under the unique index), and the slot, which
// moves past now. The commit does not wait for the disk.
func commitClaim(m *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase != claiming {
		return false
	}
	if s.DB.isRunning(worker.View) && !m.Design.NoUniqueIndex || int(s.Claims) >= m.Claims {
		*worker = worker.free()
		return true
	}
	sched := &s.DB.Schedules[worker.View]
	next := s.Now + 1
	if !m.Design.SlotAtEnd {
		sched.Slot = next
	}
	if m.Design.ClaimInTwo {
		worker.Phase = half
		return true
	}
	m.insert(s, worker, next, false)
	if !m.Design.SlotAtEnd {
		sched.Open = worker.ID
	}
	return true
}

// commitExecution is the second half of a claim in two transactions.
func commitExecution(m *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase != half || worker.Frozen || !m.Design.ClaimInTwo {
		return false
	}
	if s.DB.isRunning(worker.View) && !m.Design.NoUniqueIndex || int(s.Claims) >= m.Claims {
		*worker = worker.free()
		return true
	}
	m.insert(s, worker, s.DB.Schedules[worker.View].Slot, false)
	s.DB.Schedules[worker.View].Open = worker.ID
	return true
}

// claimByHand is claimViewSQL: it moves no slot, and notes itself in the schedule only where nobody holds that.
func claimByHand(m *Model, s *state, w, v int) bool {
	worker, view := &s.Workers[w], uint8(v) //nolint:gosec // below maxViews
	if worker.Phase != idle || !worker.alive() || s.ByHand == 0 || int(s.Claims) >= m.Claims || s.DB.isRunning(view) {
		return false
	}
	s.ByHand--
	worker.View, worker.Slot = view, 0
	m.insert(s, worker, 0, true)
	if s.DB.Schedules[v].Open == 0 && !s.isClaiming(view) {
		s.DB.Schedules[v].Open = worker.ID
	}
	return true
}

func (m *Model) insert(s *state, w *worker, next uint8, manual bool) {
	s.Claims++
	s.DB.NextID++
	w.Phase, w.ID, w.Claim, w.Manual = claimed, s.DB.NextID, s.Claims, manual
	*s.DB.row(w.ID) = execution{Status: running, View: w.View, Slot: w.Slot, Next: next, Manual: manual, Claim: w.Claim}
	m.commitNow(s, false)
}
