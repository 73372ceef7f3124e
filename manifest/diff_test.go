package manifest

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestDiff(t *testing.T) {
	tests := []struct {
		name         string
		base, target []Entry
		want         []Change
	}{
		{"nothing", nil, nil, nil},
		{"same", []Entry{file("a", "x"), dir("d"), link("l", "a")}, []Entry{file("a", "x"), dir("d"), link("l", "a")}, []Change{
			{Same, file("a", "x"), file("a", "x")}, {Same, dir("d"), dir("d")}, {Same, link("l", "a"), link("l", "a")},
		}},
		{"added and removed", []Entry{file("a", "x"), dir("d")}, []Entry{file("b", "y"), link("l", "b")}, []Change{
			{Removed, file("a", "x"), Entry{}}, {Added, Entry{}, file("b", "y")}, {Removed, dir("d"), Entry{}}, {Added, Entry{}, link("l", "b")},
		}},
		{"changed", []Entry{file("a", "x"), link("l", "a")}, []Entry{file("a", "y"), link("l", "b")}, []Change{
			{Changed, file("a", "x"), file("a", "y")}, {Changed, link("l", "a"), link("l", "b")},
		}},
		{"mode and time", []Entry{file("a", "x"), file("b", "x")}, []Entry{program("a", "x"), at(file("b", "x"), 5)}, []Change{
			{Meta, file("a", "x"), program("a", "x")}, {Meta, file("b", "x"), at(file("b", "x"), 5)},
		}},
		{"type", []Entry{file("a", "x"), dir("b")}, []Entry{link("a", "x"), file("b", "y")}, []Change{
			{Changed, file("a", "x"), link("a", "x")}, {Changed, dir("b"), file("b", "y")},
		}},
		{"renamed", []Entry{file("a", "x")}, []Entry{file("b", "x")}, []Change{
			{Renamed, file("a", "x"), file("b", "x")},
		}},
		{"renamed with another mode", []Entry{file("a", "x")}, []Entry{program("b", "x")}, []Change{
			{Renamed, file("a", "x"), program("b", "x")},
		}},
		{"copied", []Entry{file("a", "x")}, []Entry{file("a", "x"), file("b", "x")}, []Change{
			{Same, file("a", "x"), file("a", "x")}, {Copied, file("a", "x"), file("b", "x")},
		}},
		{"copied over another", []Entry{file("a", "x"), file("b", "y")}, []Entry{file("a", "x"), file("b", "x")}, []Change{
			{Same, file("a", "x"), file("a", "x")}, {Copied, file("a", "x"), file("b", "x")},
		}},
		{"renamed and copied", []Entry{file("a", "x")}, []Entry{file("b", "x"), file("c", "x")}, []Change{
			{Renamed, file("a", "x"), file("b", "x")}, {Copied, file("a", "x"), file("c", "x")},
		}},
		{"renamed over another", []Entry{file("a", "x"), file("b", "y")}, []Entry{file("b", "x")}, []Change{
			{Renamed, file("a", "x"), file("b", "x")},
		}},
		{"swapped", []Entry{file("a", "x"), file("b", "y")}, []Entry{file("a", "y"), file("b", "x")}, []Change{
			{Copied, file("b", "y"), file("a", "y")}, {Copied, file("a", "x"), file("b", "x")},
		}},
		{"folder renamed", []Entry{file("v1/a", "x"), file("v1/b", "x")}, []Entry{file("v2/a", "x"), file("v2/b", "x")}, []Change{
			{Renamed, file("v1/a", "x"), file("v2/a", "x")}, {Renamed, file("v1/b", "x"), file("v2/b", "x")},
		}},
		{"same base name wins", []Entry{file("a", "x"), file("z/name", "x")}, []Entry{file("new/name", "x")}, []Change{
			{Removed, file("a", "x"), Entry{}}, {Renamed, file("z/name", "x"), file("new/name", "x")},
		}},
		{"gone wins over same base name", []Entry{file("d/name", "x"), file("old", "x")}, []Entry{file("d/name", "x"), file("e/name", "x")}, []Change{
			{Same, file("d/name", "x"), file("d/name", "x")}, {Renamed, file("old", "x"), file("e/name", "x")},
		}},
		{"empty files do not move", []Entry{file("a", ""), file("c", "")}, []Entry{file("b", ""), file("c", "")}, []Change{
			{Removed, file("a", ""), Entry{}}, {Added, Entry{}, file("b", "")}, {Same, file("c", ""), file("c", "")},
		}},
		{"links do not move", []Entry{link("a", "x")}, []Entry{link("b", "x")}, []Change{
			{Removed, link("a", "x"), Entry{}}, {Added, Entry{}, link("b", "x")},
		}},
		{"sorted by bytes", []Entry{file("a/b", "1"), file("a.c", "2")}, nil, []Change{
			{Removed, file("a.c", "2"), Entry{}}, {Removed, file("a/b", "1"), Entry{}},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			base, target := mustNew(t, test.base...), mustNew(t, test.target...)
			if got := Diff(base, target); !slices.Equal(got, test.want) {
				t.Errorf("Diff = %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// TestDiffRandom builds the target from the base and the changes.
func TestDiffRandom(t *testing.T) {
	content := rapid.SampledFrom([]string{"", "x", "y", "z"})
	draw := rapid.Custom(func(t *rapid.T) *Manifest {
		m := &Manifest{}
		for _, path := range []string{"a", "b", "c", "d/a", "d/b", "e"} {
			switch rapid.IntRange(0, 4).Draw(t, path) {
			case 0:
			case 1:
				m.Entries = append(m.Entries, link(path, "x"))
			default:
				m.Entries = append(m.Entries, file(path, content.Draw(t, "content")))
			}
		}
		return m
	})
	rapid.Check(t, func(t *rapid.T) {
		base, target := draw.Draw(t, "base"), draw.Draw(t, "target")
		changes := Diff(base, target)
		for i := 1; i < len(changes); i++ {
			if changes[i-1].path() >= changes[i].path() {
				t.Fatalf("Diff = %+v, want it sorted by path, each once", changes)
			}
		}
		var made []Entry
		for _, c := range changes {
			from, inBase := base.Find(c.Base.Path)
			if c.Kind != Added && (!inBase || from != c.Base) {
				t.Fatalf("%+v: the base has no such entry", c)
			}
			switch stays, ok := target.Find(c.Base.Path); {
			case c.Kind == Removed:
				if ok {
					t.Fatalf("%+v: the target has %+v", c, stays)
				}
				continue
			case c.Kind == Renamed && ok:
				t.Fatalf("%+v: the target has %+v still", c, stays)
			case (c.Kind == Renamed || c.Kind == Copied) && (c.Base.Digest != c.Target.Digest || c.Base.Path == c.Target.Path || c.Target.Size == 0):
				t.Fatalf("%+v: no move", c)
			case c.Kind == Same && c.Base != c.Target:
				t.Fatalf("%+v: not the same", c)
			}
			made = append(made, c.Target)
		}
		if !slices.Equal(made, target.Entries) {
			t.Fatalf("changes give %+v, want %+v", made, target.Entries)
		}
	})
}
