package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// A program of its own schedules a view and refreshes what is due: no command line, no environment, one pool.
func Example() {
	dsn, drop, err := exampleDatabase() // with materialized view public.sales_by_day in it
	if err != nil {
		log.Fatal(err)
	}
	defer drop()
	if err := refreshSales(dsn); err != nil {
		log.Fatal(err)
	}
	// Output:
	// public.sales_by_day: succeeded concurrently
	// public.sales_by_day is fresh
}

func refreshSales(dsn string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return err
	}
	const jobs = 4
	refresh.ConfigurePool(config, jobs)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()

	if _, err := schedule.Install(ctx, pool); err != nil {
		return err
	}
	store := schedule.NewStore(pool)
	view, err := schedule.ParseViewName("public.sales_by_day")
	if err != nil {
		return err
	}
	every := 5 * time.Minute
	if _, err := store.Add(ctx, []schedule.ViewName{view}, schedule.Settings{Every: &every}, true); err != nil {
		return err
	}

	worker := &refresh.Worker{Pool: pool, Store: store, Jobs: jobs, Name: "billing", Log: slog.Default()}
	executions, err := worker.RunDue(ctx)
	for _, e := range executions {
		fmt.Printf("%s: %s %s\n", e.View, e.Status, *e.Method)
	}
	standings, statusErr := store.Status(ctx, nil)
	for _, s := range standings {
		fmt.Printf("%s is %s\n", s.View, s.State)
	}
	return errors.Join(err, statusErr)
}
