package bundle

import (
	"archive/zip"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/flate"

	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/place"
	"ferry/manifest/tree"
)

// downloads brings what was fetched for Windows to where the addon's manifest says that it
// belongs in an installation, as K2s' import does. What is for Linux belongs into a machine.
func (m *merger) downloads(ctx context.Context, c *Content) error {
	if m.opts.OmitPackages || m.allKnown || c.yaml == nil {
		return nil
	}
	a, err := addon.Parse(c.yaml)
	if err != nil {
		return nil // as a bundle of others may have it; its packages are listed
	}
	for _, im := range a.Implementations {
		if im.Name != c.Implementation {
			continue
		}
		for _, d := range im.Needs.Windows.Curl {
			if err := m.download(ctx, c, d); err != nil {
				return fmt.Errorf("%s: %w", d.Destination, err)
			}
		}
	}
	return nil
}

func (m *merger) download(ctx context.Context, c *Content, d addon.Download) error {
	from := windowsFolder + "/" + downloadName(d.URL)
	to := path.Clean(strings.ReplaceAll(strings.TrimSpace(d.Destination), `\`, "/"))
	if to == "." {
		return nil
	}
	if err := cmp.Or(tree.CheckPath(to), tree.CheckWindows(to)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for _, f := range c.Packages {
		if f.Path != from {
			continue
		}
		s, size := f.stored, f.Size
		if strings.EqualFold(path.Ext(from), ".zip") && !strings.EqualFold(path.Ext(to), ".zip") {
			var err error
			if s, size, err = m.zipped(ctx, f, path.Base(to)); err != nil {
				return err
			}
		}
		e, err := s.entry(ctx, to, size, m.createdTime(), false)
		if err != nil {
			return decodeError(from, err)
		}
		return m.program(ctx, item{e, s.open})
	}
	return nil // the bundle lacks it, and says so
}

// program decides on a program of the installation.
func (m *merger) program(ctx context.Context, want item) error {
	entries, err := m.site.within(ctx, want.Path)
	if err != nil {
		return err
	}
	if placed, ok := m.put[want.Path]; ok {
		if placed.Digest != want.Digest {
			return fmt.Errorf("%w: several addons bring it, each another", ErrInvalid)
		}
		return nil
	}
	switch {
	case len(entries) == 0:
		m.report.Added = append(m.report.Added, want.Path)
	case len(entries) > 1 || entries[0].Path != want.Path || entries[0].Type != manifest.TypeFile:
		return fmt.Errorf("%w, and is no file: move it away", place.ErrExists)
	case entries[0].Digest == want.Digest:
		m.note(want.Entry)
		return nil
	case !m.opts.Force && m.changedHere(entries[0]):
		m.keepEdited(want.Path)
		return nil
	default:
		if !m.known(entries[0]) {
			m.unknown[want.Path] = true
			m.report.Replaced = append(m.report.Replaced, want.Path)
		}
		m.report.Changed = append(m.report.Changed, want.Path)
	}
	m.put[want.Path] = want
	m.note(want.Entry)
	return nil
}

// zipped returns the file of that name in a zip.
func (m *merger) zipped(ctx context.Context, f Package, name string) (stored, int64, error) {
	r, err := f.open()
	if err != nil {
		return stored{}, 0, err
	}
	defer r.Close()
	content, err := tree.Spool(tree.UntilDone(ctx, r), f.Size)
	if err != nil {
		return stored{}, 0, err
	}
	m.b.closers = append(m.b.closers, content)
	zr, err := zip.NewReader(content, content.Size())
	if err != nil {
		return stored{}, 0, decodeError(f.Path, err)
	}
	zr.RegisterDecompressor(zip.Deflate, flate.NewReader)
	for _, zf := range zr.File {
		if zf.Mode().IsRegular() && strings.EqualFold(path.Base(strings.ReplaceAll(zf.Name, `\`, "/")), name) {
			return stored{open: func() (io.ReadCloser, error) {
				r, err := zf.Open()
				if errors.Is(err, zip.ErrAlgorithm) {
					err = invalidf("%s: %s: %v", f.Path, zf.Name, err)
				}
				return r, err
			}}, int64(zf.UncompressedSize64), nil
		}
	}
	return stored{}, 0, invalidf("%s has no %s", f.Path, name)
}
