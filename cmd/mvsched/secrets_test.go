package main

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/report"
)

// I8: however a secret is written into a connection string, and whatever else is wrong with that, no error shows it.
// Nobody listens on port 1.

// rightSpellings write a secret as it should be written.
var rightSpellings = []func(secret string) string{
	func(s string) string { return "postgres://" + url.UserPassword("ann", s).String() + "@127.0.0.1:1/db?" },
	func(s string) string { return "postgresql://ann@127.0.0.1:1/db?password=" + url.QueryEscape(s) },
	func(s string) string { return "postgres://ann@127.0.0.1:1/db?sslpassword=" + url.QueryEscape(s) },
	func(s string) string {
		return "postgres:///db?host=127.0.0.1&port=1&user=ann&password=" + url.QueryEscape(s)
	},
	func(s string) string { return "host=127.0.0.1 port=1 user=ann password=" + quoteKeyword(s) },
	func(s string) string { return "password = " + quoteKeyword(s) + " host=127.0.0.1,::1 port=1,1" },
	func(s string) string { return "host=127.0.0.1 port=1 sslmode=disable sslpassword=" + quoteKeyword(s) },
}

// wrongSpellings write it as people do.
var wrongSpellings = []func(secret string) string{
	func(s string) string { return "postgres://ann:" + s + "@127.0.0.1:1/db?" },
	func(s string) string { return "postgres://ann:" + s + "%zz@127.0.0.1:1/db?" },
	func(s string) string { return "postgres://127.0.0.1:1/db?password=" + s },
	func(s string) string { return "host=127.0.0.1 port=1 password=" + s },
	func(s string) string { return "host=127.0.0.1 port=1 password='" + s },
	func(s string) string { return "host=127.0.0.1 port=1 password=" + s + " secret" },
	func(s string) string { return "host=127.0.0.1 port=1 passwd " + s },
	func(s string) string { return s },
}

// flaws are what else can be wrong, as a parameter and its value.
var flaws = [][2]string{
	{},
	{"port", "none"},
	{"sslmode", "nonsense"},
	{"connect_timeout", "soon"},
	{"target_session_attrs", "nonsense"},
	{"service", "nosuch"},
	{"sslrootcert", "/nonexistent"},
	{"sslcert", "/nonexistent"},
	{"passfile", "/nonexistent"},
	{"pool_max_conns", "many"},
	{"require_auth", "nonsense"},
	{"default_query_exec_mode", "nonsense"},
	{"channel_binding", "nonsense"},
	{"min_protocol_version", "9"},
	{"nosuch", "x"},
}

func quoteKeyword(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// withFlaw adds a parameter to a connection string.
func withFlaw(dsn string, flaw [2]string) string {
	switch {
	case flaw[0] == "":
		return dsn
	case strings.HasPrefix(dsn, "postgres"):
		return dsn + "&" + flaw[0] + "=" + flaw[1]
	default:
		return dsn + " " + flaw[0] + "=" + flaw[1]
	}
}

// leaks runs the program and reports whether anything that it writes shows the secret.
func leaks(t *testing.T, secret string, args ...string) (code int, leaked bool, written string) {
	t.Helper()
	var out bytes.Buffer
	code = run(args, environment{stdin: strings.NewReader(""), stdout: &out, stderr: &out, getenv: func(string) string { return "" }})
	for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), report.Clean(secret), report.OneLine(secret), quoteKeyword(secret)} {
		if strings.Contains(out.String(), strings.Trim(form, "'")) {
			return code, true, out.String()
		}
	}
	return code, false, out.String()
}

func TestNoSecretIsShown(t *testing.T) {
	for _, secret := range []string{
		"s3cr3t", "s3cr3t#hash", "s3cr3t/slash", "s3cr3t@at", "s3cr3t:colon", "s3cr3t?mark", "s3cr3t&and", "s3cr3t%25", "s3cr3t%00", "s3cr3t'quote",
		`s3cr3t\back`, "s3cr3t space", "s3cr3t\tTab", "s3cr3t\nline", "s3cr3t=equals", "s3cr3té", "s3cr3t\x1b[31m", "s3cr3t[6]", "s3cr3t,comma",
	} {
		for _, flaw := range flaws {
			for _, spell := range rightSpellings {
				dsn := withFlaw(spell(secret), flaw)
				if code, leaked, written := leaks(t, "s3cr3t", "status", "-v", "-d", dsn); leaked || code != exitUnavailable {
					t.Errorf("%q: exit code %d\n%s", dsn, code, written)
				}
			}
			for _, spell := range wrongSpellings {
				dsn := withFlaw(spell(secret), flaw)
				if _, err := parseURL(dsn); err == nil {
					continue // it means something else, such as another host
				}
				if code, leaked, written := leaks(t, "s3cr3t", "status", "-v", "-d", dsn); leaked || code != exitUnavailable {
					t.Errorf("%q: exit code %d\n%s", dsn, code, written)
				}
			}
		}
	}
}

func TestNoSecretOfAFileIsShown(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"pass": "127.0.0.1:1:*:ann:s3cr3t\n", "broken_pass": "s3cr3t\n\x00s3cr3t:::\n",
		"service": "[shop]\nhost=127.0.0.1\nport=1\npassword=s3cr3t\n", "broken_service": "[shop]\ns3cr3t\n", "none": "s3cr3t",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dsn := range []string{
		"passfile=" + dir + "/pass", "passfile=" + dir + "/broken_pass", "service=shop servicefile=" + dir + "/service",
		"service=shop servicefile=" + dir + "/broken_service", "service=other servicefile=" + dir + "/service",
		"sslmode=require sslpassword=s3cr3t sslcert=" + dir + "/none sslkey=" + dir + "/none", "sslrootcert=" + dir + "/none sslmode=verify-full",
	} {
		if code, leaked, written := leaks(t, "s3cr3t", "status", "-v", "-d", "host=127.0.0.1 port=1 user=ann "+dsn); leaked || code != exitUnavailable {
			t.Errorf("%q: exit code %d\n%s", dsn, code, written)
		}
	}
}

// The law: no connection string in which a secret stands, rightly or wrongly written, leads to output with that secret in it.
func FuzzSecret(f *testing.F) {
	for i := range max(len(rightSpellings), len(wrongSpellings)) {
		f.Add(uint8(i), uint8(i), "#?/@%00 '\\é")
	}
	f.Fuzz(func(t *testing.T, spelling, flaw uint8, text string) {
		if strings.ContainsRune(text, 0) {
			return // no argument of a program has one
		}
		const prefix = "s3cr3t" // so that it does not stand in a message by chance
		spellings := append(rightSpellings[:len(rightSpellings):len(rightSpellings)], wrongSpellings...)
		n := int(spelling) % len(spellings)
		dsn := withFlaw(spellings[n](prefix+text), flaws[int(flaw)%len(flaws)])
		if _, err := parseURL(dsn); err == nil && n >= len(rightSpellings) {
			return
		}
		if code, leaked, written := leaks(t, prefix, "status", "-d", dsn); leaked || code != exitUnavailable {
			t.Fatalf("%q: exit code %d\n%s", dsn, code, written)
		}
	})
}
