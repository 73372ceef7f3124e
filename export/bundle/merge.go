package bundle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/tree"
)

// site is what addons are brought into.
type site interface {
	// within returns what stands at a path and under it: a folder has an entry only
	// when it is empty. Files have their digests.
	within(ctx context.Context, path string) ([]manifest.Entry, error)
	// read returns the bytes of a small file; the error matches fs.ErrNotExist when
	// there is none.
	read(ctx context.Context, path string, limit int64) ([]byte, error)
}

// item is what a path shall hold.
type item struct {
	manifest.Entry
	open func() (io.ReadCloser, error)
}

// apartItem is an item that goes into a folder outside of the target.
type apartItem struct {
	item
	dir string
}

// Where imported images and packages go, and the record of imports, unless
// somebody says otherwise.
const (
	importedFolder = ".imported"
	recordPath     = tree.StateDir + "/imported.json"
	recordFormat   = "ferry.imported/1"
)

// record says what imports have placed, so that a later one can tell files of the
// product from others.
type record struct {
	Format string                `json:"format"`
	Files  map[string]cas.Digest `json:"files"` // by path
}

// merger decides what an import changes.
type merger struct {
	b        *Bundle
	opts     ImportOptions
	site     site
	selected []*Content
	// allKnown says that all that stands is the product's: it is a stored version.
	allKnown bool
	record   record
	report   *Report

	put     map[string]item
	remove  map[string]bool
	unknown map[string]bool // what is replaced and may be the site's own
	touched map[string]bool // titles of which something changes
	// editedManifests are addons' manifests that keep what the site changed.
	editedManifests map[string]bool
	// apart are images and packages that go elsewhere.
	apart   []apartItem
	apartAt map[apartPlace]cas.Digest
	keys    map[string]string        // where the bytes of a key go
	changes map[*byte][]addon.Change // that manifests of the bundle make, by where they stand in memory
}

// apartPlace is a path in a folder outside of the target.
type apartPlace struct{ dir, path string }

func newMerger(b *Bundle, s site, selected []*Content, opts ImportOptions) *merger {
	return &merger{
		b: b, opts: opts, site: s, selected: selected, report: newReport(), record: record{recordFormat, map[string]cas.Digest{}},
		put: map[string]item{}, remove: map[string]bool{}, unknown: map[string]bool{}, editedManifests: map[string]bool{}, touched: map[string]bool{},
		apartAt: map[apartPlace]cas.Digest{}, keys: map[string]string{}, changes: map[*byte][]addon.Change{},
	}
}

// run decides everything. Nothing is changed.
func (m *merger) run(ctx context.Context) error {
	if err := tree.CheckPath(m.opts.Root); err != nil {
		return err
	}
	if err := m.readRecord(ctx); err != nil {
		return err
	}
	if data, err := m.site.read(ctx, m.opts.VersionFile, maxVersion); err == nil {
		m.report.BaseVersion = strings.TrimSpace(strings.TrimPrefix(string(data), utf8BOM))
	}
	m.report.TargetVersion = m.b.Version
	for i := 0; i < len(m.selected); {
		n := 1
		for i+n < len(m.selected) && m.selected[i+n].Addon == m.selected[i].Addon {
			n++
		}
		if err := m.addon(ctx, m.selected[i:i+n]); err != nil {
			return fmt.Errorf("addon %s: %w", m.selected[i].Addon, err)
		}
		i += n
	}
	type implementation struct{ addon, name string }
	missing := map[implementation][]Missing{}
	for _, lacks := range m.b.Missing {
		of := implementation{lacks.Addon, lacks.Implementation}
		missing[of] = append(missing[of], lacks)
	}
	for _, c := range m.selected {
		for _, decide := range []func(context.Context, *Content) error{m.things, m.downloads} {
			if err := decide(ctx, c); err != nil {
				return fmt.Errorf("addon %s: %w", c.Title(), err)
			}
		}
		m.report.Missing = append(m.report.Missing, missing[implementation{c.Addon, c.Implementation}]...)
	}
	m.finish()
	return nil
}

func (m *merger) readRecord(ctx context.Context) error {
	data, err := m.site.read(ctx, recordPath, maxList)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r := record{Files: map[string]cas.Digest{}}
	if json.Unmarshal(data, &r) == nil && r.Format == recordFormat && r.Files != nil { // else it says nothing that we know
		m.record = r
	}
	return nil
}

// known reports whether what stands is what the product or an import put there.
func (m *merger) known(e manifest.Entry) bool {
	if m.allKnown {
		return true
	}
	if digest, ok := m.record.Files[e.Path]; ok && digest == e.Digest && e.Type == manifest.TypeFile {
		return true
	}
	if m.opts.Base == nil {
		return false
	}
	base, ok := m.opts.Base.Find(e.Path)
	return ok && base.Type == e.Type && base.Digest == e.Digest && base.Link == e.Link
}

// shipped returns what the product or an import put at a path; ok is false when that
// is not known.
func (m *merger) shipped(p string) (digest cas.Digest, ok bool) {
	if digest, ok = m.record.Files[p]; ok || m.opts.Base == nil {
		return digest, ok
	}
	e, ok := m.opts.Base.Find(p)
	return e.Digest, ok
}

// changedHere reports whether the site changed what stands: it is known what was
// there, and that was something else.
func (m *merger) changedHere(e manifest.Entry) bool {
	_, ok := m.shipped(e.Path)
	return ok && !m.known(e)
}

// keep reports a file that stays as it is.
func (m *merger) keep(p, reason string) {
	m.report.Kept = append(m.report.Kept, Kept{Path: p, Reason: reason})
}

// keepEdited reports a file that stays because the site changed it.
func (m *merger) keepEdited(p string) {
	m.report.Kept = append(m.report.Kept, Kept{Path: p, Reason: "was changed here", Edited: true})
	m.remember(p)
}

// remember has a later import still know what was put at a path that the site
// changed.
func (m *merger) remember(p string) {
	if digest, ok := m.shipped(p); ok && digest != (cas.Digest{}) {
		m.record.Files[p] = digest
	}
}

// addon decides on the files of one addon, of which contents are the selected
// implementations.
func (m *merger) addon(ctx context.Context, contents []*Content) error {
	top := m.opts.Root + "/" + contents[0].Addon
	entries, err := m.site.within(ctx, top)
	if err != nil {
		return err
	}
	base, err := m.baseAddon(ctx, top)
	if err != nil {
		return err
	}
	at := m.placeOf(top, entries, contents, base)
	wanted, err := m.wanted(ctx, contents)
	if err != nil {
		return err
	}
	yaml, err := m.mergedManifest(ctx, top, contents, base, at.stands)
	if err != nil {
		return err
	}
	if yaml != nil {
		wanted[yaml.Path] = *yaml
	}
	for _, p := range slices.Sorted(maps.Keys(wanted)) {
		m.file(wanted[p], at)
	}
	m.leftovers(at, wanted)
	if err := m.checkPlaces(wanted, at.stands); err != nil {
		return err
	}
	for _, c := range contents {
		m.reportAddon(c, base, at.allTouched)
	}
	return nil
}

// wanted returns what the bundle has for the target, the addon's manifest apart.
func (m *merger) wanted(ctx context.Context, contents []*Content) (map[string]item, error) {
	wanted := map[string]item{}
	for _, c := range contents {
		for _, f := range slices.Concat(c.Shared, c.Files) {
			p := m.opts.Root + "/" + f.Path
			if err := tree.CheckPath(p); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
			}
			it := item{Entry: manifest.Entry{Path: p, Type: f.Type, Link: f.Link}, open: f.open}
			if f.Type == manifest.TypeFile {
				var err error
				if it.Entry, err = f.entry(ctx, p, f.Size, f.ModTime, f.Exec); err != nil {
					return nil, err
				}
			}
			wanted[p] = it
		}
	}
	return wanted, nil
}

// file decides on one path that the bundle has.
func (m *merger) file(want item, at *addonPlace) {
	have, there := at.stands[want.Path]
	if want.Type == manifest.TypeDir && !there && at.full[want.Path] {
		return
	}
	same := there && have.Type == want.Type && have.Digest == want.Digest && have.Link == want.Link
	switch {
	case same && (have.Exec == want.Exec || !execMatters):
		m.report.Unchanged++
		m.note(want.Entry)
		return
	case there && !same && !m.opts.Force && m.opts.Preserve(want.Path):
		m.keep(want.Path, "is a file that people edit, and differs from the bundle's")
		return
	case there && !same && !m.opts.Force && m.changedHere(have) && !m.editedManifests[want.Path]:
		m.keepEdited(want.Path)
		return
	case there:
		if !same && !m.known(have) && have.Type != manifest.TypeDir {
			m.unknown[want.Path] = true
			m.report.Replaced = append(m.report.Replaced, want.Path)
		}
		m.report.Changed = append(m.report.Changed, want.Path)
	default:
		m.report.Added = append(m.report.Added, want.Path)
	}
	m.put[want.Path] = want
	if m.editedManifests[want.Path] {
		m.remember(want.Path)
	} else {
		m.note(want.Entry)
	}
	m.touch(want.Path, at)
}

// note remembers a file for the record.
func (m *merger) note(e manifest.Entry) {
	if e.Type == manifest.TypeFile {
		m.record.Files[e.Path] = e.Digest
	} else {
		delete(m.record.Files, e.Path)
	}
}

// leftovers decides on what stands in the folders of the selected implementations
// and is not in the bundle: what is the product's goes, all else stays.
func (m *merger) leftovers(at *addonPlace, wanted map[string]item) {
	for _, p := range slices.Sorted(maps.Keys(at.stands)) {
		_, in := wanted[p]
		if in || p == at.top+"/"+m.opts.ManifestName || !at.owns(p) {
			continue
		}
		e := at.stands[p]
		switch {
		case e.Type == manifest.TypeDir && !m.allKnown:
			continue // empty: of no account
		case !m.b.Whole:
			m.keep(p, "is not in the bundle, which may lack files of the addon")
		case m.opts.Preserve(p):
			m.keep(p, "is a file that people edit, and is not in the bundle")
		case m.known(e):
			m.remove[p] = true
			delete(m.record.Files, p)
			m.report.Removed = append(m.report.Removed, p)
			m.touch(p, at)
		default:
			m.keep(p, "is not in the bundle, and may be your own")
		}
	}
}

func (m *merger) reportAddon(c *Content, base *addon.Addon, allTouched bool) {
	touched := allTouched || m.touched[c.Title()]
	r := AddonReport{Addon: c.Addon, Implementation: c.Implementation, State: StateUnchanged, TargetVersion: c.Version}
	r.BaseVersion = versionIn(base, c.Implementation)
	switch {
	case r.BaseVersion == "" && (c.yaml != nil || touched):
		r.State = StateAdded
	case touched || r.BaseVersion != "" && r.BaseVersion != r.TargetVersion || m.manifestChanges(c, base):
		r.State = StateUpdated
	}
	m.report.Addons = append(m.report.Addons, r)
}

// finish puts the report in order.
func (m *merger) finish() {
	for _, list := range []*[]string{&m.report.Added, &m.report.Changed, &m.report.Removed, &m.report.Replaced, &m.report.Images, &m.report.Packages} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	slices.SortFunc(m.report.Kept, func(a, b Kept) int { return cmp.Compare(a.Path, b.Path) })
	m.report.Kept = slices.CompactFunc(m.report.Kept, func(a, b Kept) bool { return a.Path == b.Path })
}
