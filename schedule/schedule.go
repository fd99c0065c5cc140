package schedule

import (
	"slices"
	"time"
)

// Strategy is how a schedule wants its view to be refreshed.
type Strategy string

// The strategies. Auto refreshes concurrently where the view allows it, and plain where it does not.
const (
	Auto         Strategy = "auto"
	Concurrently Strategy = "concurrently"
	Plain        Strategy = "plain"
)

// Materialization is what a schedule keeps up to date; column kind.
type Materialization string

// The kinds of materializations. A table is one because a schedule says so, and no longer than that.
const (
	MaterializedView    Materialization = "view"
	MergeTable          Materialization = "merge"   // a table that is kept equal to a plain view
	MaterializedColumns Materialization = "columns" // computed columns of a table
)

// Kind is one of the ways to say when a view is to be refreshed.
type Kind string

// The kinds of schedules. Each has exactly one.
const (
	KindEvery        Kind = "every"         // from slot to slot
	KindAfter        Kind = "after"         // from the end of a run to the start of the next
	KindCron         Kind = "cron"          // by a cron expression in a time zone
	KindAfterParents Kind = "after_parents" // no clock: whenever a view that it reads got new data
	KindOnChange     Kind = "on_change"     // whenever what it reads has changed, or somebody asks
	KindMaxLag       Kind = "max_lag"       // as late as possible for its data to be no older than that
)

// ParentFailure is what becomes of a view's slot when a view that it reads has failed.
type ParentFailure string

// A slot is skipped, or the view refreshed from the old data.
const (
	ParentFailureSkip ParentFailure = "skip"
	ParentFailureRun  ParentFailure = "run"
)

// VacuumMode is when a schedule wants its view to be vacuumed after a refresh.
type VacuumMode string

// The vacuum modes. Auto vacuums and analyzes when dead rows or lost statistics call for it.
const (
	VacuumAuto   VacuumMode = "auto"
	VacuumNever  VacuumMode = "never"
	VacuumAlways VacuumMode = "always"
)

// Method is how one refresh was done.
type Method string

// The methods of REFRESH MATERIALIZED VIEW, with and without CONCURRENTLY, and those of the other kinds.
const (
	MethodConcurrently Method = "concurrently"
	MethodPlain        Method = "plain"
	MethodMerge        Method = "merge"
	MethodColumns      Method = "columns"
)

// MaxPriority bounds a priority on both sides of 0.
const MaxPriority = 1000

// What a schedule may count; the CHECKs of its table have the same. MaxQueueName and MaxGroupName are in bytes.
const (
	MaxRetries      = 100
	MaxSuspendAfter = 1_000_000
	MaxQueueName    = 63
	MaxGroupName    = 63
)

// MaxExpression bounds a window, in bytes.
const MaxExpression = 4000

// What the table has where nobody says otherwise.
const (
	DefaultRetries      = 3
	DefaultMaxStaleness = time.Hour
	DefaultQueue        = "default"
)

// Schedule is one row of the schedule table: what is configured for a view.
type Schedule struct {
	ID                  int64
	View                string // canonical name
	Materialization     Materialization
	Kind                Kind
	Every               *time.Duration // nil: another kind of schedule
	After               *time.Duration // as Every
	Cron                *string        // as Every
	MaxLag              *time.Duration // as Every
	Timezone            string         // of Cron and Window
	Debounce            *time.Duration // nil: the default
	AtMostEvery         *time.Duration // nil: the default
	Jitter              *time.Duration // nil: none
	Window              *Window        // nil: none
	Retries             int            // how often a slot is tried again after an error that may pass
	SuspendAfter        *int           // failed slots in a row; nil: never
	OnParentFailure     ParentFailure
	SkipUnchanged       bool
	MaxStaleness        time.Duration  // refreshed after this time even if nothing seems to have changed
	Timeout             time.Duration  // column maximum_execution_duration
	LockTimeout         *time.Duration // nil: the default of the method
	Strategy            Strategy
	Vacuum              VacuumMode
	Queue               string
	Group               *string // nil: it is refreshed by itself
	Priority            int
	SearchPath          *string // nil: the session's own
	Parameters          Parameters
	NextRunAt           *time.Time
	PausedAt            *time.Time
	PausedReason        *string
	SuspendedAt         *time.Time
	SuspendedReason     *string
	ConsecutiveFailures int
	PredictedDuration   *time.Duration // with MaxLag: what its next slot was planned with; nil: nothing is known yet
	ReachableLag        *time.Duration // with MaxLag: the shortest that could be kept; nil: nothing is known yet

	// Of a merge table.
	MergeSource *string // the plain view that it is kept equal to, canonical
	MergeKey    []string
	MergeWindow *string        // nil: all rows
	FullEvery   *time.Duration // nil: never beyond the window

	Filling *Columns // of materialized columns, all of it; BatchRows and Lanes with a query only
	Filled  []string // with a query: the columns that it gives
}

// Unreachable reports whether the schedule's MaxLag cannot be kept, as far as history tells.
func (s Schedule) Unreachable() bool {
	return s.MaxLag != nil && s.ReachableLag != nil && *s.ReachableLag > *s.MaxLag
}

// Status is how an execution stands or ended.
type Status string

// Running, and the ways to end. What is terminal never changes.
const (
	Running   Status = "running"
	Succeeded Status = "succeeded"
	Failed    Status = "failed"
	TimedOut  Status = "timed_out"
	Cancelled Status = "cancelled"
	Skipped   Status = "skipped"
	Abandoned Status = "abandoned"
)

// Ended reports whether it is how an execution ended.
func (s Status) Ended() bool {
	return slices.Contains([]Status{Succeeded, Failed, TimedOut, Cancelled, Skipped, Abandoned}, s)
}

// End is what channel mvsched tells of an execution that has ended.
type End struct {
	Execution int64  `json:"execution"`
	View      string `json:"view"`
	Status    Status `json:"status"`
}

// Bad reports whether a run that ended so leaves something for a person to look at.
func (s Status) Bad() bool {
	switch s {
	case Failed, TimedOut, Cancelled, Abandoned:
		return true
	default:
		return false
	}
}

// Reasons that an execution may carry.
const (
	ReasonUnchanged      = "unchanged"            // skipped: nothing that its query reads has changed
	ReasonUpstreamFailed = "upstream_failed"      // skipped: a view that it reads has failed since it last ran
	ReasonGroupFailed    = "group_failed"         // skipped: another member of its group could not be refreshed
	ReasonLockBusy       = "lock_busy"            // skipped: the lock was not to be had within lock_timeout
	ReasonRowsSetAside   = "rows_set_aside"       // succeeded: but some rows could not be materialized
	ReasonOutlasted      = "outlasted_prediction" // succeeded: took longer than its max_lag was planned with
	ReasonShutdown       = "shutdown"             // cancelled: its worker was told to stop; the slot stays due
	ReasonRequested      = "requested"            // cancelled: somebody asked for it; not tried again
	ReasonTimeLimit      = "time_limit"           // timed_out
	ReasonNeverStarted   = "never_started"        // abandoned: claimed, but its transaction never began; the slot stays due
	ReasonWorkerLost     = "worker_lost"          // abandoned: its transaction is gone without a record; the slot stays due
	ReasonMissing        = "missing"              // failed: there is no such view any more
	ReasonNoTemp         = "no_temp_privilege"    // failed: CONCURRENTLY was asked for, and the owner may not create its table
	ReasonViewReplaced   = "view_replaced"        // failed: during the refresh its name went to another view
)

// Execution is one row of the execution table: one refresh, from its claim to its end.
type Execution struct {
	ID           int64
	ScheduleID   *int64 // nil: the view was not scheduled
	View         string // canonical name
	Status       Status
	Reason       *string
	Trigger      string
	ScheduledAt  *time.Time
	Attempt      int
	StartedAt    time.Time
	EndedAt      *time.Time
	TerminatedAt *time.Time
	Method       *Method
	MethodReason *string
	RowsInserted *int64
	RowsDeleted  *int64
	RowsKept     *int64 // about
	DataAsOf     *time.Time
	ErrorName    *string
	ErrorMessage *string
	Worker       *string
}

// Duration is the time from claim to end, 0 while running.
func (e Execution) Duration() time.Duration {
	if e.EndedAt == nil {
		return 0
	}
	return e.EndedAt.Sub(e.StartedAt)
}

// gaveWay reports whether it was given up for no fault of the view's or its worker's.
func (e Execution) gaveWay() bool {
	return e.Reason != nil && (*e.Reason == ReasonShutdown || *e.Reason == ReasonNeverStarted)
}

// Standing is one row of view mvsched.status: how a scheduled view stands.
type Standing struct {
	View                string
	State               State
	DataAsOf            *time.Time
	Age                 *time.Duration
	MaxLag              *time.Duration // how old the data may get; nil: the schedule does not say
	ReachableLag        *time.Duration // the shortest that could be kept; nil: not known, or no MaxLag
	NextRunAt           *time.Time
	NextRunIn           *time.Duration // by the database's clock; negative: overdue
	RunningFor          *time.Duration // nil: it is not being refreshed
	Usual               *time.Duration // while it is being refreshed: how long that usually takes; nil: there is no history
	Blockers            []Blocker      // while it is being refreshed: who holds a lock that it waits for
	Held                State          // while it is being refreshed: paused or suspended, which its schedule is, or late, which it is by its interval; else ""
	Last                *Execution     // the last that ended; nil: none yet
	SucceededAt         *time.Time     // the end of the last success under the view's name; nil: none that is kept
	ConsecutiveFailures int
	Queue               string
	Materialization     Materialization
	RowsLeft            *int64   // of columns: rows to be materialized; nil: of another kind, or it cannot be told at once
	RowsPerSecond       *float64 // of columns: while they are being materialized
	RowsSetAside        *int64   // of columns: rows that could not be materialized
	ColumnsQueued       []string // of columns: those that are to be computed again, or are new, in rows that RowsLeft does not count
	SizeBytes           int64
	Parents             []string // canonical names of the materialized views that it reads; nil: the view is gone
}

// Unreachable reports whether the view's MaxLag cannot be kept, as far as history tells.
func (s Standing) Unreachable() bool {
	return s.MaxLag != nil && s.ReachableLag != nil && *s.ReachableLag > *s.MaxLag
}

// TimeLeft is how long the rows that are left will take at the rate of now; nil: they are not being materialized.
func (s Standing) TimeLeft() *time.Duration {
	if s.RowsLeft == nil || s.RowsPerSecond == nil || *s.RowsPerSecond <= 0 {
		return nil
	}
	left := time.Duration(float64(*s.RowsLeft) / *s.RowsPerSecond * float64(time.Second))
	return &left
}

// State is the first of these that holds for a scheduled view.
type State string

// The states, in the order in which they are looked for.
const (
	StateMissing   State = "missing"
	StateRunning   State = "running"
	StatePaused    State = "paused"
	StateSuspended State = "suspended"
	StateFailing   State = "failing"
	StateBlocked   State = "blocked"
	StateNever     State = "never"
	StateLate      State = "late"
	StateDue       State = "due"
	StateFresh     State = "fresh"
)
