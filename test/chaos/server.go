package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/throwaway"
)

// template is the database that those of the episodes are copied from.
const template = "chaos_template"

// startServer starts a server of our own, which is going to be ill-treated.
func startServer(ctx context.Context, settings []string, say func(string)) (*throwaway.Server, error) {
	server, err := throwaway.Start(ctx, throwaway.Options{Notify: say, Fetch: true, Settings: settings})
	if err != nil {
		return nil, err
	}
	err = execute(ctx, server, "postgres",
		`alter system set log_statement = 'ddl'`, // REFRESH is one
		`alter system set log_line_prefix = '`+logPrefix+`'`,
		`alter system set log_timezone = 'UTC'`,
		`alter system set log_min_error_statement = 'panic'`, // the statement is in the log already
		`alter system set log_checkpoints = off`,
		`alter system set log_autovacuum_min_duration = -1`,
		`alter system set max_wal_size = '256MB'`,
		`select pg_catalog.pg_reload_conf()`,
		`create role worker login`,
		`create database `+template+` owner worker`)
	if err == nil {
		err = execute(ctx, server, template, setupBefore)
	}
	if err != nil {
		_ = server.Stop()
		return nil, err
	}
	return server, nil
}

// install makes the template complete.
func install(ctx context.Context, server *throwaway.Server, binary string) error {
	dsn := server.DSN(template)
	cmd := exec.CommandContext(ctx, binary, "init")
	cmd.Env = []string{"MVSCHED_DATABASE_URL=" + dsn + " user=worker"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mvsched init: %w: %s", err, out)
	}
	statements := []string{setupAfter}
	for _, v := range theViews() {
		statements = append(statements, v.create()...)
	}
	return execute(ctx, server, template, statements...)
}

func execute(ctx context.Context, server *throwaway.Server, database string, statements ...string) error {
	conn, err := pgx.Connect(ctx, server.DSN(database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%w, with: %.200s", err, sql)
		}
	}
	return nil
}

// build builds the program from the source around us, into a directory (an absolute path), with an overlay or without.
func build(ctx context.Context, dir, overlay string) (string, error) {
	binary := filepath.Join(dir, "mvsched")
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay="+overlay, "-o", binary, "./cmd/mvsched")
	cmd.Dir = filepath.Join("..", "..") // its module; ours is another
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return binary, nil
}
