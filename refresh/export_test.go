package refresh

import "time"

// SetLookMayPass sets how many entries a look may pass that lead nowhere, until it is taken back.
func SetLookMayPass(entries int64) (back func()) {
	was := lookMayPass
	lookMayPass = entries
	return func() { lookMayPass = was }
}

// SetLendPatience sets how long a control loop waits for a claim over its connection, until it is taken back.
func SetLendPatience(patience time.Duration) (back func()) {
	was := lendPatience
	lendPatience = patience
	return func() { lendPatience = was }
}
