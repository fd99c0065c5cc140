package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// question is an invariant as a query: each row that it returns is a violation.
type question struct {
	invariant, sql string
}

var questions = []question{
	{"I2", `select format('execution %s of %s was never inserted, or twice: %s times', l.id, min(l.view), count(*) filter (where l.op = 'INSERT'))
		from chaos.ledger l group by l.id having count(*) filter (where l.op = 'INSERT') <> 1`},
	{"I2", `select format('execution %s of %s has %s ends', l.id, min(l.view), count(*) filter (where l.after <> 'running'))
		from chaos.ledger l where l.op <> 'DELETE' group by l.id having count(*) filter (where l.after <> 'running') <> 1`},
	{"I2", `select format('execution %s of %s changed from %s to %s', l.id, l.view, l.before, l.after)
		from chaos.ledger l where l.op = 'UPDATE' and l.before <> 'running'`},
	{"I2", `select format('execution %s of %s was deleted', l.id, l.view) from chaos.ledger l where l.op = 'DELETE'
		and (l.before = 'running' or not exists (select from mvsched.settings where keep_successes < interval '1 hour'))`},
	{"I2", `select format('execution %s of %s still %s', e.id, e.view_name, e.status)
		from mvsched.materialized_view_refresh_schedule_execution e where e.status = 'running'`},
	{"I2", `select format('execution %s is %s in the table, and %s in the ledger', e.id, e.status, l.after)
		from mvsched.materialized_view_refresh_schedule_execution e
		left join lateral (select after from chaos.ledger where id = e.id order by seq desc limit 1) l on true
		where l.after is distinct from e.status`},
	{"I3", `select format('execution %s of %s succeeded in transaction %s, which refreshed nothing', l.id, l.view, l.xid)
		from chaos.ledger l where l.after = 'succeeded' and l.method is distinct from 'columns' and not exists (select from chaos.refreshed r where r.xid = l.xid)`},
	{"I3", `select format('execution %s of %s succeeded in transaction %s, which is not committed but %s', l.id, l.view, l.xid, pg_xact_status(l.xid::text::xid8))
		from chaos.ledger l where l.after = 'succeeded' and pg_xact_status(l.xid::text::xid8) is distinct from 'committed'`},
	{"I4", `select format('%s was refreshed by transaction %s (pid %s) at %s, which no execution tells of', r.view, r.xid, r.pid, r.began)
		from chaos.refreshed r where r.pid <> 0 and not exists (select from chaos.ledger l where l.xid = r.xid and l.after = 'succeeded')`},
	{"I6", `select format('transaction %s refreshed %s views', r.xid, count(distinct r.view))
		from chaos.refreshed r left join chaos.target t using (view) where r.pid <> 0
		group by r.xid having count(distinct coalesce(t.refresh_group, r.view)) > 1`},
	{"I6", `select format('%s was refreshed again', r.view) from chaos.refreshed r where r.view = 'chaos.bystander' offset 1`},
	{"I1", `select format('%s: execution %s was claimed at %s, while %s was running from %s to %s', a.view, b.id, b.at, a.id, a.at, a.ended)
		from (select l.*, (select m.at from chaos.ledger m where m.id = l.id and m.op = 'UPDATE' and m.after <> 'running') as ended
		        from chaos.ledger l where l.after = 'running' and l.op = 'INSERT') a
		join chaos.ledger b on b.oid = a.oid and b.lane = a.lane and b.op = 'INSERT' and b.after = 'running' and b.seq > a.seq and b.at < a.ended - interval '1 ms'`},
	{"I10", `select format('slot %s of %s (schedule %s) succeeded %s times', l.slot, min(l.view), l.schedule, count(*))
		from chaos.ledger l where l.after = 'succeeded' and l.slot is not null group by l.schedule, l.slot having count(*) > 1`},
	{"I9", `select format('%s still does: %s', a.application_name, left(a.query, 100)) from pg_catalog.pg_stat_activity a
		where a.datname = current_database() and a.application_name like 'chaos%' and a.state <> 'idle' and a.query <> ''`}, // none yet: it is starting
}

// check puts all the questions, when the workers are gone.
func (e *episode) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, e.server.DSN(e.database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, q := range slices.Concat(questions, targetQuestions, e.targetStates()) {
		rows, err := conn.Query(ctx, q.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", q.invariant, err)
		}
		wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("%s: %w", q.invariant, err)
		}
		for _, w := range wrong {
			e.violate(q.invariant, "%s", w)
		}
	}
	if err := e.checkContents(ctx, conn); err != nil {
		return err
	}
	if err := e.checkLog(ctx, conn); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, `select distinct on (l.id) l.id, l.after || coalesce(' (' || l.reason || ')', ''),
			case when t.refresh_group is not null then 'view in a group' when t.lanes > 1 then 'columns, two lanes' else coalesce(nullif(t.kind, ''), 'view') end
		from chaos.ledger l left join chaos.target t on t.view = replace(l.view, '_away', '')
		where l.op <> 'DELETE' order by l.id, l.seq desc`)
	if err != nil {
		return err
	}
	var id int64
	var result, target string
	_, err = pgx.ForEachRow(rows, []any{&id, &result, &target}, func() error {
		e.results[id], e.targets[id] = result, target
		return nil
	})
	if err != nil {
		return err
	}
	return conn.QueryRow(ctx, `select count(*) filter (where op = 'INSERT'), count(*) filter (where after = 'succeeded') from chaos.ledger`).
		Scan(&e.claims, &e.successes)
}

// checkContents compares what is in each view with the last refresh that committed: I3 from the other side.
func (e *episode) checkContents(ctx context.Context, conn *pgx.Conn) error {
	for _, v := range e.views {
		if v.kind == kindColumns {
			continue
		}
		var populated bool
		err := conn.QueryRow(ctx, `select relispopulated from pg_catalog.pg_class where oid = $1::text::regclass`, "chaos."+v.name).Scan(&populated)
		if err != nil {
			return err
		}
		if !populated {
			continue
		}
		var holds, want *int64
		err = conn.QueryRow(ctx, fmt.Sprintf(`select max(xid), (select r.xid from chaos.refreshed r where r.view = 'chaos.%[1]s' order by r.began desc limit 1)
			from chaos.%[1]s`, v.name)).Scan(&holds, &want)
		if err != nil {
			return err
		}
		if v.kind == kindMerge && holds == nil && want == nil {
			continue // it was never refreshed
		}
		if holds == nil || want == nil || *holds != *want {
			e.violate("I3", "chaos.%s holds what transaction %v wrote, and the last refresh was transaction %v", v.name, show(holds), show(want))
		}
	}
	return nil
}

func show(n *int64) string {
	if n == nil {
		return "none"
	}
	return fmt.Sprint(*n)
}
