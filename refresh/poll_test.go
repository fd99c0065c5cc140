package refresh

import (
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// A server that cannot listen, such as behind a transaction pooler, asks instead; one that can sleeps.
func TestServeThatDoesNotHearLooks(t *testing.T) { // L1
	views := &servedViews{worker: &Worker{}, ear: &listener{}, database: &database{}}
	calm := schedule.Outlook{Now: time.Now()}
	if next := views.ready(calm); next.look <= 0 || next.look > pollInterval {
		t.Errorf("it cannot listen, and looks in %s", next.look)
	}
	views.ear.hears.Store(true)
	if next := views.ready(calm); next.look != idleInterval {
		t.Errorf("it listens, and looks in %s", next.look)
	}
}

// What becomes due after a calm begins at once, however often nobody could claim anything before it.
func TestACalmIsNoSignOfOthers(t *testing.T) {
	views := &servedViews{worker: &Worker{}, ear: &listener{}, database: &database{}}
	views.vain.looks = vainLooks
	now := time.Now()
	if next := views.ready(schedule.Outlook{Now: now, Due: 3}); next.claims != 0 {
		t.Errorf("claims %d of what others hold", next.claims)
	}
	views.vain.looks = vainLooks
	views.ready(schedule.Outlook{Now: now})
	if next := views.ready(schedule.Outlook{Now: now, Due: 3}); next.claims != 3 {
		t.Errorf("claims %d, want 3", next.claims)
	}
}

// Several slots whose claim comes back empty are one sign that what is due is in other hands, as a single one is.
func TestSlotsComeBackEmptyTogether(t *testing.T) {
	var views vain
	due := schedule.Outlook{Due: 4}
	for look := range vainLooks {
		if !views.looked(due) {
			t.Fatalf("gives up after %d empty claims", look)
		}
		for range 4 {
			views.claimed(0)
		}
	}
	if views.looked(due) {
		t.Errorf("goes on after %d", vainLooks)
	}
	views.claimed(1)
	if !views.looked(due) {
		t.Error("gives up although one was claimed")
	}
}

// How long nothing could be done but wait is counted from the end of what could.
func TestOwnWorkIsNoWaiting(t *testing.T) {
	views := &dueViews{worker: &Worker{}}
	waits := schedule.Outlook{Now: time.Now(), Waiting: true}
	views.waiting = time.Now().Add(-2 * waitForOthers)
	if next := views.ready(waits); next.look != 0 {
		t.Errorf("looks again in %v", next.look)
	}
	views.over(1, nil)
	if next := views.ready(waits); next.look == 0 {
		t.Error("does not look again")
	}
}

// Somebody who sets the machine's clock does not change how far away it is.
func TestAMomentIsByAClockThatNobodySets(t *testing.T) {
	var r run
	r.looked.store(time.Now())
	if at := r.paced(); !strings.Contains(at.String(), " m=") {
		t.Errorf("by the clock on the wall: %s", at)
	}
}
