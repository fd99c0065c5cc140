//go:build !unix

package main

import "os"

// notifySuspend does nothing: there is no Ctrl-Z.
func notifySuspend(chan<- os.Signal) {}

func suspend() {}
