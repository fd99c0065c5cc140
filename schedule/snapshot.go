package schedule

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/sql"
)

// Snapshot is what a page about a database shows, as of one instant.
type Snapshot struct {
	At        time.Time // by the database's clock
	Standings []Standing
	Runs      []Execution // that ended within the last day, and those that are open; oldest first
	Graph     Graph

	// Recent are the last executions, however old, newest first: what History returns for a filter with this limit.
	Recent []Execution

	sign string      // of the catalog that Graph was read from
	kept []Execution // Runs and Recent, oldest first
}

// How far back a snapshot looks.
const (
	runsWithin  = 24 * time.Hour
	mostRuns    = 20_000 // and not more than the newest of these: thousands of views could have a million runs in a day
	RecentLimit = 50

	// What ended so shortly before the look before may have been committed after it. A run that takes longer to commit
	// was open then, and is asked for by its id.
	commitsWithin = 10 * time.Second

	// A failing view may say a great deal every second of the day: of what is not recent, so much is kept of the message.
	keptMessage = 300
)

// lookSQL is one statement outside of a transaction, by which mvsched.look gets by without a search_path of the session's:
// here every operator is qualified.
const lookSQL = `
select l.at, l.version, l.sign,` + standingColumns + `,` + ExecutionColumns + `,
       ` + readerColumns + `, ` + blockerColumns + `
  from mvsched.look($1, $2, $3, $4, $5) l
 cross join lateral (select (l.standing).*) st
 cross join lateral (select (l.execution).*) e
 cross join lateral (select (l.reader).*) r
 cross join lateral (select (l.blocker).*) b`

// Snapshot reads what a page shows, in one statement. What it can know from the snapshot before it does not read again:
// the executions that had ended, and the graph as long as the catalog is the same. Before may be nil. It returns
// ErrNoSchema and *SchemaVersionError as CheckVersion does.
func (s *Store) Snapshot(ctx context.Context, before *Snapshot) (Snapshot, error) {
	ctx, cancel := withDeadline(ctx, "looking")
	defer cancel()
	var known Snapshot
	var since *time.Time
	var open []int64
	if before != nil {
		known = *before
		t := before.At.Add(-commitsWithin)
		since = &t
		for _, e := range before.Runs {
			if e.EndedAt == nil {
				open = append(open, e.ID)
			}
		}
	}
	rows, err := s.db.Query(ctx, lookSQL, since, open, known.sign, RecentLimit, mostRuns)
	var seen look
	if err == nil {
		err = seen.collect(rows)
	}
	switch {
	case isNoSchema(err):
		return Snapshot{}, ErrNoSchema
	case err != nil:
		return Snapshot{}, fmt.Errorf("looking: %w", err)
	case seen.version != sql.Version:
		return Snapshot{}, &SchemaVersionError{Installed: seen.version, Known: sql.Version}
	case before != nil && seen.at.Before(before.At): // another server's clock, or history
		return s.Snapshot(ctx, nil)
	}
	return seen.after(known), nil
}

// look is what mvsched.look returns.
type look struct {
	at         time.Time
	version    int
	sign       string
	standings  []Standing
	executions []Execution
	readers    []reader
	blockers   []Blocker
}

// The columns of lookSQL, part by part.
const (
	lookHead      = 3
	lookStanding  = 32
	lookExecution = 20
	lookReader    = 2
	lookBlocker   = 5
	lookWidth     = lookHead + lookStanding + lookExecution + lookReader + lookBlocker
)

func (l *look) collect(rows pgx.Rows) error {
	defer rows.Close()
	for rows.Next() {
		var err error
		switch values := rows.RawValues(); {
		case values[0] != nil && l.at.IsZero():
			err = columnsOf(rows, 0, lookHead).Scan(&l.at, &l.version, &l.sign)
		case values[lookHead] != nil:
			err = add(&l.standings, scanStanding, columnsOf(rows, lookHead, lookStanding))
		case values[lookHead+lookStanding] != nil:
			err = add(&l.executions, ScanExecution, columnsOf(rows, lookHead+lookStanding, lookExecution))
		case values[lookHead+lookStanding+lookExecution] != nil:
			err = add(&l.readers, scanReader, columnsOf(rows, lookHead+lookStanding+lookExecution, lookReader))
		default:
			err = add(&l.blockers, scanBlocker, columnsOf(rows, lookWidth-lookBlocker, lookBlocker))
		}
		if err != nil {
			return err
		}
	}
	return rows.Err()
}

func add[T any](list *[]T, scan pgx.RowToFunc[T], row pgx.CollectableRow) error {
	value, err := scan(row)
	*list = append(*list, value)
	return err
}

// columns are some of the columns of a row, as if there were no others.
type columns struct {
	pgx.CollectableRow
	before, count int
}

func columnsOf(row pgx.CollectableRow, before, count int) columns {
	return columns{row, before, count}
}

func (c columns) Scan(dest ...any) error {
	all := make([]any, lookWidth) // nil: not wanted
	copy(all[c.before:c.before+c.count], dest)
	return c.CollectableRow.Scan(all...)
}

// after is the snapshot that follows another one, whose slices it shares or leaves alone.
func (l *look) after(before Snapshot) Snapshot {
	block(l.standings, l.blockers)
	snap := Snapshot{At: l.at, Standings: l.standings, Graph: before.Graph, sign: l.sign}
	if l.sign != before.sign {
		snap.Graph = newGraph(l.readers)
	}
	earliest := l.at.Add(-runsWithin)
	changes := func(e Execution) bool { return e.EndedAt == nil || e.EndedAt.Before(earliest) }
	if len(l.executions) == 0 && !slices.ContainsFunc(before.Runs, changes) {
		snap.Runs, snap.Recent, snap.kept = before.Runs, before.Recent, before.kept // most looks see nothing new
		return snap
	}

	newer := map[int64]Execution{}
	for _, e := range l.executions {
		newer[e.ID] = e
	}
	for _, e := range before.kept {
		_, read := newer[e.ID]
		if !read && e.EndedAt != nil { // an open one that was not found is gone
			snap.kept = append(snap.kept, e)
		}
	}
	snap.kept = append(snap.kept, l.executions...)
	slices.SortFunc(snap.kept, func(a, b Execution) int { return cmp.Compare(a.ID, b.ID) })

	recent := max(0, len(snap.kept)-RecentLimit)
	snap.Recent = slices.Clone(snap.kept[recent:])
	slices.Reverse(snap.Recent)

	kept := snap.kept[:0]
	for i, e := range snap.kept {
		within := e.EndedAt == nil || !e.EndedAt.Before(earliest) && i >= len(snap.kept)-mostRuns
		if within {
			snap.Runs = append(snap.Runs, e)
		}
		if i < recent && e.ErrorMessage != nil && len(*e.ErrorMessage) > keptMessage {
			short := strings.ToValidUTF8((*e.ErrorMessage)[:keptMessage], "") + "…"
			e.ErrorMessage = &short
		}
		if within || i >= recent {
			kept = append(kept, e)
		}
	}
	snap.kept = kept
	return snap
}

// Since is from when on Runs has every run that has begun: a day ago, or later where a day had more than are kept.
func (s Snapshot) Since() time.Time {
	dayAgo := s.At.Add(-runsWithin)
	ended, earliest := 0, s.At
	for _, e := range s.Runs {
		if e.EndedAt == nil {
			continue
		}
		if ended++; e.StartedAt.Before(earliest) {
			earliest = e.StartedAt
		}
	}
	if ended < mostRuns || earliest.Before(dayAgo) {
		return dayAgo
	}
	return earliest
}
