package alert

import (
	"context"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// Post is for tests of one request.
func (h *Hook) Post(ctx context.Context, alert schedule.Alert) error { return h.post(ctx, alert) }

// SetTimeout is for a test that waits for it.
func (h *Hook) SetTimeout(d time.Duration) { h.client.Timeout = d }

// Backoff is how long the attempt after this one has to wait.
func Backoff(attempt int, failed error) time.Duration { return backoff(attempt, failed) }
