// Command mvsched refreshes PostgreSQL materialized views on schedule.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// A reader that went away (| head -1) shows as an error of the write, which is none of ours.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(os.Args[1:], system()))
}
