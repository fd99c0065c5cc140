package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mvsched/mvsched/internal/pgtest"
)

func cmdSQL(ts *testscript.TestScript, neg bool, args []string) {
	s := scriptOf(ts)
	var statements string
	switch {
	case len(args) == 1:
		statements = args[0]
	case len(args) == 2 && args[0] == "-f":
		statements = ts.ReadFile(args[1])
	default:
		ts.Fatalf("usage: sql STATEMENTS, or sql -f FILE")
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	_, err := s.conn(ctx).PgConn().Exec(ctx, statements).ReadAll()
	var refused *pgconn.PgError
	switch {
	case !neg:
		ts.Check(err)
	case err == nil:
		ts.Fatalf("the statement succeeded")
	case !errors.As(err, &refused):
		ts.Check(err)
	default:
		_, _ = fmt.Fprintf(ts.Stderr(), "%s: %s\n", refused.Code, refused.Message)
	}
}

// conn is the script's connection to the database that $MVSCHED_DATABASE_URL names now.
func (s *script) conn(ctx context.Context) *pgx.Conn {
	dsn := s.Getenv("MVSCHED_DATABASE_URL")
	if s.dsns[dsn] == nil {
		conn, err := pgx.Connect(ctx, pgtest.Direct(dsn))
		s.Check(err)
		s.dsns[dsn] = conn
	}
	return s.dsns[dsn]
}

// query returns the rows of a query, their columns joined by "|".
func (s *script) query(ctx context.Context, query string) []string {
	results, err := s.conn(ctx).PgConn().Exec(ctx, query).ReadAll()
	s.Check(err)
	rows := []string{}
	for _, row := range results[len(results)-1].Rows {
		rows = append(rows, string(bytes.Join(row, []byte("|"))))
	}
	return rows
}

func (s *script) sqlout(args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	if got := s.query(ctx, args[0]); !slices.Equal(got, args[1:]) {
		s.Fatalf("got  %q\nwant %q", got, args[1:])
	}
}

func (s *script) waitsql(args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*waitLimit)
	defer cancel()
	patience := time.After(waitLimit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got := s.query(ctx, args[0])
		if slices.Equal(got, args[1:]) {
			return
		}
		select {
		case <-tick.C:
		case <-patience:
			s.Fatalf("after %s: got  %q\nwant %q", waitLimit, got, args[1:])
		}
	}
}

func (s *script) hold(args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, pgtest.Direct(s.Getenv("MVSCHED_DATABASE_URL")))
	s.Check(err)
	s.held[args[0]] = conn
	_, err = conn.PgConn().Exec(ctx, "begin;"+args[1]).ReadAll()
	s.Check(err)
	s.Setenv(args[0]+"_pid", strconv.FormatUint(uint64(conn.PgConn().PID()), 10))
	s.Setenv(args[0]+"_user", conn.Config().User)
}

func (s *script) release(args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	conn := s.held[args[0]]
	delete(s.held, args[0])
	_, err := conn.Exec(ctx, "rollback")
	s.Check(errors.Join(err, conn.Close(ctx)))
}

func (s *script) database(args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	name := s.unique + strings.ToLower(args[0])
	_, err := s.admin.Exec(ctx, "create database "+name+" template template0")
	s.Check(err)
	s.leftovers = append(s.leftovers, "drop database if exists "+name+" with (force)")
	s.Setenv(args[0], name)
	s.Setenv(args[0]+"_url", withParameters(s.Getenv("MVSCHED_DATABASE_URL"), []string{"dbname=" + name}))
}

func (s *script) role(args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	conn := s.admin
	name := s.unique + strings.ToLower(args[0])
	create := "create role " + name + " login " + strings.Join(args[1:], " ")
	if password := conn.Config().Password; password != "" {
		create += " password '" + strings.ReplaceAll(password, "'", "''") + "'"
	}
	_, err := conn.Exec(ctx, create)
	s.Check(err)
	s.leftovers = append(s.leftovers, "drop role "+name, "drop owned by "+name+" cascade")
	s.Setenv(args[0], name)
	s.Setenv(args[0]+"_url", withParameters(s.Getenv("MVSCHED_DATABASE_URL"), []string{"user=" + name}))
}

func (s *script) dsn(args []string) {
	s.Setenv(args[0], withParameters(s.Getenv("MVSCHED_DATABASE_URL"), args[1:]))
}

// withParameters returns the connection string, a URL or keywords and values, with parameters changed: the last counts.
func withParameters(dsn string, parameters []string) string {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme == "" {
		return dsn + " " + strings.Join(parameters, " ")
	}
	query := u.Query()
	for _, parameter := range parameters {
		key, value, _ := strings.Cut(parameter, "=")
		query.Set(key, value)
	}
	u.RawQuery = query.Encode()
	return u.String()
}
