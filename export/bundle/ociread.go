package bundle

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"

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
	images map[string]Image  // that were looked into, by key
	yamls  map[string][]byte // manifests of addons that were read, by key

	budget int64 // bytes that may still be unpacked
	parsed int64 // bytes of the documents read
	files  int   // files of all contents

	notes   annotations // of the index
	whole   bool        // all manifests are of this program
	missing []Missing   // of the manifests
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
	o := &ociReader{b: b, r: r, size: size, blobs: map[string]span{}, layers: map[string]*layer{}, parts: map[string]string{}, images: map[string]Image{}, yamls: map[string][]byte{}}
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
	o.notes, o.whole = index.Annotations, true
	for _, d := range index.Manifests {
		if err := o.part(ctx, d); err != nil {
			return err
		}
	}
	if len(o.b.Contents) == 0 {
		return fmt.Errorf("%w: there are no addons in the image layout", ErrNotBundle)
	}
	// What the manifests do not say, the index may: it says so for all of them.
	o.b.Version, o.b.Created = cmp.Or(o.b.Version, o.notes[noteProduct]), cmp.Or(o.b.Created, o.notes[noteCreated])
	o.b.Whole, o.b.Missing = o.whole, o.missing
	if text := o.notes[noteMissing]; text != "" && len(o.missing) == 0 {
		if err := json.Unmarshal([]byte(text), &o.b.Missing); err != nil {
			return invalidf("index.json: %s: %v", noteMissing, err)
		}
	}
	return nil
}

// take takes from a manifest what it says of the whole bundle.
func (o *ociReader) take(p *partReader) error {
	o.b.Version, o.b.Created = cmp.Or(o.b.Version, p.notes[noteProduct]), cmp.Or(o.b.Created, p.notes[noteCreated])
	o.whole = o.whole && p.whole
	text := p.notes[noteMissing]
	if text == "" {
		return nil
	}
	var missing []Missing
	if err := json.Unmarshal([]byte(text), &missing); err != nil {
		return invalidf("%s: %s: %v", p.c.Title(), noteMissing, err)
	}
	o.missing = append(o.missing, missing...)
	return nil
}

// json reads a document that stands in the outer tar.
func (o *ociReader) json(s span, v any) error {
	if o.parsed += s.size; o.parsed > maxDocuments {
		return invalidf("more than %d bytes of manifests", maxDocuments)
	}
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
	p := &partReader{o: o, notes: m.Annotations, whole: cmp.Or(m.Annotations[noteBundle], o.notes[noteBundle]) == bundleFormat, files: map[string]File{}, shared: map[string]File{}}
	if err := p.name(d, m); err != nil {
		return err
	}
	title := p.c.Title()
	if o.parts[title] == d.Digest {
		return nil // K2s writes it again when it is asked for twice
	}
	o.parts[title] = d.Digest
	if err := o.take(p); err != nil {
		return err
	}
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
