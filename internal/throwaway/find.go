package throwaway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The environment variables that choose the server programs.
const (
	// EnvBin names the directory with initdb and postgres.
	EnvBin = "MVSCHED_PG_BIN"
	// EnvMajor asks for the npm package of a major version, 13 to 18.
	EnvMajor = "MVSCHED_PG_MAJOR"
)

// minMajor is the oldest major version of PostgreSQL that is accepted.
const minMajor = 13

// wellKnown lists where packages for common systems put the server programs.
var wellKnown = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/usr/local/pgsql/bin",
}

// Find returns the directory with initdb and postgres, and their version. It
// looks at, in this order:
//
//  1. the directory that MVSCHED_PG_BIN names, and then nowhere else;
//  2. the fetched npm package of the major version that MVSCHED_PG_MAJOR
//     names, and then nowhere else;
//  3. the directory that pg_config --bindir prints;
//  4. the directory of the initdb in PATH;
//  5. the highest version in the places where packages put it;
//  6. the highest version that Fetch has put into the cache.
//
// If there is none, the error is a *NotFoundError.
func Find() (bin, version string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return find(ctx, "")
}

// find is Find with the directory that a caller insists on, if any.
func find(ctx context.Context, bin string) (string, string, error) {
	var s search
	if bin != "" {
		return s.only(ctx, "directory given", bin)
	}
	if dir := os.Getenv(EnvBin); dir != "" {
		return s.only(ctx, EnvBin, dir)
	}
	major, err := wantedMajor()
	if err != nil {
		return "", "", err
	}
	if major == 0 {
		for _, look := range []func(context.Context) (hit, bool){s.pgConfig, s.path, s.packages} {
			if h, ok := look(ctx); ok {
				return h.dir, h.version, nil
			}
		}
	}
	if h, ok := s.cache(ctx, major); ok {
		return h.dir, h.version, nil
	}
	return "", "", &NotFoundError{Tried: s.tried, fetchable: true}
}

// wantedMajor returns the major version that the environment asks for, or 0.
func wantedMajor() (int, error) {
	v := os.Getenv(EnvMajor)
	if v == "" {
		return 0, nil
	}
	major, err := strconv.Atoi(v)
	if err != nil || Versions[major] == "" {
		return 0, fmt.Errorf("invalid %s %q: must be one of 13 to 18", EnvMajor, v)
	}
	return major, nil
}

// hit is a directory with server programs that run.
type hit struct{ dir, version string }

// search remembers where it looked, for the error.
type search struct{ tried []string }

func (s *search) note(where string, why any) {
	s.tried = append(s.tried, fmt.Sprintf("%s: %v", where, why))
}

// only looks at one directory, without falling back to any other: whoever
// names a directory is not helped by a server from elsewhere.
func (s *search) only(ctx context.Context, where, dir string) (string, string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", "", err
	}
	version, err := probe(ctx, dir)
	if err != nil {
		s.note(where, err)
		return "", "", &NotFoundError{Tried: s.tried}
	}
	return dir, version, nil
}

func (s *search) pgConfig(ctx context.Context) (hit, bool) {
	out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output()
	if err != nil {
		s.note("pg_config --bindir", reason(err))
		return hit{}, false
	}
	return s.first(ctx, "pg_config --bindir", strings.TrimSpace(string(out)))
}

func (s *search) path(ctx context.Context) (hit, bool) {
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		s.note("initdb in PATH", reason(err))
		return hit{}, false
	}
	// It may be a link to a directory that also holds postgres, or not a link.
	dirs := []string{filepath.Dir(initdb)}
	if target, err := filepath.EvalSymlinks(initdb); err == nil && target != initdb {
		dirs = append(dirs, filepath.Dir(target))
	}
	return s.first(ctx, "initdb in PATH", dirs...)
}

func (s *search) packages(ctx context.Context) (hit, bool) {
	var dirs []string
	for _, pattern := range wellKnown {
		found, _ := filepath.Glob(pattern) // the patterns are well-formed
		dirs = append(dirs, found...)
	}
	if len(dirs) == 0 {
		s.note("installed packages", "none in "+strings.Join(wellKnown, ", "))
		return hit{}, false
	}
	return s.highest(ctx, "installed packages", dirs, 0)
}

func (s *search) cache(ctx context.Context, major int) (hit, bool) {
	dir, err := cacheDir()
	if err != nil {
		s.note("cache", err)
		return hit{}, false
	}
	where := "cache " + dir
	if major != 0 {
		where += " for major version " + strconv.Itoa(major)
	}
	dirs, _ := filepath.Glob(filepath.Join(dir, "[0-9]*-"+platform(), "bin"))
	h, ok := s.highest(ctx, where, dirs, major)
	if !ok && len(dirs) == 0 {
		s.note(where, "empty")
	}
	return h, ok
}

// first returns the first directory that has what is needed.
func (s *search) first(ctx context.Context, where string, dirs ...string) (hit, bool) {
	for _, dir := range dirs {
		version, err := probe(ctx, dir)
		if err == nil {
			return hit{dir, version}, true
		}
		s.note(where, err)
	}
	return hit{}, false
}

// highest returns the directory with the highest version, of the major version
// if that is not 0.
func (s *search) highest(ctx context.Context, where string, dirs []string, major int) (hit, bool) {
	var hits []hit
	for _, dir := range dirs {
		version, err := probe(ctx, dir)
		switch {
		case err != nil:
			s.note(where, err)
		case major != 0 && majorOf(version) != major:
			s.note(where, fmt.Sprintf("%q holds %s", dir, version))
		default:
			hits = append(hits, hit{dir, version})
		}
	}
	if len(hits) == 0 {
		return hit{}, false
	}
	return slices.MaxFunc(hits, func(a, b hit) int { return compareVersions(a.version, b.version) }), true
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+\S*)`)

// probe returns the version of the server programs in dir, or why they are of
// no use.
func probe(ctx context.Context, dir string) (string, error) {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, program)); err != nil {
			return "", fmt.Errorf("no usable %s in %q: %w", program, dir, reason(err))
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("postgres in %q does not run: %w", dir, reason(err))
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("postgres in %q prints no version but %q", dir, out)
	}
	version := string(m[1])
	if majorOf(version) < minMajor {
		return "", fmt.Errorf("postgres in %q is %s: %d or newer is needed", dir, version, minMajor)
	}
	return version, nil
}

// reason shortens the errors of os/exec: the path stands in the message
// already, and what a program complained about says more than its exit status.
func reason(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	var lookup *exec.Error
	if errors.As(err, &lookup) {
		err = lookup.Err
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return err
}

// majorOf returns 15 for "15.18" and 19 for "19beta1".
func majorOf(version string) int { return numbers(version)[0] }

// compareVersions orders "9.6" before "15.2" before "15.10".
func compareVersions(a, b string) int {
	return cmp.Or(slices.Compare(numbers(a), numbers(b)), strings.Compare(a, b))
}

// numbers returns the major and the minor number; 19beta1 sorts before 19.0.
func numbers(version string) []int {
	major, minor, dotted := strings.Cut(version, ".")
	m, _ := strconv.Atoi(leadingDigits(major))
	n, _ := strconv.Atoi(leadingDigits(minor))
	if !dotted {
		n = -1
	}
	return []int{m, n}
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
