package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/throwaway"
	"github.com/mvsched/mvsched/sql"
)

const (
	startLimit = 5 * time.Minute // the programs may have to be fetched
	stepLimit  = time.Minute
)

// started says that somebody asked for the server.
var started atomic.Bool

// server is where the databases of the tests are made.
type server struct {
	throwaway *throwaway.Server // nil if it is not ours
	dsn       func(database string) string
	admin     *pgxpool.Pool
	prefix    string       // of database names; several packages may share a server
	bouncer   func() error // starts PgBouncer at the first call

	mu    sync.Mutex
	count int
	names map[testing.TB]string
}

// start starts or finds the server and makes the template database.
func start() (_ *server, err error) {
	started.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	s := &server{
		prefix: "mvsched_test_" + strings.ToLower(rand.Text()[:8]),
		names:  map[testing.TB]string{},
	}
	s.bouncer = sync.OnceValue(s.startBouncer)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	adminDSN := os.Getenv(EnvDatabaseURL)
	if adminDSN != "" {
		s.dsn = func(database string) string { return withDatabase(adminDSN, database) }
	} else {
		s.throwaway, err = throwaway.Start(ctx, throwaway.Options{Fetch: true})
		if err != nil {
			return nil, err
		}
		s.dsn, adminDSN = s.throwaway.DSN, s.throwaway.DSN("postgres")
	}
	config, err := pgxpool.ParseConfig(adminDSN)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 4
	if s.admin, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	if err := s.makeTemplate(ctx); err != nil {
		return nil, fmt.Errorf("make the template database: %w", err)
	}
	return s, nil
}

func (s *server) template() string { return s.prefix + "_tpl" }

// makeTemplate installs the schema once. Its connection must be closed before
// the first copy: PostgreSQL copies no database that is in use.
func (s *server) makeTemplate(ctx context.Context) error {
	if err := s.exec(ctx, "create database "+quote(s.template())+" template template0"); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.dsn(s.template()))
	if err != nil {
		return err
	}
	_, err = conn.PgConn().Exec(ctx, sql.Schema).ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

// database returns the name of the test's database, made at the first call.
func (s *server) database(t testing.TB) (string, error) {
	t.Helper()
	s.mu.Lock()
	name, ok := s.names[t]
	if !ok {
		s.count++
		name = fmt.Sprintf("%s_%d", s.prefix, s.count)
		s.names[t] = name
	}
	s.mu.Unlock()
	if ok {
		return name, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	if err := s.exec(ctx, "create database "+quote(name)+" template "+quote(s.template())); err != nil {
		return "", err
	}
	t.Cleanup(func() { s.drop(t, name) })
	return name, nil
}

// drop removes the database after its test. If the test failed on a server
// that lives on, the database stays for a look inside.
func (s *server) drop(t testing.TB, name string) {
	t.Helper()
	s.mu.Lock()
	delete(s.names, t)
	s.mu.Unlock()
	if t.Failed() && s.throwaway == nil {
		t.Logf("pgtest: the test failed; its database %q stays on the server of %s", name, EnvDatabaseURL)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	if err := s.exec(ctx, "drop database "+quote(name)+" with (force)"); err != nil {
		t.Errorf("pgtest: %v", err)
	}
}

// stop ends the server, or removes the template from somebody else's.
func (s *server) stop() error {
	var errs []error
	if s.admin != nil {
		if s.throwaway == nil {
			ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
			defer cancel()
			errs = append(errs, s.exec(ctx, "drop database if exists "+quote(s.template())+" with (force)"))
		}
		s.admin.Close()
	}
	if s.throwaway != nil {
		errs = append(errs, s.throwaway.Stop())
	}
	return errors.Join(errs...)
}

func (s *server) exec(ctx context.Context, statement string) error {
	if _, err := s.admin.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// withDatabase returns the connection string, a URL or keywords and values,
// with another database in it.
func withDatabase(dsn, database string) string {
	if u, err := url.Parse(dsn); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		u.Path = "/" + database
		return u.String()
	}
	return dsn + " dbname=" + database // the last one counts
}
