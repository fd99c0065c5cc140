package main

import (
	"context"
	_ "embed" // the names of time zones
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
)

// completionPatience keeps a shell from hanging on a slow database.
const completionPatience = 500 * time.Millisecond

// All in the session's own search_path, so with nothing in them that could be looked up there.
const (
	completeViewsSQL = completeRelationsSQL + `
   and c.relkind operator(pg_catalog.=) 'm'
 order by 1
 limit 200`

	// What can be a merge table, or have materialized columns.
	completeTablesSQL = completeRelationsSQL + `
   and c.relkind operator(pg_catalog.=) any (array['r', 'p']::pg_catalog."char"[])` + ofUsersSQL + `
 order by 1
 limit 200`

	completePlainViewsSQL = completeRelationsSQL + `
   and c.relkind operator(pg_catalog.=) 'v'` + ofUsersSQL + `
 order by 1
 limit 200`

	completeRelationsSQL = `
select pg_catalog.format('%I.%I', n.nspname, c.relname)
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
 where pg_catalog.starts_with(pg_catalog.format('%I.%I', n.nspname, c.relname), $1)`

	// Neither the system's, nor those of other sessions, nor ours.
	ofUsersSQL = `
   and not pg_catalog.starts_with(n.nspname::pg_catalog.text, 'pg_')
   and n.nspname operator(pg_catalog.<>) all (array['information_schema', 'mvsched']::pg_catalog.name[])`

	// The tables that are scheduled, as which kind.
	completeMergeSQL   = completeScheduledSQL + `'merge' order by 1 limit 200`
	completeColumnsSQL = completeScheduledSQL + `'columns' order by 1 limit 200`

	completeScheduledSQL = `
select s.materialized_view_name
  from mvsched.materialized_view_refresh_schedule s
 where pg_catalog.starts_with(s.materialized_view_name, $1) and s.kind operator(pg_catalog.=) `

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

// completeViews offers the materialized views of the database to the shell, and the tables that are scheduled.
func (a *app) completeViews(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.offer(cmd, prefix, completeViewsSQL, completeMergeSQL, completeColumnsSQL)
}

// completeNewViews offers what may be added: where the flags make it a table, tables.
func (a *app) completeNewViews(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	given := cmd.Flags().Changed
	if given("columns") || given("merge-from") {
		return a.offer(cmd, prefix, completeTablesSQL)
	}
	return a.offer(cmd, prefix, completeViewsSQL)
}

// completeBy offers what these queries find.
func (a *app) completeBy(queries ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return a.offer(cmd, prefix, queries...)
	}
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
	register(cmd, "queue", a.completeBy(completeQueuesSQL))
}

// completeSettings has the shell offer the names of settings for --set, and wait for their values.
func (a *app) completeSettings(cmd *cobra.Command) {
	register(cmd, "set", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		names, directive := a.offer(cmd, prefix, completeSettingsSQL)
		return names, directive | cobra.ShellCompDirectiveNoSpace
	})
}

// completeFormats offers the output formats that the command takes.
func (a *app) completeFormats(cmd *cobra.Command, _ []string, _ string) (formats []string, _ cobra.ShellCompDirective) {
	for _, format := range a.formats[cmd] {
		formats = append(formats, string(format))
	}
	return formats, cobra.ShellCompDirectiveNoFileComp
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
func (a *app) offer(cmd *cobra.Command, prefix string, queries ...string) (names []string, _ cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	pool, err := a.open(ctx, 0)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer closePool(pool)
	for _, query := range queries {
		rows, err := pool.Query(ctx, query, prefix)
		if err != nil {
			continue
		}
		if some, err := pgx.CollectRows(rows, pgx.RowTo[string]); err == nil { // without schema mvsched some fail
			names = append(names, some...)
		}
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}
