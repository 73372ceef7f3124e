package bundle

import (
	"context"
	"fmt"
	"path"

	"ferry/manifest"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// things decides where images and packages of a content go.
func (m *merger) things(ctx context.Context, c *Content) error {
	if !m.opts.OmitImages {
		for _, im := range c.Images {
			name := im.System + "_" + c.Export() + "_" + im.Name
			if len(im.References) > 0 {
				name = imageFileName(im.References[0], im.System)
			}
			at, err := m.thing(ctx, im.stored, m.opts.ImagesTo, "images/", name, im.Size)
			if err != nil {
				return err
			}
			m.report.Images = append(m.report.Images, at)
		}
	}
	if !m.opts.OmitPackages {
		for _, f := range c.Packages {
			at, err := m.thing(ctx, f.stored, m.opts.PackagesTo, "packages/", f.Path, f.Size)
			if err != nil {
				return err
			}
			m.report.Packages = append(m.report.Packages, at)
		}
	}
	return nil
}

// thing decides where one image or package goes, and returns that: the same bytes
// once.
func (m *merger) thing(ctx context.Context, s stored, elsewhere, folder, name string, size int64) (string, error) {
	key := folder + s.key
	if at, known := m.keys[key]; known {
		return at, nil
	}
	at := m.opts.Root + "/" + importedFolder + "/" + folder + name
	if elsewhere != "" {
		at = name
	}
	if err := tree.CheckPath(at); err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	e, err := s.entry(ctx, at, size, m.createdTime(), false)
	if err != nil {
		return "", err
	}
	if m.taken(elsewhere, at, e) { // by other bytes of the same name
		dir, base := path.Split(at)
		at = dir + e.Digest.Short() + "-" + base
		e.Path = at
	}
	m.keys[key] = at
	if _, in := m.apartAt[apartPlace{elsewhere, at}]; in {
		return at, nil
	}
	if elsewhere != "" {
		m.apartAt[apartPlace{elsewhere, at}] = e.Digest
		m.apart = append(m.apart, apartItem{item{e, s.open}, elsewhere})
		return at, nil
	}
	entries, err := m.site.within(ctx, at)
	if err != nil {
		return "", err
	}
	if len(entries) == 1 && entries[0].Path == at && entries[0].Digest == e.Digest {
		return at, nil
	}
	if len(entries) > 0 && (len(entries) > 1 || entries[0].Path != at || entries[0].Type == manifest.TypeDir) {
		return "", fmt.Errorf("%s: %w as a folder: move it away", at, place.ErrExists)
	}
	m.put[at] = item{e, s.open}
	return at, nil
}

// taken reports whether a place was given to other bytes.
func (m *merger) taken(dir, at string, e manifest.Entry) bool {
	if dir == "" {
		it, in := m.put[at]
		return in && it.Digest != e.Digest
	}
	digest, in := m.apartAt[apartPlace{dir, at}]
	return in && digest != e.Digest
}

// createdTime is when the bundle was made, in seconds since 1970.
func (m *merger) createdTime() int64 { return parseDate(m.b.Created) }
