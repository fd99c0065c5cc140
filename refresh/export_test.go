package refresh

// SetLookMayPass sets how many entries a look may pass that lead nowhere, until it is taken back.
func SetLookMayPass(entries int64) (back func()) {
	was := lookMayPass
	lookMayPass = entries
	return func() { lookMayPass = was }
}
