package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
	"github.com/mvsched/mvsched/sql"
)

// defaultConnectTimeout applies where the connection string gives none: a script must not hang on a dead host.
const defaultConnectTimeout = 4 * time.Second

// A connection that carries nothing for this long is asked for a sign of life, and given up after three in vain.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

// parseURL reads a connection string; "" is libpq's own variables and files.
func parseURL(url string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		if problem := brokenEnvironment(); problem != "" {
			hint := "set it right or unset it"
			if url != "" {
				hint += "; or it is the connection string that cannot be parsed, which comes before it"
			}
			return nil, &connectError{err: errors.New(problem), hint: hint}
		}
		// The error quotes the string, and what it redacts is its best effort.
		return nil, &connectError{
			err:  errors.New("the connection string cannot be parsed (it is not shown here)"),
			hint: "write postgres://user@host:5432/database, or host=… dbname=…; -d, MVSCHED_DATABASE_URL, DATABASE_URL and libpq's own variables are read in this order",
		}
	}
	return config, nil
}

// environmentFlaws are what may be wrong with libpq's own variables, and what to say in a connection string in place of them.
var environmentFlaws = []struct {
	variables        []string
	instead, problem string
}{
	{[]string{"PGPORT"}, "port=5432", "PGPORT is no port number, nor one for each host"},
	{[]string{"PGCONNECT_TIMEOUT"}, "connect_timeout=1", "PGCONNECT_TIMEOUT is no number of seconds"},
	{[]string{"PGTARGETSESSIONATTRS"}, "target_session_attrs=any", "PGTARGETSESSIONATTRS is none of any, read-write, read-only, primary, standby and prefer-standby"},
	{[]string{"PGSSLMODE"}, "sslmode=prefer", "PGSSLMODE is none of disable, allow, prefer, require, verify-ca and verify-full"},
	{[]string{"PGSSLROOTCERT"}, "sslrootcert=''", "PGSSLROOTCERT names no file with certificates that can be read"},
	{[]string{"PGSSLCERT", "PGSSLKEY"}, "sslcert='' sslkey=''", "PGSSLCERT and PGSSLKEY do not name a certificate and its key that can be read"},
	{[]string{"PGSSLCERTMODE"}, "sslcertmode=allow", "PGSSLCERTMODE is none of disable, allow and require"},
	{[]string{"PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION"}, "min_protocol_version='' max_protocol_version=''", "PGMINPROTOCOLVERSION and PGMAXPROTOCOLVERSION are no versions from 3.0 to latest"},
	{[]string{"PGCHANNELBINDING"}, "channel_binding=prefer", "PGCHANNELBINDING is none of disable, prefer and require"},
	{[]string{"PGREQUIREAUTH"}, "require_auth=''", "PGREQUIREAUTH names a way to log in that there is not"},
}

// brokenEnvironment says what of it cannot be read, without its value: what makes the difference when it is replaced, whatever
// the words of the error are. A service is looked up first, and cannot be replaced.
func brokenEnvironment() string {
	isSet := func(variable string) bool { return os.Getenv(variable) != "" }
	settings := ""
	if host := os.Getenv("PGHOST"); host == "" || strings.HasPrefix(host, "/") {
		settings = "host=127.0.0.1" // for a socket nothing of TLS is read
	}
	if _, err := pgxpool.ParseConfig(settings); err == nil {
		return ""
	}
	for _, flaw := range environmentFlaws {
		settings += " " + flaw.instead
		if _, err := pgxpool.ParseConfig(settings); err == nil && slices.ContainsFunc(flaw.variables, isSet) {
			return flaw.problem
		}
	}
	if isSet("PGSERVICE") {
		return "PGSERVICE names no service in ~/.pg_service.conf (else PGSERVICEFILE), or one that cannot be read"
	}
	return "libpq's own variables and files (PGHOST, ~/.postgresql …) cannot be read"
}

// configure says how to connect, for a worker with so many jobs (0: no worker).
func (a *app) configure(jobs int) (*pgxpool.Config, error) {
	config, err := parseURL(cmp.Or(a.databaseURL, a.getenv("MVSCHED_DATABASE_URL"), a.getenv("DATABASE_URL")))
	if err != nil {
		return nil, err
	}
	refresh.ConfigurePool(config, jobs)
	connection := config.ConnConfig
	if connection.RuntimeParams["application_name"] == "" {
		connection.RuntimeParams["application_name"] = "mvsched"
	}
	if connection.ConnectTimeout == 0 {
		connection.ConnectTimeout = defaultConnectTimeout
	}
	dialer := &net.Dialer{Timeout: connection.ConnectTimeout, KeepAliveConfig: keepAlive, Control: boundUnacknowledged}
	connection.DialFunc = dialer.DialContext
	a.noteUnencrypted(&connection.Config)
	return config, nil
}

// open connects and does not check the schema.
func (a *app) open(ctx context.Context, jobs int) (*pgxpool.Pool, error) {
	config, err := a.configure(jobs)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("preparing the connection pool: %w", err)
	}
	return pool, nil
}

// connect connects and sees to it that schema mvsched is there in the version that this program knows.
func (a *app) connect(ctx context.Context, jobs int) (*pgxpool.Pool, *schedule.Store, error) {
	pool, err := a.open(ctx, jobs)
	if err != nil {
		return nil, nil, err
	}
	store := schedule.NewStore(pool)
	err = refresh.WaitForConnection(ctx, func() error { return store.CheckVersion(ctx, sql.Version) })
	if err != nil {
		pool.Close()
		return nil, nil, connectFailure(err)
	}
	return pool, store, nil
}

// closePool closes a pool, but does not wait for what still has a connection when the program panics.
func closePool(pool *pgxpool.Pool) {
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(defaultConnectTimeout):
	}
}

// connectFailure makes a connectError of an error that is about connecting.
func connectFailure(err error) error {
	var failure *pgconn.ConnectError
	if !errors.As(err, &failure) {
		return err
	}
	hint := "check that the server runs and the connection string (-d, MVSCHED_DATABASE_URL, DATABASE_URL, PGHOST …)"
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case pgerrcode.InvalidPassword, pgerrcode.InvalidAuthorizationSpecification:
			hint = "check user and password (~/.pgpass, PGPASSWORD, or the connection string) and the server's pg_hba.conf"
		case pgerrcode.InvalidCatalogName:
			hint = "name an existing database"
		case pgerrcode.TooManyConnections:
			hint = "raise max_connections, or let fewer programs connect at a time"
		case pgerrcode.UndefinedObject:
			hint = "the connection string has a parameter that PostgreSQL does not know; take it out"
		case pgerrcode.ProtocolViolation:
			if !strings.Contains(pgErr.Message, "startup parameter") {
				break // PgBouncer, whose messages are not localised, has one code for everything
			}
			hint = "a pooler may refuse startup parameters: take it out of the connection string or PGOPTIONS, or add it to the pooler's ignore_startup_parameters"
		case pgerrcode.CannotConnectNow:
			hint = "the server is starting, stopping or recovering; try again in a moment"
		}
	}
	return &connectError{err: err, hint: hint}
}
