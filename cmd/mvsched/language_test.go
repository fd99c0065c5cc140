package main

import (
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// translate says the server's messages in another language, as lc_messages does where the server has been built with it: what is for
// people changes, and what is for programs stays.
var translate = lie{name: "speaks another language", tell: func(_ *liar, _ *rand.Rand, to net.Conn, m []byte) bool {
	const russian = "ошибка: так не пойдёт"
	switch m[0] {
	case 'E':
		var e pgproto3.ErrorResponse
		if err := e.Decode(m[5:]); err != nil {
			return false
		}
		e.Severity, e.Message, e.Detail, e.Hint = "ОШИБКА", russian, "", ""
		m = encode(&e)
	case 'N':
		var n pgproto3.NoticeResponse
		if err := n.Decode(m[5:]); err != nil {
			return false
		}
		n.Severity, n.Message, n.Detail, n.Hint = "ЗАМЕЧАНИЕ", russian, "", ""
		m = encode(&n)
	}
	return send(to, m)
}}

// How a refresh has ended, and with which code a command ends, does not depend on the language of the server's messages.
func TestTheServersLanguageMakesNoDifference(t *testing.T) {
	t.Parallel()
	var ends [2]string
	t.Run("both", func(t *testing.T) { // returns when both have ended
		for i, name := range []string{"English", "Russian"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ends[i] = endings(t, name != "English")
			})
		}
	})
	if ends[0] != ends[1] || strings.Count(ends[0], "\n") < 4 || !strings.Contains(ends[0], "timed_out") || !strings.Contains(ends[0], "division_by_zero") {
		t.Errorf("in English\n%s\n\nin another language\n%s", ends[0], ends[1])
	}
}

// endings has refreshes end in many ways, and commands with many codes, and returns how the executions ended.
func endings(t *testing.T, foreign bool) (ends string) {
	db := pgtest.NewDB(t)
	db.Exec(`create table public.busy_source as select 1 as id`)
	db.Exec(`create function public.fail() returns integer language plpgsql as $$begin raise exception 'no' using errcode = '22012'; end$$`)
	for view, query := range map[string]string{
		"good": "select 1 as id", "broken": "select public.fail() as id", "slow": "select 1 as id, pg_sleep(60)::text",
		"busy": "select id from public.busy_source", "dropped": "select 1 as id",
	} {
		db.Exec("create materialized view public." + view + " as " + query + " with no data")
		db.Schedule("public."+view, "1 hour")
	}
	db.Exec(`update mvsched.materialized_view_refresh_schedule set maximum_execution_duration = '2 seconds', lock_timeout = '1 second'`)
	db.Exec(`drop materialized view public.dropped`)
	release := db.Hold(`lock table public.busy_source in access exclusive mode`)
	dsn := pgtest.DSN(t)
	if foreign {
		host, port, err := net.SplitHostPort(newLiar(t, dsn, translate, 0, true, 0).address)
		if err != nil {
			t.Fatal(err)
		}
		dsn = withParameters(pgtest.Direct(dsn), []string{"host=" + host, "port=" + port, "sslmode=disable"})
	}
	p := processes{t, dsn}
	p.run([]int{exitFailed}, "run", "-q", "--allow-superuser", "-j", "3")
	release()
	p.run([]int{exitUsage}, "add", "nosuch", "--every", "5m")
	p.run([]int{exitUsage}, "refresh", "dropped", "--allow-superuser")
	p.run([]int{exitFailed}, "cancel", "good")
	ends = db.Value(`select string_agg(concat_ws(' ', view_name, status, reason, error_name), E'\n' order by view_name, id)
		from mvsched.materialized_view_refresh_schedule_execution`)
	db.Exec("drop schema mvsched cascade")
	p.run([]int{exitSchema}, "status")
	return ends
}
