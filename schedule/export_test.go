package schedule

import "time"

// ClaimSQL is for the test of what it reads.
const ClaimSQL = claimSQL

// CheckNames are the checks of views that doctor makes.
func CheckNames() (names []string) {
	for _, c := range checks {
		names = append(names, c.name)
	}
	return names
}

// ServerFacts are for the test of what no test server is, such as old.
type ServerFacts struct {
	Version, PID, ConnectedTo  int
	InRecovery                 bool
	Clock, AskedAt, AnsweredAt time.Time
}

// ServerFindings is what doctor says of them.
func ServerFindings(f ServerFacts) []Finding {
	return serverFacts{
		version: f.Version, pid: uint32(f.PID), connectedTo: uint32(f.ConnectedTo), inRecovery: f.InRecovery,
		clock: f.Clock, askedAt: f.AskedAt, answeredAt: f.AnsweredAt,
	}.findings()
}
