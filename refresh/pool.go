package refresh

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

// cancelPatience is how long a connection waits for the server's answer to a cancel before it is given up.
const cancelPatience = 2 * time.Second

// ConfigurePool prepares a pool for a Worker with so many jobs: one connection for each refresh and one to look after the
// schedules, opened when there is work for them. A slot whose connection was lost asks for the outcome over another one,
// while the dead one still has its place: so there are places for twice the jobs. One more is for what is vacuumed behind
// the refreshes.
//
// It makes cancelling reliable: by default pgx sends the cancel request in the background while the connection is
// closed, and a process that exits then leaves its refresh running. And it keeps to what works behind a transaction
// pooler: no prepared statements that another client could meet. Text goes and comes as UTF-8 whatever the database's
// encoding, or a name would mean another view; times come as ISO dates, the only ones that pgx reads; and a backslash in a
// string of SQL is one, whatever the role's or the database's standard_conforming_strings say.
//
// A server that does not keep to the protocol ends the connection, with ErrProtocol.
func ConfigurePool(config *pgxpool.Config, jobs int) {
	config.MinConns, config.MinIdleConns = 0, 0
	config.MaxConns = 2*int32(jobs) + 2 //nolint:gosec // a number of jobs
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
	config.ConnConfig.RuntimeParams["datestyle"] = "ISO"
	config.ConnConfig.RuntimeParams["standard_conforming_strings"] = "on"
	onNotice := config.ConnConfig.OnNotice
	config.ConnConfig.OnNotice = func(conn *pgconn.PgConn, notice *pgconn.Notice) {
		noteVacuum(conn, notice)
		if onNotice != nil {
			onNotice(conn, notice)
		}
	}
	config.ConnConfig.AfterNetConnect = guarded
	if config.ConnConfig.OnNotification == nil { // or pgx keeps all that come
		config.ConnConfig.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
	}
	config.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &canceller{conn: conn}
	}
}

// maxWear is how many refreshes a connection is used for. Each REFRESH … CONCURRENTLY leaves entries in the session's cache of
// types, which nothing removes, and up to PostgreSQL 17 every message about a table that somebody has changed makes the session
// walk through all of them. Eight sessions of pgbench that do nothing else went from 1,070 refreshes a second to 280 within 50 s,
// of 3,000 each; with new sessions after every 100 to 200 they did 1,180, after 400 1,070. A session of mvsched takes some 10 ms to begin.
const maxWear = 200

const refreshesDone = "mvsched.refreshes" // where a connection keeps how many that are

// wear counts refreshes over a connection, and reports whether it has had its time.
func wear(conn *pgx.Conn, refreshes int) bool {
	done, _ := conn.PgConn().CustomData()[refreshesDone].(int)
	done += refreshes
	conn.PgConn().CustomData()[refreshesDone] = done
	return done >= maxWear
}

// rest lets a connection be used for as many refreshes again.
func rest(conn *pgx.Conn) { delete(conn.PgConn().CustomData(), refreshesDone) }

// canceller has the server cancel what a connection does when its context ends, and waits for the answer.
//
// It differs from pgconn.CancelRequestContextWatcherHandler in one thing: it lets the cancel request come to its end.
// That one hangs up on it as soon as the answer is there, which brings PgBouncer before 1.19.1 down for everybody
// (PgBouncer issues 801 and 846).
type canceller struct {
	conn *pgconn.PgConn
	done chan struct{}
}

// cancelArrives is how long a cancel request that the server has taken may be on its way to the backend: without the
// wait it could hit the connection's next query.
const cancelArrives = 100 * time.Millisecond

func (c *canceller) HandleCancel(ctx context.Context) {
	c.done = make(chan struct{})
	deadline := time.Now().Add(cancelPatience)
	// Should setting it fail, the connection is dead, and the read that is under way says so.
	_ = c.conn.Conn().SetDeadline(deadline)
	go func() {
		defer close(c.done)
		ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer cancel()
		_ = c.conn.CancelRequest(ctx) // where it fails, the deadline ends the wait
		<-time.After(cancelArrives)
	}()
}

func (c *canceller) HandleUnwatchAfterCancel() {
	<-c.done
	_ = c.conn.Conn().SetDeadline(time.Time{}) // as above
}

// How long a worker that holds no connection waits for one when the server has none left: others give theirs back when
// they are done.
const (
	connectionPatience = 60 * time.Second
	connectionPause    = 25 * time.Millisecond
	connectionMaxPause = time.Second
)

// WaitForConnection calls connect again, for a minute at the most, as long as it fails because the server has no
// connection left.
func WaitForConnection(ctx context.Context, connect func() error) error {
	patience := time.Now().Add(connectionPatience)
	for pause := connectionPause; ; pause = min(2*pause, connectionMaxPause) {
		err := connect()
		switch {
		case !isTooManyConnections(err):
			return err
		case time.Now().After(patience):
			return errors.Join(ErrTooManyConnections, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause/2 + rand.N(pause)): //nolint:gosec // jitter
		}
	}
}

// acquireFirst gets the one connection without which nothing goes on.
func acquireFirst(ctx context.Context, pool *pgxpool.Pool) (conn *pgxpool.Conn, err error) {
	err = WaitForConnection(ctx, func() error {
		conn, err = pool.Acquire(ctx)
		return err
	})
	return conn, err
}
