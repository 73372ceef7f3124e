package tree

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestDir(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "b/c.txt", "a.txt", "b/a", ".hidden", ".ferry/journal", "sub/.ferry/kept", "gr\u00fc\u00df")
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o777); err != nil {
		t.Fatal(err)
	}
	tr, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	want := []string{".hidden", "a.txt", "b/", "b/a", "b/c.txt", "empty/", "gr\u00fc\u00df", "sub/", "sub/.ferry/", "sub/.ferry/kept"}
	if got := paths(t, tr); !slices.Equal(got, want) {
		t.Errorf("walk = %q, want %q", got, want)
	}
	for path, f := range mustWalk(t, tr) {
		if f.Kind == File && string(f.data) != path {
			t.Errorf("%s has %q, want its path", path, f.data)
		}
	}
	if tr.Format() != "directory" || tr.Sequential() {
		t.Errorf("Format(), Sequential() = %s, %t, want directory, false", tr.Format(), tr.Sequential())
	}
	for _, path := range []string{"nowhere", "b", "empty"} {
		if _, err := tr.Open(t.Context(), path); err == nil {
			t.Errorf("Open(%q) = nil, want an error", path)
		}
	}
	for _, path := range []string{"", "../" + filepath.Base(dir) + "/a.txt", "/a.txt", "b/../a.txt"} {
		var unsafe *UnsafePathError
		if _, err := tr.Open(t.Context(), path); !errors.As(err, &unsafe) {
			t.Errorf("Open(%q) = %v, want an UnsafePathError", path, err)
		}
		if _, err := tr.OpenAt(t.Context(), path); !errors.As(err, &unsafe) {
			t.Errorf("OpenAt(%q) = %v, want an UnsafePathError", path, err)
		}
	}
}

func TestDirMeta(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "plain", "run")
	old := time.Unix(500_000_000, 999_999_999)
	if err := errors.Join(os.Chmod(filepath.Join(dir, "run"), 0o700), os.Chtimes(filepath.Join(dir, "run"), old, old)); err != nil {
		t.Fatal(err)
	}
	links := os.Symlink(filepath.FromSlash("../a/b"), filepath.Join(dir, "link"))
	tr, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	got := mustWalk(t, tr)
	if f := got["run"]; f.Exec != (runtime.GOOS != "windows") || f.ModTime != 500_000_000 || f.Size != 3 {
		t.Errorf("run = %+v, want a program of 1985", f.Node)
	}
	if f := got["plain"]; f.Exec {
		t.Errorf("plain = %+v, want no program", f.Node)
	}
	if links != nil {
		t.Logf("without symbolic links: %v", links)
		return
	}
	if f := got["link"]; f.Kind != Link || f.Link != "../a/b" {
		t.Errorf("link = %+v, want a link to ../a/b", f.Node)
	}
}

// TestDirThroughLink opens a directory and a file by links to them.
func TestDirThroughLink(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "real/a", "real/b/c")
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Skipf("this system lets us make no symbolic links: %v", err)
	}
	if err := os.Symlink(filepath.Join("real", "a"), filepath.Join(dir, "file link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"link":                            {"a", "b/", "b/c"},
		"link" + string(os.PathSeparator): {"a", "b/", "b/c"},
		"file link":                       {"file link"},
	} {
		tr, err := Open(dir+string(os.PathSeparator)+name, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := paths(t, tr); !slices.Equal(got, want) {
			t.Errorf("walk of %s = %q, want %q", name, got, want)
		}
		mustWalk(t, tr)
		tr.Close()
	}
}

func TestOpenNothing(t *testing.T) {
	if tr, err := Open(filepath.Join(t.TempDir(), "nowhere"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open = %v, %v, want %v", tr, err, fs.ErrNotExist)
	}
}

func TestSingleFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "some file.bin")
	data := seeded(1, 10_000)
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
	tr, err := Open(name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	got := mustWalk(t, tr)
	if f, ok := got["some file.bin"]; len(got) != 1 || !ok || f.Size != 10_000 || f.Kind != File {
		t.Errorf("walk = %v, want the one file", got)
	}
	for _, path := range []string{"", "other", "./some file.bin"} {
		if _, err := tr.Open(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%q) = %v, want %v", path, err, fs.ErrNotExist)
		}
	}
	stop := errors.New("stop")
	if err := tr.Walk(t.Context(), func(Node, func() (io.ReadCloser, error)) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Walk that is stopped = %v, want %v", err, stop)
	}
}
