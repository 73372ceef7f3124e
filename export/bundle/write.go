package bundle

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"ferry/cas"
	"ferry/export"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// Write writes the bundle. What is written is complete and right only when the
// error is nil.
func (p *Plan) Write(ctx context.Context, w io.Writer) error {
	if p.opts.Format == FormatZip {
		return (&zipMaker{p: p}).write(ctx, w)
	}
	o := &ociMaker{p: p, blobs: map[string]*blob{}}
	defer o.close()
	return o.write(ctx, w)
}

// fill writes the content of something.
type fill func(ctx context.Context, w io.Writer) error

func fillBytes(data []byte) fill {
	return func(_ context.Context, w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// fillFrom writes a file that was found for an addon.
func (p *Plan) fillFrom(c *candidate) fill {
	return func(ctx context.Context, w io.Writer) error {
		return c.copyTo(ctx, cas.CountWrites(w, p.opts.Progress))
	}
}

// fillEntry writes a file of the package.
func (p *Plan) fillEntry(e manifest.Entry) fill {
	return func(ctx context.Context, w io.Writer) error { return p.files.WriteFile(ctx, w, e) }
}

// sum is what is written, by its digest and size.
type sum struct {
	digest string // SHA-256, in hexadecimal digits
	size   int64
}

// summer computes a sum of what is written to it.
type summer struct {
	h hash.Hash
	n int64
}

func newSummer() *summer { return &summer{h: sha256.New()} }

func (s *summer) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	return s.h.Write(p)
}

func (s *summer) sum() sum { return sum{hex.EncodeToString(s.h.Sum(nil)), s.n} }

// sumOf writes to nowhere, to learn the sum.
func sumOf(ctx context.Context, write fill) (sum, error) {
	s := newSummer()
	err := write(ctx, s)
	return s.sum(), err
}

// writeSummed writes again what has a known sum, which must come out again.
func writeSummed(ctx context.Context, w io.Writer, want sum, what string, write fill) error {
	s := newSummer()
	if err := write(ctx, io.MultiWriter(w, s)); err != nil {
		return err
	}
	if s.sum() != want {
		return fmt.Errorf("%s: %w", what, manifest.ErrChanged)
	}
	return nil
}

// blob is content that is known by its sum, and can be written any number of times.
type blob struct {
	sum
	write fill
	spool tree.Content // nil unless it is kept in one
}

func bytesBlob(data []byte) *blob {
	s := newSummer()
	s.Write(data)
	return &blob{sum: s.sum(), write: fillBytes(data)}
}

// tarItem is a member of a tar.
type tarItem struct {
	name        string // in the tar, without "./"
	typ         manifest.Type
	exec        bool
	size, mtime int64
	link        string
	write       fill
	last        bool // it stands behind all that are not
}

// compare orders the members of a tar.
func (it tarItem) compare(other tarItem) int {
	if it.last != other.last {
		if it.last {
			return 1
		}
		return -1
	}
	return cmp.Compare(it.name, other.name)
}

// Whether names in a tar begin with "./", after an entry for the root itself.
const (
	withRoot    = true
	withoutRoot = false
)

// writeTar writes a tar whose bytes depend on the items alone.
func writeTar(ctx context.Context, w io.Writer, items []tarItem, root bool, mtime int64) error {
	items = slices.SortedFunc(slices.Values(items), tarItem.compare)
	tw := tar.NewWriter(w)
	prefix := ""
	if root {
		prefix = "./"
		h := &tar.Header{Typeflag: tar.TypeDir, Name: prefix, Mode: 0o755, ModTime: time.Unix(mtime, 0)}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
	}
	for _, it := range items {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := tw.WriteHeader(it.header(prefix)); err != nil {
			return fmt.Errorf("%s: %w", it.name, err)
		}
		if it.typ != manifest.TypeFile {
			continue
		}
		if err := it.write(ctx, tw); err != nil {
			return err
		}
	}
	return tw.Close()
}

func (it tarItem) header(prefix string) *tar.Header {
	return export.TarHeader(manifest.Entry{Path: prefix + it.name, Type: it.typ, Exec: it.exec, Size: it.size, ModTime: it.mtime, Link: it.link})
}

// packed makes a gzipped tar, which is kept until the blob is closed: packing it
// again costs more.
func (p *Plan) packed(ctx context.Context, items []tarItem) (*blob, error) {
	r, w := io.Pipe()
	go func() {
		z := gzip.NewWriter(w) // no name and no time: the same items give the same bytes
		err := writeTar(ctx, z, items, withRoot, p.created)
		w.CloseWithError(cmp.Or(z.Close(), err))
	}()
	s := newSummer()
	c, err := tree.Spool(io.TeeReader(r, s), 1)
	r.CloseWithError(io.ErrClosedPipe) // ends the goroutine when the spool gave up
	if err != nil {
		return nil, err
	}
	return &blob{sum: s.sum(), spool: c, write: func(ctx context.Context, w io.Writer) error {
		return copyContext(ctx, w, io.NewSectionReader(c, 0, c.Size()))
	}}, nil
}

// items returns the tar items of entries; names gives each its name in the tar.
func (p *Plan) items(entries []manifest.Entry, name func(manifest.Entry) string) []tarItem {
	var items []tarItem
	for _, e := range entries {
		items = append(items, tarItem{
			name: name(e), typ: e.Type, exec: e.Exec, size: e.Size, mtime: e.ModTime, link: e.Link, write: p.fillEntry(e),
		})
	}
	return items
}

// imageNames gives every image archive a file name, once for each system: that of
// its first reference.
func (p *Plan) imageNames() map[imageKey]string {
	var all []wantedImage
	for _, part := range p.parts {
		all = append(all, part.images...)
	}
	slices.SortStableFunc(all, func(a, b wantedImage) int {
		return cmp.Or(cmp.Compare(a.ref.String(), b.ref.String()), cmp.Compare(a.system, b.system))
	})
	names, taken := map[imageKey]string{}, map[string]bool{}
	for _, im := range all {
		key := imageKey{im.from, im.system}
		if names[key] != "" {
			continue
		}
		name := imageFileName(im.ref.String(), im.system)
		if taken[strings.ToLower(name)] {
			digest := sha256.Sum256([]byte(im.ref.String()))
			name = strings.TrimSuffix(name, ".tar") + "-" + hex.EncodeToString(digest[:4]) + ".tar"
		}
		names[key], taken[strings.ToLower(name)] = name, true
	}
	return names
}

// imageKey is an image archive for the nodes of one system.
type imageKey struct {
	from   *image
	system string
}

func imageFileName(ref, system string) string {
	name := fileName(ref) + ".tar"
	if system == windows {
		name = "windows_" + name
	}
	return name
}

// sumList is the text of a file that "sha256sum -c" reads.
type sumList struct{ b *bytes.Buffer }

func newSumList() sumList { return sumList{&bytes.Buffer{}} }

func (l sumList) add(name string, s sum) { fmt.Fprintf(l.b, "%s  %s\n", s.digest, name) }

func (l sumList) text() []byte { return l.b.Bytes() }

// readmeHead says what is in a bundle, for people without this program.
func (p *Plan) readmeHead() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Addons for %s %s, made %s.\n\n", p.opts.Product, p.Version, date(p.created))
	for _, part := range p.parts {
		fmt.Fprintf(&b, "  %s %s\n", part.title(), part.version())
	}
	return b.String()
}

// readmeMissing says what is not in it.
func (p *Plan) readmeMissing() string {
	if len(p.Missing) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\nNot in this bundle, though the addons need it:\n\n")
	for _, m := range p.Missing {
		fmt.Fprintf(&b, "  %s\n", m)
	}
	return b.String()
}
