package delta

import (
	"cmp"
	"context"
	"io"
	"maps"
	"path"
	"slices"

	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// preserve returns the manifest m of the target with what the base has of its own where
// the delta's rules let it, how to fill that, and what was found.
func (a *applier) preserve(ctx context.Context, b Base, m *manifest.Manifest) (*manifest.Manifest, place.Fill, []Modified, error) {
	own, err := a.own(ctx, b, m)
	if err != nil {
		return nil, nil, nil, err
	}
	with, found, err := withOwn(m, own)
	if err != nil {
		return nil, nil, nil, err
	}
	kept := map[string]bool{}
	for _, f := range found {
		kept[f.Path] = f.Kept
	}
	return with, func(ctx context.Context, e manifest.Entry, w io.Writer) error {
		if kept[e.Path] {
			return a.copyWhole(ctx, w, e.Path, e.Size)
		}
		return a.fillOrDiagnose(ctx, e, w)
	}, found, nil
}

// own lists files of the base that the rules are for and that are neither as the
// delta's base has them nor as the target.
func (a *applier) own(ctx context.Context, b Base, m *manifest.Manifest) ([]manifest.Entry, error) {
	files, err := filesIn(ctx, b, a.keep)
	if err != nil {
		return nil, err
	}
	base := map[string]neededFile{}
	for _, f := range a.d.need.Bases[a.base].Replaced {
		base[f.Path] = f
	}
	var own []manifest.Entry
	for _, e := range files {
		if e.Digest, err = a.digest(ctx, e.Path, 0, e.Size); err != nil {
			return nil, err
		}
		t, ok := m.Find(e.Path)
		old := base[e.Path]
		if ok && t.Type == e.Type && t.Digest == e.Digest || old.Digest != nil && agrees(e.Digest, *old.Digest) && !old.Own {
			continue
		}
		own = append(own, e)
	}
	return own, nil
}

// filesIn lists the files of a base for which want is true, without their digests, in
// the order of their paths.
func filesIn(ctx context.Context, b Base, want func(path string) bool) ([]manifest.Entry, error) {
	all := map[string]manifest.Entry{}
	switch b := b.(type) {
	case TreeBase:
		err := b.Walk(ctx, func(n tree.Node, _ func() (io.ReadCloser, error)) error {
			switch n.Kind {
			case tree.File:
				all[n.Path] = manifest.Entry{Path: n.Path, Type: manifest.TypeFile, Size: n.Size, Exec: n.Exec, ModTime: n.ModTime}
			case tree.HardLink:
				e := all[n.Link]
				e.Path = n.Path
				all[n.Path] = e
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	case StoredBase:
		for _, e := range b.Manifest.Entries {
			if e.Type == manifest.TypeFile {
				all[e.Path] = e
			}
		}
	default:
		sizes, err := b.Sizes(ctx)
		if err != nil {
			return nil, err
		}
		for p, size := range sizes {
			all[p] = manifest.Entry{Path: p, Type: manifest.TypeFile, Size: size}
		}
	}
	maps.DeleteFunc(all, func(p string, e manifest.Entry) bool { return !want(p) || e.Type != manifest.TypeFile })
	return slices.SortedFunc(maps.Values(all), func(a, b manifest.Entry) int { return cmp.Compare(a.Path, b.Path) }), nil
}

// withOwn returns a manifest with files of a site in it, but for those that have no
// place there, and says of each what became of it.
func withOwn(m *manifest.Manifest, own []manifest.Entry) (*manifest.Manifest, []Modified, error) {
	entries, folders := map[string]manifest.Entry{}, map[string]bool{}
	for _, e := range m.Entries {
		entries[e.Path] = e
		for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	var found []Modified
	for _, e := range own {
		if t, ok := entries[e.Path]; folders[e.Path] || ok && t.Type == manifest.TypeDir || blockedIn(entries, e.Path) {
			found = append(found, Modified{e.Path, "cannot be kept: the target has a folder there, or a file where its folder is", false})
			continue
		}
		for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
			delete(entries, dir) // a folder that was empty
		}
		entries[e.Path] = e
		found = append(found, Modified{e.Path, "is kept as it is here", true})
	}
	with, err := manifest.New(slices.Collect(maps.Values(entries)))
	return with, found, err
}

// blockedIn reports whether a folder of a path is something else.
func blockedIn(entries map[string]manifest.Entry, p string) bool {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if e, ok := entries[dir]; ok && e.Type != manifest.TypeDir {
			return true
		}
	}
	return false
}
