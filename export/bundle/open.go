package bundle

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/addon"
	"ferry/manifest/place"
)

// Bundle is an open bundle. All in it was verified when it was opened. Close it.
// It is safe for concurrent use.
type Bundle struct {
	Format Format
	// Version is that of the product that the bundle was made from; empty when the
	// bundle does not say.
	Version string
	// Created is when it was made, as it says itself.
	Created string
	// Whole says that the bundle holds all files of its addons. K2s leaves some out.
	Whole    bool
	Contents []Content
	// Missing lists what was not there when the bundle was made.
	Missing []Missing

	closers []io.Closer
	titles  map[string]bool        // of the contents, in lower case
	parsed  map[*byte]*addon.Addon // manifests, by where they stand in memory: contents share them
}

// Content is an implementation of an addon in a bundle.
type Content struct {
	Addon, Implementation string
	Version               string // of the implementation
	Description           string // of the addon
	// Files are the implementation's; Shared are the addon's, besides. Paths are
	// relative to the folder of all addons: "ingress/nginx/Enable.ps1".
	Files, Shared []File
	Images        []Image
	Packages      []Package

	yaml     []byte // the addon's manifest; nil when the bundle has none
	yamlTime int64
}

// Title is what people call it: "ingress nginx".
func (c *Content) Title() string { return title(c.Addon, c.Implementation) }

// Export is its name in file names: "ingress-nginx".
func (c *Content) Export() string { return exportName(c.Addon, c.Implementation) }

// Size returns the bytes of the addon's files.
func (c *Content) Size() int64 {
	n := int64(len(c.yaml))
	for _, f := range slices.Concat(c.Files, c.Shared) {
		n += f.Size
	}
	return n
}

// File is a file, link or empty folder in a bundle.
type File struct {
	Path    string
	Type    manifest.Type
	Size    int64
	Exec    bool
	ModTime int64
	Link    string

	stored
}

// Image is an archive of container images in a bundle.
type Image struct {
	References []string // whole; none when the archive does not say
	System     string   // linux or windows
	Name       string   // of the file
	Size       int64

	stored
}

// Package is a Debian package or a download in a bundle.
type Package struct {
	Kind Kind
	Path string // such as "debianpackages/samba/samba_4.17.deb"
	Size int64

	stored
}

// stored is where a bundle holds bytes. Equal keys are the same bytes.
type stored struct {
	key  string
	open func() (io.ReadCloser, error)
}

// entry returns a manifest entry of the bytes, which are read for their digest.
func (s stored) entry(ctx context.Context, path string, size, mtime int64, exec bool) (manifest.Entry, error) {
	e := manifest.Entry{Path: path, Type: manifest.TypeFile, Size: size, ModTime: clampTime(mtime), Exec: exec}
	r, err := s.open()
	if err != nil {
		return e, err
	}
	defer r.Close()
	e.Digest, err = place.Digest(ctx, r)
	return e, err
}

// clampTime brings a time into the years that a manifest allows.
func clampTime(unix int64) int64 {
	const first, last = -62135596800, 253402300799 // 0001-01-01 and 9999-12-31
	return min(max(unix, first), last)
}

// inMemory is bytes that a bundle holds, unpacked.
func inMemory(data []byte) stored {
	return stored{open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// inSection is bytes that stand somewhere in r.
func inSection(key string, r io.ReaderAt, off, size int64) stored {
	return stored{key: key, open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(r, off, size)), nil
	}}
}

// Open opens a bundle of size bytes and verifies all of it. What it is, is
// recognised by content. Errors match [ErrInvalid], and [ErrNotBundle] when it is
// something else, unless reading r failed. r must stay open as long as the bundle.
func Open(ctx context.Context, r io.ReaderAt, size int64) (*Bundle, error) {
	b := &Bundle{titles: map[string]bool{}, parsed: map[*byte]*addon.Addon{}}
	if err := b.read(ctx, r, size); err != nil {
		b.Close()
		return nil, err
	}
	for i := range b.Contents {
		c := &b.Contents[i]
		for _, files := range [][]File{c.Files, c.Shared} {
			slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
		}
		slices.SortFunc(c.Packages, func(a, b Package) int { return cmp.Compare(a.Path, b.Path) })
	}
	slices.SortStableFunc(b.Contents, func(x, y Content) int { return cmp.Compare(x.Title(), y.Title()) })
	return b, nil
}

// Close frees what was unpacked.
func (b *Bundle) Close() error {
	var errs []error
	for _, c := range b.closers {
		errs = append(errs, c.Close())
	}
	b.closers = nil
	return errors.Join(errs...)
}

func (b *Bundle) read(ctx context.Context, r io.ReaderAt, size int64) error {
	head := make([]byte, min(512, max(size, 0)))
	if n, err := r.ReadAt(head, 0); n < len(head) {
		return err
	}
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return b.readZip(ctx, r, size)
	case len(head) == 512 && string(head[257:262]) == "ustar":
		return b.readOCI(ctx, r, size)
	default:
		return ErrNotBundle
	}
}

// addons describes the contents, to choose from them by name.
func (b *Bundle) addons() []addon.Addon {
	var all []addon.Addon
	for _, c := range b.Contents {
		if n := len(all); n == 0 || all[n-1].Name != c.Addon {
			all = append(all, addon.Addon{Name: c.Addon, Description: c.Description, Folder: c.Addon})
		}
		last := &all[len(all)-1]
		last.Implementations = append(last.Implementations, addon.Implementation{
			Name: c.Implementation, Version: c.Version, Export: c.Export(), Title: c.Title(), Folder: folderOf(c.Addon, c.Implementation),
		})
	}
	return all
}

// Select returns the contents that names mean, as addon.ParseSelection takes
// them; all for none. The error is a [*NotInBundleError] for what is not there.
func (b *Bundle) Select(names []string) ([]*Content, error) {
	chosen, err := addon.ParseSelection(b.addons(), names)
	if errors.Is(err, cas.ErrNotFound) {
		has := []string{}
		for i := range b.Contents {
			has = append(has, b.Contents[i].Title())
		}
		return nil, &NotInBundleError{Has: has, Err: err}
	}
	if err != nil {
		return nil, err
	}
	byTitle := map[string]*Content{}
	for i := range b.Contents {
		byTitle[b.Contents[i].Title()] = &b.Contents[i]
	}
	var selected []*Content
	for _, a := range chosen.Addons() {
		for _, im := range a.Implementations {
			if c := byTitle[im.Title]; c != nil {
				selected = append(selected, c)
			}
		}
	}
	return selected, nil
}

// take adds a content, unless the bundle has it.
func (b *Bundle) take(c Content) error {
	if err := checkName("addon", c.Addon); err != nil {
		return err
	}
	if c.Implementation == "" {
		c.Implementation = c.Addon
	}
	if err := checkName("implementation", c.Implementation); err != nil {
		return err
	}
	key := strings.ToLower(c.Title())
	if b.titles[key] {
		return invalidf("%s stands twice", c.Title())
	}
	b.titles[key] = true
	if c.Version == "" {
		c.Version = defaultVersion
	}
	if c.yaml != nil {
		a, err := b.parse(c.yaml)
		if err != nil {
			return invalidf("%s: %s: %v", c.Title(), DefaultManifestName, err)
		}
		if a.Name != c.Addon {
			return invalidf("%s: its manifest is of addon %s", c.Title(), a.Name)
		}
		if !slices.ContainsFunc(a.Implementations, func(im addon.Implementation) bool { return im.Name == c.Implementation }) {
			return invalidf("%s: its manifest does not know it", c.Title())
		}
		c.Description = a.Description
	}
	b.Contents = append(b.Contents, c)
	return nil
}

// parse parses an addon's manifest, once.
func (b *Bundle) parse(yaml []byte) (*addon.Addon, error) {
	if len(yaml) == 0 {
		return addon.Parse(yaml)
	}
	if a := b.parsed[&yaml[0]]; a != nil {
		return a, nil
	}
	a, err := addon.Parse(yaml)
	if err == nil {
		b.parsed[&yaml[0]] = a
	}
	return a, err
}

// kindOf tells by its folder what a package is.
func kindOf(p string) Kind {
	if strings.HasPrefix(p, debianFolder+"/") {
		return KindDebian
	}
	return KindDownload
}

// newImage describes an image archive in a bundle; its system is not set.
func newImage(ctx context.Context, r io.ReaderAt, s span, key string) (Image, error) {
	im := Image{Name: path.Base(s.name), Size: s.size, stored: inSection(key, r, s.off, s.size)}
	facts, err := readImage(ctx, io.NewSectionReader(r, s.off, s.size), s.size)
	if err != nil && !errors.Is(err, ErrInvalid) {
		return im, err
	}
	for _, ref := range facts.refs { // none when it is no archive that we know
		im.References = append(im.References, ref.String())
	}
	return im, nil
}
