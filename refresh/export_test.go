package refresh

import "time"

// SetLookMayPass sets how many entries a look may pass that lead nowhere, until it is taken back.
func SetLookMayPass(entries int64) (back func()) {
	was := lookMayPass
	lookMayPass = entries
	return func() { lookMayPass = was }
}

// SetPatience sets how long slots and control loops wait for a claim, until it is taken back.
func SetPatience(patience time.Duration) (back func()) {
	shared, lent := sharePatience, lendPatience
	sharePatience, lendPatience = patience, patience
	return func() { sharePatience, lendPatience = shared, lent }
}

// SetStuckAfter sets how long a control loop may be late, until it is taken back.
func SetStuckAfter(late time.Duration) (back func()) {
	was := stuckAfter
	stuckAfter = late
	return func() { stuckAfter = was }
}
