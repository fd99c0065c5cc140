package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/internal/throwaway"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// database is where all contenders work, on the same views.
const database = "bench"

// settings are the server's. Those that the throw-away server switches off for speed are on, as in production; autovacuum is
// off, because it would strike whom it likes: what contenders leave is vacuumed between them instead.
var settings = []string{
	"fsync=on", "synchronous_commit=on", "full_page_writes=on", "autovacuum=off",
	"shared_buffers=256MB", "max_wal_size=4GB", "checkpoint_timeout=1h",
}

// cronSettings load pg_cron, as its manual has it, with as many jobs at a time as the others' most.
var cronSettings = []string{
	"shared_preload_libraries=pg_cron", "cron.database_name=" + database, "cron.max_running_jobs=8",
}

// bench is what is measured on.
type bench struct {
	options
	server *throwaway.Server
	dir    string // for what is built
	admin  *pgx.Conn
	pgcron bool
}

// newBench starts the server, builds mvsched and makes the views.
func newBench(ctx context.Context, o options) (_ *bench, err error) {
	b := &bench{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.dir, err = os.MkdirTemp("", "mvsched-bench-"); err != nil {
		return nil, err
	}
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "mvsched")
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.binary, "./cmd/mvsched")
		cmd.Dir = filepath.Join("..", "..") // its module; ours is another
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build: %w: %s", err, out)
		}
	}
	start := throwaway.Options{Fetch: true, Settings: settings}
	if b.pgcron = hasCron(ctx); b.pgcron {
		start.Settings = append(start.Settings, cronSettings...)
	}
	if b.server, err = throwaway.Start(ctx, start); err != nil {
		return nil, err
	}
	if err := b.create(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// hasCron tells whether the server that is going to be used has pg_cron.
func hasCron(ctx context.Context) bool {
	bin, _, err := throwaway.Find()
	if err != nil {
		return false
	}
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "pg_config"), "--pkglibdir").Output()
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(strings.TrimSpace(string(out)), "pg_cron.so"))
	return err == nil
}

// create makes the database, the views and the schedules.
func (b *bench) create(ctx context.Context) error {
	first, err := pgx.Connect(ctx, b.server.DSN("postgres"))
	if err != nil {
		return err
	}
	_, err = first.Exec(ctx, `create database `+database)
	if err := errors.Join(err, first.Close(ctx)); err != nil {
		return err
	}
	if b.admin, err = pgx.Connect(ctx, b.server.DSN(database)); err != nil {
		return err
	}
	for i := range b.views {
		if err := b.exec(ctx, fmt.Sprintf(`create materialized view public.v%d as select 1 as id; create unique index on public.v%d (id)`, i, i)); err != nil {
			return err
		}
	}
	pool, err := b.pool(ctx, 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := schedule.Install(ctx, pool); err != nil {
		return err
	}
	return b.exec(ctx, `insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, refresh_interval, next_run_at)
		select c.oid::pg_catalog.regclass, '1 day', pg_catalog.now() + '1 day' from pg_catalog.pg_class c where c.relkind = 'm'`,
		`analyze`)
}

// pool is one for a worker of mvsched with so many jobs.
func (b *bench) pool(ctx context.Context, jobs int) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(b.server.DSN(database))
	if err != nil {
		return nil, err
	}
	refresh.ConfigurePool(config, jobs)
	return pgxpool.NewWithConfig(ctx, config)
}

// exec runs statements in the administrator's session, whose processor time nobody is charged for.
func (b *bench) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := b.admin.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%w, with: %.200s", err, sql)
		}
	}
	return nil
}

// tidy takes away what the one before has left in the catalogs and the schedulers' tables.
func (b *bench) tidy(ctx context.Context) error {
	return b.exec(ctx, `vacuum pg_catalog.pg_class, pg_catalog.pg_attribute, pg_catalog.pg_type, pg_catalog.pg_depend, pg_catalog.pg_index,
		pg_catalog.pg_statistic, pg_catalog.pg_shdepend`,
		`vacuum mvsched.materialized_view_refresh_schedule, mvsched.materialized_view_refresh_schedule_execution`)
}

func (b *bench) close() error {
	var errs []error
	if b.admin != nil {
		_ = b.admin.Close(context.Background())
	}
	if b.server != nil {
		errs = append(errs, b.server.Stop())
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}

// machine says in general words what this was measured on.
func (b *bench) machine(ctx context.Context) string {
	words := []string{
		fmt.Sprintf("%d × %s", runtime.NumCPU(), processor()), runtime.GOOS + "/" + runtime.GOARCH, runtime.Version(),
		"PostgreSQL " + b.server.Version(),
	}
	if out, err := exec.CommandContext(ctx, b.binary, "version").Output(); err == nil {
		line, _, _ := strings.Cut(string(out), "\n")
		words = append(words, line)
	}
	words = append(words, "River "+riverVersion())
	if b.pgcron {
		var version string
		if b.admin.QueryRow(ctx, `select default_version from pg_catalog.pg_available_extensions where name = 'pg_cron'`).Scan(&version) == nil {
			words = append(words, "pg_cron "+version)
		}
	}
	load := ""
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = "; load before: " + strings.Fields(string(text))[0]
	}
	return strings.Join(words, ", ") + fmt.Sprintf("; %d rounds%s", b.rounds, load)
}

// processor is the model's name, where the system tells it.
func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "processor"
	}
	defer func() { _ = file.Close() }() // nothing was written
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "processor"
}

// postmaster is the server's first process.
func (b *bench) postmaster(ctx context.Context) (int, error) {
	var data string
	if err := b.admin.QueryRow(ctx, `show data_directory`).Scan(&data); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}
