package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// A name is the same view whatever the database is encoded in: what is stored and shown is UTF-8.
func TestEncodingsOfTheDatabase(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"SQL_ASCII", "LATIN1", "EUC_JP"} {
		t.Run(encoding, func(t *testing.T) {
			db := pgtest.NewDB(t)
			name := db.Value("current_database()") + "_" + strings.ToLower(encoding)
			db.Exec("create database " + name + " template template0 encoding '" + encoding + "' lc_collate 'C' lc_ctype 'C'")
			t.Cleanup(func() { _, _ = db.Pool.Exec(context.Background(), "drop database "+name+" with (force)") })
			dsn := withParameters(pgtest.Direct(pgtest.DSN(t)), []string{"dbname=" + name})
			conn, err := pgx.Connect(t.Context(), withParameters(dsn, []string{"client_encoding=UTF8"}))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(t.Context()) }()
			view := map[string]string{"SQL_ASCII": "日本 é", "LATIN1": "café ÄÖ", "EUC_JP": "日本"}[encoding]
			if _, err := conn.Exec(t.Context(), "create materialized view "+pgx.Identifier{view}.Sanitize()+" as select 1 as id"); err != nil {
				t.Fatal(err)
			}
			want := "public." + pgx.Identifier{view}.Sanitize()
			p := processes{t, dsn}
			p.run([]int{exitDone}, "init", "-q")
			p.run([]int{exitDone}, "add", pgx.Identifier{view}.Sanitize(), "--every", "5m")
			p.run([]int{exitDone}, "run", "--allow-superuser")
			var back []struct{ View, State string }
			status := p.run([]int{exitDone}, "status", "-o", "json")
			if err := json.Unmarshal(status, &back); err != nil || len(back) != 1 || back[0].View != want || back[0].State != "fresh" {
				t.Errorf("%v %+v", err, back)
			}
			if encoding == "LATIN1" { // which lacks the characters that mvsched may add, and those that a person may type
				p.run([]int{exitUsage}, "add", "日本", "--every", "5m")
				p.run([]int{exitUsage}, "pause", want, "--reason", "日本")
				if _, err := conn.Exec(t.Context(), `create function public.fail() returns integer language plpgsql as
					$$begin raise exception '%', repeat('no ', 10000); end$$`); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Exec(t.Context(), "create materialized view public.broken as select public.fail() with no data"); err != nil {
					t.Fatal(err)
				}
				p.run([]int{exitFailed}, "refresh", "broken", "--allow-superuser")
				var ended []struct{ Status string }
				if err := json.Unmarshal(p.run([]int{exitDone}, "history", "broken", "-o", "json"), &ended); err != nil || len(ended) != 1 || ended[0].Status != "failed" {
					t.Errorf("%v %+v", err, ended)
				}
			}
		})
	}
}
