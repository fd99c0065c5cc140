package refresh

import (
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// How long a refresh waits for its lock by default. Concurrently blocks no reader even while it waits. A plain refresh
// that waits behind one reader makes every new reader wait behind it, so it gives up sooner, though not before
// autovacuum would have given way (deadlock_timeout, 1 s).
const (
	defaultLockTimeoutConcurrently = 5 * time.Second
	defaultLockTimeoutPlain        = 1500 * time.Millisecond
)

// Why a method was taken; recorded with the refresh.
const (
	becauseUniqueIndex   = "unique_index"      // concurrently: there is an index for it
	becauseNoUniqueIndex = "no_unique_index"   // plain: there is none
	becauseNoTemp        = "no_temp_privilege" // plain: the owner may not create the temporary table that CONCURRENTLY needs
	becauseFirstFill     = "first_fill"        // plain: CONCURRENTLY compares with contents, and there are none
	becauseRequested     = "requested"         // the schedule, or the person, asks for it
)

// choice is how a claimed view is to be refreshed, and why.
type choice struct {
	method  schedule.Method
	because string

	// impossible is, when not nil, how this ends without being tried.
	impossible *schedule.Ending
}

// choose says how the claimed view is to be refreshed. A view that was never filled can only be refreshed plain,
// whatever the schedule asks for. Auto refreshes concurrently where PostgreSQL can: with a usable unique index, and an
// owner who may create the temporary table that CONCURRENTLY works with. Where concurrently is asked for and cannot be,
// that is known before anything is locked.
func choose(claim schedule.Claim) choice {
	switch {
	case !claim.Populated:
		return choice{method: schedule.MethodPlain, because: becauseFirstFill}
	case claim.Strategy == schedule.Plain:
		return choice{method: schedule.MethodPlain, because: becauseRequested}
	case claim.UniqueIndex && claim.OwnerTemp:
		because := becauseUniqueIndex
		if claim.Strategy == schedule.Concurrently {
			because = becauseRequested
		}
		return choice{method: schedule.MethodConcurrently, because: because}
	case claim.Strategy == schedule.Concurrently && !claim.UniqueIndex:
		return impossible("object_not_in_prerequisite_state", "the view has no unique index that CONCURRENTLY can use", "")
	case claim.Strategy == schedule.Concurrently:
		return impossible("insufficient_privilege",
			"the view's owner may not create temporary tables in this database, and CONCURRENTLY needs one", schedule.ReasonNoTemp)
	case !claim.UniqueIndex:
		return choice{method: schedule.MethodPlain, because: becauseNoUniqueIndex}
	default:
		return choice{method: schedule.MethodPlain, because: becauseNoTemp}
	}
}

func impossible(name, message, reason string) choice {
	return choice{method: schedule.MethodConcurrently, because: becauseRequested, impossible: &schedule.Ending{
		Status: schedule.Failed, Reason: reason, Method: schedule.MethodConcurrently, MethodReason: becauseRequested,
		ErrorName: name, ErrorMessage: message,
	}}
}

func lockTimeout(claim schedule.Claim, method schedule.Method) time.Duration {
	switch {
	case claim.LockTimeout != nil:
		return *claim.LockTimeout
	case method == schedule.MethodConcurrently:
		return defaultLockTimeoutConcurrently
	default:
		return defaultLockTimeoutPlain
	}
}
