package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/mvsched/mvsched/schedule"
)

// noteQueues tells of queues that no schedule has: a typing error, or schedules that are still to come.
func (a *app) noteQueues(ctx context.Context, store *schedule.Store, wanted []string) error {
	if len(wanted) == 0 {
		return nil
	}
	known, err := store.Queues(ctx)
	if err != nil {
		return err
	}
	there := "there is none"
	if len(known) > 0 {
		there = "there are " + strings.Join(known, ", ")
	}
	for _, queue := range wanted {
		if !slices.Contains(known, queue) {
			a.note("%s", fmt.Sprintf("no schedule has the queue %q; %s", queue, there))
		}
	}
	return nil
}
