package tree

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// seeded returns n bytes that depend on seed alone.
func seeded(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// writeFiles makes files whose content is their path.
func writeFiles(t testing.TB, dir string, paths ...string) {
	t.Helper()
	for _, path := range paths {
		name := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(path), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// openBytes opens a file of these bytes.
func openBytes(t testing.TB, data []byte) (Tree, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
	tr, err := Open(name, Options{})
	if err == nil {
		t.Cleanup(func() { tr.Close() })
	}
	return tr, err
}

// mustOpen opens a file of these bytes as an archive of the given format.
func mustOpen(t testing.TB, data []byte, format string) Tree {
	t.Helper()
	tr, err := openBytes(t, data)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	if tr.Format() != format {
		t.Fatalf("Format() = %s, want %s", tr.Format(), format)
	}
	return tr
}

// found is a node with its content.
type found struct {
	Node
	data []byte
}

// walk returns all nodes of a tree and the first error, of the walk or of a
// content. Content is read up to 64 MiB.
func walk(t testing.TB, tr Tree) ([]found, error) {
	t.Helper()
	var all []found
	err := tr.Walk(t.Context(), func(n Node, open func() (io.ReadCloser, error)) error {
		if err := CheckPath(n.Path); err != nil {
			t.Errorf("Walk gives a path that is not canonical: %v", err)
		}
		f := found{Node: n}
		if n.Kind == File {
			r, err := open()
			if err != nil {
				return err
			}
			defer r.Close()
			if f.data, err = io.ReadAll(io.LimitReader(r, 64<<20)); err != nil {
				return err
			}
		}
		all = append(all, f)
		return nil
	})
	return all, err
}

// mustWalk returns the nodes by path, and checks that Open and OpenAt give the
// same contents as the walk.
func mustWalk(t testing.TB, tr Tree) map[string]found {
	t.Helper()
	all, err := walk(t, tr)
	if err != nil {
		t.Fatalf("Walk = %v", err)
	}
	byPath := map[string]found{}
	for _, f := range all {
		byPath[f.Path] = f
		if f.Kind == File {
			checkOpen(t, tr, f.Path, f.data)
		}
	}
	return byPath
}

// checkOpen reads a file out of order in both ways.
func checkOpen(t testing.TB, tr Tree, path string, want []byte) {
	t.Helper()
	r, err := tr.Open(t.Context(), path)
	if err != nil {
		t.Errorf("Open(%s) = %v", path, err)
		return
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("Open(%s) gives %d bytes, %v, want %d", path, len(got), err, len(want))
	}
	r.Close()
	c, err := tr.OpenAt(t.Context(), path)
	if err != nil {
		t.Errorf("OpenAt(%s) = %v", path, err)
		return
	}
	defer c.Close()
	off := int64(len(want) / 3)
	got, err = io.ReadAll(io.NewSectionReader(c, off, c.Size()))
	if err != nil || c.Size() != int64(len(want)) || !bytes.Equal(got, want[off:]) {
		t.Errorf("OpenAt(%s) gives %d of %d bytes, %v, want %d", path, len(got), c.Size(), err, len(want))
	}
}

// paths lists a tree in the order of its walk; folders end in a slash.
func paths(t testing.TB, tr Tree) []string {
	t.Helper()
	all, err := walk(t, tr)
	if err != nil {
		t.Fatalf("Walk = %v", err)
	}
	var names []string
	for _, f := range all {
		if f.Kind == Dir {
			f.Path += "/"
		}
		names = append(names, f.Path)
	}
	return names
}

func TestRecognise(t *testing.T) {
	tar := tarOf(t, tarFile("a", "content"))
	zip := buildZip(zipEntry{name: "a", data: []byte("x")})
	tests := []struct {
		name   string
		data   []byte
		format string
	}{
		{"nothing", nil, "file"},
		{"text", []byte("hello"), "file"},
		{"zip", zip, "zip"},
		{"empty zip", buildZip(), "zip"},
		{"tar", tar, "tar"},
		{"tar.gz", gzipOf(t, tar), "tar.gz"},
		{"tar.gz of two members", append(gzipOf(t, tar[:1000]), gzipOf(t, tar[1000:])...), "tar.gz"},
		{"tar.zst", zstdOf(t, tar), "tar.zst"},
		{"tar.xz", xzOf(t, tar), "tar.xz"},
		{"gzip of text", gzipOf(t, []byte("hello")), "file"},
		{"gzip of a zip", gzipOf(t, zip), "file"},
		{"gzip of nothing", gzipOf(t, nil), "file"},
		{"zstd of text", zstdOf(t, []byte("hello")), "file"},
		{"xz of text", xzOf(t, bytes.Repeat([]byte("hello"), 1000)), "file"},
		{"start of a gzip", gzipOf(t, tar)[:8], "file"},
		{"start of a tar", tar[:511], "file"},
		{"something behind a zip's magic", []byte("PK\x03\x04"), ""},
		{"text with the magic of a tar elsewhere", append(bytes.Repeat([]byte("x"), 600), "ustar"...), "file"},
	}
	for _, test := range tests {
		tr, err := openBytes(t, test.data)
		switch {
		case test.format == "" && err == nil:
			t.Errorf("%s: Open takes it for a %s, want an error", test.name, tr.Format())
		case test.format != "" && (err != nil || tr.Format() != test.format):
			t.Errorf("%s: Open = %v, %v, want a %s", test.name, tr, err, test.format)
		}
	}
}

func TestOpenAsFile(t *testing.T) {
	data := buildZip(zipEntry{name: "a", data: []byte("x")})
	name := filepath.Join(t.TempDir(), "archive.zip")
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
	tr, err := Open(name, Options{AsFile: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	got := mustWalk(t, tr)
	if f, ok := got["archive.zip"]; len(got) != 1 || !ok || !bytes.Equal(f.data, data) || tr.Format() != "file" || tr.Sequential() {
		t.Errorf("walk = %v, want the zip as one file", got)
	}
}
