package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// logPrefix is the server's log_line_prefix, and logLine what it makes of a line.
const logPrefix = "%m|%p|%a|%e|"

var logLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC\|(\d+)\|([^|]*)\|(\w{5})\|(\w+):  (.*)$`)

// stretch is a REFRESH at the server: from the line that its log has of the statement to the end.
type stretch struct {
	view       string
	pid        string
	start, end time.Time
}

// happening is what the log, or the ledger, says of a backend.
type happening struct {
	at   time.Time
	pid  string // "": all of them
	view string // of the REFRESH that begins; "": what is under way ends
}

// The log's instants are cut to milliseconds.
const cutOff = 2 * time.Millisecond

// checkLog looks for two REFRESHes of one view at a time (I1), and for live ones whose execution was abandoned (I5). A
// REFRESH begins with its line in the log. It ends with the next error of its backend, with the backend, with the server,
// or with the record of its success in the ledger.
func (e *episode) checkLog(ctx context.Context, conn *pgx.Conn) error {
	happenings, err := readLog(e.server.LogFile())
	if err != nil {
		return err
	}
	rows, err := conn.Query(ctx, `select coalesce(pid, 0), at from chaos.ledger
		where after = 'succeeded' or op = 'UPDATE' and after = 'running'`)
	if err != nil {
		return err
	}
	var pid int32
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&pid, &at}, func() error {
		happenings = append(happenings, happening{at: at, pid: fmt.Sprint(pid)})
		return nil
	}); err != nil {
		return err
	}
	stretches := stretchesOf(without(happenings, e.lost), e.now())
	if len(stretches) < len(e.views)/2 && !e.logNeedNotHave {
		return fmt.Errorf("the server's log has %d refreshes only", len(stretches))
	}
	byView := map[string][]stretch{}
	for _, s := range stretches {
		if !e.hasLanes(s.view) {
			byView[s.view] = append(byView[s.view], s)
		}
	}
	for view, all := range byView {
		sort.Slice(all, func(i, j int) bool { return all[i].start.Before(all[j].start) })
		for i := 1; i < len(all); i++ {
			if all[i].start.Add(cutOff).Before(all[i-1].end) {
				e.violate("I1", "%s: two at a time: pid %s from %s to %s, pid %s from %s", view, all[i-1].pid, clockTime(all[i-1].start),
					clockTime(all[i-1].end), all[i].pid, clockTime(all[i].start))
			}
		}
	}
	return e.checkAbandoned(ctx, conn, byView)
}

// without leaves out what began while commits could be lost, and ends what was under way then: of how it ended nothing is
// known any more.
func without(happenings []happening, lost []window) (rest []happening) {
	within := func(h happening) bool {
		for _, w := range lost {
			if h.at.After(w.from.Add(-cutOff)) && h.at.Before(w.to) {
				return true
			}
		}
		return false
	}
	for _, h := range happenings {
		if h.view == "" || !within(h) {
			rest = append(rest, h)
		}
	}
	for _, w := range lost {
		rest = append(rest, happening{at: w.from.Add(-cutOff)})
	}
	return rest
}

func clockTime(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// checkAbandoned compares each record of a death with what the log says was going on.
func (e *episode) checkAbandoned(ctx context.Context, conn *pgx.Conn, byView map[string][]stretch) error {
	rows, err := conn.Query(ctx, `select l.id, l.view, l.reason, b.at, l.at from chaos.ledger l
		join chaos.ledger b on b.id = l.id and b.op = 'INSERT' where l.after = 'abandoned'`)
	if err != nil {
		return err
	}
	var id int64
	var view, reason string
	var claimed, ended time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &view, &reason, &claimed, &ended}, func() error {
		for _, s := range byView[view] {
			if s.start.Add(cutOff).After(claimed) && s.start.Before(ended) && s.end.After(ended.Add(cutOff)) {
				e.violate("I5", "execution %d of %s was found dead (%s) at %s, while pid %s refreshed it from %s to %s", id, view, reason,
					clockTime(ended), s.pid, clockTime(s.start), clockTime(s.end))
			}
		}
		return nil
	})
	return err
}

// stretchesOf puts beginnings and ends together.
func stretchesOf(happenings []happening, now time.Time) (all []stretch) {
	sort.SliceStable(happenings, func(i, j int) bool { return happenings[i].at.Before(happenings[j].at) })
	open := map[string]stretch{}
	end := func(pid string, at time.Time) {
		if s, ok := open[pid]; ok {
			s.end = at
			all = append(all, s)
			delete(open, pid)
		}
	}
	for _, h := range happenings {
		switch {
		case h.pid == "":
			for pid := range open {
				end(pid, h.at)
			}
		case h.view == "":
			end(h.pid, h.at)
		default:
			end(h.pid, h.at)
			open[h.pid] = stretch{view: h.view, pid: h.pid, start: h.at}
		}
	}
	for pid := range open {
		end(pid, now)
	}
	return all
}

var (
	refreshStatement = regexp.MustCompile(`^(?:(?:execute <unnamed>|statement): refresh materialized view (?:concurrently )?|refresh of )(\S+)`)
	deadProcess      = regexp.MustCompile(`\(PID (\d+)\) was terminated by signal|\(PID (\d+)\) exited with`)
)

// Lines after which no backend of before is left.
var serverEnds = []string{"all server processes terminated", "database system is shut down", "database system was interrupted", "database system was not properly shut down", "database system was shut down"}

func readLog(name string) (all []happening, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		m := logLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		at, err := time.Parse("2006-01-02 15:04:05.000", m[1])
		if err != nil {
			return nil, err
		}
		pid, application, severity, text := m[2], m[3], m[5], m[6]
		switch severity {
		case "ERROR", "FATAL", "PANIC":
			all = append(all, happening{at: at, pid: pid})
		case "LOG", "WARNING":
			if s := refreshStatement.FindStringSubmatch(text); s != nil {
				if strings.HasPrefix(application, "chaos") {
					all = append(all, happening{at: at, pid: pid, view: strings.ReplaceAll(s[1], `"`, "")})
				}
				continue
			}
			if strings.HasPrefix(m[4], "08") && !strings.HasPrefix(text, "could not send data") { // the client is gone, before its commit came
				all = append(all, happening{at: at, pid: pid})
			}
			if d := deadProcess.FindStringSubmatch(text); d != nil {
				all = append(all, happening{at: at, pid: d[1] + d[2]})
			}
			for _, line := range serverEnds {
				if strings.HasPrefix(text, line) {
					all = append(all, happening{at: at})
				}
			}
		}
	}
	return all, lines.Err()
}

const sampleSQL = `
select format('%s by %s', a.query, array_agg(a.pid order by a.pid))
  from pg_catalog.pg_stat_activity a
 where a.datname = current_database() and a.application_name like 'chaos%' and a.state = 'active' and a.query like 'refresh materialized view%'
 group by a.query
having count(*) > 1`

// sample is a second witness of I1: every 50 ms it asks the server who refreshes what. The server's list is not of one
// instant, so what it has seen twice in a row counts.
func (e *episode) sample(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var before []string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var now []string
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		rows, err := e.admin.Query(ask, sampleSQL)
		if err == nil {
			now, _ = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		cancel()
		for _, what := range now {
			for _, was := range before {
				if what == was {
					e.violate("I1", "seen twice: %s", what)
				}
			}
		}
		before = now
	}
}
