package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

type planOptions struct {
	schedule.ForecastOptions
	runs bool
}

func newPlanCmd(a *app) *cobra.Command {
	var opts planOptions
	var length, queues string
	cmd := &cobra.Command{
		Use:     "plan",
		Short:   "Predict what will run when, and what will not fit",
		GroupID: groupLook,
		Long: `Plays the schedules forward, with the usual duration of every view, the order of views that read each other, and so many
workers as you say: how often each view will be refreshed, how old its data will get, which runs will wait for a worker
or for themselves, and which target (--max-lag) will not be met.

It is taken that every refresh succeeds and finds something changed, and that workers are there all the time. Nothing is
changed, and no lock on a view is waited for.`,
		Example: `  mvsched plan --for 24h -j 4
  mvsched plan --for 1h --queue default=4,heavy=1 --runs`,
		Args: noArguments,
	}
	cmd.RunE = a.listCommand(cmd, func(ctx context.Context, _ []string) error {
		given, err := durationFlag(true, "for", length, schedule.MaxDuration)
		if err != nil {
			return err
		}
		opts.For = *given
		if cmd.Flags().Changed("queue") {
			if cmd.Flags().Changed("jobs") {
				return &usageError{problem: "--jobs and --queue exclude each other", hint: "give the workers of each queue: default=4,heavy=1"}
			}
			opts.Jobs = 0
			served, err := parseQueues(queues)
			if err != nil {
				return err
			}
			for _, queue := range served {
				opts.Queues = append(opts.Queues, schedule.QueueWorkers{Queue: queue.Name, Workers: queue.Jobs})
			}
		} else if err := checkJobs(opts.Jobs); err != nil {
			return err
		}
		return runPlan(ctx, a, opts)
	})
	cmd.Flags().StringVar(&length, "for", schedule.FormatDuration(24*time.Hour), "how far to look ahead")
	jobsFlag(cmd, &opts.Jobs)
	cmd.Flags().StringVar(&queues, "queue", "", "the queues that are served, with the workers of each: default=4,heavy=1; all without")
	a.completeQueues(cmd)
	cmd.Flags().BoolVar(&opts.runs, "runs", false, "list every run")
	return cmd
}

func runPlan(ctx context.Context, a *app, opts planOptions) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	forecast, err := store.Forecast(ctx, opts.ForecastOptions)
	if err != nil {
		return err
	}
	if len(forecast.Views) == 0 {
		a.say("nothing is scheduled yet; begin with `mvsched add VIEW --every 5m`")
	}
	if err := a.print(func(p report.Printer) error { return p.Forecast(forecast, opts.runs) }); err != nil {
		return err
	}
	if report.Format(a.format) != report.JSON { // which has them
		for _, note := range forecast.Notes {
			a.note("%s", someOf(note))
		}
	}
	return nil
}

// someOf names the first views that a remark is about.
func someOf(remark schedule.Remark) string {
	const most = 5
	names := remark.Views
	if len(names) == 0 {
		return remark.Message
	}
	more := ""
	if len(names) > most {
		names, more = names[:most], fmt.Sprintf(" and %d more", len(names)-most)
	}
	return remark.Message + ": " + strings.Join(names, ", ") + more
}
