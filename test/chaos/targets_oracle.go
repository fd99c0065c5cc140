package main

import "fmt"

// targetQuestions are those about merge tables, groups and materialized columns, by the words of the ledger, of the
// versions that were written down, and of what was computed.
var targetQuestions = []question{
	{"I3", `select format('execution %s of %s left rows that its view had at no time', l.id, l.view)
		from chaos.ledger l where l.after = 'succeeded' and l.method = 'merge' and not exists (select from chaos.version v where v.digest = l.digest)`},
	{"I3", `select format('group %s, claimed by transaction %s: %s of %s succeeded, in %s transactions, as of %s instants', m.refresh_group, m.xid,
			count(*) filter (where m.ended = 'succeeded'), count(*), count(distinct m.ended_in), count(distinct m.data_as_of))
		from (select l.refresh_group, l.xid, e.after as ended, case when e.after = 'succeeded' then e.xid end as ended_in,
		             case when e.after = 'succeeded' then e.data_as_of end as data_as_of
		        from chaos.ledger l left join chaos.ledger e on e.id = l.id and e.op = 'UPDATE' and e.after <> 'running'
		       where l.op = 'INSERT' and l.refresh_group is not null) m
		group by m.refresh_group, m.xid
		having count(*) filter (where m.ended = 'succeeded') not in (0, count(*)) or count(distinct m.ended_in) > 1 or count(distinct m.data_as_of) > 1`},
	{"I2", `select format('group %s, claimed by transaction %s: %s members failed', l.refresh_group, l.xid, count(*))
		from chaos.ledger l join chaos.ledger e on e.id = l.id and e.op = 'UPDATE' and e.after in ('failed', 'timed_out')
		where l.op = 'INSERT' and l.refresh_group is not null group by l.refresh_group, l.xid having count(*) > 1`},
	{"I1", `select format('row %s of %s was materialized %s times as of version %s', w.id, w.view, count(*), w.version)
		from chaos.worked w group by w.view, w.id, w.version having count(*) > 1`},
	{"I4", `select format('transaction %s materialized %s rows of %s, and its execution says %s', coalesce(w.xid, l.xid), coalesce(w.n, 0), w.view, coalesce(l.n, 0))
		from (select xid, min(view) as view, count(*) as n from chaos.worked group by xid) w
		full join (select xid, sum(done) as n from chaos.ledger where op = 'UPDATE' and after in ('running', 'succeeded') group by xid having sum(done) > 0) l using (xid)
		where w.n is distinct from l.n`},
}

// targetStates are about what is in the tables after the quiet end, in which each of them has been refreshed.
func (e *episode) targetStates() (all []question) {
	for _, name := range e.targetNames(kindMerge) {
		all = append(all, question{"I3", fmt.Sprintf(`select format('%%s rows of %s are not as in its view, such as %%s', count(*), min(id))
			from (select id, amount from %[1]s where id <> 0) t full join chaos.base b using (id)
			where (t.id is null or b.id is null or t.amount is distinct from b.amount)
			  and exists (select from chaos.refreshed r where r.view = '%[1]s') having count(*) > 0`, name)})
	}
	for _, name := range e.targetNames(kindColumns) {
		all = append(all,
			question{"L1", fmt.Sprintf(`select format('%%s rows of %s are left, such as %%s', count(*), min(id)) from %[1]s
				where materialized_at is null and exists (select from chaos.worked) having count(*) > 0`, name)},
			question{"I3", fmt.Sprintf(`select format('row %%s of %s, version %%s, was set aside', id, version) from %[1]s where payload > 0 and materialized_at = '-infinity'`, name)},
			question{"I3", fmt.Sprintf(`select format('row %%s of %s, which cannot be computed, has %%s', id, value) from %[1]s where payload < 0 and isfinite(materialized_at)`, name)},
			question{"I3", fmt.Sprintf(`select format('row %%s of %s has version %%s, which was computed by nobody', t.id, t.version) from %[1]s t
				where isfinite(t.materialized_at) and not exists (select from chaos.worked w where w.view = '%[1]s' and w.id = t.id and w.version = t.version)`, name)},
			question{"I3", fmt.Sprintf(`select format('%%s rows of %s are lost', max(id) - count(*)) from %[1]s having max(id) <> count(*)`, name)})
	}
	return all
}

// hasLanes tells whether several workers may be at it at the same time.
func (e *episode) hasLanes(view string) bool {
	for _, v := range e.views {
		if "chaos."+v.name == view {
			return v.lanes > 1
		}
	}
	return false
}
