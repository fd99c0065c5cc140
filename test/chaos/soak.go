package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// soakTheme goes on for as long as it is told, and looks whether anything grows.
const soakTheme = "soak"

// The soak's workers have ten slots. Only the last of them is killed: the others are to show what a process gathers.
var soakStaff = [][]string{
	{"serve", "-j", "4", "--grace", "2s"},
	{"serve", "-j", "3", "--grace", "2s"},
	{"serve", "-j", "3", "--grace", "2s"},
}

func soakKinds(network, process, backend, server, others []*kind) []*kind {
	mortal := len(soakStaff) - 1
	var some []*kind
	for _, k := range process[:len(process)-1] { // without the one that kills all
		one := *k
		one.strike = func(f *fault, l *link, held []byte) (bool, error) {
			if l.proxy.worker != f.episode.workers[mortal] {
				return false, errors.New("this one is to live")
			}
			return k.strike(f, l, held)
		}
		some = append(some, &one)
	}
	restart := *server[2]
	restart.weight = 1
	return slices.Concat(network, network, backend, backend, others, some, []*kind{&restart})
}

// soakViews are many that are due now and then.
func soakViews() (views []view) {
	for i := range 200 {
		v := view{name: fmt.Sprintf("soak%03d", i), unique: i%4 != 0, healthy: i%20 != 0, every: "10s", timeout: "5s"}
		columns := `0, 0.05`
		if !v.healthy {
			columns = `0, 0.01) / random()::integer + (0`
		}
		v.query = fmt.Sprintf(`select 1 as id, chaos.stamp('chaos.%s', %s) as xid`, v.name, columns)
		views = append(views, v)
	}
	return views
}

// soakHistory makes the history as short as it can be trimmed to, which is shorter than mvsched allows: an hour would be
// over before it is flat.
var soakHistory = []string{
	`alter table mvsched.settings drop constraint keep_failures_is_long_enough, drop constraint keep_successes_is_long_enough, drop constraint keep_skips_is_long_enough`,
	`update mvsched.settings set keep_failures = '1 minute', keep_successes = '1 minute', keep_skips = '1 minute', keep_last = 2`,
}

// A reading is what one worker or one table has at a moment.
type reading struct {
	of     string
	pid    int // 0: of a table
	values [4]float64
}

var (
	workerColumns = []string{"memory (RSS), kB", "goroutines", "descriptors", "connections"}
	tableColumns  = []string{"size, kB", "dead rows", "rows", "rows inserted since"}
)

// watchSoak reads sixty times in the course of the soak, and at least every second.
func (e *episode) watchSoak(ctx context.Context, whole time.Duration) {
	tick := time.NewTicker(max(time.Second, whole/60))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_ = execute(ctx, e.server, e.database, `select mvsched.prune(100000)`) // a server of mvsched does it once in an hour
		all := append(e.readWorkers(), e.readTables(ctx)...)
		if len(all) > 0 {
			e.readings = append(e.readings, all)
		}
	}
}

// readWorkers leaves out one whose server did not answer.
func (e *episode) readWorkers() (all []reading) {
	for _, w := range e.workers {
		w.mu.Lock()
		pid := 0
		if w.cmd != nil {
			pid = w.cmd.Process.Pid
		}
		w.mu.Unlock()
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		descriptors, err2 := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		goroutines, err3 := os.ReadFile(w.goroutinesFile())
		var connections int
		err4 := e.ask(`select count(*) from pg_catalog.pg_stat_activity where application_name = $1`, []any{w.name}, &connections)
		if errors.Join(err, err2, err3, err4) != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		memory, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		count, _ := strconv.ParseFloat(string(goroutines), 64)
		all = append(all, reading{of: w.name, pid: pid, values: [4]float64{memory, count, float64(len(descriptors)), float64(connections)}})
	}
	return all
}

const soakTablesSQL = `
select relname, pg_catalog.pg_total_relation_size(relid) / 1024.0, n_dead_tup, n_live_tup, n_tup_ins
  from pg_catalog.pg_stat_user_tables where schemaname = 'mvsched' order by relname`

func (e *episode) readTables(ctx context.Context) (all []reading) {
	rows, err := e.admin.Query(ctx, soakTablesSQL)
	if err != nil {
		return nil
	}
	var r reading
	_, err = pgx.ForEachRow(rows, []any{&r.of, &r.values[0], &r.values[1], &r.values[2], &r.values[3]}, func() error {
		all = append(all, r)
		return nil
	})
	if err != nil {
		return nil
	}
	return all
}

// mayGrow is by how much each figure may be higher at the end than it was after a third of the time: a part of it, and some
// more.
var mayGrow = map[string]struct{ part, more float64 }{
	workerColumns[0]: {0.2, 6000},
	workerColumns[1]: {0.1, 10},
	workerColumns[2]: {0.1, 8},
	workerColumns[3]: {0.1, 8},
	tableColumns[0]:  {0.5, 1024},
	tableColumns[1]:  {0.5, 2000},
	tableColumns[2]:  {0.5, 500},
}

// judgeSoak compares the middle of the second third with that of the last one, and makes the report. Who was there from the
// first reading to the last is judged; the process that was killed now and then is only shown.
func (e *episode) judgeSoak() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d readings. Medians of the readings in each third of the time:\n", len(e.readings))
	byName := map[string][]reading{}
	var names []string
	for _, all := range e.readings {
		for _, r := range all {
			if byName[r.of] == nil {
				names = append(names, r.of)
			}
			byName[r.of] = append(byName[r.of], r)
		}
	}
	for _, tables := range []bool{false, true} {
		columns := workerColumns
		if tables {
			columns = tableColumns
		}
		fmt.Fprintf(&b, "\n| | %s |\n|---|---:|---:|---:|---:|\n", strings.Join(columns, " | "))
		for _, name := range names {
			all := byName[name]
			if (all[0].pid == 0) != tables || len(all) < 6 {
				continue
			}
			fmt.Fprintf(&b, "| %s", name)
			survivor := !slices.ContainsFunc(all, func(r reading) bool { return r.pid != all[0].pid })
			if !survivor {
				b.WriteString(" (killed now and then)")
			}
			third := len(all) / 3
			for i, column := range columns {
				first, second, last := median(all[:third], i), median(all[third:2*third], i), median(all[2*third:], i)
				fmt.Fprintf(&b, " | %.0f, %.0f, %.0f", first, second, last)
				if limit, ok := mayGrow[column]; ok && survivor && last > second*(1+limit.part)+limit.more {
					e.violate("soak", "%s: %s grows: %.0f, %.0f, %.0f", name, column, first, second, last)
				}
			}
			b.WriteString(" |\n")
		}
	}
	for _, w := range e.workers[:len(e.workers)-1] {
		if all := byName[w.name]; len(all) == 0 || slices.ContainsFunc(all, func(r reading) bool { return r.pid != all[0].pid }) {
			e.violate("soak", "%s was not there all the time", w.name)
		}
	}
	return b.String()
}

func median(all []reading, column int) float64 {
	var values []float64
	for _, r := range all {
		values = append(values, r.values[column])
	}
	slices.Sort(values)
	return values[len(values)/2]
}
