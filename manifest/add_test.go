package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"ferry/chunking"
	"ferry/manifest/tree"
)

// everyFormat returns the sample tree in all forms that can be added.
func everyFormat(t *testing.T, nodes []node) map[string]string {
	names := map[string]string{"directory": writeDir(t, nodes)}
	for _, format := range []string{"zip", "tar", "tar.gz", "tar.zst", "tar.xz"} {
		names[format] = writeArchive(t, format, nodes)
	}
	return names
}

func TestAddSameFromAnyFormat(t *testing.T) {
	nodes := sampleTree(t)
	memory, _ := newArchive(t, testParams())
	want, _ := mustAdd(t, memory, &memTree{nodes: nodes})
	checkContent(t, memory, want, nodes)
	for format, name := range everyFormat(t, nodes) {
		t.Run(format, func(t *testing.T) {
			tr := openTree(t, name)
			if tr.Format() != format {
				t.Errorf("Format() = %s, want %s", tr.Format(), format)
			}
			a, _ := newArchive(t, testParams())
			m, stats := mustAdd(t, a, tr)
			if m.ID() != want.ID() {
				t.Errorf("manifest from %s:\n%swant\n%s", format, m.Encode(), want.Encode())
			}
			if stats.Files != want.Files() || stats.Size != want.Size() || stats.Skipped != 0 {
				t.Errorf("stats = %+v, want %d files, %d bytes", stats, want.Files(), want.Size())
			}
			checkContent(t, a, m, nodes)
			again, stats := mustAdd(t, memory, tr)
			if again.ID() != want.ID() || stats.New.Chunks != 0 || stats.KnownFiles != stats.Files || stats.KnownSize != want.Size() {
				t.Errorf("added to a store that has it: stats %+v, want all of it known", stats)
			}
		})
	}
}

func TestAddSamePacks(t *testing.T) {
	name := writeArchive(t, "tar.gz", sampleTree(t))
	dir := writeDir(t, sampleTree(t))
	for _, source := range []string{name, dir} {
		var want []string
		for _, n := range []int{1, 4, 4} {
			procs := runtime.GOMAXPROCS(n)
			a, store := newArchive(t, testParams())
			mustAdd(t, a, openTree(t, source))
			runtime.GOMAXPROCS(procs)
			got := objects(t, store, "packs")
			if want == nil {
				want = got
			}
			if len(got) == 0 || !slices.Equal(got, want) {
				t.Errorf("packs with GOMAXPROCS %d = %v, want %v as with 1", n, got, want)
			}
		}
	}
}

func TestAddSizes(t *testing.T) {
	p := chunking.Default()
	nodes := []node{
		fileNode("zeros 20 MiB", make([]byte, 20<<20)),
		fileNode("holes 20 MiB", holes(7, 20<<20)),
	}
	for i, n := range []int{0, 1, 2, 64, p.Min - 1, p.Min, p.Min + 1, p.ZeroRun, p.ZeroRun - 1, p.Max - 1, p.Max, p.Max + 1,
		p.Max + p.ZeroRun, smallFile - 1, smallFile, smallFile + 1} {
		nodes = append(nodes, fileNode(fmt.Sprintf("%d", n), seeded(byte(i), n)), fileNode(fmt.Sprintf("zeros %d", n), make([]byte, n)))
	}
	for _, sequential := range []bool{false, true} {
		a, _ := newArchive(t, p)
		m, stats := mustAdd(t, a, &memTree{nodes: nodes, sequential: sequential})
		if stats.Files != len(nodes) {
			t.Errorf("stats = %+v, want %d files", stats, len(nodes))
		}
		checkContent(t, a, m, nodes)
	}
}

// TestAddKnown adds large files that the store knows whole, in part, and only at
// their start.
func TestAddKnown(t *testing.T) {
	large := seeded(3, smallFile+500_000)
	changed := slices.Clone(large)
	changed[len(changed)-1]++
	tests := []struct {
		name  string
		data  []byte
		known bool
	}{
		{"the same", large, true},
		{"other end", changed, false},
		{"longer", append(slices.Clone(large), seeded(4, 100_000)...), false},
		{"shorter", large[:smallFile+1], false},
		{"known as small", seeded(5, 100_000), true},
		{"zeros in front", append(make([]byte, smallFile), large...), false},
	}
	for _, format := range []string{"tar", "tar.gz"} {
		a, _ := newArchive(t, testParams())
		mustAdd(t, a, &memTree{nodes: []node{fileNode("large", large), fileNode("small", seeded(5, 100_000))}})
		for _, test := range tests {
			t.Run(format+" "+test.name, func(t *testing.T) {
				nodes := []node{fileNode("before", []byte("x")), fileNode("file", test.data), fileNode("behind", []byte("y"))}
				m, stats := mustAdd(t, a, openTree(t, writeArchive(t, format, nodes)))
				if known := stats.KnownSize >= int64(len(test.data)); known != test.known {
					t.Errorf("stats = %+v, want known %t", stats, test.known)
				}
				if limit := int64(len(test.data)) / 4; stats.New.Size > limit {
					t.Errorf("stored %d bytes anew, want less than %d", stats.New.Size, limit)
				}
				checkContent(t, a, m, nodes)
			})
		}
	}
}

func TestAddSingleFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "one file.bin")
	data := seeded(6, 100_000)
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
	a, _ := newArchive(t, testParams())
	m, _ := mustAdd(t, a, openTree(t, name))
	checkContent(t, a, m, []node{fileNode("one file.bin", data)})
}

func TestAddHardLinks(t *testing.T) {
	hard := func(path, target string) node {
		return node{Node: tree.Node{Path: path, Kind: tree.HardLink, Link: target}}
	}
	a, _ := newArchive(t, testParams())
	nodes := []node{execNode("a", []byte("#!x")), hard("b", "a"), hard("c", "b")}
	m, stats := mustAdd(t, a, openTree(t, writeArchive(t, "tar", nodes)))
	for _, path := range []string{"a", "b", "c"} {
		e, _ := m.Find(path)
		if got := readAll(t, a, e); string(got) != "#!x" || !e.Exec || e.ModTime != 1_700_000_000 {
			t.Errorf("%s = %+v, %q, want the program a", path, e, got)
		}
	}
	if stats.Files != 1 || m.Files() != 3 {
		t.Errorf("stats = %+v, manifest has %d files, want 1 read, 3 listed", stats, m.Files())
	}
}

// TestAddFoldersAndFiles has directories come before, behind and between what
// stands in them, and twice: only those that stay empty count.
func TestAddFoldersAndFiles(t *testing.T) {
	nodes := []node{dirNode("a"), dirNode("a/b"), fileNode("a/b/file", []byte("x")), dirNode("a/b"), dirNode("a/empty"), dirNode("c/d"), dirNode("c"), dirNode("c")}
	a, _ := newArchive(t, testParams())
	m, _ := mustAdd(t, a, &memTree{nodes: nodes})
	var got []string
	for _, e := range m.Entries {
		got = append(got, e.Path)
	}
	if want := []string{"a/b/file", "a/empty", "c/d"}; !slices.Equal(got, want) {
		t.Errorf("entries = %v, want %v", got, want)
	}
}
