package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// EnvPooler puts a pooler before the throw-away server. It is "pgbouncer" or
// empty.
const EnvPooler = "MVSCHED_TEST_POOLER"

// PgBouncer listens in the socket directory of the server: host and rights are
// the same, only the port tells them apart.
const (
	bouncerPort    = 6432
	throughBouncer = " port=6432" // in a connection string the last one counts
)

// bouncerConfig leaves it to the server which databases and roles there are,
// as tests make some of their own, and ignores no startup parameter.
const bouncerConfig = `
[databases]
* = host='%[1]s' port=%[2]d

[pgbouncer]
listen_port = %[3]d
unix_socket_dir = %[1]s
pool_mode = transaction
max_client_conn = 500
default_pool_size = 40
server_idle_timeout = 1
server_login_retry = 0
auth_type = trust
auth_user = %[4]s
auth_query = select $1, ''
log_connections = 0
log_disconnections = 0
`

// pooled returns the connection string for the database that programs get.
func (s *server) pooled(database string) (string, error) {
	switch pooler := os.Getenv(EnvPooler); {
	case pooler == "":
		return s.dsn(database), nil
	case pooler != "pgbouncer":
		return "", fmt.Errorf("unknown pooler %q: pgbouncer is the only one", pooler)
	case s.throwaway == nil:
		return "", fmt.Errorf("the server of %s gets no pooler: have one of the two only", EnvDatabaseURL)
	}
	if err := s.bouncer(); err != nil {
		return "", err
	}
	return s.throughBouncer(database), nil
}

func (s *server) throughBouncer(database string) string {
	return s.dsn(database) + throughBouncer
}

// Direct returns a connection string that DSN returned, whatever has been
// appended to it since, without the way through the pooler.
func Direct(dsn string) string { return strings.Replace(dsn, throughBouncer, "", 1) }

// startBouncer starts PgBouncer, which then stays as long as the server.
func (s *server) startBouncer() error {
	program, err := exec.LookPath("pgbouncer")
	if errors.Is(err, exec.ErrNotFound) {
		program, err = exec.LookPath("/usr/sbin/pgbouncer") // not in the PATH of everybody
	}
	if err != nil {
		return fmt.Errorf("PgBouncer is not installed (apt-get install pgbouncer): %w", err)
	}
	to, err := pgx.ParseConfig(s.dsn("postgres"))
	if err != nil {
		return err
	}
	config := filepath.Join(s.throwaway.Dir(), "pgbouncer.ini")
	text := fmt.Sprintf(bouncerConfig, to.Host, to.Port, bouncerPort, to.User)
	// The account of the server reads it, whatever our umask.
	if err := errors.Join(os.WriteFile(config, []byte(text), 0o600), os.Chmod(config, 0o644)); err != nil { //nolint:gosec // no secrets
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	return s.throwaway.Accompany(ctx, s.tryBouncer, program, config)
}

// tryBouncer makes one connection, all the way to the server.
func (s *server) tryBouncer(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.throughBouncer("postgres"))
	if err != nil {
		return err
	}
	return errors.Join(conn.Ping(ctx), conn.Close(ctx))
}
