package main

import (
	"context"
	"fmt"
	"time"
)

// measure waits until what a lone fault has hit goes on, and notes how long that took: until the view whose execution it
// was, or, where there was none, every healthy view, has been refreshed by a transaction that began after the fault; of
// faults that take the server away, after it took writes again. Of columns a batch is enough: the writer goes on, so that
// their backlog does. Each view is due every second, which is part of it.
func (e *episode) measure(ctx context.Context, landed landing) {
	since := landed.at
	e.mu.Lock()
	if e.serverBack.After(since) {
		since = e.serverBack
	}
	e.mu.Unlock()
	var view string
	if landed.execution != 0 {
		_ = e.ask(`select view_name from mvsched.materialized_view_refresh_schedule_execution where id = $1`, []any{landed.execution}, &view)
	}
	for _, v := range e.views {
		if "chaos."+v.name == view && !v.healthy {
			view = ""
		}
	}
	for ctx.Err() == nil {
		var at *time.Time
		var err error
		if view != "" {
			err = e.ask(`select min(began) from chaos.materialized where view = $1 and began > $2`, []any{view, since}, &at)
		} else {
			err = e.awaitRefreshes(ctx, since, 2*time.Minute, false)
			now := e.now()
			at = &now
		}
		if err == nil && at != nil {
			e.mu.Lock()
			e.recoveries[landed.kind] = append(e.recoveries[landed.kind], at.Sub(since))
			e.mu.Unlock()
			if landed.within > 0 && at.Sub(since) > landed.within {
				e.violate("L1", "%s at %q, execution %d: recovered after %s only", landed.kind, landed.phase, landed.execution, at.Sub(since))
			}
			if at.Sub(since) > 3*time.Second {
				e.tellWhy(landed, view, since, *at)
			}
			return
		}
		e.pause(10 * time.Millisecond)
	}
}

// tellWhy says what a recovery has waited for: what the ledger has of its view meanwhile.
func (e *episode) tellWhy(landed landing, view string, since, until time.Time) {
	if view == "" { // the last of all that was refreshed, or whose claim of before has ended
		_ = e.ask(`select view from (
				select view, min(began) as at from chaos.materialized where began > $1 group by view
				union all
				select l.view, l.at from chaos.ledger l join chaos.ledger b on b.id = l.id and b.op = 'INSERT'
				where l.op = 'UPDATE' and l.after <> 'running' and b.at < $1 and l.at > $1) w
			order by at desc limit 1`, []any{since}, &view)
	}
	var course string
	_ = e.ask(`select coalesce(string_agg(format('%s %s at %s s', id, coalesce(reason, after), round(extract(epoch from at - $2::timestamptz)::numeric, 2)), ', ' order by seq), '')
		from chaos.ledger where view = $1 and (op = 'INSERT' or after <> 'running') and at between $2::timestamptz - interval '2 s' and $3::timestamptz + interval '1 s'`, []any{view, since, until}, &course)
	e.say(fmt.Sprintf("%s at %q, execution %d: %s until %q was refreshed again: %s", landed.kind, landed.phase, landed.execution,
		until.Sub(since).Round(10*time.Millisecond), view, course))
}
