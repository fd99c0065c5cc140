package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What of libpq's own variables cannot be read is named, without its value.
func TestBrokenEnvironment(t *testing.T) {
	services := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(services, []byte("[shop]\nhost=127.0.0.1\nport=s3cr3t\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		environment string
		dsn         string
		want        string
	}{
		{environment: "PGPORT=s3cr3t", want: "PGPORT is no port number"},
		{environment: "PGPORT=s3cr3t", dsn: "host=127.0.0.1", want: "PGPORT is no port number"},
		{environment: "PGCONNECT_TIMEOUT=s3cr3t", want: "PGCONNECT_TIMEOUT is no number of seconds"},
		{environment: "PGTARGETSESSIONATTRS=s3cr3t", want: "PGTARGETSESSIONATTRS is none of any, "},
		{environment: "PGSSLMODE=s3cr3t", dsn: "host=127.0.0.1", want: "PGSSLMODE is none of disable, "},
		{environment: "PGHOST=/tmp PGSSLMODE=s3cr3t", dsn: "host=127.0.0.1", want: "PGSSLMODE is none of disable, "},
		{environment: "PGHOST=127.0.0.1 PGSSLMODE=verify-full PGSSLROOTCERT=/s3cr3t", want: "PGSSLROOTCERT names no file with certificates"},
		{environment: "PGHOST=127.0.0.1 PGSSLMODE=require PGSSLCERT=/s3cr3t PGSSLKEY=/s3cr3t", want: "PGSSLCERT and PGSSLKEY do not name"},
		{environment: "PGHOST=127.0.0.1 PGSSLKEY=/s3cr3t", want: "PGSSLCERT and PGSSLKEY do not name"},
		{environment: "PGSSLCERTMODE=s3cr3t", want: "PGSSLCERTMODE is none of disable, "},
		{environment: "PGMAXPROTOCOLVERSION=s3cr3t", want: "PGMINPROTOCOLVERSION and PGMAXPROTOCOLVERSION are no versions"},
		{environment: "PGCHANNELBINDING=s3cr3t", want: "PGCHANNELBINDING is none of disable, "},
		{environment: "PGREQUIREAUTH=s3cr3t", want: "PGREQUIREAUTH names a way to log in that there is not"},
		{environment: "PGHOST=127.0.0.1 PGPORT=s3cr3t PGSSLMODE=s3cr3t", want: "PGSSLMODE is none of disable, "},
		{environment: "PGSERVICE=s3cr3t", want: "PGSERVICE names no service"},
		{environment: "PGSERVICE=shop PGSERVICEFILE=" + services, want: "PGSERVICE names no service in ~/.pg_service.conf (else PGSERVICEFILE), or one that cannot be read"},
		{environment: "PGHOST=a,b,c PGPORT=1,2", want: "PGPORT is no port number, nor one for each host"},
		{environment: "PGHOST=a,b PGPORT=1,2", dsn: "host=a,b sslmode=s3cr3t", want: "the connection string cannot be parsed"},
		{environment: "PGPORT=1", dsn: "port=s3cr3t", want: "the connection string cannot be parsed"},
	} {
		t.Run(test.environment, func(t *testing.T) {
			for _, variable := range strings.Fields(test.environment) {
				name, value, _ := strings.Cut(variable, "=")
				t.Setenv(name, value)
			}
			code, leaked, written := leaks(t, "s3cr3t", "status", "-d", test.dsn)
			if code != exitUnavailable || leaked || !strings.Contains(written, "error: cannot connect to the database: "+test.want) || !strings.Contains(written, "hint: ") {
				t.Errorf("exit code %d, want %d and %q\n%s", code, exitUnavailable, test.want, written)
			}
		})
	}
}
