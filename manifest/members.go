package manifest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/zeebo/blake3"

	"ferry/cas"
	"ferry/chunking/coded"
	"ferry/manifest/tree"
)

// Location is where the bytes of a stream stand in a container file.
type Location struct {
	// Within leads to them: the offset in the file of a deflate stream, that of
	// another in what it decodes to, and so on.
	Within []int64
	// Slices are theirs, in order: of the file, or of what the last one of Within
	// decodes to.
	Slices []Slice
}

// Slice is a run of bytes.
type Slice struct{ Off, Size int64 }

// Size returns how many bytes the stream has.
func (l Location) Size() (n int64) {
	for _, s := range l.Slices {
		n += s.Size
	}
	return n
}

// Locations returns where each stream of a container file stands in it.
func (r *Recipe) Locations() []Location {
	all := make([]Location, len(r.Streams))
	var slicesOf []streamSlice
	locate(all, &slicesOf, r.Layout, nil)
	slices.SortStableFunc(slicesOf, func(a, b streamSlice) int {
		return cmp.Or(cmp.Compare(a.stream, b.stream), cmp.Compare(a.streamOff, b.streamOff))
	})
	for _, s := range slicesOf {
		l := &all[s.stream]
		if n := len(l.Slices); n > 0 && l.Slices[n-1].Off+l.Slices[n-1].Size == s.off {
			l.Slices[n-1].Size += s.size
		} else {
			l.Slices = append(l.Slices, Slice{s.off, s.size})
		}
	}
	return all
}

// streamSlice is where one slice of a stream stands.
type streamSlice struct {
	stream               int
	streamOff, off, size int64
}

func locate(all []Location, found *[]streamSlice, layout []Op, within []int64) {
	off := int64(0)
	for _, op := range layout {
		switch op.Kind {
		case OpSlice:
			all[op.Stream].Within = within
			*found = append(*found, streamSlice{op.Stream, op.Off, off, op.Size})
		case OpDeflate:
			locate(all, found, op.Inner, append(within[:len(within):len(within)], off))
		}
		off += op.Size
	}
}

// ID identifies the content of a stream: the digest of its one chunk, or one of the
// digests and sizes of its chunks.
func (s Stream) ID() cas.Digest {
	if len(s.Runs) == 1 && !s.Runs[0].Zero() {
		return s.Runs[0].Key
	}
	h := blake3.New()
	h.WriteString("ferry stream")
	for _, run := range s.Runs {
		h.Write(run.Key[:])
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(run.Size)))
	}
	var d cas.Digest
	h.Sum(d[:0])
	return d
}

// Deep returns the manifest with what is in its container files and disk images as
// entries of their own: at the path of the file, a "!", and theirs. Their digests are
// stream identifiers. It is for looking at, with [Diff], and not to be stored.
// warn, if it is not nil, is told of what could not be looked into.
func Deep(ctx context.Context, m *Manifest, o Opener, warn func(Warning)) (*Manifest, error) {
	deep := &Manifest{Entries: slices.Clone(m.Entries)}
	for _, e := range m.Entries {
		if e.Type != TypeFile || e.Size == 0 {
			continue
		}
		inner, err := Inside(ctx, o, e, warn)
		if err != nil {
			return nil, err
		}
		for _, within := range inner {
			within.Path = e.Path + InsideMark + within.Path
			deep.Entries = append(deep.Entries, within)
		}
	}
	slices.SortStableFunc(deep.Entries, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	deep.Entries = slices.CompactFunc(deep.Entries, func(a, b Entry) bool { return a.Path == b.Path })
	return deep, nil
}

// DamagedMembers compares a container file with what it should be, and returns the
// names of the members that differ, each once, in their order. It returns none for a
// file that was not taken apart.
func (a *Archive) DamagedMembers(ctx context.Context, e Entry, damaged io.Reader) ([]string, error) {
	r, err := a.Recipe(ctx, e)
	if err != nil || !r.Container() {
		return nil, err
	}
	right, err := a.Open(ctx, e)
	if err != nil {
		return nil, err
	}
	defer right.Close()
	var names []string
	named := map[string]bool{}
	var want, have [64 << 10]byte
	for _, op := range r.Layout {
		same := true
		for left := op.Size; left > 0; {
			n := min(left, int64(len(want)))
			if _, err := io.ReadFull(right, want[:n]); err != nil {
				return nil, err
			}
			m, _ := io.ReadFull(damaged, have[:n])
			same = same && bytes.Equal(want[:n], have[:m])
			left -= n
		}
		if name := r.memberName(op); !same && name != "" && !named[name] {
			named[name] = true
			names = append(names, name)
		}
	}
	return names, nil
}

// memberName returns the name of what an instruction gives: that of its stream, or
// of the container that all its streams are in; empty if there is none.
func (r *Recipe) memberName(op Op) string {
	if op.Kind == OpSlice {
		return r.Streams[op.Stream].Name
	}
	name, first := "", true
	for _, inner := range op.Inner {
		s := r.memberName(inner)
		switch {
		case s == "": // between members
		case first:
			name, first = s, false
		default:
			for name != "" && s != name && !strings.HasPrefix(s, name+"!") {
				name = name[:max(strings.LastIndexByte(name, '!'), 0)]
			}
		}
	}
	return name
}

// NewMembers returns a cache of files and of what their deflated members decode
// to: see [Location.Open]. Its other keys are the paths that open knows.
func NewMembers(ctx context.Context, open func(ctx context.Context, path string) (tree.Content, error)) *tree.Cache {
	var cache *tree.Cache
	cache = tree.NewCache(ctx, func(ctx context.Context, key string) (c tree.Content, err error) {
		i := strings.LastIndex(key, withinMark)
		if i < 0 {
			return open(ctx, key)
		}
		path := key[:i]
		off, err := strconv.ParseInt(key[i+1:], 10, 64)
		if err != nil {
			return nil, err
		}
		err = cache.With(ctx, path, func(around tree.Content) error {
			if off > around.Size() {
				return fmt.Errorf("%s: offset %d: %w", path, off, io.ErrUnexpectedEOF)
			}
			plain := coded.NewReader(tree.UntilDone(ctx, io.NewSectionReader(around, off, around.Size()-off)))
			c, err = tree.Spool(plain, 0)
			return err
		})
		return c, err
	})
	return cache
}

// withinMark stands in no path: what follows is an offset.
const withinMark = "\x00"

// key returns the key of what the slices stand in.
func (l Location) key(path string) string {
	for _, off := range l.Within {
		path += withinMark + strconv.FormatInt(off, 10)
	}
	return path
}

// Open returns the stream of the file at path, read through a cache of NewMembers.
// It need not be closed.
func (l Location) Open(members *tree.Cache, path string) tree.Content {
	at := &located{Location: l, members: members, key: l.key(path)}
	for _, s := range l.Slices {
		at.size += s.Size
		at.ends = append(at.ends, at.size)
	}
	return at
}

type located struct {
	Location
	members *tree.Cache
	key     string
	size    int64
	ends    []int64 // of the slices, in the stream
}

func (l *located) Size() int64  { return l.size }
func (l *located) Close() error { return nil }

func (l *located) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at offset %d", off)
	}
	n := 0
	err := l.members.With(context.Background(), l.key, func(c tree.Content) error {
		first := sort.Search(len(l.ends), func(i int) bool { return l.ends[i] > off })
		if first > 0 {
			off -= l.ends[first-1]
		}
		for _, s := range l.Slices[first:] {
			part := p[n:min(int64(len(p)), int64(n)+s.Size-off)]
			m, err := c.ReadAt(part, s.Off+off)
			if n += m; m < len(part) {
				return err
			}
			if n == len(p) {
				return nil
			}
			off = 0
		}
		return io.EOF
	})
	return n, err
}
