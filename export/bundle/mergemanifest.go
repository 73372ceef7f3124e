package bundle

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"ferry/manifest"
	"ferry/manifest/addon"
)

// baseAddon reads the addon's manifest as it stands; nil when there is none.
func (m *merger) baseAddon(ctx context.Context, top string) (*addon.Addon, error) {
	data, err := m.site.read(ctx, top+"/"+m.opts.ManifestName, maxYAML)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a, err := addon.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", top, m.opts.ManifestName, err)
	}
	return a, nil
}

// mergedManifest returns the addon's manifest with the selected implementations. What
// the site changed of it stays: then it only gets implementations that it lacks. It
// is nil when there is nothing to write.
func (m *merger) mergedManifest(ctx context.Context, top string, contents []*Content, base *addon.Addon, stands map[string]manifest.Entry) (*item, error) {
	var incoming []byte
	var last *byte
	mtime := int64(0)
	for _, c := range contents {
		if len(c.yaml) == 0 || &c.yaml[0] == last { // implementations may share it
			continue
		}
		last = &c.yaml[0]
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
	p := top + "/" + m.opts.ManifestName
	if base != nil && !(m.known(stands[p]) && covers(incoming, base)) {
		var err error
		if !m.opts.Force && m.changedHere(stands[p]) && !bytes.Equal(incoming, base.Manifest()) {
			if incoming, err = m.lacking(incoming, base, p); incoming == nil || err != nil {
				return nil, err
			}
		}
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

// lacking returns of a manifest the implementations that base does not have, nil when
// it has all. What it has and the bundle has otherwise is reported.
func (m *merger) lacking(incoming []byte, base *addon.Addon, p string) ([]byte, error) {
	_, changes, err := addon.Merge(base.Manifest(), incoming)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	var names []string
	for _, ch := range changes {
		switch ch.Kind {
		case addon.Added:
			names = append(names, ch.Implementation)
		case addon.Replaced:
			m.keepEdited(p)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	m.editedManifests[p] = true
	return addon.Filtered(incoming, names)
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

// manifestChanges reports whether what the addon's manifest says of an
// implementation changes.
func (m *merger) manifestChanges(c *Content, base *addon.Addon) bool {
	if len(c.yaml) == 0 || base == nil {
		return false
	}
	changes, known := m.changes[&c.yaml[0]]
	if !known {
		_, changes, _ = addon.Merge(base.Manifest(), c.yaml) // none on an error
		m.changes[&c.yaml[0]] = changes
	}
	return slices.ContainsFunc(changes, func(ch addon.Change) bool {
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
