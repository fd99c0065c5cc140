package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// The roles and grants of docs/security.md, executed to the letter, let each role do what it is for, and nothing else.
func TestRolesAndGrants(t *testing.T) {
	t.Parallel()
	db := pgtest.NewServerDB(t) // roles are the whole server's
	db.Exec("drop schema mvsched cascade")
	db.Exec("create role report login")
	db.Aside("create schema report authorization report", "set role report", "create table report.sales as select 1 as id",
		"create materialized view report.sales_by_day as select id from report.sales",
		"create unique index on report.sales_by_day (id)")

	r := recipe{DB: db, dir: t.TempDir()}
	r.follow("## Roles and grants")
	r.follow("### Asking from SQL")
	r.mustNot("mvsched_runner", 1, "refresh", "report.sales_by_day") // it may not yet
	if db.Value(`current_setting('server_version_num')::integer >= 170000`) == "true" {
		r.follow("### The right to refresh, PostgreSQL 17 and newer")
	} else {
		r.follow("### The right to refresh, PostgreSQL 13 to 16")
	}

	const view = "report.sales_by_day"
	r.must("mvsched_admin", "add", view, "--every", "5m")
	r.must("mvsched_admin", "pause", view)
	r.must("mvsched_admin", "resume", view)
	r.mustNot("mvsched_admin", 3, "run")
	r.must("mvsched_runner", "run")
	r.must("mvsched_runner", "refresh", view)
	r.must("mvsched_runner", "prune")
	r.must("mvsched_runner", "doctor")
	db.Aside("set role report", "create materialized view report.other as select 1 as id")
	r.must("mvsched_admin", "set", view, "--on-change")
	db.Exec("update mvsched.settings set max_concurrent_refreshes = 2")
	r.must("mvsched_runner", "run")
	r.ask("mvsched_runner", `select 1 / count(backend_type) from pg_stat_activity where datname = current_database() and usename = 'postgres'`, "")
	if db.Value(`current_setting('server_version_num')::integer >= 170000`) == "true" {
		r.mustNot("mvsched_runner", 1, "refresh", "report.other")
	}
	if db.TellsChanges() {
		r.must("mvsched_admin", "set", view, "--skip-unchanged")
		r.must("mvsched_runner", "run")
	}

	r.ask("etl", "select mvsched.request_refresh('report.sales_by_day')", "")
	r.ask("etl", "select from mvsched.materialized_view_refresh_request", "42501")
	r.ask("etl", "select mvsched.request_refresh('report.nosuch')", "42P01")
	r.must("mvsched_runner", "run")
	db.Check("0", `select count(*) from mvsched.materialized_view_refresh_request`)
	r.serves("mvsched_runner", view)

	for _, look := range []string{"status", "list", "history", "check", "why " + view, "graph", "plan", "run --dry-run"} {
		r.must("mvsched_reader", strings.Fields(look)...)
	}
	change := []string{
		"add report.other --every 5m", "set " + view + " --every 5m", "pause " + view, "resume --all", "remove " + view, "run", "serve",
		"refresh " + view, "prune", "uninstall --yes",
	}
	for _, command := range change {
		r.mustNot("mvsched_reader", 3, strings.Fields(command)...)
	}
	for _, command := range []string{"add report.other --every 5m", "remove " + view, "uninstall --yes"} {
		r.mustNot("mvsched_runner", 3, strings.Fields(command)...)
	}
	for _, command := range []string{"status", "run", "add report.other --every 5m", "cancel " + view} {
		r.mustNot("etl", 3, strings.Fields(command)...)
	}
	r.ask("mvsched_reader", "set role mvsched_owner", "42501")
	r.ask("mvsched_runner", "update mvsched.settings set max_concurrent_refreshes = 1", "42501")
	r.ask("mvsched_runner", "create table mvsched.mine ()", "42501")
	db.Check("mvsched_owner", `select string_agg(distinct relowner::regrole::text, ' ') from pg_class where relnamespace = 'mvsched'::regnamespace`)
	db.Check("f", `select (rolsuper or rolcanlogin or rolcreaterole)::text::char from pg_roles where rolname = 'mvsched_owner'`)

	r.follow("### Cancelling")
	r.must("mvsched_admin", "remove", view)
	db.Aside("set role mvsched_owner", "drop schema mvsched cascade")
}

// recipe follows docs/security.md on a server of its own.
type recipe struct {
	*pgtest.DB
	dir string
}

var (
	section = regexp.MustCompile(`(?m)^##+ .*$`)
	toBeRun = regexp.MustCompile("(?s)```(sql|sh)\n(.*?)```")
)

// follow executes the statements and commands under a heading, down to the next one.
func (r recipe) follow(title string) {
	r.Helper()
	page := readPages(r.TB.(*testing.T))[filepath.Join("docs", "security.md")]
	_, text, found := strings.Cut(page, "\n"+title+"\n")
	if !found {
		r.Fatalf("the page has no %q", title)
	}
	if next := section.FindStringIndex(text); next != nil {
		text = text[:next[0]]
	}
	blocks := toBeRun.FindAllStringSubmatch(text, -1)
	if len(blocks) == 0 {
		r.Fatalf("nothing to do under %q", title)
	}
	for _, block := range blocks {
		if block[1] == "sql" {
			if _, err := r.Pool.Exec(r.Context(), block[2], pgx.QueryExecModeSimpleProtocol); err != nil {
				r.Fatalf("%s: %v", block[2], err)
			}
			continue
		}
		if out, err := r.command("postgres", "sh", "-ec", block[2]).CombinedOutput(); err != nil {
			r.Fatalf("%s: %v\n%s", block[2], err, out)
		}
	}
}

// command is a program with libpq's variables for a role.
func (r recipe) command(role, name string, args ...string) *exec.Cmd {
	config := r.Pool.Config().ConnConfig
	cmd := exec.CommandContext(r.Context(), name, args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "PGHOST="+config.Host, "PGPORT="+strconv.Itoa(int(config.Port)), "PGDATABASE="+config.Database, "PGUSER="+role,
		"MVSCHED_DATABASE_URL=", "DATABASE_URL=", "HOME="+r.dir)
	return cmd
}

func (r recipe) must(role string, args ...string) {
	r.Helper()
	r.mustNot(role, 0, args...)
}

// mustNot runs mvsched as a role; it has to end with this code, and with an error where that is not 0.
func (r recipe) mustNot(role string, code int, args ...string) {
	r.Helper()
	var stdout, stderr bytes.Buffer
	cmd := r.command(role, "mvsched", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code || (code != 0) != strings.Contains(stderr.String(), "error: ") {
		r.Errorf("mvsched %s as %s: %v, want exit code %d\n%s%s", strings.Join(args, " "), role, err, code, stdout.String(), stderr.String())
	}
}

// serves has a role serve until it has answered a request.
func (r recipe) serves(role, view string) {
	r.Helper()
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer hook.Close()
	cmd := r.command(role, "mvsched", "serve", "--notify-url", hook.URL, "--notify-interval", "1s")
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	before := r.Value(`select max(id) from mvsched.materialized_view_refresh_schedule_execution`)
	r.Exec(`select mvsched.request_refresh($1)`, view)
	r.Await("true", `select exists (select from mvsched.materialized_view_refresh_schedule_execution where status = 'succeeded' and id > $1)`, before)
	r.Await("true", `select exists (select from mvsched.alert_target)`)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		r.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		r.Errorf("serve: %v", err)
	}
}

// ask executes a statement as a role; "" is success.
func (r recipe) ask(role, statement, sqlState string) {
	r.Helper()
	config := r.Pool.Config().ConnConfig.Copy()
	config.User = role
	conn, err := pgx.ConnectConfig(r.Context(), config)
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = conn.Close(r.Context()) }()
	_, err = conn.Exec(r.Context(), statement)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == sqlState || err == nil && sqlState == "" {
		return
	}
	r.Errorf("%s as %s: %v, want %q", statement, role, err, sqlState)
}
