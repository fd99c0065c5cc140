package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/internal/pgtest"
)

// The scripts in testdata/script drive the real program against a real PostgreSQL. Each has a database of its own,
// $MVSCHED_DATABASE_URL, in which schema mvsched is not installed. Beside testscript's commands they have:
//
//	exits [-within D] CODE COMMAND…   runs a program, which must exit with exactly this code (within D)
//	start NAME COMMAND…               runs a program in the background
//	signal SIG NAME                   sends it INT, TERM or KILL
//	exits [-within D] CODE &NAME      waits for it (D counts from the last signal); its output is then stdout and stderr
//
//	sql STATEMENTS, sql -f FILE       runs SQL in $MVSCHED_DATABASE_URL; with "!" it must fail, and stderr says how
//	sqlout QUERY ROW…                 the query returns exactly these rows, their columns joined by "|"
//	waitsql QUERY ROW…                the same, at the latest after 20 s
//	hold NAME STATEMENTS              leaves a transaction open, to the end or to "release NAME"; sets $NAME_pid, $NAME_user
//	release NAME                      rolls it back
//
//	database NAME                     makes another empty database; sets $NAME to its name, and $NAME_url
//	role NAME [OPTIONS]               makes a role that may log in; sets $NAME to its name, and $NAME_url
//	dsn NAME KEY=VALUE…               sets $NAME to $MVSCHED_DATABASE_URL with these parameters changed
//
//	port NAME                         sets $NAME to a port of 127.0.0.1 that is free
//	visit STATUS URL [HEADER VALUE]…  asks for it, once somebody listens there; its body is then stdout
//
//	json PATH WANT                    stdout is JSON, and what is at PATH matches all of the regular expression WANT.
//	                                  A path is 0.last.status; its last part may be keys (in their order) or len
//
// A condition [pg13] … [pg99] holds on servers of this major version and newer.
// A script connects as a role that owns its database and is no superuser; $SUPERUSER_url is for what needs one.
// [pooler] holds where a pooler stands before the server.

var updateScripts = flag.Bool("update", false, "rewrite what the scripts compare output with")

// TestMain is also the main function of the programs that the scripts run.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "4") // unless -parallel says otherwise: scripts wait more than they compute
	testscript.Main(pgtest.Runner{M: m}, map[string]func(){
		"mvsched":          main,
		"mvsched-with-bug": func() { os.Exit(run(os.Args[1:], system(), newBugCmd)) },
	})
}

// newBugCmd is a command that panics.
func newBugCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "bug"}
	cmd.RunE = a.command(cmd, func(context.Context, []string) error { panic("the cat sat on the \x1b[31mkeyboard") })
	return cmd
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Setup:               setupScript,
		Condition:           condition(t),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *updateScripts,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    scriptCommand((*script).exits, 2),
			"start":    scriptCommand((*script).start, 2),
			"signal":   scriptCommand((*script).signal, 2),
			"sqlout":   scriptCommand((*script).sqlout, 1),
			"waitsql":  scriptCommand((*script).waitsql, 1),
			"hold":     scriptCommand((*script).hold, 2),
			"release":  scriptCommand((*script).release, 1),
			"database": scriptCommand((*script).database, 1),
			"role":     scriptCommand((*script).role, 1),
			"dsn":      scriptCommand((*script).dsn, 2),
			"json":     scriptCommand((*script).json, 2),
			"port":     scriptCommand((*script).port, 1),
			"visit":    scriptCommand((*script).visit, 2),
			"sql":      cmdSQL,
		},
	})
}

// script is what one script has besides testscript's own state.
type script struct {
	*testscript.TestScript

	variables []string             // those that programs in the background get
	dsns      map[string]*pgx.Conn // by connection string
	admin     *pgx.Conn            // the one to the script's first database
	held      map[string]*pgx.Conn
	programs  map[string]*program
	unique    string   // a prefix for names that the whole server shares
	leftovers []string // statements that clean the server up, the last one first
}

// program runs in the background.
type program struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	since          time.Time // started, or last signalled
	done           chan struct{}
}

type scriptKey struct{}

func setupScript(env *testscript.Env) error {
	t, ok := env.T().(testing.TB)
	if !ok {
		return errors.New("testscript runs without a testing.T")
	}
	s := &script{
		dsns: map[string]*pgx.Conn{}, held: map[string]*pgx.Conn{}, programs: map[string]*program{},
		unique: "mvsched_test_" + strings.ToLower(rand.Text()[:8]) + "_",
	}
	server := pgtest.DSN(t)
	t.Cleanup(func() { s.cleanUp(t) })
	env.Setenv("MVSCHED_DATABASE_URL", server)
	env.Setenv("TZ", "UTC")
	env.Setenv("NO_COLOR", "1")
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("GORACE", "atexit_sleep_ms=0") // with -race every program would stay a second longer
	for _, variable := range env.Vars {
		name, _, _ := strings.Cut(variable, "=")
		s.variables = append(s.variables, name)
	}
	env.Values[scriptKey{}] = s

	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, pgtest.Direct(server))
	if err != nil {
		return err
	}
	s.admin, s.dsns[server] = conn, conn
	env.Setenv("SUPERUSER_url", server)

	// No superuser: a role that owns its database, and so may create schemas in it.
	owner := s.unique + "owner"
	create := "create role " + owner + " login"
	if password := conn.Config().Password; password != "" {
		create += " password '" + strings.ReplaceAll(password, "'", "''") + "'"
	}
	s.leftovers = append(s.leftovers, "drop role "+owner, "drop owned by "+owner+" cascade", "reassign owned by "+owner+" to current_user")
	env.Setenv("MVSCHED_DATABASE_URL", withParameters(server, []string{"user=" + owner}))
	for _, sql := range []string{
		"drop schema mvsched cascade", create, "alter database " + pgx.Identifier{conn.Config().Database}.Sanitize() + " owner to " + owner,
		"grant create, usage on schema public to " + owner,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// waitLimit is when something that a script waits for counts as not happening.
const waitLimit = 20 * time.Second

func (s *script) cleanUp(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	for _, p := range s.programs {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	for _, conn := range s.held {
		_ = conn.Close(ctx)
	}
	for _, conn := range s.dsns {
		if conn != s.admin {
			_ = conn.Close(ctx)
		}
	}
	if s.admin == nil {
		return
	}
	s.leftovers = append(s.leftovers, `
select pg_catalog.pg_terminate_backend(a.pid)
  from pg_catalog.pg_stat_activity a
 where a.datname = pg_catalog.current_database() and a.pid <> pg_catalog.pg_backend_pid()`)
	for _, statement := range slices.Backward(s.leftovers) {
		if _, err := s.admin.Exec(ctx, statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
	_ = s.admin.Close(ctx)
}

// scriptCommand makes a command of a method that takes at least so many arguments.
func scriptCommand(do func(*script, []string), arguments int) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < arguments {
			ts.Fatalf("wrong use of the command; see script_test.go")
		}
		do(scriptOf(ts), args)
	}
}

func scriptOf(ts *testscript.TestScript) *script {
	s := ts.Value(scriptKey{}).(*script) //nolint:forcetypeassert // it was put there
	s.TestScript = ts
	return s
}

func (s *script) exits(args []string) {
	var within time.Duration
	if args[0] == "-within" {
		var err error
		within, err = time.ParseDuration(args[1])
		s.Check(err)
		args = args[2:]
	}
	want, err := strconv.Atoi(args[0])
	s.Check(err)
	var code int
	var took time.Duration
	if name, ok := strings.CutPrefix(args[1], "&"); ok {
		code, took = s.wait(name)
	} else {
		began := time.Now()
		err := s.Exec(args[1], args[2:]...)
		code, took = exitCode(s, err), time.Since(began)
	}
	if code != want {
		s.Fatalf("exit code %d, want %d", code, want)
	}
	if within > 0 && took > within {
		s.Fatalf("took %s, want at most %s", took, within)
	}
}

func exitCode(s *script, err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		s.Fatalf("%v", err)
		return -1
	}
}

func (s *script) start(args []string) {
	p := &program{cmd: exec.Command(args[1], args[2:]...), since: time.Now(), done: make(chan struct{})}
	p.cmd.Dir = s.MkAbs(".")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	for _, name := range s.variables {
		p.cmd.Env = append(p.cmd.Env, name+"="+s.Getenv(name))
	}
	s.Check(p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // its exit code is in ProcessState
		close(p.done)
	}()
	s.programs[args[0]] = p
}

func (s *script) program(name string) *program {
	p, ok := s.programs[name]
	if !ok {
		s.Fatalf("no program %q was started", name)
	}
	return p
}

func (s *script) signal(args []string) {
	signals := map[string]os.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	p := s.program(args[1])
	p.since = time.Now()
	s.Check(p.cmd.Process.Signal(signals[args[0]]))
}

func (s *script) wait(name string) (code int, took time.Duration) {
	p := s.program(name)
	select {
	case <-p.done:
	case <-time.After(waitLimit):
		s.Fatalf("%q has not ended after %s", name, waitLimit)
	}
	took = time.Since(p.since)
	delete(s.programs, name)
	_, _ = s.Stdout().Write(p.stdout.Bytes())
	_, _ = s.Stderr().Write(p.stderr.Bytes())
	return p.cmd.ProcessState.ExitCode(), took
}

func (s *script) json(args []string) {
	want, err := regexp.Compile(`^(?:` + args[1] + `)$`)
	s.Check(err)
	value := json.RawMessage(s.ReadFile("stdout"))
	if !json.Valid(value) {
		s.Fatalf("stdout is not one JSON value")
	}
	var got string
	for part := range strings.SplitSeq(args[0], ".") {
		if value, err = jsonAt(value, part); err != nil {
			s.Fatalf("%s: %v", args[0], err)
		}
	}
	if json.Unmarshal(value, &got) != nil || string(value) == "null" {
		got = string(value)
	}
	if !want.MatchString(got) {
		s.Fatalf("%s is %s, want %s", args[0], got, args[1])
	}
}

// jsonAt is the element or member of a JSON value, its keys or its length.
func jsonAt(value json.RawMessage, part string) (json.RawMessage, error) {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) == nil && string(value) != "null" {
		if part == "len" {
			return json.RawMessage(strconv.Itoa(len(list))), nil
		}
		i, err := strconv.Atoi(part)
		if err != nil || i >= len(list) {
			return nil, fmt.Errorf("no element %s of %d", part, len(list))
		}
		return list[i], nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(value, &members); err != nil {
		return nil, err
	}
	if part == "keys" {
		return jsonKeys(value)
	}
	member, ok := members[part]
	if !ok {
		return nil, fmt.Errorf("no key %q", part)
	}
	return member, nil
}

// jsonKeys is the keys of an object, in their order, as one string.
func jsonKeys(object json.RawMessage) (json.RawMessage, error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	var keys []string
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		keys = append(keys, fmt.Sprint(key))
		var skipped json.RawMessage
		if err := decoder.Decode(&skipped); err != nil {
			return nil, err
		}
	}
	return json.Marshal(strings.Join(keys, " "))
}

// condition knows [pgN], the server is of major version N or newer, and [pooler], there is a pooler in front of it.
func condition(t *testing.T) func(string) (bool, error) {
	major := sync.OnceValues(func() (int, error) {
		conn, err := pgx.Connect(t.Context(), pgtest.DirectDSN(t))
		if err != nil {
			return 0, err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
		var number int
		err = conn.QueryRow(t.Context(), "select current_setting('server_version_num')::integer").Scan(&number)
		return number / 10000, err
	})
	return func(condition string) (bool, error) {
		if condition == "pooler" {
			return os.Getenv(pgtest.EnvPooler) != "", nil
		}
		wanted, err := strconv.Atoi(strings.TrimPrefix(condition, "pg"))
		if err != nil || !strings.HasPrefix(condition, "pg") {
			return false, fmt.Errorf("unknown condition %q", condition)
		}
		is, err := major()
		return is >= wanted, err
	}
}
