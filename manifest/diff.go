package manifest

import (
	"cmp"
	"path"
	"slices"

	"ferry/cas"
)

// Change is how one path differs between a base and a target.
type Change struct {
	Kind   ChangeKind
	Base   Entry // zero when Kind is Added
	Target Entry // zero when Kind is Removed
}

// ChangeKind says what happened.
type ChangeKind string

// The kinds of changes. Renamed: the content stood at Base.Path, which is gone.
// Copied: it stands at Base.Path still. Meta: only mode or time differ.
const (
	Same    ChangeKind = "same"
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Changed ChangeKind = "changed"
	Renamed ChangeKind = "renamed"
	Copied  ChangeKind = "copied"
	Meta    ChangeKind = "meta"
)

// Diff lists how target differs from base: a Change for each path of either,
// sorted by path, those that are the same included. Renames and copies are
// recognised by equal content of files that are not empty.
func Diff(base, target *Manifest) []Change {
	d := differ{base: base, target: target, byDigest: map[cas.Digest][]int{}, taken: map[string]bool{}}
	for i, e := range base.Entries {
		if e.Type == TypeFile && e.Size > 0 {
			d.byDigest[e.Digest] = append(d.byDigest[e.Digest], i)
		}
	}
	changes := d.moves(d.merge())
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.path(), b.path()), cmp.Compare(a.Kind, b.Kind))
	})
	return changes
}

// path returns the path that a change is listed under.
func (c Change) path() string {
	if c.Kind == Removed {
		return c.Base.Path
	}
	return c.Target.Path
}

type differ struct {
	base, target *Manifest
	byDigest     map[cas.Digest][]int // entries of base
	taken        map[string]bool      // base paths that a rename came from
}

// merge walks both lists side by side and pairs entries by path.
func (d *differ) merge() []Change {
	var changes []Change
	b, t := d.base.Entries, d.target.Entries
	for len(b) > 0 || len(t) > 0 {
		switch {
		case len(t) == 0 || len(b) > 0 && b[0].Path < t[0].Path:
			changes = append(changes, Change{Kind: Removed, Base: b[0]})
			b = b[1:]
		case len(b) == 0 || t[0].Path < b[0].Path:
			changes = append(changes, Change{Kind: Added, Target: t[0]})
			t = t[1:]
		default:
			changes = append(changes, Change{Kind: compareEntries(b[0], t[0]), Base: b[0], Target: t[0]})
			b, t = b[1:], t[1:]
		}
	}
	return changes
}

func compareEntries(b, t Entry) ChangeKind {
	switch {
	case b == t:
		return Same
	case b.Type == t.Type && b.Digest == t.Digest && b.Link == t.Link:
		return Meta
	default:
		return Changed
	}
}

// moves turns additions and changes whose content stood elsewhere in the base
// into renames and copies.
func (d *differ) moves(changes []Change) []Change {
	removed := map[string]bool{}
	for _, c := range changes {
		if c.Kind == Removed {
			removed[c.Base.Path] = true
		}
	}
	for i, c := range changes {
		if (c.Kind != Added && c.Kind != Changed) || c.Target.Type != TypeFile {
			continue
		}
		if from, ok := d.origin(c.Target, removed); ok {
			changes[i].Base = from
			changes[i].Kind = Copied
			if removed[from.Path] && !d.taken[from.Path] {
				d.taken[from.Path] = true
				changes[i].Kind = Renamed
			}
		}
	}
	return slices.DeleteFunc(changes, func(c Change) bool { return c.Kind == Removed && d.taken[c.Base.Path] })
}

// origin picks the base entry that a target entry's content came from: best one
// that is gone, of the same base name, first by path.
func (d *differ) origin(t Entry, removed map[string]bool) (Entry, bool) {
	best, bestRank := -1, -1
	for _, i := range d.byDigest[t.Digest] {
		e := d.base.Entries[i]
		rank := 0
		if removed[e.Path] && !d.taken[e.Path] {
			rank += 2
		}
		if path.Base(e.Path) == path.Base(t.Path) {
			rank++
		}
		if rank > bestRank {
			best, bestRank = i, rank
		}
	}
	if best < 0 {
		return Entry{}, false
	}
	return d.base.Entries[best], true
}
