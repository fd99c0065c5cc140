package refresh

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/mvsched/mvsched/schedule"
)

// The channels that are worth waking up for.
const (
	channelSchedules  = "mvsched_schedule" // a schedule was written, or a refresh asked for
	channelExecutions = "mvsched"          // an execution has ended
	channelCancel     = "mvsched_cancel"   // somebody wants one ended
)

// listener wakes control loops when the database tells of something, on a connection of its own. Behind a transaction
// pooler it cannot hear: LISTEN stays with the server connection, which is another client's a moment later.
type listener struct {
	config *pgx.ConnConfig
	log    *slog.Logger
	tell   []*run
	told   func(hears bool, ended *schedule.End) // may be nil
	hears  atomic.Bool
}

var errPooled = errors.New("a pooler is in between")

func (l *listener) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.hear(ctx)
		if l.hears.Swap(false) {
			l.wakeAll() // who sleeps until it is told has to ask from now on
		}
		l.tellOthers(false, nil)
		if errors.Is(err, errPooled) {
			l.log.Debug("cannot listen behind a pooler, and asks instead")
			return
		}
		if ctx.Err() == nil {
			l.log.Debug("does not hear the database", "error", err)
		}
		pause(ctx, reconnectMaxPause)
	}
}

// Listen calls heard, from one goroutine, when it begins to listen and whenever the database tells that a refresh has ended
// or that schedules have changed, until ctx ends. Where it cannot listen, as behind a transaction pooler, it calls nothing: who has to know asks
// from time to time anyway.
func Listen(ctx context.Context, config *pgx.ConnConfig, heard func()) {
	ear := &listener{config: config, log: slog.New(slog.DiscardHandler), told: func(hears bool, _ *schedule.End) {
		if hears {
			heard()
		}
	}}
	ear.listen(ctx)
}

// hear listens until the connection is lost.
func (l *listener) hear(ctx context.Context) (err error) {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, conn.Close(closing))
	}()
	l.hears.Store(true)
	l.wakeAll() // for what was missed
	l.tellOthers(true, nil)
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if notification.Channel != channelCancel {
			l.tellOthers(true, endingOf(notification))
		}
		for _, r := range l.tell {
			switch notification.Channel {
			case channelSchedules:
				r.wake()
			case channelExecutions:
				r.wakeForHeld()
			case channelCancel:
				select {
				case r.requests <- struct{}{}:
				default:
				}
			}
		}
	}
}

func (l *listener) wakeAll() {
	for _, r := range l.tell {
		r.wake()
	}
}

// endingOf is what a notification says of an execution that has ended; nil: it is about something else, or makes no sense.
func endingOf(notification *pgconn.Notification) *schedule.End {
	var ended schedule.End
	if notification.Channel != channelExecutions || json.Unmarshal([]byte(notification.Payload), &ended) != nil {
		return nil
	}
	return &ended
}

func (l *listener) tellOthers(hears bool, ended *schedule.End) {
	if l.told != nil {
		l.told(hears, ended)
	}
}

func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	config := l.config.Copy()
	config.OnNotification = nil // so that pgx keeps them for WaitForNotification
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()} // there is nothing to cancel: the wait just ends
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	var pid uint32
	err = conn.QueryRow(ctx, `select pg_catalog.pg_backend_pid()`).Scan(&pid)
	if err == nil && pid != conn.PgConn().PID() {
		err = errPooled
	}
	for _, channel := range []string{channelSchedules, channelExecutions, channelCancel} {
		if err == nil {
			_, err = conn.Exec(ctx, `listen `+pgx.Identifier{channel}.Sanitize())
		}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}
