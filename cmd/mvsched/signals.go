package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return fmt.Sprintf("stopped by a signal (%v)", e.signal) }

// withSignals ends the context at the first SIGINT or SIGTERM, so that what runs is cancelled and recorded. The second
// one leaves at once, as does a shutdown that takes too long.
//
// Before it leaves so, it calls last. What is running has so long as grace says when the signal comes, and then shutdownPatience.
func withSignals(parent context.Context, grace *atomic.Int64, last func()) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	finished := make(chan struct{})
	go func() {
		select {
		case s := <-signals:
			cancel(&signalError{s})
		case <-finished:
			return
		}
		select {
		case s := <-signals:
			last()
			os.Exit(128 + signalNumber(s))
		case <-time.After(time.Duration(grace.Load()) + shutdownPatience):
			last()
			_, _ = fmt.Fprintln(os.Stderr, "error: stopped by a signal, and the server does not answer: what ran may still be running")
			os.Exit(exitStopped)
		case <-finished:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(finished)
		cancel(nil)
	}
}

func signalNumber(s os.Signal) int {
	if n, ok := s.(syscall.Signal); ok {
		return int(n)
	}
	return int(syscall.SIGTERM)
}
