package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

func (s *script) port(args []string) {
	port, err := freePort()
	s.Check(err)
	s.Setenv(args[0], port)
}

// freePort is a port of 127.0.0.1 at which nobody listens.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, errors.Join(err, listener.Close())
}

func (s *script) visit(args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[1], nil)
	s.Check(err)
	for i := 2; i+1 < len(args); i += 2 {
		request.Header.Set(args[i], args[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	for errors.Is(err, syscall.ECONNREFUSED) {
		select {
		case <-ctx.Done():
			s.Check(err)
		case <-time.After(20 * time.Millisecond):
		}
		response, err = client.Do(request)
	}
	s.Check(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	s.Check(err)
	_, err = s.Stdout().Write(body)
	s.Check(err)
	if want, err := strconv.Atoi(args[0]); err != nil || response.StatusCode != want {
		s.Fatalf("%s: %s, want %s", args[1], response.Status, args[0])
	}
}
