// Command selectone connects with pgx and selects 1: the least that a program of this kind can do.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, os.Getenv("MVSCHED_DATABASE_URL"))
	if err != nil {
		return err
	}
	var one int
	if err := conn.QueryRow(ctx, `select 1`, pgx.QueryExecModeSimpleProtocol).Scan(&one); err != nil {
		return err
	}
	return conn.Close(ctx)
}
