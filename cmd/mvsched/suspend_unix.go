//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// notifySuspend tells a channel when the program is to be stopped for a while (Ctrl-Z).
func notifySuspend(stops chan<- os.Signal) { signal.Notify(stops, syscall.SIGTSTP) }

// suspend stops the program until it is to go on. Where no shell of this terminal could have it go on, it does not; the system
// sees to that for SIGTSTP, which once asked for has no other way to stop a program in Go.
func suspend() {
	ours, err := unix.Getsid(0)
	theirs, parentErr := unix.Getsid(os.Getppid())
	if err != nil || parentErr != nil || ours != theirs {
		return
	}
	goesOn := make(chan os.Signal, 1)
	signal.Notify(goesOn, syscall.SIGCONT)
	defer signal.Stop(goesOn)
	if syscall.Kill(os.Getpid(), syscall.SIGSTOP) != nil {
		return
	}
	select {
	case <-goesOn:
	case <-time.After(time.Second): // it may have come before
	}
}
