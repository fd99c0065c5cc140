package refresh

import (
	"strings"
	"testing"
	"testing/synctest"
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

// A run waits for what is about to be over, each time that there is such a thing, and not behind what goes on and on.
func TestRunIsPatientForAWhile(t *testing.T) {
	views := &dueViews{worker: &Worker{}}
	look := func(outlook schedule.Outlook) time.Duration {
		outlook.Now = time.Now()
		return views.ready(outlook).look
	}
	dying := time.Second
	synctest.Test(t, func(*testing.T) {
		for range 2 {
			if look(schedule.Outlook{Unplanned: true}) == 0 {
				t.Error("does not wait for who plans")
			}
			<-time.After(2 * time.Second)
			if look(schedule.Outlook{Unplanned: true}) != 0 {
				t.Error("waits on and on for who plans")
			}
			if look(schedule.Outlook{Unplanned: true, Unbegun: &dying}) == 0 {
				t.Error("does not wait for the end of a claim")
			}
			<-time.After(3 * time.Second)
			if look(schedule.Outlook{Unplanned: true, Unbegun: &dying}) != 0 {
				t.Error("waits on and on for the end of a claim")
			}
			look(schedule.Outlook{})
		}
	})
}

// What is due and held does not make the time longer that a run waits for what others refresh.
func TestRunDoesNotWaitLongerForWhatIsHeld(t *testing.T) {
	views := &dueViews{worker: &Worker{}}
	held := schedule.Outlook{Now: time.Now(), Due: 1, Waiting: true}
	synctest.Test(t, func(*testing.T) {
		for began := time.Now(); ; <-time.After(time.Second) {
			next := views.ready(held)
			if next.claims == 0 && next.look == 0 {
				break
			}
			if time.Since(began) > 2*waitForOthers {
				t.Error("it goes on and on")
				break
			}
			views.vain.claimed(0)
		}
	})
}
