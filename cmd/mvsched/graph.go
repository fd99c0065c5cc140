package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
)

func newGraphCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "graph",
		Short:   "Show which materialized views read which",
		GroupID: groupLook,
		Long: `Shows which materialized views read which, directly or through plain views: all of the database, scheduled or not,
from the catalog as it is now. What the body of a function reads is not in the catalog.

-o text, the default, draws a tree: below a view stand those that read it. A view that reads several others is drawn in
full once, and elsewhere as "name …". -o mermaid and -o dot are for Markdown pages and Graphviz, -o json for programs.`,
		Example: `  mvsched graph
  mvsched graph -o dot | dot -Tsvg > views.svg`,
		Args: noArguments,
	}
	formats := []report.Format{report.Text, report.Mermaid, report.Dot, report.JSON}
	cmd.RunE = a.commandIn(cmd, formats, func(ctx context.Context, _ []string) error { return runGraph(ctx, a) })
	return cmd
}

func runGraph(ctx context.Context, a *app) error {
	pool, store, err := a.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer closePool(pool)
	graph, err := store.Graph(ctx)
	if err != nil {
		return err
	}
	if len(graph.Views) == 0 {
		a.say("there are no materialized views in this database")
	}
	return a.print(func(p report.Printer) error { return p.Graph(graph) })
}
