package model

// Shutdown.

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

// Faults.

// kill is kill -9. What was sent goes on: client_connection_check_interval is 0.
func kill(_ *Model, s *state, w, _ int) bool {
	worker := &s.Workers[w]
	if worker.Phase == dead || worker.Phase == exited {
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
		default: // has nothing to lose
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
