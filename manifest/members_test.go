package manifest

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ferry/chunking"
	"ferry/manifest/tree"
)

// zipOf packs contents into a zip, members named a, b, c and so on.
func zipOf(t *testing.T, contents ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i, c := range contents {
		fw, err := w.Create("dir/" + string(rune('a'+i)))
		if err != nil {
			t.Fatal(err)
		}
		fw.Write(c)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// words returns n bytes that compress, and differ by seed.
func words(seed byte, n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = append(b, "some words "[i%7:]...)
		b = append(b, seed, byte(i), byte(i>>8)&7)
	}
	return b[:n]
}

// addFiles takes files of one moment into an archive.
func addFiles(t *testing.T, a *Archive, members bool, files map[string][]byte) (*Manifest, AddStats) {
	t.Helper()
	dir := t.TempDir()
	moment := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, moment, moment); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := tree.Open(dir, tree.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	m, stats, err := a.Add(t.Context(), tr, AddOptions{Members: members})
	if err != nil {
		t.Fatal(err)
	}
	return m, stats
}

// content returns what an archive has of a file.
func contentOf(t *testing.T, a *Archive, m *Manifest, path string) []byte {
	t.Helper()
	e, ok := m.Find(path)
	if !ok {
		t.Fatalf("no %s", path)
	}
	var b bytes.Buffer
	if err := a.WriteFile(t.Context(), &b, e); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestMembersAreStoredOnce stores a member once that stands unpacked and in
// containers in one another, and gives all back bit for bit.
func TestMembersAreStoredOnce(t *testing.T) {
	a, _ := newArchive(t, chunking.Default())
	big, small := words(1, 300_000), words(2, 40_000)
	inner := zipOf(t, big, small)
	files := map[string][]byte{"big": big, "in.zip": inner, "out.zip": zipOf(t, inner, small), "small.zip": zipOf(t, words(3, 9000))}
	m, stats := addFiles(t, a, true, files)
	for name, want := range files {
		if got := contentOf(t, a, m, name); !bytes.Equal(got, want) {
			t.Errorf("%s comes back as %d other bytes", name, len(got))
		}
		e, _ := m.Find(name)
		at, err := a.OpenAt(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(at, 0, at.Size()))
		at.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s read anywhere gives %d bytes: %v", name, len(got), err)
		}
	}
	if most := int64(len(big) + len(small) + 9000 + 10_000); stats.New.Size > most {
		t.Errorf("%d bytes of chunks are new, want at most %d: members are stored more than once", stats.New.Size, most)
	}
	if _, again := addFiles(t, a, true, files); again.KnownFiles != len(files) || again.New.Size > 2000 {
		t.Errorf("added again, %d files are known and %d bytes new", again.KnownFiles, again.New.Size)
	}
}

// TestMembersAfterPlain adds a container again that the store had as a plain file,
// and lost chunks of.
func TestMembersAfterPlain(t *testing.T) {
	a, _ := newArchive(t, chunking.Default())
	files := map[string][]byte{"x.zip": zipOf(t, seeded(1, 200_000), seeded(2, 100_000))}
	before, _ := addFiles(t, a, false, files)
	m, _ := addFiles(t, a, true, files)
	if before.ID() != m.ID() {
		t.Error("the manifest depends on whether containers are taken apart")
	}
	if got := contentOf(t, a, m, "x.zip"); !bytes.Equal(got, files["x.zip"]) {
		t.Error("comes back as other bytes")
	}
	in := &ingest{archive: a, opts: AddOptions{Members: true}}
	e, _ := m.Find("x.zip")
	if in.takesApart(t.Context(), e.Digest, e.Size) {
		t.Error("a file is taken apart of which the store has a plain recipe")
	}
}

// TestDamagedMembers names the members of a damaged container.
func TestDamagedMembers(t *testing.T) {
	a, _ := newArchive(t, chunking.Default())
	inner := zipOf(t, words(1, 50_000), words(2, 50_000))
	data := zipOf(t, words(3, 60_000), inner, seeded(4, 30_000))
	m, _ := addFiles(t, a, true, map[string][]byte{"x.zip": data})
	e, _ := m.Find("x.zip")
	for at, want := range map[int][]string{
		100:                                     {"dir/a"},
		bytes.Index(data, []byte("dir/b")) + 60: {"dir/b"},
		len(data) - 900:                         {"dir/c"},
		len(data) - 5:                           nil,
	} {
		bad := bytes.Clone(data)
		bad[at] ^= 1
		got, err := a.DamagedMembers(t.Context(), e, bytes.NewReader(bad))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("byte %d of %d changed: %v, %v; want %v", at, len(data), got, err, want)
		}
	}
	got, err := a.DamagedMembers(t.Context(), e, bytes.NewReader(data[:1000]))
	if err != nil || !slices.Equal(got, []string{"dir/a", "dir/b", "dir/c"}) {
		t.Errorf("cut off: %v, %v", got, err)
	}
}

// TestDeep lists the members of containers.
func TestDeep(t *testing.T) {
	a, _ := newArchive(t, chunking.Default())
	one, _ := addFiles(t, a, true, map[string][]byte{"x.zip": zipOf(t, words(1, 9000), words(2, 9000)), "y": words(3, 5000)})
	two, _ := addFiles(t, a, true, map[string][]byte{"x.zip": zipOf(t, words(1, 9000), words(4, 9000)), "y": words(3, 5000)})
	var deep [2]*Manifest
	for i, m := range []*Manifest{one, two} {
		var err error
		if deep[i], err = Deep(t.Context(), m, a, nil); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, c := range Diff(deep[0], deep[1]) {
		got = append(got, string(c.Kind)+" "+c.path())
	}
	want := []string{"changed x.zip", "same x.zip!dir/a", "changed x.zip!dir/b", "same y"}
	for i, g := range got {
		if g == "meta y" { // its time
			got[i] = "same y"
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("differs in %q, want %q", got, want)
	}
}
