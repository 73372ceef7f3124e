package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"ferry/manifest"
	"ferry/manifest/deb"
)

// DebPair is a Debian package file in two versions. Base is zero when the package is
// new, Target when it is gone.
type DebPair struct {
	Name                       string // of the package
	Base, Target               manifest.Entry
	BaseVersion, TargetVersion string
}

// debFile is a Debian package file.
type debFile struct {
	manifest.Entry
	name, version string
}

// debKey is what two releases of a package share: its place, name and architecture.
type debKey struct{ place, name, arch string }

// debPairs pairs the Debian package files of two versions by package name and
// architecture, not by path: an upgrade is one pair. What a file is, its control file
// tells, or its name where that cannot be read. In a tree of packages/OS/…, those of
// each system are paired apart. Pairs are sorted by name, then by path.
func (c *creator) debPairs(ctx context.Context, base Version) ([]DebPair, error) {
	bases, err := c.debsOf(ctx, base)
	if err != nil {
		return nil, err
	}
	targets, err := c.debsOf(ctx, c.target)
	if err != nil {
		return nil, err
	}
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
	return pairs, nil
}

func appendGone(pairs []DebPair, gone []debFile) []DebPair {
	for _, d := range gone {
		pairs = append(pairs, DebPair{Name: d.name, Base: d.Entry, BaseVersion: d.version})
	}
	return pairs
}

// nearestDeb returns which of the old files t comes from: the one of the same path,
// else the first whose path no other target has; -1 for none.
func nearestDeb(old []debFile, t debFile, targets []debFile) int {
	at := func(path string) func(debFile) bool { return func(d debFile) bool { return d.Path == path } }
	if i := slices.IndexFunc(old, at(t.Path)); i >= 0 {
		return i
	}
	return slices.IndexFunc(old, func(d debFile) bool { return !slices.ContainsFunc(targets, at(d.Path)) })
}

// debsOf returns the Debian package files of a version, in the order of their paths.
func (c *creator) debsOf(ctx context.Context, v Version) (map[debKey][]debFile, error) {
	debs := map[debKey][]debFile{}
	for _, e := range v.Manifest.Entries {
		if e.Type != manifest.TypeFile || !strings.HasSuffix(e.Path, ".deb") {
			continue
		}
		info, ok := c.debs[e.Digest]
		if !ok {
			var err error
			if !c.preserve(e.Path) { // those are a site's
				info, err = readDeb(ctx, v, e)
			}
			if err != nil {
				return nil, err
			}
			c.debs[e.Digest] = info
		}
		if info.Name == "" {
			if info, ok = deb.Named(e.Path); !ok {
				continue
			}
		}
		key := debKey{debPlace(e.Path), info.Name, info.Arch}
		debs[key] = append(debs[key], debFile{e, info.Name, info.Version})
	}
	return debs, nil
}

// readDeb reads what a Debian package says of itself: nothing, where it is none, or
// its content is not at hand.
func readDeb(ctx context.Context, v Version, e manifest.Entry) (deb.Info, error) {
	content, err := v.Files.OpenAt(ctx, e)
	if errors.Is(err, ErrNoContent) {
		return deb.Info{}, nil
	}
	if err != nil {
		return deb.Info{}, fmt.Errorf("%s: %s: %w", v.Label, e.Path, err)
	}
	defer content.Close()
	info, err := deb.Read(ctx, io.NewSectionReader(content, 0, content.Size()))
	if errors.Is(err, deb.ErrInvalid) {
		return deb.Info{}, nil
	}
	if err != nil {
		return deb.Info{}, fmt.Errorf("%s: %s: %w", v.Label, e.Path, err)
	}
	return info, nil
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
