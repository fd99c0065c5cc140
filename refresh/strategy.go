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

// chooseMethod says how the claimed view is to be refreshed. A view that was never filled can only be refreshed plain,
// whatever the schedule asks for. Auto refreshes concurrently where PostgreSQL can: with a usable unique index, and an
// owner who may create the temporary table that CONCURRENTLY works with.
func chooseMethod(claim schedule.Claim) schedule.Method {
	switch {
	case !claim.Populated, claim.Strategy == schedule.Plain:
		return schedule.MethodPlain
	case claim.Strategy == schedule.Concurrently:
		return schedule.MethodConcurrently
	case claim.UniqueIndex && claim.OwnerTemp:
		return schedule.MethodConcurrently
	default:
		return schedule.MethodPlain
	}
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
