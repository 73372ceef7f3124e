package bundle

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"ferry/manifest"
)

// ociReader reads a tar of an OCI image layout.
type ociReader struct {
	b      *Bundle
	r      io.ReaderAt
	size   int64
	blobs  map[string]span // by SHA-256, in hexadecimal digits
	layers map[string]*layer
	parts  map[string]string // manifest digests by title

	budget int64 // bytes that may still be unpacked
	files  int   // files of all contents
}

// layer is an unpacked layer.
type layer struct {
	r     io.ReaderAt
	files []span
}

var (
	blobPath   = regexp.MustCompile(`^blobs/sha256/([0-9a-f]{64})$`)
	digestText = regexp.MustCompile(`^sha256:([0-9a-f]{64})$`)
)

func (b *Bundle) readOCI(ctx context.Context, r io.ReaderAt, size int64) error {
	b.Format = FormatOCI
	o := &ociReader{b: b, r: r, size: size, blobs: map[string]span{}, layers: map[string]*layer{}, parts: map[string]string{}}
	o.budget = 1<<30 + unpackRatio*size
	top := map[string]span{}
	err := eachMember(ctx, r, size, func(s span) error {
		into, key := top, s.name
		if m := blobPath.FindStringSubmatch(s.name); m != nil {
			into, key = o.blobs, m[1]
		} else if s.name != "oci-layout" && s.name != "index.json" {
			return nil // nothing that is looked at
		}
		if _, twice := into[key]; twice || s.typ != manifest.TypeFile {
			return invalidf("%s: stands twice, or is no file", s.name)
		}
		into[key] = s
		return nil
	})
	if err != nil {
		return err
	}
	if _, ok := top["oci-layout"]; !ok {
		return ErrNotBundle
	}
	if err := o.verify(ctx); err != nil {
		return err
	}
	return o.index(ctx, top)
}

// verify holds every blob to its name.
func (o *ociReader) verify(ctx context.Context) error {
	for digest, s := range o.blobs {
		h := sha256.New()
		if err := copyContext(ctx, h, io.NewSectionReader(o.r, s.off, s.size)); err != nil {
			return err
		}
		if hex.EncodeToString(h.Sum(nil)) != digest {
			return invalidf("blob %s: its bytes have another digest", digest[:12])
		}
	}
	return nil
}

func (o *ociReader) index(ctx context.Context, top map[string]span) error {
	var layout layoutFile
	if err := o.json(top["oci-layout"], &layout); err != nil {
		return err
	}
	if layout.Version != layoutVersion {
		return invalidf("oci-layout: version %.20q, this program reads %s", layout.Version, layoutVersion)
	}
	s, ok := top["index.json"]
	if !ok {
		return invalidf("index.json is missing")
	}
	var index indexFile
	if err := o.json(s, &index); err != nil {
		return err
	}
	if index.SchemaVersion != 2 || len(index.Manifests) > maxContents {
		return invalidf("index.json: schema version %d with %d manifests", index.SchemaVersion, len(index.Manifests))
	}
	o.b.Version, o.b.Created = index.Annotations[noteProduct], index.Annotations[noteCreated]
	o.b.Whole = index.Annotations[noteBundle] == bundleFormat
	if text := index.Annotations[noteMissing]; text != "" {
		if err := json.Unmarshal([]byte(text), &o.b.Missing); err != nil {
			return invalidf("index.json: %s: %v", noteMissing, err)
		}
	}
	for _, d := range index.Manifests {
		if err := o.part(ctx, d); err != nil {
			return err
		}
	}
	if len(o.b.Contents) == 0 {
		return fmt.Errorf("%w: there are no addons in the image layout", ErrNotBundle)
	}
	return nil
}

// json reads a document that stands in the outer tar.
func (o *ociReader) json(s span, v any) error {
	data, err := readSpan(o.r, s, maxJSON)
	if err != nil {
		return err
	}
	return parseJSON(s.name, data, v)
}

// blob finds what a descriptor refers to.
func (o *ociReader) blob(d descriptor) (span, error) {
	m := digestText.FindStringSubmatch(d.Digest)
	if m == nil {
		return span{}, invalidf("digest %.100q", d.Digest)
	}
	s, ok := o.blobs[m[1]]
	if !ok {
		return span{}, invalidf("blob %s is missing", m[1][:12])
	}
	if s.size != d.Size {
		return span{}, invalidf("blob %s: %d bytes, its descriptor says %d", m[1][:12], s.size, d.Size)
	}
	return s, nil
}

// part reads the manifest of an implementation.
func (o *ociReader) part(ctx context.Context, d descriptor) error {
	s, err := o.blob(d)
	if err != nil {
		return err
	}
	var m manifestFile
	if err := o.json(s, &m); err != nil {
		return err
	}
	if m.ArtifactType != mediaAddon && d.ArtifactType != mediaAddon && m.Config.MediaType != mediaConfig {
		return nil // something else that lies in the same layout
	}
	if len(m.Layers) > maxLayers {
		return invalidf("manifest %s: %d layers, at most %d", d.Digest, len(m.Layers), maxLayers)
	}
	p := &partReader{o: o, notes: m.Annotations, files: map[string]File{}, shared: map[string]File{}}
	if err := p.name(d, m); err != nil {
		return err
	}
	title := p.c.Title()
	if o.parts[title] == d.Digest {
		return nil // K2s writes it again when it is asked for twice
	}
	o.parts[title] = d.Digest
	for _, l := range m.Layers {
		if err := p.layer(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", title, err)
		}
	}
	if err := p.dropCopies(); err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	return o.b.take(p.content())
}

// layer unpacks a layer, once.
func (o *ociReader) layer(ctx context.Context, d descriptor, limit int64) (*layer, error) {
	if l := o.layers[d.Digest]; l != nil {
		return l, o.count(l)
	}
	s, err := o.blob(d)
	if err != nil {
		return nil, err
	}
	l := &layer{r: io.NewSectionReader(o.r, s.off, s.size)}
	size := s.size
	if isGzip(l.r) {
		c, err := unpack(ctx, io.NewSectionReader(o.r, s.off, s.size), s.size, min(limit, o.budget))
		if err != nil {
			return nil, err
		}
		o.budget -= c.Size()
		o.b.closers = append(o.b.closers, c)
		l.r, size = c, c.Size()
	}
	err = eachMember(ctx, l.r, size, func(s span) error {
		if s.typ == "hard link" {
			return invalidf("tar: %s: a hard link has no place in a layer", s.name)
		}
		l.files = append(l.files, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	o.layers[d.Digest] = l
	return l, o.count(l)
}

// count bounds the files of all contents together: many may have the same layer.
func (o *ociReader) count(l *layer) error {
	if o.files += len(l.files); o.files > maxFiles {
		return invalidf("more than %d files", maxFiles)
	}
	return nil
}

// partReader puts a content together from layers.
type partReader struct {
	o             *ociReader
	c             Content
	notes         annotations
	files, shared map[string]File // by path, relative to the implementation's and the addon's folder
	loose         []string        // files whose place K2s may have lost
}

// name finds out which implementation it is: K2s' releases put that in different
// places.
func (p *partReader) name(d descriptor, m manifestFile) error {
	var config configFile
	if s, err := p.o.blob(m.Config); err == nil && s.size > 2 {
		if err := p.o.json(s, &config); err != nil {
			return err
		}
	} else if err != nil && m.Config.Digest != "" {
		return err
	}
	p.c.Addon = cmp.Or(m.Annotations[noteAddon], config.Name, d.Annotations[noteAddon])
	p.c.Implementation = cmp.Or(m.Annotations[noteImpl], config.Implementation, d.Annotations[noteImpl], p.c.Addon)
	p.c.Version = cmp.Or(m.Annotations[noteVersion], config.Version, d.Annotations[noteVersion])
	p.c.Description = config.Description
	if err := checkName("addon", p.c.Addon); err != nil {
		return err
	}
	return checkName("implementation", p.c.Implementation)
}

// layer reads a layer: which, its media type says, with the patterns that K2s has.
func (p *partReader) layer(ctx context.Context, d descriptor) error {
	media := d.MediaType
	switch {
	case media == mediaEmpty:
		return nil
	case media == mediaShared:
		return p.texts(ctx, d, "", p.shared)
	case strings.Contains(media, "configfiles"):
		return p.texts(ctx, d, "", p.files)
	case strings.Contains(media, "helm.chart"):
		return p.texts(ctx, d, chartFolder, p.files)
	case strings.Contains(media, "manifests"):
		return p.texts(ctx, d, manifestsFolder, p.files)
	case strings.Contains(media, "scripts"):
		return p.texts(ctx, d, "", p.files)
	case strings.Contains(media, "images-windows"):
		return p.images(ctx, d, windows)
	case strings.Contains(media, "image.layer"):
		return p.images(ctx, d, linux)
	case strings.Contains(media, "packages"):
		return p.packages(ctx, d)
	default:
		return nil // of a later version: K2s passes over it, too
	}
}

// texts takes the files of a layer, below a folder of the implementation.
func (p *partReader) texts(ctx context.Context, d descriptor, folder string, into map[string]File) error {
	l, err := p.o.layer(ctx, d, maxText)
	if err != nil {
		return err
	}
	for _, s := range l.files {
		name := folder + s.name
		if name == DefaultManifestName && folder == "" {
			if err := p.manifest(l, s, d); err != nil {
				return err
			}
			continue
		}
		if s.typ == manifest.TypeLink {
			if err := checkLink(name, s.link); err != nil {
				return err
			}
		}
		if s.typ == manifest.TypeDir {
			if into[name].Type == "" {
				into[name] = File{Type: manifest.TypeDir}
			}
			continue
		}
		into[name] = File{
			Type: s.typ, Size: s.size, Exec: s.exec && s.typ == manifest.TypeFile, ModTime: s.mtime, Link: s.link,
			stored: inSection(fmt.Sprintf("%s@%d", d.Digest, s.off), l.r, s.off, s.size),
		}
		if strings.Contains(d.MediaType, "configfiles") && !strings.Contains(name, "/") && !isSettings(name) && path.Ext(name) == ".json" {
			p.loose = append(p.loose, name)
		}
	}
	return nil
}

// manifest takes the addon's manifest. That of the first layer counts: K2s removes
// others.
func (p *partReader) manifest(l *layer, s span, d descriptor) error {
	if s.typ != manifest.TypeFile {
		return invalidf("%s is no file", DefaultManifestName)
	}
	if p.c.yaml != nil || !strings.Contains(d.MediaType, "configfiles") {
		return nil
	}
	var err error
	p.c.yaml, err = readSpan(l.r, s, maxYAML)
	p.c.yamlTime = s.mtime
	return err
}

// dropCopies drops the settings that K2s puts into the configuration once more,
// without their folder.
func (p *partReader) dropCopies() error {
	for _, name := range p.loose {
		for other, f := range p.files {
			if other == name || path.Base(other) != name || f.Size != p.files[name].Size {
				continue
			}
			same, err := sameBytes(f.stored, p.files[name].stored)
			if err != nil {
				return err
			}
			if same {
				delete(p.files, name)
				break
			}
		}
	}
	return nil
}

func sameBytes(a, b stored) (bool, error) {
	var data [2][]byte
	for i, s := range []stored{a, b} {
		r, err := s.open()
		if err != nil {
			return false, err
		}
		data[i], err = io.ReadAll(io.LimitReader(r, maxJSON))
		r.Close()
		if err != nil {
			return false, err
		}
	}
	return bytes.Equal(data[0], data[1]), nil
}

// images takes the image archives of a layer: those that are this manifest's,
// where it says so.
func (p *partReader) images(ctx context.Context, d descriptor, system string) error {
	var own []string
	if text := p.notes[noteImages]; text != "" && p.o.b.Whole {
		if err := json.Unmarshal([]byte(text), &own); err != nil {
			return invalidf("%s: %v", noteImages, err)
		}
	}
	l, err := p.o.layer(ctx, d, maxPackages)
	if err != nil {
		return err
	}
	for _, s := range l.files {
		if s.typ == manifest.TypeDir {
			continue
		}
		if s.typ != manifest.TypeFile || strings.Contains(s.name, "/") || !strings.EqualFold(path.Ext(s.name), ".tar") {
			return invalidf("layer of images: %s is no image archive", s.name)
		}
		if own != nil && !slices.Contains(own, s.name) {
			continue
		}
		im, err := newImage(ctx, l.r, s, system, fmt.Sprintf("%s@%d", d.Digest, s.off))
		if err != nil {
			return err
		}
		p.c.Images = append(p.c.Images, im)
	}
	return nil
}

// packages takes Debian packages and downloads.
func (p *partReader) packages(ctx context.Context, d descriptor) error {
	l, err := p.o.layer(ctx, d, maxPackages)
	if err != nil {
		return err
	}
	for _, s := range l.files {
		if s.typ == manifest.TypeDir {
			continue
		}
		if s.typ != manifest.TypeFile {
			return invalidf("layer of packages: %s is no file", s.name)
		}
		key := fmt.Sprintf("%s@%d", d.Digest, s.off)
		p.c.Packages = append(p.c.Packages, Package{kindOf(s.name), s.name, s.size, inSection(key, l.r, s.off, s.size)})
	}
	return nil
}

// content returns what was put together.
func (p *partReader) content() Content {
	p.c.Files = settle(p.files, folderOf(p.c.Addon, p.c.Implementation))
	p.c.Shared = settle(p.shared, p.c.Addon)
	return p.c
}

// settle gives files their paths, and drops folders that are not empty.
func settle(files map[string]File, folder string) []File {
	full := map[string]bool{}
	for name := range files {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			full[dir] = true
		}
	}
	var all []File
	for name, f := range files {
		if f.Type == manifest.TypeDir && full[name] {
			continue
		}
		f.Path = folder + "/" + name
		all = append(all, f)
	}
	return all
}
