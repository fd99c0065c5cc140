package main

import (
	"context"
	_ "embed" // the names of time zones
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionPatience keeps a shell from hanging on a slow database.
const completionPatience = 500 * time.Millisecond

// All in the session's own search_path, so with nothing in them that could be looked up there.
const (
	completeViewsSQL = `
select pg_catalog.format('%I.%I', n.nspname, c.relname)
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
 where c.relkind operator(pg_catalog.=) 'm' and pg_catalog.starts_with(pg_catalog.format('%I.%I', n.nspname, c.relname), $1)
 order by 1
 limit 200`

	completeQueuesSQL = `
select distinct s.queue
  from mvsched.materialized_view_refresh_schedule s
 where pg_catalog.starts_with(s.queue, $1)
 order by 1
 limit 200`

	completeSettingsSQL = `
select pg_catalog.concat(s.name, '=')
  from pg_catalog.pg_settings s
 where mvsched.may_be_set(s.name) and pg_catalog.starts_with(s.name, $1)
 order by 1
 limit 200`
)

// completeViews offers the materialized views of the database to the shell.
func (a *app) completeViews(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.offer(cmd, completeViewsSQL, prefix)
}

//go:embed zones.txt
var zones string

// completeZones offers time zones: those that Go brings along, since a server takes a while to list its own.
func completeZones(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	others := func(zone string) bool { return !strings.HasPrefix(zone, prefix) }
	return slices.DeleteFunc(strings.Fields(zones), others), cobra.ShellCompDirectiveNoFileComp
}

// completeQueues has the shell offer the queues of the schedules for --queue.
func (a *app) completeQueues(cmd *cobra.Command) {
	register(cmd, "queue", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return a.offer(cmd, completeQueuesSQL, prefix)
	})
}

// completeSettings has the shell offer the names of settings for --set, and wait for their values.
func (a *app) completeSettings(cmd *cobra.Command) {
	register(cmd, "set", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		names, directive := a.offer(cmd, completeSettingsSQL, prefix)
		return names, directive | cobra.ShellCompDirectiveNoSpace
	})
}

// completeWith has it offer these values.
func completeWith(cmd *cobra.Command, flag string, values ...string) {
	register(cmd, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func register(cmd *cobra.Command, flag string, offer cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, offer); err != nil {
		panic(err) // the flag was registered just before
	}
}

// offer asks the database what begins with a prefix. Where that fails, or takes too long, there is nothing to offer: an
// error would stand in the middle of somebody's prompt.
func (a *app) offer(cmd *cobra.Command, query, prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	pool, err := a.open(ctx, 0)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer closePool(pool)
	rows, err := pool.Query(ctx, query, prefix)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if rows.Scan(&name) == nil {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
