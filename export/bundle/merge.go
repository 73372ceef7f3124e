package bundle

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/place"
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
	touched map[string]bool // titles of which something changes
	// apart are images and packages that go elsewhere.
	apart []apartItem
	keys  map[string]string // where the bytes of a key go
}

func newMerger(b *Bundle, s site, selected []*Content, opts ImportOptions) *merger {
	return &merger{
		b: b, opts: opts, site: s, selected: selected, report: newReport(), record: record{recordFormat, map[string]cas.Digest{}},
		put: map[string]item{}, remove: map[string]bool{}, touched: map[string]bool{}, keys: map[string]string{},
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
	if data, err := m.site.read(ctx, "VERSION", maxVersion); err == nil {
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
	for _, c := range m.selected {
		if err := m.things(ctx, c); err != nil {
			return fmt.Errorf("addon %s: %w", c.Title(), err)
		}
		for _, missing := range m.b.Missing {
			if missing.Addon == c.Addon && missing.Implementation == c.Implementation {
				m.report.Missing = append(m.report.Missing, missing)
			}
		}
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
	if json.Unmarshal(data, &r) == nil && r.Format == recordFormat { // else it says nothing that we know
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

// addon decides on the files of one addon, of which contents are the selected
// implementations.
func (m *merger) addon(ctx context.Context, contents []*Content) error {
	top := m.opts.Root + "/" + contents[0].Addon
	entries, err := m.site.within(ctx, top)
	if err != nil {
		return err
	}
	stands := map[string]manifest.Entry{}
	for _, e := range entries {
		stands[e.Path] = e
	}
	base, err := m.baseAddon(ctx, top)
	if err != nil {
		return err
	}
	wanted, err := m.wanted(ctx, contents)
	if err != nil {
		return err
	}
	yaml, err := m.mergedManifest(ctx, top, contents, base, stands)
	if err != nil {
		return err
	}
	if yaml != nil {
		wanted[yaml.Path] = *yaml
	}
	for _, p := range slices.Sorted(maps.Keys(wanted)) {
		m.file(wanted[p], stands, contents)
	}
	m.leftovers(top, contents, base, wanted, stands)
	if err := m.checkPlaces(wanted, stands); err != nil {
		return err
	}
	for _, c := range contents {
		m.reportAddon(c, base)
	}
	return nil
}

// baseAddon reads the addon's manifest as it stands; nil when there is none.
func (m *merger) baseAddon(ctx context.Context, top string) (*addon.Addon, error) {
	data, err := m.site.read(ctx, top+"/"+DefaultManifestName, maxYAML)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a, err := addon.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", top, DefaultManifestName, err)
	}
	return a, nil
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

// mergedManifest returns the addon's manifest with the selected implementations.
func (m *merger) mergedManifest(ctx context.Context, top string, contents []*Content, base *addon.Addon, stands map[string]manifest.Entry) (*item, error) {
	var incoming []byte
	mtime := int64(0)
	for _, c := range contents {
		if c.yaml == nil {
			continue
		}
		piece, err := selectedPart(c, contents)
		if err != nil {
			return nil, err
		}
		mtime = max(mtime, c.yamlTime)
		if incoming == nil {
			incoming = piece
		} else if !bytes.Equal(incoming, piece) {
			if incoming, _, err = addon.Merge(incoming, piece); err != nil {
				return nil, err
			}
		}
	}
	if incoming == nil {
		return nil, nil
	}
	p := top + "/" + DefaultManifestName
	if base != nil && !(m.known(stands[p]) && covers(incoming, base)) {
		var err error
		if incoming, _, err = addon.Merge(base.Manifest(), incoming); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	s := inMemory(incoming)
	e, err := s.entry(ctx, p, int64(len(incoming)), mtime, false)
	return &item{e, s.open}, err
}

// selectedPart returns a content's manifest without implementations that were not
// selected.
func selectedPart(c *Content, contents []*Content) ([]byte, error) {
	a, err := addon.Parse(c.yaml)
	if err != nil {
		return nil, err
	}
	var keep []string
	for _, im := range a.Implementations {
		if slices.ContainsFunc(contents, func(c *Content) bool { return strings.EqualFold(c.Implementation, im.Name) }) {
			keep = append(keep, im.Name)
		}
	}
	if len(keep) == len(a.Implementations) {
		return c.yaml, nil
	}
	return addon.Filtered(c.yaml, keep)
}

// covers reports whether a manifest has all implementations of an addon.
func covers(yaml []byte, base *addon.Addon) bool {
	a, err := addon.Parse(yaml)
	if err != nil {
		return false
	}
	for _, im := range base.Implementations {
		if !slices.ContainsFunc(a.Implementations, func(have addon.Implementation) bool { return have.Name == im.Name }) {
			return false
		}
	}
	return true
}

// file decides on one path that the bundle has.
func (m *merger) file(want item, stands map[string]manifest.Entry, contents []*Content) {
	have, there := stands[want.Path]
	if want.Type == manifest.TypeDir && !there && holdsAny(stands, want.Path) {
		return
	}
	same := there && have.Type == want.Type && have.Digest == want.Digest && have.Link == want.Link
	switch {
	case same && (have.Exec == want.Exec || !execMatters):
		m.report.Unchanged++
		m.note(want.Entry)
		return
	case there && !same && !m.opts.Force && m.opts.Preserve(want.Path):
		m.report.Kept = append(m.report.Kept, Kept{want.Path, "is a file that people edit, and differs from the bundle's"})
		return
	case there:
		m.report.Changed = append(m.report.Changed, want.Path)
	default:
		m.report.Added = append(m.report.Added, want.Path)
	}
	m.put[want.Path] = want
	m.note(want.Entry)
	m.touch(want.Path, contents)
}

// holdsAny reports whether something stands in a folder.
func holdsAny(stands map[string]manifest.Entry, folder string) bool {
	for p := range stands {
		if strings.HasPrefix(p, folder+"/") {
			return true
		}
	}
	return false
}

// note remembers a file for the record.
func (m *merger) note(e manifest.Entry) {
	if e.Type == manifest.TypeFile {
		m.record.Files[e.Path] = e.Digest
	} else {
		delete(m.record.Files, e.Path)
	}
}

// touch notes which implementations a change is of.
func (m *merger) touch(p string, contents []*Content) {
	owned := false
	for _, c := range contents {
		if strings.HasPrefix(p, m.opts.Root+"/"+folderOf(c.Addon, c.Implementation)+"/") && path.Base(p) != DefaultManifestName {
			m.touched[c.Title()], owned = true, true
		}
	}
	if !owned && path.Base(p) != DefaultManifestName {
		for _, c := range contents {
			m.touched[c.Title()] = true
		}
	}
}

// leftovers decides on what stands in the folders of the selected implementations
// and is not in the bundle: what is the product's goes, all else stays.
func (m *merger) leftovers(top string, contents []*Content, base *addon.Addon, wanted map[string]item, stands map[string]manifest.Entry) {
	for _, p := range slices.Sorted(maps.Keys(stands)) {
		_, in := wanted[p]
		if in || p == top+"/"+DefaultManifestName || !m.ownedBy(p, contents, base) {
			continue
		}
		e := stands[p]
		switch {
		case e.Type == manifest.TypeDir && !m.allKnown:
			continue // empty: of no account
		case !m.b.Whole:
			m.report.Kept = append(m.report.Kept, Kept{p, "is not in the bundle, which may lack files of the addon"})
		case m.opts.Preserve(p):
			m.report.Kept = append(m.report.Kept, Kept{p, "is a file that people edit, and is not in the bundle"})
		case m.known(e):
			m.remove[p] = true
			delete(m.record.Files, p)
			m.report.Removed = append(m.report.Removed, p)
			m.touch(p, contents)
		default:
			m.report.Kept = append(m.report.Kept, Kept{p, "is not in the bundle, and may be your own"})
		}
	}
}

// ownedBy reports whether a path belongs to one of the implementations, and to no
// other that lives inside its folder.
func (m *merger) ownedBy(p string, contents []*Content, base *addon.Addon) bool {
	best, owned := 0, false
	consider := func(folder string, selected bool) {
		if strings.HasPrefix(p, folder+"/") && (len(folder) > best || len(folder) == best && selected) {
			best, owned = len(folder), selected
		}
	}
	name := contents[0].Addon
	consider(m.opts.Root+"/"+name, true) // what belongs to no implementation comes with any
	if base != nil {
		for _, im := range base.Implementations {
			consider(m.opts.Root+"/"+folderOf(name, im.Name), false)
		}
	}
	for i := range m.b.Contents {
		if c := &m.b.Contents[i]; c.Addon == name {
			consider(m.opts.Root+"/"+folderOf(name, c.Implementation), slices.Contains(contents, c))
		}
	}
	return owned
}

// checkPlaces returns an error when a file would have to stand where a folder of
// the site's own is, or the other way round.
func (m *merger) checkPlaces(wanted map[string]item, stands map[string]manifest.Entry) error {
	for p := range wanted {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if e, there := stands[dir]; there && e.Type != manifest.TypeDir && !m.remove[dir] {
				return fmt.Errorf("%s: %w as no folder: move it away", dir, place.ErrExists)
			}
		}
	}
	for p, e := range stands {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			it, in := wanted[dir]
			if in && it.Type != manifest.TypeDir && e.Type != manifest.TypeDir && !m.remove[p] {
				return fmt.Errorf("%s: %w in a folder that must become a file: move it away", p, place.ErrExists)
			}
		}
	}
	return nil
}

func (m *merger) reportAddon(c *Content, base *addon.Addon) {
	r := AddonReport{Addon: c.Addon, Implementation: c.Implementation, State: StateUnchanged, TargetVersion: c.Version}
	r.BaseVersion = versionIn(base, c.Implementation)
	switch {
	case r.BaseVersion == "" && (c.yaml != nil || m.touched[c.Title()]):
		r.State = StateAdded
	case m.touched[c.Title()] || r.BaseVersion != "" && r.BaseVersion != r.TargetVersion || m.manifestChanges(c, base):
		r.State = StateUpdated
	}
	m.report.Addons = append(m.report.Addons, r)
}

// manifestChanges reports whether what the addon's manifest says of an
// implementation changes.
func (m *merger) manifestChanges(c *Content, base *addon.Addon) bool {
	if c.yaml == nil || base == nil {
		return false
	}
	_, changes, err := addon.Merge(base.Manifest(), c.yaml)
	return err == nil && slices.ContainsFunc(changes, func(ch addon.Change) bool {
		return strings.EqualFold(ch.Implementation, c.Implementation) && ch.Kind != addon.Unchanged
	})
}

// versionIn returns an implementation's version as a manifest has it, empty when
// it does not know the implementation.
func versionIn(a *addon.Addon, name string) string {
	if a == nil {
		return ""
	}
	for _, im := range a.Implementations {
		if strings.EqualFold(im.Name, name) {
			return cmp.Or(im.Version, defaultVersion)
		}
	}
	return ""
}

// finish puts the report in order.
func (m *merger) finish() {
	for _, list := range []*[]string{&m.report.Added, &m.report.Changed, &m.report.Removed, &m.report.Images, &m.report.Packages} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	slices.SortFunc(m.report.Kept, func(a, b Kept) int { return cmp.Compare(a.Path, b.Path) })
	m.report.Kept = slices.CompactFunc(m.report.Kept, func(a, b Kept) bool { return a.Path == b.Path })
}
