package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// completionPatience keeps a shell from hanging on a slow database.
const completionPatience = 500 * time.Millisecond

// In the session's own search_path, so with nothing in it that could be looked up there.
const completeSQL = `
select pg_catalog.format('%I.%I', n.nspname, c.relname)
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
 where c.relkind operator(pg_catalog.=) 'm' and pg_catalog.starts_with(pg_catalog.format('%I.%I', n.nspname, c.relname), $1)
 order by 1
 limit 200`

// completeViews offers the materialized views of the database to the shell; where that fails, nothing.
func (a *app) completeViews(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	pool, err := a.open(ctx, 0)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer pool.Close()
	rows, err := pool.Query(ctx, completeSQL, prefix)
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
