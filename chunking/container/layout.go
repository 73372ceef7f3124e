// Package container takes container files apart: zip, tar, gzip, ar (and so .deb),
// and those in one another. A file becomes streams, one for each member, decoded
// where it was deflated, and a layout that says how the file's bytes come out of
// the streams again, every bit.
package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
)

// Layout is how a file's bytes come out of streams.
type Layout struct {
	Streams []Stream
	Parts   []Part // in the order of the file's bytes
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

// Read reads the file from r and gives the bytes of each stream once, in the order
// of their ends. Errors come from r and each; an [io.ErrUnexpectedEOF] says that
// the file is not what was taken apart.
func (l *Layout) Read(r io.Reader, each func(stream int, r io.Reader) error) error {
	w := &walk{layout: l, each: each, collected: map[int][]byte{}}
	return w.parts(r, l.Parts)
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
	if p.Deflated() {
		return w.parts(flate.NewReader(r), p.Inner)
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
