package delta

import (
	"strings"
	"testing"

	"ferry/manifest/place"
)

// A file that was renamed and rebuilt finds what it was, by what it holds.
func TestRenamedAndChangedFindsItsOrigin(t *testing.T) {
	old := bytesOf(1, 300<<10)
	changed := []byte(old)
	for at := 0; at < len(changed); at += 1500 { // no chunk stays what it was
		changed[at] ^= 0x5a
	}
	base := files{"app-1.0/tool": old, "app-1.0/other": bytesOf(2, 300<<10), "same": "same"}
	target := files{"app-2.0/program": string(changed), "app-2.0/another": bytesOf(3, 300<<10), "same": "same"}
	path, info := create(t, target, base)
	for _, f := range info.Files {
		if f.Path == "app-2.0/program" && (f.From != "app-1.0/tool" || f.Cost > 20<<10) {
			t.Errorf("%s costs %d bytes, from %q (%s)", f.Path, f.Cost, f.From, f.How)
		}
		if f.Path == "app-2.0/another" && f.From != "" {
			t.Errorf("%s is said to come from %q", f.Path, f.From)
		}
	}
	dir := t.TempDir() + "/new"
	if _, err := Apply(t.Context(), open(t, path), treeBase(t, base.write(t)), dir, place.Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, read(t, dir), target)
}

func TestSketch(t *testing.T) {
	a := bytesOf(1, 100<<10)
	base := files{"a": a, "b": a[50<<10:] + bytesOf(2, 50<<10), "c": bytesOf(3, 100<<10), "text": strings.Repeat("x", 9000)}
	v := version(t, "v", base.write(t))
	got := map[string]sketch{}
	for i, e := range v.Manifest.Entries {
		s, err := sketchOf(t.Context(), expand(v), i)
		must(t, err)
		got[e.Path] = s
	}
	if n := got["a"].shares(got["a"]); n != sketchSize {
		t.Errorf("a shares %d hashes with itself, want %d", n, sketchSize)
	}
	if n := got["a"].shares(got["b"]); n < 20 || n > 100 {
		t.Errorf("a shares %d hashes with what has half of it", n)
	}
	if n := got["a"].shares(got["c"]); n >= sketchShare {
		t.Errorf("a shares %d hashes with something else", n)
	}
}
