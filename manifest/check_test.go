package manifest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ferry/cas"
)

// check returns the kinds of problems and the paths of incomplete versions.
func check(t testing.TB, dir string, readData bool) (kinds, incomplete []string) {
	t.Helper()
	a := openArchive(t, dir)
	n := 0
	report, err := a.Check(t.Context(), readData, nil, func(p Problem) {
		if !p.Hint {
			n++
		}
		if p.Kind == ProblemIncomplete {
			incomplete = append(incomplete, p.Version+":"+p.Path)
		} else {
			kinds = append(kinds, p.Kind)
		}
	})
	if err != nil {
		t.Fatalf("Check = %v", err)
	}
	if report.Problems != n {
		t.Errorf("Check counts %d problems, and reports %d", report.Problems, n)
	}
	slices.Sort(kinds)
	slices.Sort(incomplete)
	return slices.Compact(kinds), incomplete
}

// twoVersions stores version 1 in one pack, and version 2, which has a file more,
// in another. It returns the packs.
func twoVersions(t testing.TB) (dir string, packs []string) {
	t.Helper()
	a, dir := newArchive(t, testParams())
	nodes := []node{fileNode("one", seeded(1, 300_000)), fileNode("small", []byte("small")), fileNode("zeros", make([]byte, 100_000)), fileNode("empty", nil)}
	m, _ := mustAdd(t, a, &memTree{nodes: nodes})
	if _, err := a.Tag(t.Context(), Ref{"tool", "1"}, m, "", testTime, false); err != nil {
		t.Fatal(err)
	}
	packs = objects(t, dir, "packs")
	m, _ = mustAdd(t, a, &memTree{nodes: append(nodes, fileNode("two", seeded(2, 300_000)))})
	if _, err := a.Tag(t.Context(), Ref{"tool", "2"}, m, "", testTime, false); err != nil {
		t.Fatal(err)
	}
	for _, name := range objects(t, dir, "packs") {
		if !slices.Contains(packs, name) {
			packs = append(packs, name)
		}
	}
	if len(packs) != 2 {
		t.Fatalf("packs = %v, want two", packs)
	}
	return dir, packs
}

func TestCheckSound(t *testing.T) {
	dir, _ := twoVersions(t)
	for _, readData := range []bool{false, true} {
		if kinds, incomplete := check(t, dir, readData); len(kinds)+len(incomplete) > 0 {
			t.Errorf("Check = %v, %v, want nothing", kinds, incomplete)
		}
	}
}

func TestCheckLostPack(t *testing.T) {
	tests := []struct {
		lost int
		want []string
	}{
		{0, []string{"tool@1:", "tool@2:one", "tool@2:small", "tool@2:zeros"}},
		{1, []string{"tool@2:"}},
	}
	for _, test := range tests {
		for _, readData := range []bool{false, true} {
			dir, packs := twoVersions(t)
			if err := os.Remove(filepath.Join(dir, packs[test.lost])); err != nil {
				t.Fatal(err)
			}
			kinds, incomplete := check(t, dir, readData)
			if !slices.Equal(kinds, []string{cas.ProblemMissingPack}) || !slices.Equal(incomplete, test.want) {
				t.Errorf("Check without pack %d = %v, %v, want %v", test.lost, kinds, incomplete, test.want)
			}
		}
	}
}

func TestCheckDamagedPack(t *testing.T) {
	dir, packs := twoVersions(t)
	damageFile(t, filepath.Join(dir, packs[0]), 100_000)
	kinds, incomplete := check(t, dir, true)
	if !slices.Contains(kinds, cas.ProblemDamagedPack) {
		t.Errorf("Check = %v, want %s", kinds, cas.ProblemDamagedPack)
	}
	for _, want := range []string{"tool@1:one", "tool@2:one"} {
		if !slices.Contains(incomplete, want) && !slices.Contains(incomplete, "tool@1:") {
			t.Errorf("incomplete = %v, want %s among them", incomplete, want)
		}
	}
	if slices.Contains(incomplete, "tool@2:two") {
		t.Errorf("incomplete = %v, want nothing of what is in the other pack", incomplete)
	}
}

func TestCheckTruncatedPack(t *testing.T) {
	dir, packs := twoVersions(t)
	name := filepath.Join(dir, packs[0])
	if err := os.Chmod(name, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 1000); err != nil {
		t.Fatal(err)
	}
	kinds, incomplete := check(t, dir, false)
	if !slices.Contains(kinds, cas.ProblemDamagedPack) || !slices.Contains(incomplete, "tool@2:one") || slices.Contains(incomplete, "tool@2:two") {
		t.Errorf("Check = %v, %v, want file one of version 2 incomplete", kinds, incomplete)
	}
}

// TestCheckUnknownManifest has a version in the catalogue whose manifest was
// never stored.
func TestCheckUnknownManifest(t *testing.T) {
	a, dir := newArchive(t, testParams())
	if _, err := a.Tag(t.Context(), Ref{"tool", "1"}, mustNew(t, file("a", "x")), "", testTime, false); err != nil {
		t.Fatal(err)
	}
	if kinds, incomplete := check(t, dir, false); len(kinds) > 0 || !slices.Equal(incomplete, []string{"tool@1:"}) {
		t.Errorf("Check = %v, %v, want the version incomplete", kinds, incomplete)
	}
}

// TestKnownFileWithDoomedRecipe dooms the pack that holds the chunks of a large
// recipe, and nothing else of the file: the file then does not count as known.
func TestKnownFileWithDoomedRecipe(t *testing.T) {
	p := testParams()
	p.Min, p.AverageBits, p.Max, p.ZeroRun = 256, 8, 2048, 1024
	file := []node{fileNode("file", seeded(1, 2<<20))}
	scratch, _ := newArchive(t, p)
	m, _ := mustAdd(t, scratch, &memTree{nodes: file})
	r, err := scratch.recipe(t.Context(), m.Entries[0].Digest, m.Entries[0].Size)
	if err != nil {
		t.Fatal(err)
	}
	a, dir := newArchive(t, p)
	mustAdd(t, a, &memTree{nodes: []node{fileNode("recipe of it", r.Encode())}})
	doomed := filepath.Base(objects(t, dir, "packs")[0])
	mustAdd(t, a, &memTree{nodes: file})
	if err := a.store.Backend().Put(t.Context(), "doomed/"+doomed, bytes.NewReader(nil), 0); err != nil {
		t.Fatal(err)
	}
	_, stats := mustAdd(t, openArchive(t, dir), &memTree{nodes: file})
	if stats.KnownFiles != 0 || stats.New.Chunks == 0 {
		t.Errorf("stats = %+v, want the recipe's chunks stored anew", stats)
	}
	if err := os.Remove(filepath.Join(dir, "packs", doomed[:2], doomed)); err != nil {
		t.Fatal(err)
	}
	checkContent(t, openArchive(t, dir), m, file)
}
