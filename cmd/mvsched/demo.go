package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newDemoCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "demo", GroupID: groupInstall, Short: "demo", Args: cobra.NoArgs}
	cmd.RunE = a.command(func(context.Context, []string) error { return nil })
	return cmd
}
