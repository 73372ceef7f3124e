package manifest

import (
	"slices"
	"testing"

	"ferry/cas"
)

func TestFindAndWithin(t *testing.T) {
	m := mustNew(t, file("a/b", "1"), file("a/c/d", "22"), file("a-b", "333"), dir("a/empty"), link("z", "a"))
	for path, want := range map[string]bool{"a/b": true, "a": false, "a/c": false, "a/c/d": true, "z": true, "": false, "zz": false} {
		if e, ok := m.Find(path); ok != want || ok && e.Path != path {
			t.Errorf("Find(%q) = %v, %t, want %t", path, e, ok, want)
		}
	}
	within := map[string][]string{
		"":      {"a-b", "a/b", "a/c/d", "a/empty", "z"},
		"a":     {"a/b", "a/c/d", "a/empty"},
		"a/c":   {"a/c/d"},
		"a/b":   {"a/b"},
		"a/c/d": {"a/c/d"},
		"b":     nil,
		"a/":    nil,
	}
	for path, want := range within {
		var got []string
		for _, e := range m.Within(path) {
			got = append(got, e.Path)
		}
		if !slices.Equal(got, want) {
			t.Errorf("Within(%q) = %v, want %v", path, got, want)
		}
	}
	if m.Files() != 3 || m.Size() != 6 {
		t.Errorf("Files(), Size() = %d, %d, want 3, 6", m.Files(), m.Size())
	}
}

func TestID(t *testing.T) {
	a, b := mustNew(t, file("a", "1"), file("b", "2")), mustNew(t, file("b", "2"), file("a", "1"))
	if a.ID() != b.ID() || a.ID() != cas.Sum(a.Encode()) {
		t.Errorf("ID() = %s and %s, want the digest of the canonical bytes", a.ID(), b.ID())
	}
	seen := map[cas.Digest]string{a.ID(): "first"}
	for name, other := range map[string]*Manifest{
		"another name":    mustNew(t, file("a", "1"), file("c", "2")),
		"another content": mustNew(t, file("a", "1"), file("b", "3")),
		"another mode":    mustNew(t, file("a", "1"), program("b", "2")),
		"another time":    mustNew(t, file("a", "1"), at(file("b", "2"), 5)),
		"another type":    mustNew(t, file("a", "1"), link("b", "2")),
		"one more":        mustNew(t, file("a", "1"), file("b", "2"), dir("c")),
	} {
		if first, ok := seen[other.ID()]; ok {
			t.Errorf("%s has the id of %s", name, first)
		}
		seen[other.ID()] = name
	}
}

func TestPortability(t *testing.T) {
	tests := []struct {
		name  string
		paths []string
		want  []string // paths that are warned of
	}{
		{"plain", []string{"a", "b/c", "b/d", "gr\u00fc\u00df"}, nil},
		{"case", []string{"Readme", "readme"}, []string{"readme"}},
		{"case of a folder", []string{"Docs/a", "docs/b", "docs/c"}, []string{"docs"}},
		{"case within a folder", []string{"d/X", "d/x", "e/x"}, []string{"d/x"}},
		{"Unicode form", []string{"u\u0308", "\u00fc"}, []string{"\u00fc"}},
		{"folded letter", []string{"STRASSE", "stra\u00dfe"}, []string{"stra\u00dfe"}},
		{"device", []string{"aux.c", "dir/NUL/x", "nule"}, []string{"aux.c", "dir/NUL/x"}},
		{"character", []string{"ab:c", "what?"}, []string{"ab:c", "what?"}},
		{"end", []string{"dot.", "space ", "a./b"}, []string{"a./b", "dot.", "space "}},
	}
	for _, test := range tests {
		var entries []Entry
		for _, path := range test.paths {
			entries = append(entries, file(path, "x"))
		}
		var got []string
		for _, w := range Portability(mustNew(t, entries...)) {
			if w.Skipped || w.Text == "" {
				t.Errorf("%s: warning %+v, want a text, and not skipped", test.name, w)
			}
			got = append(got, w.Path)
		}
		slices.Sort(got)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: Portability warns of %q, want %q", test.name, got, test.want)
		}
	}
	if got, _ := warnings(t, fileNode("A", nil), fileNode("a", nil)); len(got) != 1 || got[0].Path != "a" || got[0].Skipped {
		t.Errorf("Add warns %+v, want of a", got)
	}
}
