package refresh

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/schedule"
)

// controlConn is the connection of a control loop, and between its looks of whoever claims: a session takes 10 ms to make the plans of
// a claim, and goes through all that it keeps for every message about a changed table, of which a REFRESH … CONCURRENTLY sends dozens
// to everybody. So one session of a run claims, as far as it can, and those that refresh mostly need no such plans.
//
// A control loop does not wait for a claim that hangs. It leaves the connection to the claim, which gives it back to the pool in the
// end, takes another one from there, and lends no more for a while.
type controlConn struct {
	mu     sync.Mutex
	conn   *pgxpool.Conn // set by the control loop alone
	used   chan struct{} // closed when whoever is at it is done; nil: nobody is
	wanted bool          // the control loop waits for it
	lends  time.Time     // not before
}

// lendAgain is how long a control loop lends no more behind a claim that it has not waited for.
const lendAgain = time.Minute

// lendPatience is how long a control loop waits for a claim; more in a test.
var lendPatience = time.Second

// connect takes it for the control loop, and opens it before: the first time, and when it was lost or left to somebody.
func (c *controlConn) connect(ctx context.Context, pool *pgxpool.Pool) (conn *pgx.Conn, giveBack func(), err error) {
	if conn, giveBack, _ = c.take(ctx); conn != nil {
		return conn, giveBack, nil
	}
	c.release() // the slots leave one connection of the pool free, so the next one is for us
	fresh, err := acquireFirst(ctx, pool)
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = fresh
	conn, giveBack = c.use(ctx)
	return conn, giveBack, nil
}

// take takes it for the control loop if it is there: there is none while it is lost, or left to somebody.
func (c *controlConn) take(ctx context.Context) (conn *pgx.Conn, giveBack func(), left bool) {
	c.await()
	defer c.mu.Unlock()
	if c.conn == nil || c.conn.Conn().IsClosed() {
		return nil, nil, c.conn == nil
	}
	conn, giveBack = c.use(ctx)
	return conn, giveBack, false
}

// lend takes it for a claim if it is there and nobody wants it; else there is no connection.
func (c *controlConn) lend(ctx context.Context) (conn *pgx.Conn, giveBack func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// In this order: a connection that somebody is at must not even be asked whether it is closed.
	if c.used != nil || c.wanted || c.conn == nil || c.conn.Conn().IsClosed() || time.Now().Before(c.lends) {
		return nil, nil
	}
	return c.use(ctx)
}

// await waits for who is at it, with patience, and locks.
func (c *controlConn) await() {
	c.mu.Lock()
	used := c.used
	if used == nil {
		return
	}
	c.wanted = true
	c.mu.Unlock()
	timer := time.NewTimer(lendPatience)
	defer timer.Stop()
	select {
	case <-used:
	case <-timer.C:
	}
	c.mu.Lock()
	c.wanted = false
	if c.used != nil {
		c.conn, c.used, c.lends = nil, nil, time.Now().Add(lendAgain)
	}
}

// use is told that somebody is at it. The lock is held.
func (c *controlConn) use(ctx context.Context) (conn *pgx.Conn, giveBack func()) {
	own, used := c.conn, make(chan struct{})
	c.used = used
	return own.Conn(), func() {
		abandon(ctx, own.Conn())
		c.mu.Lock()
		defer c.mu.Unlock()
		close(used)
		if c.used != used { // it was left to us
			own.Release()
			return
		}
		c.used = nil
	}
}

// abandon closes a connection that somebody has left in the middle of something, as a panic does: it is of no use to anybody.
func abandon(ctx context.Context, conn *pgx.Conn) {
	if conn.IsClosed() || !conn.PgConn().IsBusy() && conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelPatience)
	defer cancel()
	_ = conn.Close(ctx) // whether the server hears of it or not
}

// release leaves it to the pool.
func (c *controlConn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close()
}

func (c *controlConn) close() {
	if c.conn != nil {
		c.conn.Release()
		c.conn = nil
	}
}

// claimOverControl claims over the control connection where that is to be had, else over the slot's own; over that one too when the
// other is lost with the claim. What it may have claimed is given up after its start grace, as whenever a connection is lost.
//
// A single slot claims over its own: two sessions that take turns would each have to hear of all changed tables.
func (r *run) claimOverControl(ctx context.Context, own *schedule.Store, turn turn) ([]schedule.Claim, error) {
	if r.places.Load() <= 1 {
		return r.source.claim(ctx, own, turn)
	}
	conn, giveBack := r.conn.lend(ctx)
	if conn == nil {
		return r.source.claim(ctx, own, turn)
	}
	claims, lost, err := func() (claims []schedule.Claim, lost bool, err error) {
		defer giveBack()
		claims, err = r.source.claim(ctx, r.Store.On(conn), turn)
		return claims, conn.IsClosed(), err
	}()
	if err != nil && lost && ctx.Err() == nil {
		r.refresher.log.Debug("lost the control connection while claiming", "error", err)
		return r.source.claim(ctx, own, turn)
	}
	return claims, err
}
