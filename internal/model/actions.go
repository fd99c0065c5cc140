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

// — time —

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
func logIsKept(m *Model, s *state, _, _ int) bool {
	if s.Faults == 0 || s.Kept == s.DB {
		return false
	}
	s.Kept = s.DB
	return true
}

// — claim —

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

// — the refresh transaction —

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

// — what the worker does with the answer —

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

// — what any worker does for all —

// rescue is rescueSQL. Locking the row and changing it is one step: who comes in between waits for the lock and reads
// the row anew.
func rescue(m *Model, s *state, _, v int) (can bool) {
	if !s.someoneTends() || m.Design.NoRescue || m.Design.RescueInTwo {
		return false
	}
	for i := range s.DB.Executions {
		id := uint8(i + 1) //nolint:gosec // at most maxClaims
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
		id := uint8(i + 1) //nolint:gosec // at most maxClaims
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

// — shutdown —

// stop is SIGTERM, with the grace already over: no more claims, and what runs is cancelled.
func stop(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase == dead || worker.Phase == exited || worker.Stopping {
		return false
	}
	worker.Stopping = true
	return true
}

// cancelOwn is the cancel request of pgx's context watcher: it may come too late.
func cancelOwn(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if !worker.Stopping || worker.Frozen || worker.Phase != sent {
		return false
	}
	switch worker.Tx {
	case queued, locked: // locked stands for all before the savepoint as well
		worker.Tx = fenced
	case refreshing, recorded:
		worker.Tx = inError
	default:
		return false
	}
	return true
}

func exit(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase != idle || !worker.Stopping || worker.Frozen {
		return false
	}
	*worker = workerIn(exited)
	return true
}

// — faults —

// kill is kill -9. What was sent goes on: client_connection_check_interval is 0.
func kill(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	switch worker.Phase {
	case dead, exited:
		return false
	}
	if worker.Tx == noTx || worker.Tx == committed {
		*worker = workerIn(dead)
		return true
	}
	worker.Phase, worker.Frozen, worker.Stopping = dead, false, false
	return true
}

// freeze is kill -STOP, or a laptop that is closed.
func freeze(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase == dead || worker.Phase == exited || worker.Frozen {
		return false
	}
	worker.Frozen = true
	return true
}

func thaw(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if !worker.Frozen {
		return false
	}
	worker.Frozen = false
	return true
}

// cutConnection is a network that fails between the worker and the server: the answer to a claim is lost, or the one to
// the refresh, before or after its commit. The server goes on with what it has.
func cutConnection(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	switch {
	case worker.Phase == claimed && !worker.Cut:
		*worker = worker.free() // it never learned what it has claimed
	case worker.Phase == sent && worker.Tx == committed:
		worker.Phase, worker.Tx = awaiting, noTx
	case worker.Phase == sent:
		worker.Phase = awaiting
	default:
		return false
	}
	return true
}

// killBackend is pg_terminate_backend.
func killBackend(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	switch {
	case worker.Phase == claiming:
		*worker = worker.free()
	case worker.Phase == claimed && !worker.Cut:
		worker.Cut = true
	case worker.Tx != noTx:
		if worker.Phase == sent {
			worker.Phase = awaiting
		}
		*worker = worker.withoutTx()
	default:
		return false
	}
	return true
}

// crash ends all transactions and takes back what was not kept: after a crash of the server at most asynchronous
// commits, after a failover to a standby that lagged any. It is a prefix of the log that stays, so nothing is kept
// that builds on what is lost. Behind a pooler an idle client does not notice.
func crash(m *Model, s *state, _, _ int) bool {
	for i := range s.Workers {
		worker := &s.Workers[i]
		switch worker.Phase {
		case claiming, half:
			*worker = worker.free()
		case claimed:
			worker.Cut = worker.Cut || !m.Pooler
		case sent, recording:
			worker.Phase = awaiting
		}
		*worker = worker.withoutTx()
	}
	s.DB = s.Kept
	if !m.Failover && s.Told&^(s.DB.Contents[0]|s.DB.Contents[1]) != 0 {
		s.breaks(i3) // somebody was told of a success that is gone
	}
	return true
}

// free is the worker without a claim.
func (w worker) free() worker { return worker{Phase: idle, Frozen: w.Frozen, Stopping: w.Stopping} }

// withoutTx is the worker when the server has no transaction of its any more.
func (w worker) withoutTx() worker {
	w.Tx = noTx
	if w.Phase == dead {
		return workerIn(dead)
	}
	return w
}

func workerIn(p phase) worker { return worker{Phase: p} }
