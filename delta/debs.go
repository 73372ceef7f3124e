package delta

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"ferry/manifest"
)

// DebPair is a Debian package file in two versions. Base is zero when the package is
// new, Target when it is gone.
type DebPair struct {
	Name                       string // of the package
	Base, Target               manifest.Entry
	BaseVersion, TargetVersion string
}

// deb is a Debian package file.
type deb struct {
	manifest.Entry
	name, version string
}

// debKey is what two releases of a package share: its place, name and architecture.
type debKey struct{ place, name, arch string }

// DebPairs pairs the Debian package files of two versions by package name and
// architecture, as their names tell (name_version_arch.deb), not by path: an upgrade
// is one pair. In a tree of packages/OS/…, those of each system are paired apart. Pairs
// are sorted by name, then by path.
func DebPairs(base, target *manifest.Manifest) []DebPair {
	bases, targets := debsOf(base), debsOf(target)
	var pairs []DebPair
	for key, all := range targets {
		old := bases[key]
		delete(bases, key)
		for _, t := range all {
			p := DebPair{Name: t.name, Target: t.Entry, TargetVersion: t.version}
			if i := nearestDeb(old, t, all); i >= 0 {
				p.Base, p.BaseVersion = old[i].Entry, old[i].version
				old = slices.Delete(old, i, i+1)
			}
			pairs = append(pairs, p)
		}
		pairs = appendGone(pairs, old)
	}
	for _, old := range bases {
		pairs = appendGone(pairs, old)
	}
	slices.SortFunc(pairs, func(a, b DebPair) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Target.Path, b.Target.Path), cmp.Compare(a.Base.Path, b.Base.Path))
	})
	return pairs
}

func appendGone(pairs []DebPair, gone []deb) []DebPair {
	for _, d := range gone {
		pairs = append(pairs, DebPair{Name: d.name, Base: d.Entry, BaseVersion: d.version})
	}
	return pairs
}

// nearestDeb returns which of the old files t comes from: the one of the same path,
// else the first whose path no other target has; -1 for none.
func nearestDeb(old []deb, t deb, targets []deb) int {
	at := func(path string) func(deb) bool { return func(d deb) bool { return d.Path == path } }
	if i := slices.IndexFunc(old, at(t.Path)); i >= 0 {
		return i
	}
	return slices.IndexFunc(old, func(d deb) bool { return !slices.ContainsFunc(targets, at(d.Path)) })
}

// debsOf returns the Debian package files of a version, in the order of their paths.
func debsOf(m *manifest.Manifest) map[debKey][]deb {
	debs := map[debKey][]deb{}
	for _, e := range m.Entries {
		name, version, arch, ok := parseDeb(path.Base(e.Path))
		if !ok || e.Type != manifest.TypeFile {
			continue
		}
		key := debKey{debPlace(e.Path), name, arch}
		debs[key] = append(debs[key], deb{e, name, version})
	}
	return debs
}

// parseDeb takes the name of a Debian package file apart. In it, the colon behind an
// epoch is written %3a.
func parseDeb(file string) (name, version, arch string, ok bool) {
	file, ok = strings.CutSuffix(file, ".deb")
	parts := strings.Split(file, "_")
	if !ok || len(parts) != 3 || slices.Contains(parts, "") {
		return "", "", "", false
	}
	return parts[0], strings.NewReplacer("%3a", ":", "%3A", ":").Replace(parts[1]), parts[2], true
}

// debPlace returns the system that a file is for: packages/OS of the path that holds
// it, else nothing.
func debPlace(p string) string {
	parts := strings.Split(p, "/")
	if i := slices.Index(parts, "packages"); i >= 0 && i+2 < len(parts) {
		return parts[i+1]
	}
	return ""
}

// DebianDiff is delta.json's DebianPackageDiff, as K2s has it.
type DebianDiff struct {
	Processed    bool     `json:"Processed"`
	Error        *string  `json:"Error"`
	File         *string  `json:"File"`
	Added        []string `json:"Added"`   // "name=version"
	Removed      []string `json:"Removed"` // "name=version"
	Changed      []string `json:"Changed"` // "name: old -> new"
	AddedCount   int      `json:"AddedCount"`
	RemovedCount int      `json:"RemovedCount"`
	ChangedCount int      `json:"ChangedCount"`
}

// debianDiff sums pairs up; nil when there are none.
func debianDiff(pairs []DebPair) *DebianDiff {
	if len(pairs) == 0 {
		return nil
	}
	d := &DebianDiff{Processed: true, Added: []string{}, Removed: []string{}, Changed: []string{}}
	for _, p := range pairs {
		switch {
		case p.Base.Path == "":
			d.Added = append(d.Added, p.Name+"="+p.TargetVersion)
		case p.Target.Path == "":
			d.Removed = append(d.Removed, p.Name+"="+p.BaseVersion)
		case p.BaseVersion != p.TargetVersion:
			d.Changed = append(d.Changed, p.Name+": "+p.BaseVersion+" -> "+p.TargetVersion)
		}
	}
	d.AddedCount, d.RemovedCount, d.ChangedCount = len(d.Added), len(d.Removed), len(d.Changed)
	return d
}
