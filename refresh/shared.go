package refresh

import (
	"slices"
	"sync"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// sharePatience is how long a slot waits for somebody else's claim before it makes its own: a claim is a matter of a few
// milliseconds, and one that hangs, with its connection or with its server process, is to hold nobody else up. Sooner would do
// harm: what was claimed for a slot that has begun something else is left over, and is nobody's when its start grace is over. More in
// a test.
var sharePatience = time.Second

// gatherPatience is how long who claims waits for those slots that were opened together with its own, and are not there yet.
const gatherPatience = 3 * time.Millisecond

// sharedClaims makes one claim of those that several slots want at the same time: those of slots that were opened together,
// and of whoever comes while a claim is under way. So what becomes due together has begun after one claim, not after as
// many as there are slots, each of them beside the refreshes of those before it.
type sharedClaims struct {
	arrival chan struct{} // somebody has arrived

	mu      sync.Mutex
	coming  int              // slots that were opened, and have not arrived
	busy    bool             // somebody claims
	waiting []*claimant      // for their turn
	spare   []schedule.Claim // of those that have lost patience, for whoever comes next
}

// claimant is a slot that wants something to refresh.
type claimant struct {
	settled bool // see turn
	answer  chan share
	gone    bool // it has lost patience
}

// share is what a claimant gets: its own part of a claim, or the task to make the next one.
type share struct {
	claims []schedule.Claim
	leads  bool
}

// claimFor claims for so many slots.
type claimFor func(slots int, settled bool) ([]schedule.Claim, error)

func newSharedClaims() *sharedClaims { return &sharedClaims{arrival: make(chan struct{}, 1)} }

// expect is told that so many slots are being opened, each of which is going to arrive.
func (s *sharedClaims) expect(slots int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coming += slots
}

// stayAway is told that one of them is not going to be there.
func (s *sharedClaims) stayAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrive()
}

// arrive counts one of them as there. The lock is held.
func (s *sharedClaims) arrive() {
	s.coming = max(s.coming-1, 0)
	select {
	case s.arrival <- struct{}{}:
	default:
	}
}

// gather waits for those that are coming, but not for long.
func (s *sharedClaims) gather() {
	timer := time.NewTimer(gatherPatience)
	defer timer.Stop()
	for {
		s.mu.Lock()
		coming := s.coming
		s.mu.Unlock()
		if coming == 0 {
			return
		}
		select {
		case <-s.arrival:
		case <-timer.C:
			s.mu.Lock()
			s.coming = 0
			s.mu.Unlock()
			return
		}
	}
}

// leftOver takes what was claimed for somebody who has lost patience, nothing when there is nothing of that. A slot whose
// first turn it is arrives with it.
func (s *sharedClaims) leftOver(arrives bool) (claims []schedule.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	claims, s.spare = firstOf(s.spare)
	if arrives && len(claims) > 0 {
		s.arrive()
	}
	return claims
}

// hasLeftOver reports whether there is something of that.
func (s *sharedClaims) hasLeftOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.spare) > 0
}

// claim takes one view or one group for a slot, from a claim of its own or of somebody else's; nothing when there is none.
// A slot arrives with the first one.
func (s *sharedClaims) claim(settled, arrives bool, claim claimFor) (claims []schedule.Claim, err error) {
	own := &claimant{settled: settled, answer: make(chan share, 1)}
	s.mu.Lock()
	if arrives {
		s.arrive()
	}
	s.waiting = append(s.waiting, own)
	if !s.busy {
		s.handOn()
	}
	s.mu.Unlock()
	switch got, ok := s.await(own); {
	case !ok:
		return claim(1, settled)
	case !got.leads:
		return got.claims, nil
	}

	s.gather()
	s.mu.Lock()
	followers := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	defer func() { s.leave(followers) }() // who has no answer, because it went wrong or for a group, tries again
	for _, follower := range followers {
		settled = settled && follower.settled
	}
	slots := 1 + len(followers)
	if claims, err = claim(slots, settled); err != nil {
		return nil, err
	}
	more := len(claims) >= slots // there may be: a group counts for as many as it has
	mine, rest := firstOf(claims)
	followers = s.share(followers, rest, more)
	return mine, nil
}

// await waits for an answer, with patience.
func (s *sharedClaims) await(own *claimant) (got share, ok bool) {
	timer := time.NewTimer(sharePatience)
	defer timer.Stop()
	select {
	case got = <-own.answer:
		return got, true
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case got = <-own.answer:
		return got, true
	default:
	}
	own.gone = true
	s.waiting = slices.DeleteFunc(s.waiting, func(c *claimant) bool { return c == own })
	return share{}, false
}

// share gives each follower its part, and returns those that are to try again, because there may be more.
func (s *sharedClaims) share(followers []*claimant, claims []schedule.Claim, more bool) (again []*claimant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, follower := range followers {
		switch {
		case follower.gone:
		case len(claims) == 0 && more:
			again = append(again, follower)
		default:
			var got share
			got.claims, claims = firstOf(claims)
			follower.answer <- got
		}
	}
	s.spare = append(s.spare, claims...)
	return again
}

// leave ends the caller's turn.
func (s *sharedClaims) leave(unanswered []*claimant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unanswered = slices.DeleteFunc(unanswered, func(c *claimant) bool { return c.gone })
	s.waiting = append(unanswered, s.waiting...)
	s.handOn()
}

// handOn lets the first of those that wait make the next claim. The lock is held.
func (s *sharedClaims) handOn() {
	s.busy = len(s.waiting) > 0
	if s.busy {
		next := s.waiting[0]
		s.waiting = s.waiting[1:]
		next.answer <- share{leads: true}
	}
}

// firstOf splits off what is refreshed in one transaction: the first claim, with the others of its group.
func firstOf(claims []schedule.Claim) (first, rest []schedule.Claim) {
	n := min(1, len(claims))
	for n > 0 && n < len(claims) && claims[n].Group != "" && claims[n].Group == claims[0].Group {
		n++
	}
	return claims[:n], claims[n:]
}
