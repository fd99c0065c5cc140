package main

import (
	"context"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A sample of what `make chaos` does for as long as it is told to.
func TestSample(t *testing.T) {
	total, err := chaos(t.Context(), options{seed: 20261121, first: 1, last: 1, storm: 8 * time.Second, sample: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range total.Violations {
		t.Error(v)
	}
	if total.faults() < 50 || len(total.Landed) < 15 || total.Refreshes < 100 {
		t.Errorf("%d faults of %d kinds, %d refreshes", total.faults(), len(total.Landed), total.Refreshes)
	}
}

// forgeries are what must not happen, with a part of what the oracle has to say of it.
var forgeries = []struct{ sql, want string }{
	{`insert into chaos.refreshed values ('chaos.quick00', 900001, 1, now())`, "I4: chaos.quick00 was refreshed by transaction 900001"},
	{`insert into chaos.refreshed values ('chaos.quick00', 900002, 1, now()), ('chaos.quick01', 900002, 1, now())`, "I6: transaction 900002 refreshed 2 views"},
	{`insert into chaos.refreshed values ('chaos.bystander', 900003, 0, now())`, "I6: chaos.bystander was refreshed again"},
	{
		`insert into chaos.ledger (op, id, schedule, view, slot, before, after, xid, pid) values
		('INSERT', 901, 1, 'chaos.quick00', '2026-01-01', null, 'running', 1, 1), ('UPDATE', 901, 1, 'chaos.quick00', '2026-01-01', 'running', 'succeeded', 3, 1),
		('INSERT', 902, 1, 'chaos.quick00', '2026-01-01', null, 'running', 1, 1), ('UPDATE', 902, 1, 'chaos.quick00', '2026-01-01', 'running', 'succeeded', 3, 1)`,
		"I10: slot 2026-01-01",
	},
	{``, "I3: execution 901 of chaos.quick00 succeeded in transaction 3, which refreshed nothing"},
	{
		`insert into chaos.ledger (op, id, view, before, after) values ('INSERT', 903, 'chaos.quick02', null, 'running'),
		('UPDATE', 903, 'chaos.quick02', 'running', 'failed'), ('UPDATE', 903, 'chaos.quick02', 'failed', 'succeeded')`,
		"I2: execution 903 of chaos.quick02 has 2 ends",
	},
	{``, "I2: execution 903 of chaos.quick02 changed from failed to succeeded"},
	{
		`insert into chaos.ledger (op, id, view, before, after) values ('INSERT', 904, 'chaos.quick03', null, 'running')`,
		"I2: execution 904 of chaos.quick03 has 0 ends",
	},
	{
		`insert into chaos.ledger (op, id, view, oid, before, after, at) values ('INSERT', 905, 'chaos.quick04', 4, null, 'running', now()),
		('INSERT', 906, 'chaos.quick04', 4, null, 'running', now() + interval '1 s'),
		('UPDATE', 905, 'chaos.quick04', 4, 'running', 'failed', now() + interval '2 s')`,
		"I1: chaos.quick04: execution 906 was claimed",
	},
	{
		`insert into chaos.ledger (op, id, view, oid, lane, before, after, at) values ('INSERT', 907, 'chaos.columns01', 5, 0, null, 'running', now()),
		('INSERT', 908, 'chaos.columns01', 5, 1, null, 'running', now() + interval '1 s'), ('INSERT', 909, 'chaos.columns01', 5, 1, null, 'running', now() + interval '2 s'),
		('UPDATE', 908, 'chaos.columns01', 5, 1, 'running', 'running', now() + interval '3 s'), ('UPDATE', 908, 'chaos.columns01', 5, 1, 'running', 'failed', now() + interval '3 s')`,
		"I1: chaos.columns01: execution 909 was claimed",
	},
	{
		`insert into chaos.ledger (op, id, view, method, before, after, xid, digest) values ('UPDATE', 910, 'chaos.merge00', 'merge', 'running', 'succeeded', 10, 'other')`,
		"I3: execution 910 of chaos.merge00 left rows that its view had at no time",
	},
	{
		`insert into chaos.ledger (op, id, refresh_group, before, after, xid) values ('INSERT', 911, 'sound', null, 'running', 900011), ('INSERT', 912, 'sound', null, 'running', 900011),
		('UPDATE', 911, 'sound', 'running', 'succeeded', 12), ('UPDATE', 912, 'sound', 'running', 'skipped', 900013)`,
		"I3: group sound, claimed by transaction 900011: 1 of 2 succeeded",
	},
	{
		`insert into chaos.ledger (op, id, refresh_group, before, after, xid) values ('INSERT', 913, 'sound', null, 'running', 900014), ('INSERT', 914, 'sound', null, 'running', 900014),
		('UPDATE', 913, 'sound', 'running', 'succeeded', 15), ('UPDATE', 914, 'sound', 'running', 'succeeded', 16)`,
		"I3: group sound, claimed by transaction 900014: 2 of 2 succeeded, in 2 transactions",
	},
	{
		`insert into chaos.ledger (op, id, refresh_group, before, after, xid, data_as_of) values ('INSERT', 915, 'sound', null, 'running', 900017, null), ('INSERT', 916, 'sound', null, 'running', 900017, null),
		('UPDATE', 915, 'sound', 'running', 'succeeded', 18, '2026-01-01'), ('UPDATE', 916, 'sound', 'running', 'succeeded', 18, '2026-01-02')`,
		"I3: group sound, claimed by transaction 900017: 2 of 2 succeeded, in 1 transactions, as of 2 instants",
	},
	{
		`insert into chaos.ledger (op, id, refresh_group, before, after, xid) values ('INSERT', 917, 'shaky', null, 'running', 900019), ('INSERT', 918, 'shaky', null, 'running', 900019),
		('UPDATE', 917, 'shaky', 'running', 'failed', 900020), ('UPDATE', 918, 'shaky', 'running', 'timed_out', 900020)`,
		"I2: group shaky, claimed by transaction 900019: 2 members failed",
	},
	{`insert into chaos.refreshed values ('chaos.sound00', 900021, 1, now()), ('chaos.shaky00', 900021, 1, now())`, "I6: transaction 900021 refreshed 2 views"},
	{`insert into chaos.merge00 values (1, 999, null), (0, null, 900022); insert into chaos.refreshed values ('chaos.merge00', 900023, 1, now())`, "I3: chaos.merge00 holds what transaction 900022 wrote"},
	{``, "I3: 40 rows of chaos.merge00 are not as in its view, such as 1"},
	{``, "I3: the rows of chaos.merge00 are none of its view at any time"},
	{`refresh materialized view chaos.sound00; insert into chaos.version default values; refresh materialized view chaos.sound01; refresh materialized view chaos.sound02`, "I3: group sound is of several instants"},
	{`insert into chaos.worked values ('chaos.columns00', 1, 1, 900024), ('chaos.columns00', 1, 1, 900025)`, "I1: row 1 of chaos.columns00 was materialized 2 times as of version 1"},
	{``, "I4: transaction 900024 materialized 1 rows of chaos.columns00, and its execution says 0"},
	{
		`insert into chaos.ledger (op, id, view, before, after, xid, done) values ('UPDATE', 919, 'chaos.columns00', 'running', 'running', 900026, 3)`,
		"I4: transaction 900026 materialized 0 rows of , and its execution says 3",
	},
	{`update chaos.columns00 set materialized_at = now(), value = 2 * payload + 1 where id = 3`, "I3: row 3 of chaos.columns00 has version 1, which was computed by nobody"},
	{`update chaos.columns00 set materialized_at = now() where id = 4`, "I3: row 4 of chaos.columns00 is of 4, and has"},
	{`update chaos.columns00 set materialized_at = '-infinity' where id = 5`, "I3: row 5 of chaos.columns00, version 1, was set aside"},
	{`update chaos.columns00 set materialized_at = now() where id = 50`, "I3: row 50 of chaos.columns00, which cannot be computed, has"},
	{`delete from chaos.columns00 where id = 6`, "I3: 1 rows of chaos.columns00 are lost"},
	{``, "L1: 495 rows of chaos.columns00 are left, such as 1"},
	{`refresh materialized view chaos.quick05; update chaos.refreshed set xid = xid + 1 where view = 'chaos.quick05'`, "I3: chaos.quick05 holds"},
}

// The oracle is of no use if it says nothing of what is wrong.
func TestTheOracleNotices(t *testing.T) {
	var s site
	t.Cleanup(s.close)
	if err := s.open(t.Context(), "", nothing, func(string) {}); err != nil {
		t.Fatal(err)
	}
	e := &episode{index: 1, site: s, theme: &theme{views: theTargets()}, views: slices.Concat(theViews(), theTargets()), results: map[int64]string{}, targets: map[int64]string{}, logNeedNotHave: true}
	if err := e.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.admin.Close)
	if err := e.check(t.Context()); err != nil || len(e.violations) > 0 {
		t.Fatalf("%v, %q", err, e.violations)
	}
	for _, f := range forgeries {
		if err := execute(context.Background(), s.server, e.database, f.sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, q := range e.torn() {
		e.look(t.Context(), q)
	}
	all := strings.Join(e.violations, "\n")
	for _, f := range forgeries {
		if !strings.Contains(all, f.want) {
			t.Errorf("nothing of %q in:\n%s", f.want, all)
		}
	}

	// Nor if it measures until a backlog is empty that somebody adds to.
	began := e.now()
	if err := execute(t.Context(), s.server, e.database, `insert into chaos.refreshed select view, 1, 0, now() from chaos.target where kind <> 'columns'`,
		`insert into chaos.worked select view, 900027, 1, 900027 from chaos.target where kind = 'columns'`); err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	e.recoveries = map[string][]time.Duration{}
	e.measure(soon, landing{kind: "a fault", at: began})
	if len(e.recoveries["a fault"]) != 1 {
		t.Error("what had a batch has not recovered")
	}

	// Nor if it waits for a server that is gone.
	postmaster, err := e.postmaster()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(postmaster, syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	ctx, lose := context.WithCancelCause(t.Context())
	e.lose = lose
	e.watchSite(ctx, 300*time.Millisecond)
	if lost := context.Cause(ctx); lost == nil || !strings.Contains(lost.Error(), "received immediate shutdown request") {
		t.Errorf("of a server that is gone: %v", lost)
	}
}

// Two backends at one view, as the log and the ledger tell it.
func TestStretches(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	all := stretchesOf([]happening{
		{at: at(10), pid: "1", view: "a"},
		{at: at(20), pid: "2", view: "a"},
		{at: at(30), pid: "1"},
		{at: at(40), pid: "3", view: "b"},
		{at: at(50)}, // the server ends
		{at: at(60), pid: "3", view: "b"},
	}, at(100))
	want := map[string]string{"1": "a 10 30", "2": "a 20 50", "3": "b 40 50", "3 again": "b 60 100"}
	for _, s := range all {
		got := s.view + " " + itoa(s.start) + " " + itoa(s.end)
		key := s.pid
		if s.start.Equal(at(60)) {
			key += " again"
		}
		if want[key] != got {
			t.Errorf("%s: %s, want %s", key, got, want[key])
		}
	}
	if len(all) != len(want) {
		t.Errorf("%d stretches, want %d", len(all), len(want))
	}
}

func itoa(at time.Time) string { return strconv.FormatInt(at.UnixMilli(), 10) }

// A storm that was started with nohup hangs up on its workers all the same.
func TestHangUpEnds(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	t.Cleanup(func() { signal.Reset(syscall.SIGHUP) })
	hangUpEnds()
	cmd := exec.CommandContext(t.Context(), "sleep", "3")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGHUP {
		t.Errorf("it %s, want it ended by the signal", cmd.ProcessState)
	}
}

// Whatever the theme, what is asked for alone is alone.
func TestKindsAlone(t *testing.T) {
	chosen, _, err := options{theme: "storage", kinds: true}.themes()
	if err != nil {
		t.Fatal(err)
	}
	for _, th := range chosen {
		if !th.alone || len(th.views) != len(theTargets()) {
			t.Errorf("%s has %d views, alone: %t", th.name, len(th.views), th.alone)
		}
	}
}
