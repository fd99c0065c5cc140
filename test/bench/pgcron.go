package main

import (
	"context"
	"fmt"
	"time"
)

// prepareContenders makes what the schedulers need.
func (b *bench) prepareContenders(ctx context.Context) error {
	if err := b.exec(ctx, articleTables); err != nil {
		return err
	}
	if b.pgcron {
		if err := b.exec(ctx, `create extension pg_cron`); err != nil {
			return err
		}
	}
	return b.prepareRiver(ctx)
}

// burstCron is pg_cron's, from the start of the first job to the end of the last by its own records: its wait for the full
// minute is left out.
func (b *bench) burstCron(ctx context.Context, _ int) (time.Duration, error) {
	err := b.exec(ctx, `truncate cron.job_run_details`, fmt.Sprintf(
		`select cron.schedule('v' || i, '* * * * *', 'refresh materialized view concurrently public.v' || i) from generate_series(0, %d - 1) i`, b.views),
		`update cron.job set nodename = current_setting('unix_socket_directories')`) // over TCP the throw-away server wants a password
	if err != nil {
		return 0, err
	}
	unschedule := `select cron.unschedule(jobid) from cron.job`
	for {
		var begun, open, failed int
		var first, last *time.Time
		var message *string
		err := b.admin.QueryRow(ctx, `select count(*), count(*) filter (where end_time is null), count(*) filter (where status = 'failed'),
			min(start_time), max(end_time), max(return_message) filter (where status = 'failed') from cron.job_run_details`).Scan(&begun, &open, &failed, &first, &last, &message)
		if err != nil {
			return 0, err
		}
		if failed > 0 && message != nil {
			return 0, fmt.Errorf("%d jobs failed: %s", failed, *message)
		}
		if begun >= b.views && open == 0 {
			return last.Sub(*first), b.exec(ctx, unschedule)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return 0, fmt.Errorf("%d jobs begun, %d open: %w", begun, open, err)
		}
	}
}
