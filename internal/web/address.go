package web

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Address is where to listen.
type Address struct {
	host string
	port string
}

// ParseAddress reads HOST:PORT, :PORT or PORT. Without a host it is 127.0.0.1: who wants more has to say so.
func ParseAddress(text string) (Address, error) {
	if !strings.Contains(text, ":") {
		text = ":" + text
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return Address{}, errors.New("is not HOST:PORT")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return Address{}, errors.New("has no port between 0 and 65535")
	}
	if host == "" || host == "localhost" { // whatever a resolver makes of that
		host = "127.0.0.1"
	}
	return Address{host, port}, nil
}

// Loopback reports whether only this machine can reach it. A name is not looked up: it may mean something else tomorrow.
func (a Address) Loopback() bool {
	ip, err := netip.ParseAddr(a.host)
	return err == nil && ip.Unmap().IsLoopback()
}

// String is HOST:PORT.
func (a Address) String() string { return net.JoinHostPort(a.host, a.port) }

// isLocalHost reports whether the Host of a request names this machine: a literal loopback address or localhost, with any
// port, since the way here may be a forwarded one. A page elsewhere whose name was pointed here (DNS rebinding) has
// another.
func isLocalHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	return Address{host: host}.Loopback()
}
