package pgtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
)

func TestProbe(t *testing.T) {
	dsn := pgtest.DSN(t)
	for _, x := range []string{" dbname=nowhere", " user=stranger", " dbname=nowhere2", " application_colour=blue"} {
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			began := time.Now()
			_, err := pgx.Connect(ctx, dsn+x)
			t.Log(x, time.Since(began), err)
			cancel()
		}
	}
	// database dropped under a connection
	admin := connect(t, pgtest.DirectDSN(t))
	admin.Exec(t.Context(), "drop database if exists gone")
	admin.Exec(t.Context(), "create database gone")
	conn := connect(t, dsn+" dbname=gone")
	t.Log(ask(t, conn, "select current_database()"))
	admin.Exec(t.Context(), "drop database gone with (force)")
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		began := time.Now()
		_, err := conn.Exec(ctx, "select 1")
		t.Log("old", time.Since(began), err)
		began = time.Now()
		c, err := pgx.Connect(ctx, dsn+" dbname=gone")
		t.Log("new", time.Since(began), err)
		if err == nil {
			began = time.Now()
			_, err = c.Exec(ctx, "select 1")
			t.Log("new query", time.Since(began), err)
		}
		cancel()
	}
}
