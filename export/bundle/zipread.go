package bundle

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/klauspost/compress/flate"

	"ferry/manifest"
	"ferry/manifest/tree"
)

// zipReader reads a zip, of which names have slashes and are safe.
type zipReader struct {
	b     *Bundle
	r     io.ReaderAt
	files map[string]*zip.File
	order []string
	// images are those that were looked into, by name: many addons may list one.
	images map[string]Image
	yamls  map[string][]byte // manifests that were read, likewise
}

func (b *Bundle) readZip(ctx context.Context, r io.ReaderAt, size int64) error {
	zr, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return decodeError("zip", err)
	}
	zr.RegisterDecompressor(zip.Deflate, flate.NewReader)
	z := &zipReader{b: b, r: r, files: map[string]*zip.File{}, images: map[string]Image{}, yamls: map[string][]byte{}}
	if err := z.take(zr, size); err != nil {
		return err
	}
	switch {
	case z.files[listName] != nil:
		return z.readList(ctx)
	case z.files[legacyList] != nil:
		return z.readLegacy(ctx)
	default:
		return ErrNotBundle
	}
}

// take goes through the zip's directory. Nothing is unpacked.
func (z *zipReader) take(zr *zip.Reader, size int64) error {
	if len(zr.File) > maxMembers {
		return invalidf("zip: more than %d entries", maxMembers)
	}
	packed, plain := uint64(0), uint64(0)
	for _, f := range zr.File {
		name := cleanName(f.Name)
		if name == "" || strings.HasSuffix(f.Name, "/") || strings.HasSuffix(f.Name, `\`) {
			continue
		}
		if err := tree.CheckPath(name); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if z.files[name] != nil {
			return invalidf("zip: %s stands twice", name)
		}
		if f.Flags&1 != 0 {
			return invalidf("zip: %s is encrypted", name)
		}
		if f.CompressedSize64 > uint64(size) || f.UncompressedSize64 > 1<<60 {
			return invalidf("zip: %s: claims %d bytes", name, f.UncompressedSize64)
		}
		packed, plain = packed+f.CompressedSize64, plain+f.UncompressedSize64
		if packed > uint64(size) {
			return invalidf("zip: entries overlap: they claim more bytes than the file has")
		}
		if plain > 1<<30+unpackRatio*uint64(size) {
			return invalidf("zip: unpacks to more than is allowed")
		}
		z.files[name] = f
		z.order = append(z.order, name)
	}
	return nil
}

// open opens an entry. Reading fails when it is not what its directory says.
func (z *zipReader) open(name string) (io.ReadCloser, error) {
	f := z.files[name]
	r, err := f.Open()
	if err != nil {
		return nil, decodeError("zip: "+name, err)
	}
	return &entryReader{r, name, int64(f.UncompressedSize64)}, nil
}

type entryReader struct {
	io.ReadCloser
	name string
	left int64
}

func (r *entryReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, invalidf("zip: %s: holds more bytes than it declares", r.name)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = decodeError("zip: "+r.name, err)
	}
	return n, err
}

func (z *zipReader) stored(name string) stored {
	return stored{key: name, open: func() (io.ReadCloser, error) { return z.open(name) }}
}

// read returns the bytes of a small entry.
func (z *zipReader) read(name string, limit int64) ([]byte, error) {
	f := z.files[name]
	if f == nil {
		return nil, invalidf("%s is missing", name)
	}
	if f.UncompressedSize64 > uint64(limit) {
		return nil, invalidf("%s: %d bytes, at most %d", name, f.UncompressedSize64, limit)
	}
	r, err := z.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// content returns an entry for reading anywhere. The bundle closes it.
func (z *zipReader) content(ctx context.Context, name string) (io.ReaderAt, int64, error) {
	f := z.files[name]
	size := int64(f.UncompressedSize64)
	if off, err := f.DataOffset(); err == nil && f.Method == zip.Store && f.CompressedSize64 == f.UncompressedSize64 {
		return io.NewSectionReader(z.r, off, size), size, nil
	}
	r, err := z.open(name)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	c, err := tree.Spool(tree.UntilDone(ctx, r), size)
	if err != nil {
		return nil, 0, err
	}
	z.b.closers = append(z.b.closers, c)
	return c, c.Size(), nil
}

// image describes an image archive of the zip.
func (z *zipReader) image(ctx context.Context, name, system string) (Image, error) {
	im, known := z.images[name]
	if !known {
		r, size, err := z.content(ctx, name)
		if err != nil {
			return Image{}, err
		}
		if im, err = newImage(ctx, r, span{name: name, size: size}, name); err != nil {
			return Image{}, err
		}
		z.images[name] = im
	}
	im.System = system
	return im, nil
}

// readList reads a bundle of our own.
func (z *zipReader) readList(ctx context.Context) error {
	z.b.Format, z.b.Whole = FormatZip, true
	data, err := z.read(listName, maxList)
	if err != nil {
		return err
	}
	var l listFile
	if err := parseJSON(listName, data, &l); err != nil {
		return err
	}
	if l.Format != bundleFormat {
		if strings.HasPrefix(l.Format, "ferry.bundle/") {
			return invalidf("%s: format %.40q, this program reads %s", listName, l.Format, bundleFormat)
		}
		return ErrNotBundle
	}
	if len(l.Addons) > maxContents {
		return invalidf("%s: more than %d addons", listName, maxContents)
	}
	z.b.Version, z.b.Created, z.b.Missing = l.Version, l.Created, l.Missing
	listed, err := z.verify(ctx, l.Files)
	if err != nil {
		return err
	}
	n := 0
	for _, a := range l.Addons {
		if n += len(a.Files) + len(a.Shared) + len(a.Images) + len(a.Packages); n > maxFiles {
			return invalidf("%s: more than %d files", listName, maxFiles)
		}
		if err := z.listed(ctx, a, listed); err != nil {
			return fmt.Errorf("%s: %w", title(a.Addon, a.Implementation), err)
		}
	}
	return nil
}

// verify holds every file to what the list says of it.
func (z *zipReader) verify(ctx context.Context, files []listedFile) (map[string]listedFile, error) {
	listed := map[string]listedFile{}
	for _, f := range files {
		if _, twice := listed[f.Path]; twice {
			return nil, invalidf("%s: %.200q stands twice", listName, f.Path)
		}
		if err := tree.CheckPath(f.Path); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, listName, err)
		}
		listed[f.Path] = f
		switch manifest.Type(f.Type) {
		case manifest.TypeDir:
			continue
		case manifest.TypeLink:
			if zf := z.files[f.Path]; zf == nil || zf.Mode()&fs.ModeSymlink == 0 {
				return nil, invalidf("%s: the link is missing", f.Path)
			}
			continue
		case manifest.TypeFile:
		default:
			return nil, invalidf("%s: %s: unknown type %.40q", listName, f.Path, f.Type)
		}
		if zf := z.files[f.Path]; zf == nil || !zf.Mode().IsRegular() {
			return nil, invalidf("%s is missing", f.Path)
		}
		r, err := z.open(f.Path)
		if err != nil {
			return nil, err
		}
		have := newSummer()
		err = copyContext(ctx, have, r)
		r.Close()
		if err != nil {
			return nil, err
		}
		if have.sum() != (sum{f.SHA256, f.Size}) {
			return nil, invalidf("%s: its bytes are not what %s says", f.Path, listName)
		}
	}
	return listed, nil
}

// listed reads an implementation from the list.
func (z *zipReader) listed(ctx context.Context, a listAddon, listed map[string]listedFile) error {
	c := Content{Addon: a.Addon, Implementation: a.Implementation, Version: a.Version, Description: a.Description}
	if err := checkName("addon", c.Addon); err != nil {
		return err
	}
	if err := checkName("implementation", c.Implementation); err != nil {
		return err
	}
	top := path.Join(DefaultRoot, c.Addon)
	if a.Manifest != "" {
		f, ok := listed[a.Manifest]
		if !ok || a.Manifest != top+"/"+DefaultManifestName || manifest.Type(f.Type) != manifest.TypeFile {
			return invalidf("%s: manifest %.200q", listName, a.Manifest)
		}
		if c.yaml = z.yamls[a.Manifest]; c.yaml == nil {
			var err error
			if c.yaml, err = z.read(a.Manifest, maxYAML); err != nil {
				return err
			}
			z.yamls[a.Manifest] = c.yaml
		}
		c.yamlTime = f.MTime
	}
	var err error
	if c.Files, err = z.filesOf(a.Files, path.Join(DefaultRoot, folderOf(c.Addon, c.Implementation)), listed); err != nil {
		return err
	}
	if c.Shared, err = z.filesOf(a.Shared, top, listed); err != nil {
		return err
	}
	if err := z.listedThings(ctx, &c, a, listed); err != nil {
		return err
	}
	return z.b.take(c)
}

// filesOf returns the files of a list, which must be in a folder.
func (z *zipReader) filesOf(paths []string, folder string, listed map[string]listedFile) ([]File, error) {
	var files []File
	for _, p := range paths {
		f, ok := listed[p]
		rel, in := strings.CutPrefix(p, folder+"/")
		if !ok || !in || path.Base(p) == DefaultManifestName && path.Dir(p) == folder {
			return nil, invalidf("%s: %.200q is no file of %s", listName, p, folder)
		}
		file := File{
			Path: strings.TrimPrefix(p, DefaultRoot+"/"), Type: manifest.Type(f.Type), Size: f.Size, Exec: f.Exec, ModTime: f.MTime, Link: f.Link,
			stored: z.stored(p),
		}
		if file.Type == manifest.TypeLink {
			if err := checkLink(rel, f.Link); err != nil {
				return nil, err
			}
			file.Size = 0
		}
		files = append(files, file)
	}
	return files, nil
}

// listedThings takes images and packages, each once for every system.
func (z *zipReader) listedThings(ctx context.Context, c *Content, a listAddon, listed map[string]listedFile) error {
	isFile := func(p, folder string) bool {
		return manifest.Type(listed[p].Type) == manifest.TypeFile && strings.HasPrefix(p, folder+"/")
	}
	type imageAt struct{ path, system string }
	images, packages := map[imageAt]bool{}, map[string]bool{}
	for _, im := range a.Images {
		if !isFile(im.Path, zipImages) || path.Dir(im.Path) != zipImages || im.System != linux && im.System != windows {
			return invalidf("%s: image %.200q", listName, im.Path)
		}
		if images[imageAt{im.Path, im.System}] {
			continue // two references to one archive
		}
		images[imageAt{im.Path, im.System}] = true
		image, err := z.image(ctx, im.Path, im.System)
		if err != nil {
			return err
		}
		c.Images = append(c.Images, image)
	}
	for _, f := range a.Packages {
		if !isFile(f.Path, zipPackages) {
			return invalidf("%s: package %.200q", listName, f.Path)
		}
		rel := strings.TrimPrefix(f.Path, zipPackages+"/")
		if packages[rel] {
			continue
		}
		packages[rel] = true
		c.Packages = append(c.Packages, Package{kindOf(rel), rel, listed[f.Path].Size, z.stored(f.Path)})
	}
	return nil
}
