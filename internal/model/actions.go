package model

// An action is one thing that can happen: it changes the state and reports true, or reports that it cannot happen now.
// w is the worker, v the view that it is about, by number.
type action func(m *Model, s *state, w, v int) bool

type kind uint8

const (
	asked kind = iota // somebody wants it, or time brings it: nothing may depend on it
	fair              // it happens by itself as long as somebody is there to do it
	fault
)

// actions are all of them. Each function says which lines it stands for.
var actions = []struct {
	says string
	kind kind
	over string // "worker", "worker, view", "view" or "": what it happens to, each for itself
	do   action
}{
	{"the next slot comes", asked, "", slotComes},
	{"the grace of %v's claim ends", fair, "view", graceEnds},
	{"the log reaches the disk and the standby", asked, "", logIsKept},

	{"%w locks the schedule of %v", fair, "worker, view", lockSchedule},
	{"%w's claim commits", fair, "worker", commitClaim},
	{"%w inserts the execution", fair, "worker", commitExecution},
	{"%w claims %v by hand", asked, "worker, view", claimByHand},
	{"%w sends the refresh", fair, "worker", send},
	{"%w finds its connection gone, nothing sent", fair, "worker", cannotSend},

	{"%w's transaction begins: fence and lock", fair, "worker", begin},
	{"%w's transaction refreshes", fair, "worker", refresh},
	{"%w's transaction records the success", fair, "worker", record},
	{"%w's transaction commits", fair, "worker", commit},
	{"%w's refresh fails", asked, "worker", fail},
	{"the server ends %w's idle transaction", fair, "worker", endIdle},

	{"%w reads that it succeeded", fair, "worker", readAnswer},
	{"%w records the success", fair, "worker", recordApart},
	{"%w records the failure under its lock", fair, "worker", endUnderLock},
	{"%w records that it could not begin", fair, "worker", endDetached},
	{"%w asks the row how it ended", fair, "worker", outcome},

	{"a worker rescues %v: the run is taken for dead", fair, "view", rescue},
	{"%w selects %v's run as dead, or ends what it has selected", fair, "worker, view", selectDead},
	{"a worker settles %v", fair, "view", settle},

	{"%w is told to stop", fault, "worker", stop},
	{"%w has its refresh cancelled", fair, "worker", cancelOwn},
	{"%w exits", fair, "worker", exit},

	{"%w is killed", fault, "worker", kill},
	{"%w is frozen", fault, "worker", freeze},
	{"%w goes on", asked, "worker", thaw},
	{"%w's connection is cut", fault, "worker", cutConnection},
	{"%w's backend is killed", fault, "worker", killBackend},
	{"the server crashes, or a standby takes over", fault, "", crash},
}

// commitNow is what every transaction of ours ends with. One with synchronous_commit waits for the disk, and all that was
// committed before is there with it; that of an asynchronous standby is another matter.
func (m *Model) commitNow(s *state, synchronous bool) {
	if synchronous && !m.Failover {
		s.Kept = s.DB
	}
}

// own reports whether the row that a worker finds by its id is the one of its claim, as far as the code can tell:
// started_at tells it, for the sequence of the ids goes back with what a crash takes back.
func own(s *state, w *worker, byID bool) bool {
	e := s.DB.row(w.ID)
	return e.Status != none && (byID || e.Claim == w.Claim)
}

// end writes how an execution ended, for the worker whose claim is given: 0 for who tends other people's.
func (m *Model) end(s *state, id uint8, how status, claim uint8) {
	e := s.DB.row(id)
	if e.Status.ended() && !m.Design.NoTrigger {
		return // keep_terminal_execution raises
	}
	switch {
	case e.Status.ended():
		s.breaks(i2)
	case claim != 0 && e.Claim != claim:
		s.breaks(i5)
	}
	e.Status, e.Locked, e.Old = how, false, false
}

// slotComes is the database's clock reaching the next slot of all schedules.
func slotComes(m *Model, s *state, _, _ int) bool {
	if int(s.Now)+1 >= m.Slots {
		return false
	}
	s.Now++
	return true
}

// graceEnds is started_at + start_grace < clock_timestamp().
func graceEnds(_ *Model, s *state, _, v int) (can bool) {
	for i := range s.DB.Executions {
		if e := &s.DB.Executions[i]; e.Status == running && int(e.View) == v && !e.Old && !e.Locked {
			e.Old, can = true, true
		}
	}
	return can
}

// logIsKept is the WAL writer, or the standby, catching up.
func logIsKept(_ *Model, s *state, _, _ int) bool {
	if s.Faults == 0 || s.Kept == s.DB {
		return false
	}
	s.Kept = s.DB
	return true
}
