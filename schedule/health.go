package schedule

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Health is what a state means to whoever is on call.
type Health int

// The healths, each worse than the one before.
const (
	Healthy  Health = iota
	Warning         // somebody should look, by day
	Critical        // its data is not what readers were promised, and no worker will see to it by itself
)

// Judge returns the state that monitoring goes by, and what it means. Data that is too old counts whether or not the view
// is being refreshed or waits. The target is maxLag, when not nil, in place of the schedule's own; what is late by the
// schedule is then fresh enough. A failed run is less bad while the data is younger than the target. Where the target is
// one that cannot be kept, somebody should know before the data is too old. Views that a person has paused are healthy.
// A refresh under way hides nothing of that: a view that always fails would look well for most of the time.
func (s Standing) Judge(maxLag *time.Duration) (State, Health) {
	s.State = s.beneath()
	target := s.MaxLag
	if maxLag != nil {
		target = maxLag
	}
	known := target != nil && s.Age != nil
	tooOld := known && *s.Age > *target
	switch {
	case s.State == StatePaused:
		return s.State, Healthy
	case s.State == StateMissing, s.State == StateSuspended, s.State == StateFailing && (tooOld || !known):
		return s.State, Critical
	case s.State == StateFailing, s.State == StateNever:
		return s.State, Warning
	case tooOld:
		return StateLate, Critical
	case s.State == StateLate && maxLag != nil && known:
		return StateFresh, Healthy
	case s.State == StateLate:
		return s.State, Critical
	case s.State == StateBlocked && s.lockBusy():
		return s.State, Warning // whereas to wait for what it reads is the order of things
	case s.Unreachable() && (maxLag == nil || *s.ReachableLag > *maxLag):
		return StateUnreachable, Warning
	default:
		return s.State, Healthy
	}
}

// beneath is the state that a refresh under way hides. That the last run was given up before its end is what this one mends.
func (s Standing) beneath() State {
	switch {
	case s.State != StateRunning:
		return s.State
	case s.Held != "" && s.Held != StateLate:
		return s.Held
	case s.Last != nil && s.Last.Status.Bad() && (s.ConsecutiveFailures > 0 || !s.Last.gaveWay()) && !s.drains():
		return StateFailing
	case s.lockBusy():
		return StateBlocked
	case s.Held != "":
		return s.Held
	default:
		return s.State
	}
}

// drains reports whether the last run got on with a backlog, of which this one goes on with the rest.
func (s Standing) drains() bool {
	return s.Materialization == MaterializedColumns && s.Last.Status == TimedOut && s.Last.RowsInserted != nil && *s.Last.RowsInserted > 0
}

// StateUnreachable is the state that monitoring goes by of a view whose MaxLag cannot be kept, as far as history tells.
const StateUnreachable State = "unreachable"

// Summary is how all views stand together.
type Summary struct {
	Views  int                // those with a schedule
	Names  map[State][]string // the views by the state that monitoring goes by, in their order
	Health Health             // the worst
	Oldest *time.Duration     // the greatest age of data, leaving out paused views; nil: no age is known
	MaxLag *time.Duration     // the target for all views; nil: each has its own
}

// Summarize judges views; maxLag is as for Judge.
func Summarize(standings []Standing, maxLag *time.Duration) Summary {
	s := Summary{Names: map[State][]string{}, MaxLag: maxLag}
	for _, standing := range standings {
		state, health := standing.Judge(maxLag)
		s.Views++
		s.Names[state] = append(s.Names[state], standing.View)
		s.Health = max(s.Health, health)
		if age := standing.Age; age != nil && state != StatePaused && (s.Oldest == nil || *age > *s.Oldest) {
			s.Oldest = age
		}
	}
	return s
}

// AddUnscheduled adds views that nobody schedules; any is a warning. Names has the state then, if only of no view.
func (s *Summary) AddUnscheduled(views []string) {
	s.Names[StateUnscheduled] = views
	if len(views) > 0 {
		s.Health = max(s.Health, Warning)
	}
}

// Unscheduled returns the materialized views of the database that have no schedule, by name.
func (s *Store) Unscheduled(ctx context.Context) ([]string, error) {
	ctx, cancel := withDeadline(ctx, "reading the views without a schedule")
	defer cancel()
	return read(ctx, s, "reading the views without a schedule", pgx.RowTo[string], unscheduledSQL, nil)
}
