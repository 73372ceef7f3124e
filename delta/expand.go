package delta

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"

	"ferry/cas"
	"ferry/manifest"
	"ferry/manifest/tree"
)

// expanded is a version in which streams of container files are entries, too,
// behind those of the manifest. Their paths are those of their files with the
// member's behind a "\x00/", which stands in no path.
type expanded struct {
	Version
	entries []manifest.Entry
	streams []streamOf               // of entries[len(Manifest.Entries):]
	recipes map[int]*manifest.Recipe // of container files, by entry
	numbers map[streamOf]int         // into entries
	byPath  map[string]int           // into entries: streams
	known   map[string]bool          // paths of streams, entries or not
}

// streamOf is a stream of a container file.
type streamOf struct {
	file, stream int // index into entries, and into the recipe's streams
}

func expand(v Version) *expanded {
	return &expanded{Version: v, entries: append([]manifest.Entry(nil), v.Manifest.Entries...), recipes: map[int]*manifest.Recipe{}, numbers: map[streamOf]int{}, byPath: map[string]int{}, known: map[string]bool{}}
}

// recipe returns the recipe of a container file; nil of any other.
func (x *expanded) recipe(ctx context.Context, i int) (*manifest.Recipe, error) {
	r, err := x.Files.Recipe(ctx, x.entries[i])
	if err != nil || len(r.Streams) < 2 && r.Plain() {
		return nil, err
	}
	x.recipes[i] = r
	return r, nil
}

// add makes a stream of the container file i an entry and returns its number.
func (x *expanded) add(i, stream int) int {
	at := streamOf{i, stream}
	if n, ok := x.numbers[at]; ok {
		return n
	}
	s := x.recipes[i].Streams[stream]
	n := len(x.entries)
	path := x.streamPath(i, stream)
	if _, ok := x.byPath[path]; ok { // members of the same name
		path = fmt.Sprintf("%s\x00%d", path, stream)
	}
	x.byPath[path] = n
	x.entries = append(x.entries, manifest.Entry{Path: path, Type: manifest.TypeFile, Size: s.Size, Digest: s.ID()})
	x.streams = append(x.streams, at)
	x.numbers[at] = n
	return n
}

func (x *expanded) streamPath(i, stream int) string {
	name := x.recipes[i].Streams[stream].Name
	if name == "" {
		name = fmt.Sprintf("\x00%d", stream)
	}
	path := x.entries[i].Path + "\x00/" + name
	x.known[path] = true
	return path
}

// partID identifies the bytes of a deflated member.
func partID(r *manifest.Recipe, op manifest.Op) cas.Digest {
	h := blake3.New()
	var add func(op manifest.Op)
	add = func(op manifest.Op) {
		h.Write(binary.LittleEndian.AppendUint64([]byte{byte(op.Kind)}, uint64(op.Size)))
		if op.Kind == manifest.OpSlice {
			id := r.Streams[op.Stream].ID()
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

// streamOf returns the stream that an entry is; ok is false of a file.
func (x *expanded) streamOf(i int) (s streamOf, ok bool) {
	if k := i - len(x.Manifest.Entries); k >= 0 {
		return x.streams[k], true
	}
	return s, false
}

// chunks returns how an entry is cut; of a container file, what is not deflated.
func (x *expanded) chunks(ctx context.Context, i int) ([]manifest.Chunk, error) {
	s, ok := x.streamOf(i)
	if !ok {
		r, err := x.Files.Recipe(ctx, x.entries[i])
		if err != nil {
			return nil, err
		}
		return r.Chunks(), nil
	}
	var chunks []manifest.Chunk
	off := int64(0)
	for _, run := range x.recipes[s.file].Streams[s.stream].Runs {
		chunks = append(chunks, manifest.Chunk{Off: off, Size: run.Size, Key: run.Key})
		off += run.Size
	}
	return chunks, nil
}

// open opens an entry for reading anywhere.
func (x *expanded) open(ctx context.Context, i int) (tree.Content, error) {
	if s, ok := x.streamOf(i); ok {
		return x.Files.OpenStream(ctx, x.entries[s.file], s.stream)
	}
	return x.Files.OpenAt(ctx, x.entries[i])
}

// find returns the entry at a path.
func (x *expanded) find(path string) (i int, ok bool) {
	if i, ok = x.byPath[path]; ok {
		return i, true
	}
	return x.Manifest.Index(path)
}

// stays reports whether what stands in an entry of base most likely stands here,
// too, at the same path.
func (x *expanded) stays(base *expanded, i int) bool {
	if s, ok := base.streamOf(i); ok {
		e := base.entries[s.file]
		return x.known[base.entries[i].Path] || standsIn(x.Manifest, e)
	}
	_, ok := x.Manifest.Find(base.entries[i].Path)
	return ok
}

// location returns where an entry stands: the path of its file, and of a stream
// where in that.
func (x *expanded) location(i int) (path string, at *manifest.Location) {
	s, ok := x.streamOf(i)
	if !ok {
		return x.entries[i].Path, nil
	}
	l := x.recipes[s.file].Locations()[s.stream]
	return x.entries[s.file].Path, &l
}

// label returns what to call an entry in a message.
func label(path string) string { return strings.Replace(path, "\x00/", "!", 1) }
