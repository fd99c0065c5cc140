package refresh

import (
	"sync"

	"github.com/mvsched/mvsched/schedule"
)

// sharedClaims makes one claim of those that several slots want at the same time. Whoever comes while one is under way
// waits; the first of those then claims for all of them. So what becomes due together has begun after two claims, not after
// as many as there are slots, each of them beside the refreshes of those before it.
type sharedClaims struct {
	mu      sync.Mutex
	claims  bool        // somebody does
	waiting []*claimant // for their turn, or for what somebody claims for them
}

// claimant is a slot that wants something to refresh.
type claimant struct {
	settled bool // see turn
	answer  chan share
}

// share is what a claimant gets: its own part of a claim, or the task to make the next one.
type share struct {
	claims []schedule.Claim
	leads  bool
}

// claimFor claims for so many slots.
type claimFor func(slots int, settled bool) ([]schedule.Claim, error)

// claim takes one view or one group for a slot, from a claim of its own or of somebody else's; nothing when there is none.
func (s *sharedClaims) claim(settled bool, claim claimFor) ([]schedule.Claim, error) {
	own := &claimant{settled: settled, answer: make(chan share, 1)}
	s.mu.Lock()
	s.waiting = append(s.waiting, own)
	if !s.claims {
		s.handOn()
	}
	s.mu.Unlock()
	if got := <-own.answer; !got.leads {
		return got.claims, nil
	}

	followers := s.followers()
	defer func() { s.leave(followers) }() // who has no answer, because it went wrong or for a group, tries again
	for _, follower := range followers {
		settled = settled && follower.settled
	}
	slots := 1 + len(followers)
	claims, err := claim(slots, settled)
	if err != nil {
		return nil, err
	}
	more := len(claims) >= slots // there may be: a group counts for as many as it has
	mine, rest := firstOf(claims)
	for len(followers) > 0 && (len(rest) > 0 || !more) {
		var got share
		got.claims, rest = firstOf(rest)
		followers[0].answer <- got
		followers = followers[1:]
	}
	return mine, nil
}

// followers are those that wait for what the caller is about to claim.
func (s *sharedClaims) followers() []*claimant {
	s.mu.Lock()
	defer s.mu.Unlock()
	followers := s.waiting
	s.waiting = nil
	return followers
}

// leave ends the caller's turn.
func (s *sharedClaims) leave(unanswered []*claimant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(unanswered, s.waiting...)
	s.handOn()
}

// handOn lets the first of those that wait make the next claim. The lock is held.
func (s *sharedClaims) handOn() {
	s.claims = len(s.waiting) > 0
	if s.claims {
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
