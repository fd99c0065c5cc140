package schedule

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Severity is how bad a finding is.
type Severity string

// The severities, the worst first.
const (
	SeverityError   Severity = "error"   // refreshes fail
	SeverityWarning Severity = "warning" // they work, but not as they should
	SeverityAdvice  Severity = "advice"  // it could be better
)

func (s Severity) rank() int {
	return slices.Index([]Severity{SeverityError, SeverityWarning, SeverityAdvice}, s)
}

// Finding is one thing that is wrong, risky, or could be better.
type Finding struct {
	Severity Severity
	Check    string  // which check found it, in one word
	View     string  // canonical name; "" when it is about the server or the connection
	Message  string  // what is the matter, and what to do where no command cures it
	Fix      *string // SQL or a command of mvsched, to be pasted; nil: the message has to do
}

// clockTolerance is how far the clocks of worker and server may be apart before it is worth a word.
const clockTolerance = 2 * time.Second

// Doctor looks for what is wrong with the scheduled views, the role and the server: the worst first. It changes nothing
// and waits for no lock on any view. A check of values needs their statistics, which the server shows only to roles that
// may read the view.
func (s *Store) Doctor(ctx context.Context) ([]Finding, error) {
	ctx, cancel := withDeadline(ctx, "examining the schedules")
	defer cancel()
	if pool, ok := s.db.(*pgxpool.Pool); ok { // which backend a connection believes to have is not seen through a pool
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return nil, fmt.Errorf("examining the schedules: %w", err)
		}
		defer conn.Release()
		s = s.On(conn)
	}

	var findings []Finding
	var server serverFacts
	var reads namedEdges
	server.askedAt = time.Now()
	err := s.send(ctx, func(batch *pgx.Batch) {
		batch.Queue(`set transaction read only`)
		batch.Queue(`set local quote_all_identifiers = off`) // format('%I') heeds it
		batch.Queue(serverSQL).QueryRow(func(row pgx.Row) error {
			server.answeredAt = time.Now()
			return row.Scan(&server.version, &server.versionName, &server.inRecovery, &server.pid, &server.clock,
				&server.readOnly, &server.writeAgain)
		})
		for _, setting := range edgesSettings {
			batch.Queue(setting)
		}
		batch.Queue(checksSQL()).Query(collect(&findings, scanFinding))
		reads.queue(batch)
	})
	if err != nil {
		return nil, fmt.Errorf("examining the schedules: %w", err)
	}
	server.connectedTo = s.backendPID()
	findings = slices.Concat(findings, server.findings(), cycleFindings(reads.graph()))
	slices.SortFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity.rank(), b.Severity.rank()), cmp.Compare(a.View, b.View), cmp.Compare(a.Check, b.Check),
			cmp.Compare(a.Message, b.Message))
	})
	return findings, nil
}

// check is one question to the database: a query behind viewsSQL of severity, view, message and fix. Durations in the last two
// are seconds in marks, for writeDurations.
type check struct {
	name string
	sql  string
}

func scanFinding(row pgx.CollectableRow) (f Finding, err error) {
	err = row.Scan(&f.Check, &f.Severity, &f.View, &f.Message, &f.Fix)
	f.Message = writeDurations(f.Message)
	if f.Fix != nil {
		fix := writeDurations(*f.Fix)
		f.Fix = &fix
	}
	return f, err
}

// markedSeconds are those of a setting, or after a tilde those that were measured, after a > beyond a limit. No name of a view has
// such marks.
var markedSeconds = regexp.MustCompile(`\x02([~>]?)([0-9.e+-]+)\x03`)

// writeDurations writes the durations of a finding as they are written elsewhere, which SQL does not know.
func writeDurations(text string) string {
	return markedSeconds.ReplaceAllStringFunc(text, func(marked string) string {
		parts := markedSeconds.FindStringSubmatch(marked)
		seconds, err := strconv.ParseFloat(parts[2], 64)
		switch {
		case err != nil:
			return parts[2]
		case parts[1] == "~":
			return FormatSpan(duration(seconds))
		case parts[1] == ">":
			return FormatBeyond(duration(seconds))
		default:
			return FormatDuration(duration(seconds))
		}
	})
}

// backendPID is the process that the connection was told to be served by; 0 when the store does not know its connection.
func (s *Store) backendPID() uint32 {
	switch db := s.db.(type) {
	case *pgx.Conn:
		return db.PgConn().PID()
	case interface{ Conn() *pgx.Conn }:
		return db.Conn().PgConn().PID()
	default:
		return 0
	}
}

const serverSQL = `
select current_setting('server_version_num')::integer, split_part(current_setting('server_version'), ' ', 1),
       pg_catalog.pg_is_in_recovery(), pg_catalog.pg_backend_pid(), clock_timestamp(), s.setting = 'on',
       case s.source when 'user' then format('alter role %I reset default_transaction_read_only;', session_user)
                     when 'database' then format('alter database %I reset default_transaction_read_only;', current_database())
                     when 'database user'
                     then format('alter role %I in database %I reset default_transaction_read_only;', session_user, current_database()) end
  from pg_catalog.pg_settings s
 where s.name = 'default_transaction_read_only'`

// serverFacts are what there is to know about server and connection.
type serverFacts struct {
	version     int
	versionName string
	inRecovery  bool
	readOnly    bool    // transactions may not write unless they ask to
	writeAgain  *string // SQL that changes that; nil: it is set elsewhere
	pid         uint32  // of the backend that answered
	connectedTo uint32  // of the backend that the connection was told; 0: not known
	clock       time.Time
	askedAt     time.Time // by our own clock
	answeredAt  time.Time
}

func (f serverFacts) findings() []Finding {
	var found []Finding
	add := func(severity Severity, check, format string, args ...any) {
		found = append(found, Finding{Severity: severity, Check: check, Message: fmt.Sprintf(format, args...)})
	}
	switch {
	case f.inRecovery:
		add(SeverityError, "standby", "this server is a standby, which refreshes nothing; connect to the primary")
	case f.readOnly:
		add(SeverityError, "standby", "default_transaction_read_only is on for this role here: nothing can be refreshed or recorded; reset it, or connect as another role")
		found[0].Fix = f.writeAgain
	}
	if cve := refreshEscalation(f.version); cve != "" {
		add(SeverityWarning, "known_cve", "PostgreSQL %s has %s: REFRESH lets a view's owner act as the role that refreshes; "+
			"install the newest minor version", f.versionName, cve)
	}
	if f.connectedTo != 0 && f.connectedTo != f.pid {
		add(SeverityAdvice, "pooler", "a pooler stands before the server; where it pools transactions, LISTEN does not work and "+
			"workers hear of changes only when they look; a direct connection is quicker")
	}
	switch {
	case f.clock.Before(f.askedAt.Add(-clockTolerance)):
		add(SeverityAdvice, "clock", "the clock here is %s ahead of the server's; schedules go by the server's, "+
			"but logs will not match: synchronise both", FormatDuration(f.askedAt.Sub(f.clock).Round(time.Second)))
	case f.clock.After(f.answeredAt.Add(clockTolerance)):
		add(SeverityAdvice, "clock", "the clock here is %s behind the server's; schedules go by the server's, "+
			"but logs will not match: synchronise both", FormatDuration(f.clock.Sub(f.answeredAt).Round(time.Second)))
	}
	return found
}

// cycleFindings tells each cycle once, under the first of its views.
func cycleFindings(g Graph) []Finding {
	var found []Finding
	for _, cycle := range g.Cycles() {
		found = append(found, Finding{
			Severity: SeverityWarning, Check: "cycle", View: cycle[0],
			Message: fmt.Sprintf("these views read each other in a circle: %s; no order of refreshes makes them agree: "+
				"replace the view between them so that one no longer reads the other", strings.Join(cycle, ", ")),
		})
	}
	return found
}
