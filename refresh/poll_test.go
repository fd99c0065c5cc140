package refresh

import (
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

// What becomes due after a calm begins at once, however many slots have found nothing more to claim before it.
func TestACalmIsNoSignOfOthers(t *testing.T) {
	views := &servedViews{worker: &Worker{}, ear: &listener{}, database: &database{}}
	views.empty = 2 * emptyClaims
	now := time.Now()
	if next := views.ready(schedule.Outlook{Now: now, Due: 3}); next.claims != 0 {
		t.Errorf("claims %d of what others hold", next.claims)
	}
	views.empty = 2 * emptyClaims
	views.ready(schedule.Outlook{Now: now})
	if next := views.ready(schedule.Outlook{Now: now, Due: 3}); next.claims != 3 {
		t.Errorf("claims %d, want 3", next.claims)
	}
}
