package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// absence is how long nobody may answer at the server. A fault that takes it away has a minute to bring it back (alone),
// and whoever waits for its turn after that finds it there.
const absence = 90 * time.Second

// watchSite ends the episode when the server, or the pooler before it, is gone for longer than faults explain: everybody
// else would wait for it in silence.
func (e *episode) watchSite(ctx context.Context, absence time.Duration) {
	tick := time.NewTicker(absence / 60)
	defer tick.Stop()
	for seen := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := e.answers(ctx)
		if err == nil {
			seen = time.Now()
		}
		if away := time.Since(seen); away > absence {
			e.lose(fmt.Errorf("nobody has answered at the server for %s, which no fault explains: %w%s%s",
				away.Round(time.Second), err, e.tellTrouble(), e.logTail()))
			return
		}
	}
}

// answers connects the way the workers do.
func (e *episode) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	dsn := e.server.DSN(e.database)
	if e.pooler != nil {
		dsn += " port=6432"
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// noteTrouble keeps the last error of a fault that took the server away: it may be why it has not come back.
func (e *episode) noteTrouble(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trouble = fmt.Sprintf("%s: %v", clockTime(e.now()), err)
}

func (e *episode) tellTrouble() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trouble == "" {
		return ""
	}
	return "\nthe last fault of the whole server that did not succeed, " + e.trouble
}

// logTail is the end of the server's log.
func (e *episode) logTail() string {
	const lines = 30
	text, err := os.ReadFile(e.server.LogFile())
	if err != nil {
		return fmt.Sprintf("\nits log: %v", err)
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "\nthe end of its log:\n  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
