package schedule

import "time"

// ClaimSQL is for the test of what it reads.
const ClaimSQL = claimSQL

// WeightsSQL and EdgesSettings are for the test of its plan.
const WeightsSQL = weightsSQL

var EdgesSettings = edgesSettings

// ErrSlow is for the test of what a call says that its deadline has ended, without the wait.
var ErrSlow = errSlow

// IsAboutBrackets is for the test of messages that no test server has, in other languages.
func IsAboutBrackets(condition, said string) bool { return isAboutBrackets(condition, said) }

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

// LagView is what PlanLag has to know of a view. Usual 0: it has never been refreshed.
type LagView struct {
	OID                int64
	Parents            []int64
	MaxLag, Usual      time.Duration // 0: none
	Follows, Scheduled bool
	Runs               int
}

// LagData is how a view's data stands when it is planned.
type LagData struct {
	Since                                time.Time
	DataAsOf, Refreshed, Ended, FailedAt *time.Time
}

// PlanLag plans one of the views: its slot, how long it is assumed to take, and the shortest lag that could be kept.
func PlanLag(views []LagView, oid int64, data LagData) (slot time.Time, predicted, reachable *time.Duration) {
	known := func(d time.Duration) *time.Duration {
		if d == 0 {
			return nil
		}
		return &d
	}
	var inner []lagView
	for _, v := range views {
		inner = append(inner, lagView{
			oid: v.OID, parents: v.Parents, maxLag: known(v.MaxLag), follows: v.Follows, scheduled: v.Scheduled,
			usual: known(v.Usual), runs: v.Runs,
		})
	}
	slot, p := newLags(inner).plan(unplanned{
		OID: oid, Now: data.Since, Since: data.Since, DataAsOf: data.DataAsOf, Refreshed: data.Refreshed, Ended: data.Ended, FailedAt: data.FailedAt,
	})
	return slot, p.duration, p.lag
}

// TellsTheTime reports whether the store's statements get an instant from this side.
func (s *Store) TellsTheTime() bool { return s.now() != nil }

// ChecksSQL is for the test of its plan.
var ChecksSQL = checksSQL
