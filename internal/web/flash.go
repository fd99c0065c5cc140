package web

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// A flash tells of executions that have ended since the edition that a reader has, by what the notifications themselves say:
// that costs the database nothing, and so it need not wait for the next look, which brings the rest.
//
// Any role may send such a notification. So one counts only for a view that the page shows, and until the next look.

// flashInterval is how often readers get one at the most.
const flashInterval = 100 * time.Millisecond

// flashes sends them until ctx ends. It does not wait for a look that is under way.
func (f *feeder) flashes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.flashy:
		}
		f.mu.Lock()
		if f.makeFlash(); f.flash != nil {
			f.turnOver()
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(flashInterval):
		}
	}
}

// note remembers an ending that the current edition does not show.
func (f *feeder) note(ended schedule.End) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers == 0 || f.current == nil || f.current.snap == nil || !isNews(f.current.snap.Standings, ended) {
		return
	}
	f.endings[ended.View] = ended
	select {
	case f.flashy <- struct{}{}:
	default: // the next one tells of this too
	}
}

// isNews reports whether an execution has ended that the standing of its view does not know.
func isNews(standings []schedule.Standing, ended schedule.End) bool {
	return ended.Status.Ended() && slices.ContainsFunc(standings, func(s schedule.Standing) bool {
		return s.View == ended.View && (s.Last == nil || s.Last.ID < ended.Execution)
	})
}

// forgetSeen leaves what has ended since the look of the current edition.
func (f *feeder) forgetSeen() {
	for view, ended := range f.endings {
		if f.current.snap == nil || !isNews(f.current.snap.Standings, ended) {
			delete(f.endings, view)
		}
	}
	f.makeFlash()
}

func (f *feeder) makeFlash() {
	f.flash = nil
	if len(f.endings) == 0 {
		return
	}
	type line struct {
		View   string          `json:"view"`
		Status schedule.Status `json:"status"`
	}
	lines := make([]line, 0, len(f.endings))
	for _, ended := range f.endings {
		lines = append(lines, line{report.Exact(ended.View), ended.Status})
	}
	text, err := json.Marshal(lines)
	var buf bytes.Buffer
	writeEvent(&buf, "ended", string(text))
	var flash frame
	if err == nil {
		flash, err = newFrame(buf.Bytes())
	}
	if err != nil {
		f.log.Error("cannot tell what has ended", "because", err)
		return
	}
	f.flash = &flash
}
