//go:build !linux

package main

import "syscall"

// boundUnacknowledged does nothing where TCP_USER_TIMEOUT is unknown; keep-alive has to do.
func boundUnacknowledged(string, string, syscall.RawConn) error { return nil }
