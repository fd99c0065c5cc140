package report_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// aDay is a database of so many views in layers, each refreshed all day long; some fail, some are skipped, one runs.
func aDay(views int, every time.Duration) schedule.Snapshot {
	snap := schedule.Snapshot{At: at}
	id := int64(0)
	for i := range views {
		view := fmt.Sprintf("cinema.sales_%04d_by_country_view", i)
		snap.Graph.Views = append(snap.Graph.Views, view)
		if i > 0 && i%5 != 0 {
			snap.Graph.Edges = append(snap.Graph.Edges, schedule.Edge{Parent: snap.Graph.Views[(i-1)/2], Child: view})
		}
		st := standing(view)
		if i%2 == 0 {
			st.MaxLag = ptr(time.Duration(i+5) * 2 * time.Minute)
		}
		for start := at.Add(-24*time.Hour + time.Duration(i)*time.Second); start.Before(at); start = start.Add(every) {
			id++
			e := succeeded(view)
			e.ID, e.StartedAt, e.EndedAt = id, start, ptr(start.Add(time.Duration(i%17+1)*7*time.Second))
			switch {
			case i%7 == 3 && id%5 < 2:
				e.RowsInserted, e.RowsDeleted = ptr(int64(0)), ptr(int64(0))
			case i%9 == 4 && id%3 == 0:
				e.Status, e.Reason = schedule.Skipped, ptr(schedule.ReasonUnchanged)
				e.EndedAt, e.Method, e.RowsInserted, e.RowsDeleted = ptr(start), nil, nil, nil
			case i%11 == 5 && start.After(at.Add(-3*time.Hour)):
				e.Status, e.Method, e.RowsInserted, e.RowsDeleted = schedule.Failed, nil, nil, nil
				e.ErrorName, e.ErrorMessage = ptr("division_by_zero"), ptr("division by zero\nCONTEXT: SQL function \"share\" statement 1")
				st.State, st.ConsecutiveFailures = schedule.StateFailing, st.ConsecutiveFailures+1
			}
			if e.EndedAt.After(at) {
				e.Status, e.EndedAt, e.Method, e.RowsInserted, e.RowsDeleted = schedule.Running, nil, nil, nil, nil
				st.State, st.RunningFor = schedule.StateRunning, ptr(at.Sub(start))
			} else {
				last := e
				st.Last = &last
				st.Age = ptr(at.Sub(start))
			}
			snap.Runs = append(snap.Runs, e)
		}
		switch {
		case st.State != schedule.StateFresh:
		case i%13 == 6:
			st.State = schedule.StatePaused
		case i%13 == 8:
			st.State, st.Age = schedule.StateLate, ptr(7*every)
		case i%13 == 10:
			st.State, st.NextRunIn = schedule.StateDue, ptr(-time.Second)
		}
		snap.Standings = append(snap.Standings, st)
	}
	return snap
}

func pageOf(t *testing.T, snap schedule.Snapshot, opts report.PageOptions) string {
	t.Helper()
	var buf bytes.Buffer
	if err := report.WritePage(&buf, snap, opts); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}
