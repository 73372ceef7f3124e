package manifest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ferry/cas"
	"ferry/cas/backend"
	"ferry/chunking"
	"ferry/manifest/tree"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testParams cut small, so that tests need no large files.
func testParams() chunking.Params {
	p := chunking.Default()
	p.Min, p.AverageBits, p.Max, p.ZeroRun = 4<<10, 13, 64<<10, 16<<10
	return p
}

// newArchive makes a store in a folder of its own.
func newArchive(t testing.TB, p chunking.Params) (*Archive, string) {
	t.Helper()
	dir := t.TempDir()
	if err := CreateArchive(t.Context(), backend.NewLocal(dir), p); err != nil {
		t.Fatal(err)
	}
	return openArchive(t, dir), dir
}

func openArchive(t testing.TB, dir string) *Archive {
	t.Helper()
	a, err := OpenArchive(t.Context(), backend.NewLocal(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// mustAdd takes a tree in.
func mustAdd(t testing.TB, a *Archive, tr tree.Tree) (*Manifest, AddStats) {
	t.Helper()
	m, stats, err := a.Add(t.Context(), tr, AddOptions{})
	if err != nil {
		t.Fatalf("Add(%s) = %v", tr.Format(), err)
	}
	return m, stats
}

// objects lists the store's objects under a folder.
func objects(t testing.TB, dir, prefix string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(filepath.Join(dir, prefix), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return names
}

// readAll returns the content of an entry in the three ways that there are, and
// fails when they differ.
func readAll(t testing.TB, a *Archive, e Entry) []byte {
	t.Helper()
	var written bytes.Buffer
	if err := a.WriteFile(t.Context(), &written, e); err != nil {
		t.Fatalf("WriteFile(%s) = %v", e.Path, err)
	}
	r, err := a.Open(t.Context(), e)
	if err != nil {
		t.Fatalf("Open(%s) = %v", e.Path, err)
	}
	defer r.Close()
	read, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(read, written.Bytes()) {
		t.Fatalf("Open(%s) gives %d bytes, %v; WriteFile gives %d", e.Path, len(read), err, written.Len())
	}
	c, err := a.OpenAt(t.Context(), e)
	if err != nil {
		t.Fatalf("OpenAt(%s) = %v", e.Path, err)
	}
	defer c.Close()
	at, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
	if err != nil || !bytes.Equal(at, read) {
		t.Fatalf("OpenAt(%s) gives %d bytes, %v; Open gives %d", e.Path, len(at), err, len(read))
	}
	return read
}

// checkContent compares what the archive gives back with nodes.
func checkContent(t testing.TB, a *Archive, m *Manifest, nodes []node) {
	t.Helper()
	if len(m.Entries) != len(nodes) {
		t.Errorf("manifest has %d entries, want %d", len(m.Entries), len(nodes))
	}
	for _, n := range nodes {
		e, ok := m.Find(n.Path)
		if !ok {
			t.Errorf("manifest lacks %s", n.Path)
			continue
		}
		if n.Kind != tree.File {
			continue
		}
		if got := readAll(t, a, e); !bytes.Equal(got, n.data) {
			t.Errorf("%s comes back as %d other bytes, want %d", n.Path, len(got), len(n.data))
		}
	}
}

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", filepath.FromSlash(name))
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what it was; run with -update only if a change of the format is meant. Now:\n%s", path, got)
	}
}

func TestCreateArchive(t *testing.T) {
	a, dir := newArchive(t, testParams())
	if a.Params() != testParams() {
		t.Errorf("Params() = %+v, want %+v", a.Params(), testParams())
	}
	err := CreateArchive(t.Context(), backend.NewLocal(dir), chunking.Default())
	if !errors.Is(err, backend.ErrExist) {
		t.Errorf("CreateArchive over a store = %v, want %v", err, backend.ErrExist)
	}
	empty := t.TempDir()
	err = CreateArchive(t.Context(), backend.NewLocal(empty), chunking.Params{})
	if !errors.Is(err, chunking.ErrParams) || len(objects(t, empty, "")) > 0 {
		t.Errorf("CreateArchive with bad parameters = %v, leaving %v, want %v", err, objects(t, empty, ""), chunking.ErrParams)
	}
	if _, err := OpenArchive(t.Context(), backend.NewLocal(empty)); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("OpenArchive of no store = %v, want %v", err, cas.ErrNotFound)
	}
}

func TestOpenArchiveOfUnknownPolicy(t *testing.T) {
	dir := t.TempDir()
	if err := cas.Create(t.Context(), backend.NewLocal(dir), []byte(`{"algorithm":"other"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenArchive(t.Context(), backend.NewLocal(dir)); !errors.Is(err, chunking.ErrParams) {
		t.Errorf("OpenArchive = %v, want %v", err, chunking.ErrParams)
	}
}

func TestManifestOfArchive(t *testing.T) {
	a, dir := newArchive(t, testParams())
	m, _ := mustAdd(t, a, &memTree{nodes: sampleTree(t)})
	got, err := openArchive(t, dir).Manifest(t.Context(), m.ID())
	if err != nil || !slices.Equal(got.Entries, m.Entries) {
		t.Errorf("Manifest(%s) = %v, %v, want %v", m.ID().Short(), got, err, m)
	}
	if got, err := a.Manifest(t.Context(), cas.Sum([]byte("other"))); got != nil || !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("Manifest of an unknown id = %v, %v, want %v", got, err, cas.ErrNotFound)
	}
	file, _ := m.Find("readme")
	if got, err := a.Manifest(t.Context(), file.Digest); got != nil || !errors.Is(err, ErrInvalid) {
		t.Errorf("Manifest of a file's digest = %v, %v, want %v", got, err, ErrInvalid)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := openArchive(t, dir).Manifest(cancelled, m.ID()); got != nil || err == nil {
		t.Errorf("Manifest when cancelled = %v, %v, want an error", got, err)
	}
}
