package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/sql"
)

func newVersionCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of the program and of its schema",
		GroupID: groupInstall,
		Args:    noArguments,
	}
	cmd.RunE = a.command(cmd, func(context.Context, []string) error { return a.printVersion() })
	return cmd
}

func (a *app) printVersion() error {
	version := programVersion()
	if a.format == string(report.JSON) {
		return a.write(fmt.Sprintf("{\"version\": %q, \"schema_version\": %d, \"go_version\": %q}\n",
			version, sql.Version, runtime.Version()))
	}
	return a.write(fmt.Sprintf("mvsched %s, schema version %d, %s %s/%s\n",
		version, sql.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH))
}

// programVersion is what the Go toolchain knows: the tag that was installed, or the commit that was built.
func programVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
