package main

import (
	"os"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// Where statistics say that each page of mvsched's tables has a billion rows, whatever it asks seems worth compiling, for
// seconds. So it has none of it compiled.
func TestWrongStatistics(t *testing.T) {
	t.Parallel()
	db := pgtest.NewServerDB(t, "autovacuum=off", "jit=on", "session_preload_libraries=auto_explain", "auto_explain.log_min_duration=0",
		"auto_explain.log_analyze=on", "auto_explain.log_nested_statements=on")
	p := processes{TB: t, dsn: db.Server.DSN("postgres")}
	db.Exec(`create materialized view public.v as select 1 as id`)
	db.Exec(`create materialized view public.w as select id from public.v`)
	p.run([]int{0}, "add", "v", "w", "--every", "1h")
	p.run([]int{0}, "run", "-q")
	const ours = `(select c.oid from pg_catalog.pg_class c where c.relnamespace = 'mvsched'::pg_catalog.regnamespace and c.relkind in ('r', 'i'))`
	db.Exec(`delete from pg_catalog.pg_statistic where starelid in ` + ours)
	db.Exec(`update pg_catalog.pg_class set reltuples = 1e9, relpages = 1 where oid in ` + ours)
	before := readLog(t, db)
	for _, command := range []string{
		"list", "status", "history", "check", "graph", "plan --for 24h", "why v", "prune", "refresh v", "set v --every 2h", "pause v",
		"resume v", "add --all --every 1h", "run --dry-run", "run -q", "cancel v", "remove v", "doctor",
	} {
		p.run([]int{0, 1}, strings.Fields(command)...)
	}
	plans := 0
	for entry := range strings.SplitSeq(strings.TrimPrefix(readLog(t, db), before), " LOG: ") {
		if strings.Contains(entry, "Query Text: ") {
			plans++
		}
		if strings.Contains(entry, "JIT:") {
			query, _, _ := strings.Cut(entry, "cost=")
			t.Errorf("compiled: %s", query)
		}
	}
	if plans == 0 {
		t.Error("the log has no plans")
	}
}

func readLog(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	log, err := os.ReadFile(db.Server.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}
