package refresh

import (
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// How long a refresh waits for its lock by default. All but plain blocks no reader even while it waits. A plain refresh
// that waits behind one reader makes every new reader wait behind it, so it gives up sooner, though not before
// autovacuum would have given way (deadlock_timeout, 1 s).
const (
	defaultLockTimeoutConcurrently = 5 * time.Second
	defaultLockTimeoutPlain        = 1500 * time.Millisecond
)

func lockTimeout(claim schedule.Claim, method schedule.Method) time.Duration {
	switch {
	case claim.LockTimeout != nil:
		return *claim.LockTimeout
	case method == schedule.MethodPlain:
		return defaultLockTimeoutPlain
	default:
		return defaultLockTimeoutConcurrently
	}
}
