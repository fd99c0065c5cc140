package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
)

const (
	codeCancel = 80877102
	codeTLS    = 80877103
)

func readStartup(r io.Reader) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head)
	if length < 8 || length > 10000 {
		return nil, errors.New("no startup message")
	}
	message := append(head, make([]byte, length-4)...)
	_, err := io.ReadFull(r, message[4:])
	if err == nil && binary.BigEndian.Uint32(message[4:]) == codeTLS {
		err = errors.New("the worker is told not to use TLS")
	}
	return message, err
}

// readMessage reads one message: a letter, its length, its body.
func readMessage(r *bufio.Reader) ([]byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length < 4 || length > 1<<30 {
		return nil, errors.New("no message")
	}
	message := append(head, make([]byte, length-4)...)
	_, err := io.ReadFull(r, message[5:])
	return message, err
}

// afterCommit is where in a refresh's pipeline the messages begin that follow its commit.
func afterCommit(batch [][]byte) int {
	for i, message := range batch {
		if message[0] == 'P' && statement(message) == "commit" {
			return min(i+4, len(batch))
		}
	}
	return len(batch)
}

// noteClaim reads the execution's id out of a claim's row.
func (l *link) noteClaim(row []byte) bool {
	if len(row) < 11 || binary.BigEndian.Uint16(row[5:]) < 10 {
		return false
	}
	length := int(int32(binary.BigEndian.Uint32(row[7:])))
	if length <= 0 || len(row) < 11+length {
		return false
	}
	id, err := strconv.ParseInt(string(row[11:11+length]), 10, 64)
	if err == nil {
		l.execution.Store(id)
	}
	return err == nil
}

// noteExecution reads it out of the parameters of begin_refresh: the first Bind with six of them.
func (l *link) noteExecution(bind []byte) {
	at := 5
	for range 2 { // portal, statement
		for at < len(bind) && bind[at] != 0 {
			at++
		}
		at++
	}
	if at+2 > len(bind) {
		return
	}
	at += 2 + 2*int(binary.BigEndian.Uint16(bind[at:])) // formats
	if at+6 > len(bind) || binary.BigEndian.Uint16(bind[at:]) != 6 {
		return
	}
	length := int(binary.BigEndian.Uint32(bind[at+2:]))
	if at+6+length <= len(bind) {
		if id, err := strconv.ParseInt(string(bind[at+6:at+6+length]), 10, 64); err == nil {
			l.execution.Store(id)
		}
	}
}

// statement is the SQL of a Parse message.
func statement(message []byte) string {
	body := message[5:]
	for i, b := range body {
		if b == 0 {
			return cstring(body[i+1:])
		}
	}
	return ""
}

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func join(messages [][]byte) (all []byte) {
	for _, m := range messages {
		all = append(all, m...)
	}
	return all
}
