package report

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// liveInterval is how often the lines of running views are drawn anew.
const liveInterval = 200 * time.Millisecond

// liveCells is how long the bar of a drain is.
const liveCells = 20

// Live shows on a terminal one line for every view that is being refreshed, as many as there is room for, and takes the
// lines away when they are done. It writes escape sequences: its writer is the terminal itself, and only names, cleaned,
// come from elsewhere. What else is for the terminal, cleaned too, is written through it: it comes above the lines.
type Live struct {
	w    io.Writer
	size func() (columns, lines int)

	mu      sync.Mutex
	running []liveLine
	drawn   int // lines on the screen
	stop    chan struct{}
	done    chan struct{}
}

type liveLine struct {
	execution int64
	view      string
	since     time.Time
	usual     *time.Duration
	progress  *schedule.Progress // of a drain, after its first batch
}

// NewLive returns a display on a terminal of that size, where 0 is not known; it draws until Stop, and passes on what is
// written through it for ever.
func NewLive(w io.Writer, size func() (columns, lines int)) *Live {
	l := &Live{w: w, size: size, stop: make(chan struct{}), done: make(chan struct{})}
	go l.loop()
	return l
}

func (l *Live) loop() {
	defer close(l.done)
	ticker := time.NewTicker(liveInterval)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
			_, _ = l.Write(nil) // a terminal that cannot be written to is no reason to fail a refresh
		}
	}
}

// Started adds a line.
func (l *Live) Started(claim schedule.Claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = append(l.running, liveLine{claim.ExecutionID, OneLine(clean(claim.View)), time.Now(), claim.Usual, nil})
}

// Progressed tells how far the drain of a line has come.
func (l *Live) Progressed(progress schedule.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, line := range l.running {
		if line.execution == progress.ExecutionID {
			l.running[i].progress = &progress
		}
	}
}

// Ended takes the line away.
func (l *Live) Ended(execution schedule.Execution) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, line := range l.running {
		if line.execution == execution.ID {
			l.running = append(l.running[:i], l.running[i+1:]...)
			return
		}
	}
}

// Stop clears the lines and ends the display.
func (l *Live) Stop() {
	close(l.stop)
	<-l.done
	l.mu.Lock()
	l.running = nil
	l.mu.Unlock()
	_, _ = l.Write(nil)
}

// Write puts whole lines above those of the views, which are drawn anew.
func (l *Live) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", l.drawn)
	}
	b.Write(p)
	lines := l.lines()
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	l.drawn = len(lines)
	if b.Len() > 0 {
		if _, err := io.WriteString(l.w, b.String()); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// lines are those of the views. The cursor stands on a line of its own below them, and cannot go up beyond the screen.
func (l *Live) lines() (lines []string) {
	columns, height := l.size()
	shown := l.running
	if room := max(height-1, 1); height > 0 && len(shown) > room {
		shown = shown[:room-1]
	}
	for _, line := range shown {
		lines = append(lines, line.text(time.Now()))
	}
	if more := len(l.running) - len(shown); more > 0 {
		lines = append(lines, fmt.Sprintf("… %d more", more))
	}
	for i, line := range lines {
		lines[i] = Printer{}.fit(line, max(columns-1, minShortened))
	}
	return lines
}

func (line liveLine) text(now time.Time) string {
	elapsed := now.Sub(line.since)
	if line.progress != nil {
		return line.view + "  " + Printer{}.drained(*line.progress, elapsed, liveCells)
	}
	text := fmt.Sprintf("%s  refreshing for %s", line.view, age(&elapsed))
	if line.usual != nil {
		text += ", usually " + schedule.FormatSpan(*line.usual)
	}
	return text
}
