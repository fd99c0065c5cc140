package alert

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// PingInterval is how often a pinger pings.
const PingInterval = time.Minute

// Pinger tells a service that waits for it (healthchecks.io and the like) that all is well: nothing is critical. When
// something is, it says so at URL/fail. When it cannot tell, it is silent, and that is what such a service listens for.
type Pinger struct {
	Store *schedule.Store
	Log   *slog.Logger

	url    *url.URL
	client *http.Client
}

// NewPinger returns a pinger. The error is ErrURL.
func NewPinger(address string, store *schedule.Store, log *slog.Logger) (*Pinger, error) {
	u, err := parseURL(address)
	if err != nil {
		return nil, err
	}
	return &Pinger{Store: store, Log: log, url: u, client: newClient()}, nil
}

// Run pings every interval until ctx ends.
func (p *Pinger) Run(ctx context.Context, interval time.Duration) {
	log := p.Log.With("host", p.url.Host)
	failing := false
	for ctx.Err() == nil {
		err := p.ping(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			log.Warn("a ping did not get through", "because", err)
		case err != nil:
			log.Debug("a ping did not get through", "because", err)
		}
		failing = err != nil
		pause(ctx, interval)
	}
}

func (p *Pinger) ping(ctx context.Context) error {
	standings, err := p.Store.Status(ctx, nil)
	if err != nil {
		return err
	}
	u := p.url
	if schedule.Summarize(standings, nil).Health == schedule.Critical {
		u = u.JoinPath("fail")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return ErrURL
	}
	request.Header.Set("User-Agent", userAgent)
	return send(p.client, request)
}
