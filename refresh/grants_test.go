package refresh_test

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
	"github.com/mvsched/mvsched/sql"
)

// The roles and grants of docs/operations.md, as they stand there, suffice.
func TestGrants(t *testing.T) {
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	b := setup(t)
	suffix := "_" + b.Value("current_database()") // roles are the server's
	names := regexp.MustCompile(`\b(mvsched_(?:owner|admin|runner|reader)|report)\b`)
	recipe := map[string]string{} // by first line
	for _, block := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		first, _, _ := strings.Cut(block[1], "\n")
		recipe[first] = names.ReplaceAllString(block[1], "${1}"+suffix)
	}
	run := func(statements string) {
		t.Helper()
		if statements == "" {
			t.Fatal("the page has changed")
		}
		if _, err := b.Pool.Exec(t.Context(), statements, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", statements, err)
		}
	}
	b.Exec("drop schema mvsched cascade")
	t.Cleanup(func() {
		b.worker.Pool.Close()
		for _, role := range []string{"mvsched_owner", "mvsched_admin", "mvsched_runner", "mvsched_reader", "report"} {
			_, _ = b.Pool.Exec(context.Background(), "drop owned by "+role+suffix+" cascade")
			_, _ = b.Pool.Exec(context.Background(), "drop role "+role+suffix)
		}
	})
	run(recipe["create role mvsched_owner nologin;     -- owns schema mvsched, and nothing else"])
	run("begin; set local role mvsched_owner" + suffix + ";" + sql.Schema + "; commit")
	run(recipe["grant usage on schema mvsched to mvsched_admin, mvsched_runner, mvsched_reader;"])
	run("create role report" + suffix + "; create schema report" + suffix + " authorization report" + suffix + `; set role report` + suffix +
		`; create table report` + suffix + `.sales as select 1 as id; create materialized view report` + suffix +
		`.sales_by_day as select id from report` + suffix + `.sales; create unique index on report` + suffix + `.sales_by_day (id); reset role`)
	if b.Value(`current_setting('server_version_num')::integer >= 170000`) == "true" {
		run(recipe["grant usage on schema report to mvsched_runner;"])
	} else {
		run(recipe["grant report to mvsched_runner;        -- role report owns the views"])
	}

	as := func(role string) *schedule.Store {
		t.Helper()
		config := b.worker.Pool.Config()
		config.ConnConfig.User = role + suffix
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		b.worker = &refresh.Worker{Pool: pool, Store: schedule.NewStore(pool), Jobs: 2, Name: role}
		return b.worker.Store
	}
	view := schedule.ViewName{Schema: "report" + suffix, Name: "sales_by_day"}
	onChange, skip := true, b.TellsChanges()
	if _, err := as("mvsched_admin").Add(t.Context(), []schedule.ViewName{view}, schedule.Settings{OnChange: &onChange, SkipUnchanged: &skip}, false); err != nil {
		t.Fatal(err)
	}
	if standings, err := as("mvsched_reader").Status(t.Context(), nil); err != nil || len(standings) != 1 {
		t.Errorf("%+v, %v", standings, err)
	}
	runner := as("mvsched_runner")
	for range 2 {
		if e := b.runDue()[view.String()]; e.Status != schedule.Succeeded {
			t.Errorf("%+v %s", e, text(e.ErrorMessage))
		}
		b.Exec("select mvsched.request_refresh($1)", view.String())
	}
	if _, err := runner.Prune(t.Context(), 0); err != nil {
		t.Error(err)
	}
	findings, err := runner.Doctor(t.Context())
	if err != nil || slices.ContainsFunc(findings, func(f schedule.Finding) bool { return f.Severity != schedule.SeverityAdvice }) {
		t.Errorf("%+v, %v", findings, err)
	}
	var blind int
	if err := b.worker.Pool.QueryRow(t.Context(), `select count(*) from pg_catalog.pg_stat_activity
		where datname = current_database() and backend_type is null`).Scan(&blind); err != nil || blind > 0 {
		t.Errorf("it does not see %d sessions, %v", blind, err)
	}
}
