package schedule

import "time"

// Snapshot is what a page about a database shows, as of one instant.
type Snapshot struct {
	At        time.Time // by the database's clock
	Standings []Standing
	Runs      []Execution // that ended within the last day, and those that are open; oldest first
	Graph     Graph
}
