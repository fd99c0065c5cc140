package main

import (
	"net"
	"strconv"
	"strings"
	"time"
)

// service tells systemd how a daemon is doing (sd_notify(3), systemd.service(5): Type=notify, WatchdogSec=). Without
// systemd it does nothing. What cannot be told is not told: the service goes on.
type service struct {
	socket   string
	watchdog time.Duration // 0: nobody watches
}

func newService(getenv func(string) string) service {
	s := service{socket: getenv("NOTIFY_SOCKET")}
	if microseconds, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && microseconds > 0 {
		s.watchdog = time.Duration(microseconds) * time.Microsecond
	}
	return s
}

// pulse is how often the watchdog wants to hear from us: twice as often as it would bite.
func (s service) pulse() time.Duration { return s.watchdog / 2 }

func (s service) ready()    { s.tell("READY=1") }
func (s service) alive()    { s.tell("WATCHDOG=1") }
func (s service) stopping() { s.tell("STOPPING=1") }

func (s service) tell(state string) {
	if s.socket == "" {
		return
	}
	name := s.socket
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:] // in the abstract namespace
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte(state))
	_ = conn.Close()
}
