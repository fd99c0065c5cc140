package main

import (
	"net"
	"time"
)

// Which phases a fault makes sense in.
var (
	onTheWay = []phase{
		connecting, connected, schemaChecked, tendSent, tendAnswered, claimSent, claimCommitted, halfSent, sent, refreshing,
		committed, settleSent, settled, answered, failed, rollbackSent, recordSent, failureEnded,
	}
	withMessage = []phase{connecting, connected, schemaChecked, tendAnswered, claimCommitted, halfSent, committed, settled, failed, failureEnded}
	withBackend = []phase{
		tendSent, tendAnswered, claimSent, claimCommitted, halfSent, sent, refreshing, refreshing, committed, settleSent, settled,
		answered, failed, rollbackSent, recordSent, failureEnded,
	}
	unasked = []phase{anyTime}
)

// networkFaults happen between a worker and the server.
func networkFaults() []*kind {
	return []*kind{
		{name: "connection cut", weight: 8, phases: onTheWay, strike: cutConnection},
		{name: "connection cut within a message", weight: 4, phases: withMessage, strike: cutMessage},
		{name: "answer lost, server not told", weight: 4, phases: withBackend, strike: loseAnswer},
		{name: "black hole, 1 to 5 s", weight: 1, phases: onTheWay, strike: blackHole},
		{name: "delayed, 20 to 300 ms", weight: 3, phases: onTheWay, strike: delay},
		{name: "delayed beyond the start grace", weight: 1, phases: []phase{claimCommitted, halfSent, failed, claimSent}, strike: longDelay},
		{name: "slow network, 2 s", weight: 1, phases: unasked, strike: slowNetwork},
	}
}

func cutConnection(_ *fault, l *link, _ []byte) (bool, error) {
	l.cut()
	return true, nil
}

// cutMessage lets a part of what is held through.
func cutMessage(f *fault, l *link, held []byte) (bool, error) {
	part := held[:int(f.chance*float64(len(held)))]
	to := l.client
	if f.phase == connecting || f.phase == halfSent || f.phase == committed {
		to = l.server
	}
	_, err := to.Write(part)
	// The other end is to have it before it hears of the end.
	closeSoftly(to)
	l.hold(5 * time.Millisecond)
	l.cut()
	return true, err
}

func closeSoftly(conn net.Conn) {
	switch conn := conn.(type) {
	case *net.TCPConn:
		_ = conn.CloseWrite()
	case *net.UnixConn:
		_ = conn.CloseWrite()
	}
}

// loseAnswer resets the worker's side only; the server goes on for a while before it hears of it.
func loseAnswer(f *fault, l *link, _ []byte) (bool, error) {
	l.deaf.Store(true)
	if tcp, ok := l.client.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = l.client.Close()
	time.AfterFunc(f.between(100*time.Millisecond, 3*time.Second), l.cut)
	return false, nil
}

// blackHole swallows everything, both ways, and resets in the end.
func blackHole(f *fault, l *link, _ []byte) (bool, error) {
	l.dark.Store(true)
	time.AfterFunc(f.between(time.Second, 5*time.Second), l.cut)
	return false, nil
}

func delay(f *fault, l *link, _ []byte) (bool, error) {
	l.hold(f.between(20*time.Millisecond, 300*time.Millisecond))
	return false, nil
}

func longDelay(f *fault, l *link, _ []byte) (bool, error) {
	l.hold(f.between(3200*time.Millisecond, 4500*time.Millisecond))
	return false, nil
}

func slowNetwork(f *fault, _ *link, _ []byte) (bool, error) {
	delay := &f.episode.worker(f.victim).proxy.delay
	delay.Store(int64(f.between(20*time.Millisecond, 200*time.Millisecond)))
	f.episode.laterOrAtTheEnd(2*time.Second, func() { delay.Store(0) })
	return false, nil
}
