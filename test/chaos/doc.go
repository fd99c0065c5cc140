// Command chaos breaks things under real workers of mvsched and looks whether its invariants hold: docs/reliability.md
// says which faults, how they are counted, and what came of it.
//
//	           ┌────────┐ messages ┌───────┐           ┌────────────┐
//	serve, run │ worker ├──────────┤ proxy ├───────────┤ PostgreSQL │
//	processes  └────────┘          └───┬───┘           └──┬──────┬──┘
//	     kill, stop, signals ── fault ─┘ cut, hold, …     │      │ server log, contents of the views,
//	                              terminate, crash, locks ┘      │ a ledger kept by triggers: the oracle
//
// Each worker reaches the server through a proxy of its own, which reads the messages and so knows in which phase of a
// refresh a connection is. A fault is armed for a phase, and lands on the first connection that comes there, while the
// proxy holds its message. So every fault that counts is one that hit something; those that found nothing to hit in time
// are not counted.
//
// Faults come in episodes: a database of its own, workers, a storm of faults, a quiet end, and then the checks. The plan of
// an episode follows from its seed; how the processes are scheduled between does not.
package main
