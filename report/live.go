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

// Live shows on a terminal one line for every view that is being refreshed, and takes the lines away when they are done.
// It writes escape sequences: its writer is the terminal itself, and only names, cleaned, come from elsewhere.
type Live struct {
	w     io.Writer
	width int

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

// NewLive returns a display of the given width on a terminal; it draws until Stop.
func NewLive(w io.Writer, width int) *Live {
	l := &Live{w: w, width: width, stop: make(chan struct{}), done: make(chan struct{})}
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
			l.mu.Lock()
			l.draw()
			l.mu.Unlock()
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
	defer l.mu.Unlock()
	l.running = nil
	l.draw()
}

// draw replaces the lines on the screen. A terminal that cannot be written to is no reason to fail a refresh.
func (l *Live) draw() {
	var b strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", l.drawn)
	}
	for _, line := range l.running {
		b.WriteString(Printer{}.fit(line.text(time.Now()), max(l.width-1, minShortened)))
		b.WriteByte('\n')
	}
	l.drawn = len(l.running)
	if b.Len() > 0 {
		_, _ = io.WriteString(l.w, b.String())
	}
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
