package model

// design says in what a model differs from mvsched as it is, which is the zero value: each field takes something away.
type design struct {
	NoUniqueIndex     bool // no materialized_view_refresh_schedule_execution_running
	ClaimWithoutLock  bool // the schedule is read, not locked: no "for no key update skip locked"
	ClaimIgnoresOpen  bool // the claim does not ask for open_execution_id is null
	ClaimInTwo        bool // the slot moves on in one transaction, the execution is inserted by another
	SlotAtEnd         bool // the slot moves on behind the refresh, not at the claim
	NoFence           bool // begin_refresh does not ask for status = 'running'
	FenceByID         bool // begin_refresh knows the claim by its id alone, not by started_at too
	OutcomeByID       bool // Store.End and Store.Outcome do
	NoRowLock         bool // begin_refresh does not lock the row, so a run is dead when its time is over
	RecordByID        bool // refresh_succeeded does not ask for status = 'running'
	RecordApart       bool // the success is recorded by a transaction behind the refresh's
	RecordFirst       bool // … or by one before it
	RefreshAsync      bool // synchronous_commit = off for the refresh too
	NoTrigger         bool // no keep_terminal_execution
	EndByID           bool // Store.End does not ask for status = 'running'
	RescueInTwo       bool // it selects dead runs without keeping the lock, and changes them later, by id
	NoGrace           bool // it takes every free row: it asks neither for xmax nor for the grace
	OnlyLocked        bool // it takes rows that were locked once: it asks for xmax, and for no grace
	NoRescue          bool
	SettleIgnoresOpen bool // it goes by the ended executions, not by open_execution_id
	SettleForgetsLost bool // it does not make the slot of an abandoned run due again
}

// mutant is a design that must break an invariant.
type mutant struct {
	name   string
	breaks string
	byHand uint8 // so many refreshes by hand does it take
	pooler bool  // and a pooler
	design design
}

var mutants = []mutant{
	{"no unique index on running executions", "I1", 1, false, design{NoUniqueIndex: true}},
	{"claim without a lock on the schedule", "I10", 0, false, design{ClaimWithoutLock: true}},
	{"claim in two transactions", Liveness, 0, false, design{ClaimInTwo: true}},
	{"slot advanced behind the refresh, not at the claim", "I10", 0, false, design{SlotAtEnd: true}},
	{"no fence at the begin", "I1", 0, false, design{NoFence: true}},
	{"fence by the id alone", "I4", 0, true, design{FenceByID: true}},
	{"outcome by the id alone", "I5", 0, false, design{OutcomeByID: true}},
	{"no row lock: rescue by time only", "I5", 0, false, design{NoRowLock: true}},
	{"record in a second transaction", "I3", 0, false, design{RecordApart: true}},
	{"record in a transaction before the refresh's", "I3", 0, false, design{RecordFirst: true}},
	{"refresh with synchronous_commit = off", "I3", 0, false, design{RefreshAsync: true}},
	{"end by id only, and no trigger", "I2", 0, false, design{EndByID: true, NoTrigger: true}},
	{"no fence, record by id only, and no trigger", "I4", 0, false, design{NoFence: true, RecordByID: true, NoTrigger: true}},
	{"rescue in two steps, by id, and no trigger", "I2", 0, false, design{RescueInTwo: true, NoTrigger: true}},
	{"rescue of every free row: neither xmax nor grace", "I5", 0, false, design{NoGrace: true}},
	{"rescue by xmax alone: no grace", Liveness, 0, false, design{OnlyLocked: true}},
	{"no rescue", Liveness, 0, false, design{NoRescue: true}},
	{"settle ignores open_execution_id", "I10", 0, false, design{SettleIgnoresOpen: true}},
	{"settle forgets abandoned runs", Liveness, 0, false, design{SettleForgetsLost: true}},
}

// doubled are the designs that lack something for which something else stands in: the model has to let them pass.
var doubled = []mutant{
	{name: "no trigger keep_terminal_execution", design: design{NoTrigger: true}},
	{name: "refresh_succeeded by id only, and no trigger", design: design{RecordByID: true, NoTrigger: true}},
	{name: "Store.End by id only", design: design{EndByID: true}},
	{name: "rescue in two steps", design: design{RescueInTwo: true}},
	{name: "claim that ignores open_execution_id", design: design{ClaimIgnoresOpen: true}},
}
