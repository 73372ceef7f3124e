package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// expanded is a version in which parts of container files are entries, too, behind
// those of the manifest. Their paths are those of their files with more behind a
// "\x00/", which stands in no path.
type expanded struct {
	Version
	entries   []manifest.Entry
	parts     []part                      // entries[len(Manifest.Entries):]
	recipes   map[int]*manifest.Recipe    // of container files, by entry
	locations map[int][]manifest.Location // of their streams
	ids       map[int][]cas.Digest        // of their streams
	streams   map[[2]int]int              // entries by file and stream
	known     map[string]bool             // paths of streams, entries or not
}

// part is a part of a container file: a stream; or all that a file or a deflated
// member holds, which is only copied from; or pieces of what stands between members.
type part struct {
	file   int // its entry
	stream int // -1 if it is none
	at     *manifest.Location
	pieces []byte // the content of pieces
}

func expand(v Version) *expanded {
	return &expanded{
		Version: v, entries: append([]manifest.Entry(nil), v.Manifest.Entries...), recipes: map[int]*manifest.Recipe{}, locations: map[int][]manifest.Location{},
		ids: map[int][]cas.Digest{}, streams: map[[2]int]int{}, known: map[string]bool{},
	}
}

// recipe returns the recipe of a container file; nil of any other.
func (x *expanded) recipe(ctx context.Context, i int) (*manifest.Recipe, error) {
	r, err := x.Files.Recipe(ctx, x.entries[i])
	if err != nil || !r.Container() {
		return nil, err
	}
	x.recipes[i], x.locations[i] = r, r.Locations()
	for _, s := range r.Streams {
		x.ids[i] = append(x.ids[i], s.ID())
	}
	return r, nil
}

// add makes a part an entry and returns its number.
func (x *expanded) add(path string, size int64, id cas.Digest, p part) int {
	n := len(x.entries)
	x.entries = append(x.entries, manifest.Entry{Path: path, Type: manifest.TypeFile, Size: size, Digest: id})
	x.parts = append(x.parts, p)
	return n
}

// addStream makes a stream of the container file i an entry and returns its number.
func (x *expanded) addStream(i, stream int) int {
	if n, ok := x.streams[[2]int{i, stream}]; ok {
		return n
	}
	s := x.recipes[i].Streams[stream]
	n := x.add(x.streamPath(i, stream), s.Size, x.ids[i][stream], part{file: i, stream: stream, at: &x.locations[i][stream]})
	x.streams[[2]int{i, stream}] = n
	return n
}

func (x *expanded) streamPath(i, stream int) string {
	name := strings.ReplaceAll(x.recipes[i].Streams[stream].Name, "\x00", "\uFFFD")
	path := x.entries[i].Path + "\x00/" + name
	x.known[path] = true
	return path
}

// addPieces makes pieces of what stands between members, of that digest, an entry.
func (x *expanded) addPieces(i int, path string, data []byte, digest cas.Digest, at *manifest.Location) int {
	return x.add(path, int64(len(data)), digest, part{file: i, stream: -1, at: at, pieces: data})
}

// partID identifies the bytes of a deflated member of a container file, given the
// identifiers of its streams.
func partID(ids []cas.Digest, op manifest.Op) cas.Digest {
	h := blake3.New()
	var add func(op manifest.Op)
	add = func(op manifest.Op) {
		h.Write(binary.LittleEndian.AppendUint64([]byte{byte(op.Kind)}, uint64(op.Size)))
		if op.Kind == manifest.OpSlice {
			id := ids[op.Stream]
			h.Write(binary.LittleEndian.AppendUint64(id[:], uint64(op.Off)))
			return
		}
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(op.Reconstruction))))
		h.Write(op.Reconstruction)
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(op.Inner))))
		for _, inner := range op.Inner {
			add(inner)
		}
	}
	add(op)
	var d cas.Digest
	h.Sum(d[:0])
	return d
}

// part returns the part that an entry is; ok is false of a file.
func (x *expanded) part(i int) (p part, ok bool) {
	if k := i - len(x.Manifest.Entries); k >= 0 {
		return x.parts[k], true
	}
	return p, false
}

// depth returns in how many members, one in another, an entry stands that must be decoded
// to read it.
func (x *expanded) depth(i int) int {
	if p, ok := x.part(i); ok && p.at != nil {
		return len(p.at.Within)
	}
	return 0
}

// content reports whether an entry has content to be matched: not what is only
// copied from.
func (x *expanded) content(i int) bool {
	p, ok := x.part(i)
	return !ok || p.stream >= 0 || p.pieces != nil
}

// chunks returns how an entry is cut; of a container file, what is not deflated.
func (x *expanded) chunks(ctx context.Context, i int) ([]manifest.Chunk, error) {
	p, ok := x.part(i)
	switch {
	case !ok:
		r, err := x.Files.Recipe(ctx, x.entries[i])
		if err != nil {
			return nil, err
		}
		return r.Chunks(), nil
	case p.stream < 0:
		return []manifest.Chunk{{Size: x.entries[i].Size, Key: x.entries[i].Digest}}, nil
	}
	var chunks []manifest.Chunk
	off := int64(0)
	for _, run := range x.recipes[p.file].Streams[p.stream].Runs {
		chunks = append(chunks, manifest.Chunk{Off: off, Size: run.Size, Key: run.Key})
		off += run.Size
	}
	return chunks, nil
}

// open opens an entry for reading anywhere.
func (x *expanded) open(ctx context.Context, i int) (tree.Content, error) {
	p, ok := x.part(i)
	switch {
	case !ok:
		return x.Files.OpenAt(ctx, x.entries[i])
	case p.stream >= 0:
		return x.Files.OpenStream(ctx, x.entries[p.file], x.recipes[p.file], p.stream, *p.at)
	case p.pieces != nil:
		return inMemory{bytes.NewReader(p.pieces)}, nil
	}
	return nil, errors.New("internal error: this is only copied from")
}

// available reports whether open would give an entry's content.
func (x *expanded) available(ctx context.Context, i int) (bool, error) {
	partial, ok := x.Files.(Partial)
	if !ok {
		return true, nil
	}
	p, isPart := x.part(i)
	switch {
	case !isPart:
		return partial.Available(ctx, x.entries[i])
	case p.stream >= 0:
		return x.availableStream(ctx, p.file, p.stream)
	}
	return p.pieces != nil, nil
}

// availableStream reports whether a stream of the container file i can be read.
func (x *expanded) availableStream(ctx context.Context, i, stream int) (bool, error) {
	if partial, ok := x.Files.(Partial); ok {
		return partial.AvailableStream(ctx, x.entries[i], x.recipes[i], stream)
	}
	return true, nil
}

// inMemory is a content in memory.
type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// between reads a stream of what stands between members.
func (x *expanded) between(ctx context.Context, i, stream int) ([]byte, error) {
	s := x.recipes[i].Streams[stream]
	if s.Size > maxBetween {
		return nil, fmt.Errorf("%s: %d bytes between members", x.entries[i].Path, s.Size)
	}
	c, err := x.Files.OpenStream(ctx, x.entries[i], x.recipes[i], stream, x.locations[i][stream])
	if err != nil {
		return nil, err
	}
	defer c.Close()
	data := make([]byte, s.Size)
	if n, err := c.ReadAt(data, 0); n < len(data) {
		return nil, fmt.Errorf("%s: between members: %w", x.entries[i].Path, err)
	}
	return data, nil
}

// stays reports whether what stands in an entry of base most likely stands here,
// too, at the same path.
func (x *expanded) stays(m *matcher, i int) bool {
	base := m.base
	if p, ok := base.part(i); ok {
		return x.known[m.targetPath(base.entries[i].Path)] || standsIn(x.Manifest, base.entries[p.file])
	}
	_, ok := x.Manifest.Find(base.entries[i].Path)
	return ok
}

// location returns where an entry stands: the path of its file, and of a part where
// in that.
func (x *expanded) location(i int) (path string, at *manifest.Location) {
	if p, ok := x.part(i); ok {
		return x.entries[p.file].Path, p.at
	}
	return x.entries[i].Path, nil
}

// label returns what to call an entry in a message.
func label(path string) string { return strings.Replace(path, "\x00/", "!", 1) }
