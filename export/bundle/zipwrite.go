package bundle

import (
	"archive/zip"
	"cmp"
	"context"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"

	"ferry/manifest"
)

// zipMaker writes a bundle as a plain zip.
type zipMaker struct {
	p      *Plan
	items  map[string]zipItem // by path
	bySum  map[sum]string     // paths of images and packages
	sums   map[*candidate]sum
	names  map[imageKey]string
	listed []listAddon
}

// zipItem is a file of the zip.
type zipItem struct {
	tarItem
	sum   sum
	store bool // packed already
}

func (z *zipMaker) write(ctx context.Context, w io.Writer) error {
	z.items, z.bySum, z.sums, z.names = map[string]zipItem{}, map[sum]string{}, map[*candidate]sum{}, z.p.imageNames()
	for _, part := range z.p.parts {
		if err := z.part(ctx, part); err != nil {
			return err
		}
	}
	zw := zip.NewWriter(w)
	zw.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.DefaultCompression) })
	list := z.list()
	extra := []zipItem{z.text(listName, append(encodeJSON(list), '\n')), z.text(readmeName, []byte(z.readme()))}
	sums := newSumList()
	paths := slices.Sorted(maps.Keys(z.items))
	for _, it := range extra {
		sums.add(it.name, it.sum)
	}
	for _, name := range paths {
		if it := z.items[name]; it.typ == manifest.TypeFile {
			sums.add(name, it.sum)
		}
	}
	for _, it := range append(extra, z.text(sumsName, sums.text())) {
		if err := z.put(ctx, zw, it); err != nil {
			return err
		}
	}
	for _, name := range paths {
		if err := z.put(ctx, zw, z.items[name]); err != nil {
			return err
		}
	}
	return zw.Close()
}

// text makes a file of the bundle's own.
func (z *zipMaker) text(name string, data []byte) zipItem {
	b := bytesBlob(data)
	return zipItem{tarItem: tarItem{name: name, typ: manifest.TypeFile, size: b.size, mtime: z.p.created, write: b.write}, sum: b.sum}
}

// put writes an entry.
func (z *zipMaker) put(ctx context.Context, zw *zip.Writer, it zipItem) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h := &zip.FileHeader{Name: it.name, Method: zip.Deflate, Modified: zipTime(it.mtime)}
	h.SetMode(0o644)
	write := it.write
	switch {
	case it.typ == manifest.TypeDir:
		h.Name += "/"
		h.Method = zip.Store
		h.SetMode(fs.ModeDir | 0o755)
		_, err := zw.CreateHeader(h)
		return err
	case it.typ == manifest.TypeLink:
		h.Method = zip.Store
		h.SetMode(fs.ModeSymlink | 0o777)
		entry, err := zw.CreateHeader(h)
		if err != nil {
			return err
		}
		_, err = io.WriteString(entry, it.link)
		return err
	case it.store:
		h.Method = zip.Store
	}
	if it.exec {
		h.SetMode(0o755)
	}
	entry, err := zw.CreateHeader(h)
	if err != nil {
		return err
	}
	return writeSummed(ctx, entry, it.sum, it.name, write)
}

// zipTime is a time as a zip can hold it: DOS times are of 1980 to 2107.
func zipTime(unix int64) time.Time {
	const first, last = 315532800, 4354819198
	return time.Unix(min(max(unix, first), last), 0).UTC()
}

// part takes up the files, images and packages of an implementation.
func (z *zipMaker) part(ctx context.Context, part *part) error {
	top := path.Join(DefaultRoot, part.addon.Name)
	l := listAddon{
		Addon: part.addon.Name, Implementation: part.impl.Name, Version: part.version(), Description: part.addon.Description,
		Manifest: top + "/" + DefaultManifestName, Files: []string{}, Images: []listImage{}, Packages: []listPackage{},
	}
	err := z.addFile(ctx, tarItem{
		name: l.Manifest, typ: manifest.TypeFile, size: int64(len(part.yaml)), mtime: part.yamlFile.ModTime, write: fillBytes(part.yaml),
	})
	if err != nil {
		return err
	}
	for _, group := range []struct {
		entries  []manifest.Entry
		from, to string
		into     *[]string
	}{{part.files, part.impl.Folder, path.Join(DefaultRoot, part.folder()), &l.Files}, {part.shared, part.addon.Folder, top, &l.Shared}} {
		for _, it := range z.p.items(group.entries, func(e manifest.Entry) string { return group.to + strings.TrimPrefix(e.Path, group.from) }) {
			if err := z.addFile(ctx, it); err != nil {
				return err
			}
			*group.into = append(*group.into, it.name)
		}
	}
	for _, im := range part.images {
		p, err := z.addFound(ctx, im.from.candidate, path.Join(zipImages, z.names[imageKey{im.from, im.system}]))
		if err != nil {
			return err
		}
		l.Images = append(l.Images, listImage{im.ref.String(), im.system, p})
	}
	for _, f := range part.packages {
		p, err := z.addFound(ctx, f.from, path.Join(zipPackages, f.path))
		if err != nil {
			return err
		}
		l.Packages = append(l.Packages, listPackage{f.kind, f.name, p})
	}
	z.listed = append(z.listed, l)
	return nil
}

// addFile takes up a file of an addon.
func (z *zipMaker) addFile(ctx context.Context, it tarItem) error {
	if _, known := z.items[it.name]; known { // of the addon, for each implementation
		return nil
	}
	item := zipItem{tarItem: it}
	if it.typ == manifest.TypeFile {
		var err error
		if item.sum, err = sumOf(ctx, it.write); err != nil {
			return err
		}
	}
	z.items[it.name] = item
	return nil
}

// addFound takes up an image or a package, and returns where it is: the same bytes
// are in the zip once.
func (z *zipMaker) addFound(ctx context.Context, c *candidate, name string) (string, error) {
	write := z.p.fillFrom(c)
	s, known := z.sums[c]
	if !known {
		var err error
		if s, err = sumOf(ctx, write); err != nil {
			return "", err
		}
		z.sums[c] = s
	}
	key := sum{path.Base(path.Dir(name)) + s.digest, s.size} // packages stay in their folder
	if path.Dir(name) == zipImages {
		key.digest = s.digest
	}
	if known, ok := z.bySum[key]; ok {
		return known, nil
	}
	if _, taken := z.items[name]; taken { // by other bytes
		name = path.Join(path.Dir(name), s.digest[:8]+"-"+path.Base(name))
	}
	z.bySum[key] = name
	z.items[name] = zipItem{
		tarItem: tarItem{name: name, typ: manifest.TypeFile, size: c.size, mtime: z.p.created, write: write},
		sum:     s, store: true,
	}
	return name, nil
}

func (z *zipMaker) list() listFile {
	l := listFile{
		Format: bundleFormat, Product: z.p.opts.Product, Version: z.p.Version, Created: date(z.p.created), Type: z.p.exportType(),
		Addons: z.listed, Files: []listedFile{}, Missing: append([]Missing{}, z.p.Missing...),
	}
	for _, it := range slices.SortedFunc(maps.Values(z.items), func(a, b zipItem) int { return cmp.Compare(a.name, b.name) }) {
		l.Files = append(l.Files, listedFile{
			Path: it.name, Type: string(it.typ), Size: it.size, SHA256: it.sum.digest, Exec: it.exec, MTime: it.mtime, Link: it.link,
		})
	}
	return l
}

// readme tells people without this program what they have.
func (z *zipMaker) readme() string {
	return z.p.readmeHead() + `
Bring them into an installed folder or a package:

  ferry addons import -f addons.zip --to FOLDER

Without ferry: addons/ is laid over the folder of the same name, images/ holds
archives for "podman load", "ctr images import" or "skopeo copy", packages/ holds
Debian packages and downloads. addons.json says which addon needs which.

Check that all is whole, in the unpacked folder:

  Linux    sha256sum -c SHA256SUMS
  Windows  Get-FileHash PATH, and compare with SHA256SUMS
` + z.p.readmeMissing()
}
