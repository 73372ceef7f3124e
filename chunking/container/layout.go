// Package container takes container files apart: zip, tar, cpio, gzip, xz, LZ4, ar (and so .deb),
// disk images, and those in one another. A file becomes streams, one for each member,
// decoded where it was deflated, and a layout that says how the file's bytes come out
// of the streams again, every bit.
package container

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"ferry/chunking/coded"
)

// Layout is how a file's bytes come out of streams.
type Layout struct {
	Streams []Stream
	Parts   []Part // in the order of the file's bytes

	spool func(r io.Reader, size int64) (Content, error)
}

// Stream is a run of bytes that is cut into chunks on its own.
type Stream struct {
	// Name is the path of the member, a "!" behind each container; it is empty for
	// what stands between members.
	Name string
	Size int64
}

// Part is a run of a file's bytes: as they stand in a stream, or deflated.
type Part struct {
	Size int64 // bytes of the file, or of the part around it
	Zero bool  // they are zeros, and in no stream

	Stream int // of a part that is not deflated: the stream that has its bytes, from Off on
	Off    int64

	// Reconstruction is set when the part is a deflate stream: what Inner gives,
	// encoded again (see package deflate), is the part.
	Reconstruction []byte
	Inner          []Part
}

// Deflated reports whether the part is a deflate stream that is taken apart.
func (p Part) Deflated() bool { return p.Reconstruction != nil }

// structureSize bounds a stream of what stands between members, in bytes: such
// streams are held in memory while they are collected.
const structureSize = 4 << 20

// maxCollected bounds such streams of a layout in all.
const maxCollected = 256 << 20

// Sequential reports whether [Layout.Read] will do: no stream is scattered over the
// file, as those of a disk image are.
func (l *Layout) Sequential() bool { return l.sequential(l.Parts) }

func (l *Layout) sequential(parts []Part) bool {
	seen := map[int]int64{}
	collected := int64(0) // held at most, if they are open at the same time
	for _, p := range parts {
		if p.Deflated() || p.Zero {
			continue
		}
		size := l.Streams[p.Stream].Size
		if p.Size != size && p.Off == 0 {
			collected += size
		}
		if p.Size != size && (size > structureSize || seen[p.Stream] != p.Off || collected > maxCollected) {
			return false
		}
		seen[p.Stream] += p.Size
	}
	return true
}

// Read reads the file from r and gives the bytes of each stream once, in the order
// of their ends. Errors come from r and each; an [io.ErrUnexpectedEOF] says that
// the file is not what was taken apart. Memory is bounded by what stands between the
// members of a container in another; the layout must be sequential.
func (l *Layout) Read(r io.Reader, each func(stream int, r io.Reader) error) error {
	w := &walk{layout: l, each: each, collected: map[int][]byte{}}
	return w.parts(r, l.Parts)
}

// ReadAt is like [Layout.Read], for any layout: it gives the streams in the order of
// their starts.
func (l *Layout) ReadAt(r io.ReaderAt, each func(stream int, r io.Reader) error) error {
	type slice struct{ at, off, size int64 }
	slicesOf := make(map[int][]slice, len(l.Streams))
	at := int64(0)
	for _, p := range l.Parts {
		if !p.Deflated() && !p.Zero {
			slicesOf[p.Stream] = append(slicesOf[p.Stream], slice{at, p.Off, p.Size})
		}
		at += p.Size
	}
	at = 0
	for _, p := range l.Parts {
		var err error
		switch all, ok := slicesOf[p.Stream]; {
		case p.Zero:
		case p.Deflated():
			w := &walk{layout: l, each: each, collected: map[int][]byte{}}
			err = w.parts(io.NewSectionReader(r, at, p.Size), []Part{p})
		case ok:
			delete(slicesOf, p.Stream)
			slices.SortFunc(all, func(a, b slice) int { return cmp.Compare(a.off, b.off) })
			sections := make([]io.Reader, len(all))
			left := l.Streams[p.Stream].Size
			for i, s := range all {
				sections[i] = &whole{io.NewSectionReader(r, s.at, s.size), s.size}
				left -= s.size
			}
			if left != 0 {
				return errors.New("a layout that does not give a whole stream")
			}
			if err = each(p.Stream, io.MultiReader(sections...)); err == nil {
				_, err = io.Copy(io.Discard, io.MultiReader(sections...))
			}
		}
		if err != nil {
			return err
		}
		at += p.Size
	}
	return nil
}

// whole reads a section that must be there to its end.
type whole struct {
	r    io.Reader
	left int64
}

func (w *whole) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if w.left -= int64(n); errors.Is(err, io.EOF) && w.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

type walk struct {
	layout    *Layout
	each      func(stream int, r io.Reader) error
	collected map[int][]byte // streams that stand in several places, as far as they were read
}

func (w *walk) parts(r io.Reader, parts []Part) error {
	for _, p := range parts {
		section := &io.LimitedReader{R: r, N: p.Size}
		if err := w.part(section, p); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, section); err != nil {
			return err
		}
		if section.N > 0 {
			return fmt.Errorf("the file ends %d bytes before a member does: %w", section.N, io.ErrUnexpectedEOF)
		}
	}
	return nil
}

func (w *walk) part(r io.Reader, p Part) error {
	if p.Zero {
		return nil
	}
	if p.Deflated() {
		return w.plain(coded.NewReader(r), p.Inner)
	}
	size := w.layout.Streams[p.Stream].Size
	if p.Size == size {
		return w.each(p.Stream, r)
	}
	data := w.collected[p.Stream]
	if int64(len(data)) != p.Off {
		return errors.New("the slices of a stream are not in order")
	}
	n := len(data)
	data = append(data, make([]byte, p.Size)...)
	if _, err := io.ReadFull(r, data[n:]); err != nil {
		return err
	}
	w.collected[p.Stream] = data
	if int64(len(data)) == size {
		delete(w.collected, p.Stream)
		return w.each(p.Stream, bytes.NewReader(data))
	}
	return nil
}

// plain reads what a member decodes to.
func (w *walk) plain(r io.Reader, parts []Part) error {
	if w.layout.sequential(parts) {
		return w.parts(r, parts)
	}
	size := int64(0)
	for _, p := range parts {
		size += p.Size
	}
	content, err := w.layout.spool(r, size)
	if err != nil {
		return err
	}
	defer content.Close()
	if content.Size() != size {
		return fmt.Errorf("a member decodes to %d bytes, not %d: %w", content.Size(), size, io.ErrUnexpectedEOF)
	}
	inner := &Layout{Streams: w.layout.Streams, Parts: parts, spool: w.layout.spool}
	return inner.ReadAt(content, w.each)
}
