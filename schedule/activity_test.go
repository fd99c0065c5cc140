package schedule_test

import (
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

func TestActivity(t *testing.T) {
	b := setup(t)
	activity := func() schedule.Activity {
		t.Helper()
		a, err := b.store.Activity(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := activity()
	if a.Running != 0 || a.Workers != 0 || a.OldestRunning != nil || len(a.LastHour) != 6 || a.LastHour[0] != (schedule.Ended{Status: schedule.Succeeded}) {
		t.Errorf("of nothing: %+v", a)
	}

	for _, name := range []string{"a", "b", "c"} {
		b.view(name, "1 hour")
	}
	b.tend()
	claims := b.claim(3)
	if a = activity(); a.Running != 3 || a.Workers != 1 || a.OldestRunning == nil || *a.OldestRunning <= 0 || *a.OldestRunning > time.Hour {
		t.Errorf("while three run: %+v", a)
	}
	b.succeed(claims[0])
	b.succeed(claims[1])
	b.end(claims[2], schedule.Ending{Status: schedule.Failed, ErrorName: "x", ErrorMessage: "x"})
	a = activity()
	if a.Running != 0 || a.LastHour[0].Count != 2 || a.LastHour[0].Took <= 0 || a.LastHour[2].Status != schedule.Failed || a.LastHour[2].Count != 1 {
		t.Errorf("after they have ended: %+v", a)
	}
	later := clock{time.Now().Add(2 * time.Hour)}
	b.store.Now = later.Now
	for _, ended := range activity().LastHour {
		if ended.Count != 0 {
			t.Errorf("two hours later: %+v", ended)
		}
	}
}
