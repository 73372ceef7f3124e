package bundle

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"ferry/manifest"
	"ferry/manifest/tree"
)

// BaseFiles gives the content of the version under an overlay; a manifest.Archive
// does, and so does a manifest.Scan.
type BaseFiles interface {
	Open(ctx context.Context, e manifest.Entry) (io.ReadCloser, error)
	OpenAt(ctx context.Context, e manifest.Entry) (tree.Content, error)
}

// Overlay returns the version base with addons of a bundle laid over it, as
// [Import] does with a folder: those that names mean, all for none. All that base
// has counts as the product's. The tree reads from files and b, which must stay
// open.
func Overlay(ctx context.Context, base *manifest.Manifest, files BaseFiles, b *Bundle, names []string, opts ImportOptions) (tree.Tree, *Report, error) {
	selected, err := b.Select(names)
	if err != nil {
		return nil, nil, err
	}
	opts.ImagesTo, opts.PackagesTo = "", ""
	m := newMerger(b, &versionSite{base, files}, selected, opts.withDefaults())
	m.allKnown = true
	if err := m.run(ctx); err != nil {
		return nil, nil, err
	}
	o := &overlay{files: files, base: map[string]manifest.Entry{}, put: m.put}
	entries := map[string]manifest.Entry{}
	for _, e := range base.Entries {
		if !m.remove[e.Path] {
			o.base[e.Path], entries[e.Path] = e, e
		}
	}
	for p, it := range m.put {
		entries[p] = it.Entry
	}
	o.entries = slices.SortedFunc(maps.Values(entries), func(a, b manifest.Entry) int { return cmp.Compare(a.Path, b.Path) })
	return o, m.report, nil
}

// versionSite is a version that addons are laid over.
type versionSite struct {
	m     *manifest.Manifest
	files BaseFiles
}

func (v *versionSite) within(_ context.Context, p string) ([]manifest.Entry, error) {
	return v.m.Within(p), nil
}

func (v *versionSite) read(ctx context.Context, p string, limit int64) ([]byte, error) {
	e, ok := v.m.Find(p)
	if !ok || e.Type != manifest.TypeFile {
		return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	if e.Size > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d", p, manifest.ErrInvalid, e.Size, limit)
	}
	r, err := v.files.Open(ctx, e)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(r)
	return b.Bytes(), err
}

// overlay is a version with other files in some places.
type overlay struct {
	files   BaseFiles
	base    map[string]manifest.Entry
	put     map[string]item
	entries []manifest.Entry
}

var _ tree.Tree = (*overlay)(nil)

func (o *overlay) Format() string   { return "addon bundle" }
func (o *overlay) Sequential() bool { return false }
func (o *overlay) Close() error     { return nil }

func (o *overlay) Walk(ctx context.Context, fn func(tree.Node, func() (io.ReadCloser, error)) error) error {
	for _, e := range o.entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := tree.Node{Path: e.Path, Kind: tree.File, Exec: e.Exec, ModTime: e.ModTime, Size: e.Size}
		switch e.Type {
		case manifest.TypeDir:
			n = tree.Node{Path: e.Path, Kind: tree.Dir}
		case manifest.TypeLink:
			n = tree.Node{Path: e.Path, Kind: tree.Link, Link: e.Link}
		}
		if err := fn(n, func() (io.ReadCloser, error) { return o.Open(ctx, e.Path) }); err != nil {
			return err
		}
	}
	return nil
}

func (o *overlay) Open(ctx context.Context, p string) (io.ReadCloser, error) {
	if it, ok := o.put[p]; ok && it.Type == manifest.TypeFile {
		return it.open()
	}
	if e, ok := o.base[p]; ok && e.Type == manifest.TypeFile {
		return o.files.Open(ctx, e)
	}
	return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
}

func (o *overlay) OpenAt(ctx context.Context, p string) (tree.Content, error) {
	if it, ok := o.put[p]; ok && it.Type == manifest.TypeFile {
		r, err := it.open()
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return tree.Spool(tree.UntilDone(ctx, r), it.Size)
	}
	if e, ok := o.base[p]; ok && e.Type == manifest.TypeFile {
		return o.files.OpenAt(ctx, e)
	}
	return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
}
