package main

import (
	"fmt"
	"io"
	"sync"
)

// What a terminal is told: a screen of its own without a cursor, and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// screen is the terminal's other screen. Whoever ends the program, or stops it for a while, leaves it first; what is drawn
// after that is lost.
type screen struct {
	terminal io.Writer

	mu      sync.Mutex
	entered bool
}

func (s *screen) enter() error {
	s.mu.Lock()
	s.entered = true
	s.mu.Unlock()
	return s.send(enterScreen)
}

func (s *screen) leave() {
	_ = s.send(leaveScreen) // where the terminal is gone, there is nothing to be left
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entered = false
}

// send writes to the terminal past what takes commands out: these are ours.
func (s *screen) send(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.entered {
		return nil
	}
	if _, err := io.WriteString(s.terminal, text); err != nil {
		return &outputError{fmt.Errorf("drawing the screen: %w", err)}
	}
	return nil
}
