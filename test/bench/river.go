package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// refreshArgs is a job of River's: one view to refresh.
type refreshArgs struct {
	View int `json:"view"`
}

// Kind is River's name for such jobs.
func (refreshArgs) Kind() string { return "refresh" }

// refreshWorker does such a job, outside any transaction, as River has it.
type refreshWorker struct {
	river.WorkerDefaults[refreshArgs]
	pool *pgxpool.Pool
}

func (w *refreshWorker) Work(ctx context.Context, job *river.Job[refreshArgs]) error {
	_, err := w.pool.Exec(ctx, refreshSQL(job.Args.View), pgx.QueryExecModeSimpleProtocol)
	return err
}

// riverOwn is how many connections River gets beside those for the refreshes.
const riverOwn = 4

// burstRiver is River as it comes: it fetches ten times a second at the most.
func (b *bench) burstRiver(ctx context.Context, workers int) (time.Duration, error) {
	return b.river(ctx, workers, 0)
}

// burstRiverTuned is River with the shortest pause between fetches that it allows.
func (b *bench) burstRiverTuned(ctx context.Context, workers int) (time.Duration, error) {
	return b.river(ctx, workers, river.FetchCooldownMin)
}

// river is from the start of a client, with the jobs inserted and connections open, to the record of the last job's end.
func (b *bench) river(ctx context.Context, workers int, cooldown time.Duration) (took time.Duration, err error) {
	config, err := pgxpool.ParseConfig(b.server.DSN(database))
	if err != nil {
		return 0, err
	}
	config.MaxConns = int32(workers + riverOwn)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	registered := river.NewWorkers()
	river.AddWorker(registered, &refreshWorker{pool: pool})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}}, Workers: registered,
		FetchCooldown: cooldown, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return 0, err
	}
	completed, end := client.SubscribeConfig(&river.SubscribeConfig{Kinds: []river.EventKind{river.EventKindJobCompleted}, ChanSize: b.views})
	defer end()
	var jobs []river.InsertManyParams
	for i := range b.views {
		jobs = append(jobs, river.InsertManyParams{Args: refreshArgs{i}})
	}
	if _, err := client.InsertManyFast(ctx, jobs); err != nil {
		return 0, err
	}
	if err := b.exec(ctx, `vacuum analyze public.river_job`); err != nil {
		return 0, err
	}
	if err := warm(ctx, pool, workers+riverOwn); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, client.Stop(ctx)) }()
	for range b.views {
		select {
		case <-completed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return time.Since(began), nil
}

// prepareRiver makes River's tables.
func (b *bench) prepareRiver(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, b.server.DSN(database))
	if err != nil {
		return err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// riverVersion is the version that this program was built with.
func riverVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/riverqueue/river" {
				return module.Version
			}
		}
	}
	return "unknown"
}
