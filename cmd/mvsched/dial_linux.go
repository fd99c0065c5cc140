package main

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unacknowledgedLimit is how long sent data may stay unacknowledged before the connection counts as lost. Without it,
// that takes the kernel a quarter of an hour.
const unacknowledgedLimit = 20 * time.Second

// boundUnacknowledged sets TCP_USER_TIMEOUT on TCP sockets.
func boundUnacknowledged(network, _ string, conn syscall.RawConn) error {
	if len(network) < 3 || network[:3] != "tcp" {
		return nil
	}
	var set error
	err := conn.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledgedLimit.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return set
}
