package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// processFaults happen to workers.
func processFaults() []*kind {
	return []*kind{
		{name: "worker kill -9", weight: 6, phases: onTheWay, strike: killWorker},
		{name: "worker stopped, 0.1 to 1 s", weight: 3, phases: onTheWay, strike: stopWorker},
		{name: "worker stopped beyond the start grace", weight: 1, phases: onTheWay, strike: stopWorkerLong},
		{name: "worker SIGTERM", weight: 2, phases: onTheWay, strike: signalWorker(syscall.SIGTERM)},
		{name: "worker SIGINT", weight: 1, phases: onTheWay, strike: signalWorker(syscall.SIGINT)},
		{name: "worker SIGTERM twice", weight: 2, phases: onTheWay, strike: signalTwice},
		{name: "worker SIGHUP", weight: 1, phases: onTheWay, strike: signalWorker(syscall.SIGHUP)},
		{name: "worker SIGQUIT", weight: 1, phases: onTheWay, strike: signalWorker(syscall.SIGQUIT)},
		{name: "all workers kill -9 at once", weight: 1, phases: unasked, strike: killAll},
	}
}

func killWorker(_ *fault, l *link, _ []byte) (bool, error) {
	return false, l.proxy.worker.kill()
}

func stopWorker(f *fault, l *link, _ []byte) (bool, error) {
	return false, l.proxy.worker.freeze(f.between(100*time.Millisecond, time.Second))
}

func stopWorkerLong(f *fault, l *link, _ []byte) (bool, error) {
	return false, l.proxy.worker.freeze(f.between(3200*time.Millisecond, 4500*time.Millisecond))
}

func signalWorker(s os.Signal) func(*fault, *link, []byte) (bool, error) {
	return func(_ *fault, l *link, _ []byte) (bool, error) { return false, l.proxy.worker.signal(s) }
}

func signalTwice(f *fault, l *link, _ []byte) (bool, error) {
	if err := l.proxy.worker.signal(syscall.SIGTERM); err != nil {
		return false, err
	}
	l.hold(f.between(time.Millisecond, 50*time.Millisecond))
	_ = l.proxy.worker.signal(syscall.SIGTERM) // it may have been quick
	return false, nil
}

func killAll(f *fault, _ *link, _ []byte) (bool, error) {
	hit := false
	for _, w := range f.episode.workers {
		hit = w.kill() == nil || hit
	}
	if !hit {
		return false, fmt.Errorf("no worker was there")
	}
	f.episode.pause(time.Second)
	return false, nil
}
