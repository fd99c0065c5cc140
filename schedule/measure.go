package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Measurement is what refreshes of a copy of a view took, done in one way.
type Measurement struct {
	View         string
	Method       Method
	Parameters   Parameters // set besides those that the view's schedule sets
	NullColumn   bool       // with a column that is always NULL, for which no row is compared with others for duplicates
	Present      bool       // it is how the view is refreshed now
	Runs         int
	Median       time.Duration
	Least        time.Duration
	Greatest     time.Duration
	Faster       float64 // the present way's median divided by this one's; 0: not known
	Clear        bool    // each of its runs was quicker, or each slower, than each in the present way
	RowsInserted *int64  // nil: plain, which writes all
	RowsDeleted  *int64
	Fix          *string // how to have it refreshed so
	Price        string  // what that costs besides
	Problem      string  // what the server said when it was tried; "": it worked
}

// MeasuredView is what is known of a view before it is measured.
type MeasuredView struct {
	View  string
	Bytes int64 // of the view with its indexes, by the catalog
	Ways  int   // how many ways of refreshing it are to be tried
}

// How long measuring goes on: a single run says little, least of all on a server that does other work.
const (
	fewMeasureRounds = 3 // as far as there is time at all
	maxMeasureRounds = 5
	enoughMeasuring  = time.Minute
)

// Limits of measuring besides its own: what it waits for behind a lock, and what the server has to answer a cancel.
const (
	measureLockTimeout = "2s"
	measureBackstop    = 5 * time.Second
)

// ErrNotMeasured means that there was no time for even one refresh.
var ErrNotMeasured = errors.New("no refresh of the copy ended in time")

// Measure refreshes a copy of a view in several ways and says what each took: the fastest way is known only after it was
// tried on the rows themselves. Everything happens in one transaction, which is rolled back: the copy is seen by nobody
// else. It begins with what the view has now and is refreshed to what its query says, so a refresh writes what the view's
// next one would. begin, which may be nil, is told of the view before anything is copied.
//
// The transaction holds the weakest lock on the view and what it reads (which a plain refresh of the view waits for),
// and keeps VACUUM from cleaning up behind it, as any long query does. After limit, the server ends what it is at, and
// what has been measured by then is returned, with a nil error; ErrNotMeasured if that is nothing.
func (s *Store) Measure(ctx context.Context, view ViewName, limit time.Duration, begin func(MeasuredView)) ([]Measurement, error) {
	deadline := time.Now().Add(limit)
	ctx, cancel := context.WithDeadlineCause(ctx, deadline.Add(measureBackstop), fmt.Errorf("measuring took longer than %s", limit))
	defer cancel()
	found, err := s.describe(ctx, view)
	switch {
	case err != nil:
		return nil, fmt.Errorf("measuring %s: %w", view, err)
	case found.problem != nil:
		return nil, found.problem
	}
	tx, err := s.db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return nil, fmt.Errorf("measuring %s: %w", view, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), controlTimeout)
		defer cancel()
		_ = tx.Rollback(ctx) // where it fails, the connection is closed, and the server rolls back
	}()
	m := measuring{tx: tx, deadline: deadline}
	if err := m.prepare(ctx, found); err != nil {
		return nil, err
	}
	ways := m.ways()
	if begin != nil {
		begin(MeasuredView{View: m.view, Bytes: m.bytes, Ways: len(ways)})
	}
	if err := m.rounds(ctx, ways); err != nil {
		return nil, fmt.Errorf("measuring %s: %w", view, err)
	}
	return m.measurements(ways)
}

// way is one way to refresh the copy, with what that took so far.
type way struct {
	Measurement
	took []time.Duration
}

// measuring is a transaction that measures.
type measuring struct {
	tx       pgx.Tx
	deadline time.Time
	original
}

// ways are what there is to try. Where the view cannot be refreshed concurrently, or is to be plain, that is compared
// with itself too.
func (m *measuring) ways() []*way {
	chosen := m.strategy.Choose(true, m.uniqueIndex, m.ownerTemp)
	present := &way{Measurement: Measurement{View: m.view, Method: chosen.Method, Present: true}}
	ways := []*way{present}
	concurrent := m.uniqueIndex && m.ownerTemp
	add := func(w Measurement) {
		w.View = m.view
		ways = append(ways, &way{Measurement: w})
	}
	switch {
	case present.Method == MethodConcurrently:
		add(Measurement{Method: MethodPlain, Fix: m.set("--strategy plain"), Price: "its readers wait for each refresh to end"})
	case concurrent:
		add(Measurement{Method: MethodConcurrently, Fix: m.set("--strategy auto"), Price: "time; but its readers do not wait"})
	}
	if concurrent {
		add(Measurement{
			Method: MethodConcurrently, NullColumn: true, Fix: new("null::boolean as no_duplicate_check"),
			Price: "one more column in its query; exact duplicates of stored rows are dropped silently",
		})
	}
	for _, memory := range []struct {
		value ParameterValue
		bytes int64
	}{{"64MB", 64 << 20}, {"256MB", 256 << 20}} {
		if memory.bytes > m.workMem {
			parameters := Parameters{"work_mem": memory.value}
			add(Measurement{
				Method: present.Method, Parameters: parameters, Fix: m.set("--set " + parameters.String()),
				Price: "so much memory for each sort and hash",
			})
		}
	}
	return ways
}

// set is a command that changes the view's schedule.
func (m *measuring) set(flag string) *string { return new("mvsched set " + m.word + " " + flag) }

// rounds tries each way in turn, and again while there is time. The first refresh of all fills caches and does not count.
func (m *measuring) rounds(ctx context.Context, ways []*way) error {
	began := time.Now()
	warm := *ways[0]
	if err := m.try(ctx, &warm); err != nil {
		return m.outOfTime(err)
	}
	for round := range maxMeasureRounds {
		roundBegan := time.Now()
		for i := range ways {
			if way := ways[(i+round)%len(ways)]; way.Problem == "" {
				if err := m.try(ctx, way); err != nil {
					return m.outOfTime(err)
				}
			}
		}
		if round+1 >= fewMeasureRounds && time.Since(began) > enoughMeasuring || time.Until(m.deadline) < time.Since(roundBegan) {
			break
		}
	}
	return nil
}

// outOfTime is nil when the server ended what it was at since the time for measuring was over.
func (m *measuring) outOfTime(err error) error {
	if errors.Is(err, ErrNotMeasured) || sqlState(err) == pgerrcode.QueryCanceled && time.Until(m.deadline) <= 0 {
		return nil
	}
	return err
}

// try refreshes a fresh copy in one way. What the server says against it is the way's problem.
func (m *measuring) try(ctx context.Context, way *way) error {
	if err := m.exec(ctx, `savepoint measured`); err != nil {
		return err
	}
	took, err := m.refreshCopy(ctx, way)
	var pgErr *pgconn.PgError
	switch {
	case err == nil:
		way.took = append(way.took, took)
	case errors.As(err, &pgErr) && pgErr.Code != pgerrcode.QueryCanceled && !m.tx.Conn().IsClosed():
		way.Problem = pgErr.Message // not Detail: it carries rows of the view
	default:
		return err
	}
	// The server removes the files of the copy with this, so the copies need their space one after the other.
	return m.exec(ctx, `rollback to savepoint measured`)
}

func (m *measuring) exec(ctx context.Context, sql string, args ...any) error {
	_, err := m.tx.Exec(ctx, sql, args...)
	return err
}

// measurements are the ways that have been tried, the present one first, then the fastest.
func (m *measuring) measurements(ways []*way) ([]Measurement, error) {
	var found []Measurement
	for _, way := range ways {
		if len(way.took) == 0 && way.Problem == "" {
			continue
		}
		if way.Runs = len(way.took); way.Runs > 0 {
			slices.Sort(way.took)
			way.Least, way.Median, way.Greatest = way.took[0], way.took[way.Runs/2], way.took[way.Runs-1]
		}
		if present := ways[0]; present.Median > 0 && way.Median > 0 {
			way.Faster = present.Median.Seconds() / way.Median.Seconds()
			way.Clear = present.Greatest < way.Least || present.Least > way.Greatest
		}
		found = append(found, way.Measurement)
	}
	if len(found) == 0 {
		return nil, ErrNotMeasured
	}
	slices.SortStableFunc(found, func(a, b Measurement) int {
		switch {
		case a.Present != b.Present:
			return map[bool]int{true: -1, false: 1}[a.Present]
		case (a.Runs == 0) != (b.Runs == 0):
			return map[bool]int{true: 1, false: -1}[a.Runs == 0]
		default:
			return cmp.Compare(a.Median, b.Median)
		}
	})
	return found, nil
}
