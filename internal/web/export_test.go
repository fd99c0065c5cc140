package web

import "time"

// Watchers is how many follow the page.
func (s *Server) Watchers() int {
	s.feeder.mu.Lock()
	defer s.feeder.mu.Unlock()
	return s.feeder.watchers
}

// Hears reports whether the feeder is told of changes.
func (s *Server) Hears() bool {
	s.feeder.mu.Lock()
	defer s.feeder.mu.Unlock()
	return s.feeder.hears
}

// MakeNarrow leaves places for so many connections.
func (s *Server) MakeNarrow(most int) { s.maxConns = most }

// MakeSmall leaves a reader little time, and little room between it and the server.
func (s *Server) MakeSmall(timeout time.Duration, buffer int) {
	s.eventTimeout, s.sendBuffer = timeout, buffer
}

// Age makes the edition that there is so much older.
func (s *Server) Age(by time.Duration) {
	s.feeder.mu.Lock()
	defer s.feeder.mu.Unlock()
	older := *s.feeder.current
	older.taken = older.taken.Add(-by)
	s.feeder.current = &older
}
