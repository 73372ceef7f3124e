package disk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"ferry/chunking/ext4"
	"ferry/chunking/fat"
)

// Range is a run of an image file's bytes.
type Range struct{ Off, Size int64 }

// Stream is a logical run of an image's bytes: a file in it, or metadata of a kind.
type Stream struct {
	// Name is the number of the volume and the path of a file in it, as in
	// "1/etc/os-release"; or, of what is no file, the number, a colon and what it is,
	// as in "1:inode table".
	Name   string
	Ranges []Range // in the order of the stream
}

// IsFree reports whether a stream of that name, perhaps within a container file, is of
// free blocks: what is left of deleted files.
func IsFree(name string) bool {
	for part := range strings.SplitSeq(name, "!") {
		if number, rest, ok := strings.Cut(part, ":"); ok && (rest == areaFree || strings.HasPrefix(rest, areaFree+" at ") || strings.HasPrefix(rest, areaFree+",")) {
			if _, err := strconv.Atoi(number); err == nil {
				return true
			}
		}
	}
	return false
}

// areaFree is what free blocks are called.
const areaFree = "free"

// Bounds of what is split; larger images stay as they are.
const (
	maxStreams = 1 << 20
	maxRanges  = 1 << 20
	maxNames   = 64 << 20 // bytes

	// minStream is how many bytes a stream of its own has; smaller files are gathered.
	minStream = 512
	// minArea is that of metadata and of free runs: what is gathered must be made
	// again as a whole when any of it changes.
	minArea = 64 << 10
	// areaGrid divides what is free or not known, so that a change touches one part.
	areaGrid = 32 << 20
	// grid is what is told apart from zeros, in bytes.
	grid = 4096
)

var errTooMany = errors.New("too many pieces")

// Split says which bytes of an image belong together. No two ranges overlap, and what
// is in none is zeros. A file of a volume has its bytes as far as they stand in the
// image; holes have none. Streams come in the order in which they begin in the image. Errors match
// [ErrFormat], those of packages vhdx, vhd and qcow2, and others for an image that is damaged;
// its bytes are then to be taken as they are. Memory is about 50 bytes for each run of
// a file.
func Split(ctx context.Context, r io.ReaderAt, size int64) ([]Stream, error) {
	m, err := Open(r, size)
	if err != nil {
		return nil, err
	}
	s := &splitter{m: m, numbers: map[string]int{}}
	if err := s.claim(ctx); err != nil {
		return nil, err
	}
	return s.streams(ctx)
}

// claim is a run of the file that a stream wants.
type claim struct {
	Range
	stream int
	order  int  // of claims
	sparse bool // only what is not zeros
}

type splitter struct {
	m       *Image
	names   []string
	numbers map[string]int // of streams that are gathered, by name
	letters int            // of names
	claims  []claim
	err     error
}

// stream begins a stream and returns its number.
func (s *splitter) stream(name string) int {
	if s.letters += len(name); (len(s.names) == maxStreams || s.letters > maxNames) && s.err == nil {
		s.err = fmt.Errorf("%w: streams", errTooMany)
	}
	if s.err != nil && len(s.names) > 0 {
		return 0
	}
	s.names = append(s.names, name)
	return len(s.names) - 1
}

// gathered returns the stream of that name, which is begun if it is not there.
func (s *splitter) gathered(name string) int {
	n, ok := s.numbers[name]
	if !ok {
		n = s.stream(name)
		s.numbers[name] = n
	}
	return n
}

// own claims a run of the file itself.
func (s *splitter) own(stream int, g Range, sparse bool) {
	if len(s.claims) == maxRanges && s.err == nil {
		s.err = fmt.Errorf("%w: ranges", errTooMany)
	}
	if s.err == nil && g.Size > 0 && g.Off >= 0 && g.Size <= s.m.size && g.Off <= s.m.size-g.Size {
		s.claims = append(s.claims, claim{g, stream, len(s.claims), sparse})
	}
}

// on claims a run of the disk.
func (s *splitter) on(stream int, off, size int64, sparse bool) {
	s.m.where(off, size, func(g Range) { s.own(stream, g, sparse) })
}

// claim claims what is known.
func (s *splitter) claim(ctx context.Context) error {
	if d := s.m.Virtual; d != nil {
		for _, a := range d.Structures() {
			s.own(s.gathered(":"+a.Name), Range{a.Off, a.Size}, true)
		}
	}
	if t := s.m.Table; t != nil {
		for _, a := range t.Areas {
			s.on(s.gathered(":partition table"), a.Off, a.Size, false)
		}
	}
	for _, v := range s.m.Volumes {
		var err error
		switch {
		case v.Ext4 != nil:
			err = s.ext4(ctx, v)
		case v.FAT != nil:
			err = s.fat(ctx, v)
		}
		if err != nil && (ctx.Err() != nil || !errors.Is(err, ext4.ErrInvalid) && !errors.Is(err, ext4.ErrUnsupported) && !errors.Is(err, fat.ErrInvalid)) {
			return err
		}
		if s.err != nil {
			return s.err
		}
	}
	return nil
}

// area claims metadata or free blocks of a volume: a stream of their own where they
// are many.
func (s *splitter) area(v *Volume, kind string, off, size int64, sparse bool) {
	name := fmt.Sprintf("%d:%s", v.Number, kind)
	if size < minArea {
		s.on(s.gathered(name), v.Off+off, size, sparse)
		return
	}
	s.on(s.stream(fmt.Sprintf("%s at %#x", name, off)), v.Off+off, size, sparse)
}

func (s *splitter) ext4(ctx context.Context, v *Volume) error {
	areas, err := v.Ext4.Areas(ctx)
	if err != nil {
		return err
	}
	for _, a := range areas {
		if s.area(v, a.Kind.String(), a.Off, a.Size, true); s.err != nil {
			return s.err
		}
	}
	folders, extents := s.gathered(fmt.Sprintf("%d:folders", v.Number)), s.gathered(fmt.Sprintf("%d:extents", v.Number))
	seen := map[uint32]bool{}
	err = v.Ext4.Walk(ctx, func(n *ext4.Node) error {
		if n.Links > 1 && !n.IsDir() {
			if seen[n.Inode] {
				return nil
			}
			seen[n.Inode] = true
		}
		for _, e := range n.Meta {
			s.on(extents, v.Off+e.Disk, e.Size, false)
		}
		if n.IsDir() {
			for _, e := range n.Extents {
				s.on(folders, v.Off+e.Disk, e.Size, false)
			}
			return s.err
		}
		size := int64(0)
		eachRun(n, func(_, size0 int64) { size += size0 })
		if size == 0 {
			return s.err
		}
		stream := 0
		if size < minStream || !n.IsRegular() {
			stream = s.gathered(fmt.Sprintf("%d:small files", v.Number))
		} else {
			stream = s.stream(fmt.Sprintf("%d/%s", v.Number, n.Path))
		}
		eachRun(n, func(off, size int64) { s.on(stream, v.Off+off, size, false) })
		return s.err
	})
	if err != nil {
		return err
	}
	return v.Ext4.Free(func(off, size int64) error {
		for end := off + size; off < end && s.err == nil; {
			n := min(areaGrid-off%areaGrid, end-off)
			s.area(v, areaFree, off, n, true)
			off += n
		}
		return s.err
	})
}

// eachRun calls fn for each run of a file's bytes that stands on the disk.
func eachRun(n *ext4.Node, fn func(off, size int64)) {
	for _, e := range n.Extents {
		if size := min(e.Size, n.Size-e.File); size > 0 && !e.Unwritten {
			fn(e.Disk, size)
		}
	}
}

func (s *splitter) fat(ctx context.Context, v *Volume) error {
	areas, err := v.FAT.Areas(ctx)
	if err != nil {
		return err
	}
	for _, a := range areas {
		s.area(v, a.Name, a.Off, a.Size, true)
	}
	return v.FAT.Walk(ctx, func(n *fat.Node) error {
		if n.IsDir || n.Size == 0 {
			return s.err
		}
		stream := 0
		if n.Size < minStream {
			stream = s.gathered(fmt.Sprintf("%d:small files", v.Number))
		} else {
			stream = s.stream(fmt.Sprintf("%d/%s", v.Number, n.Path))
		}
		for _, e := range n.Extents {
			s.on(stream, v.Off+e.Disk, min(e.Size, n.Size-e.File), false)
		}
		return s.err
	})
}

// streams gives each byte of the file to the claim that begins first.
func (s *splitter) streams(ctx context.Context) ([]Stream, error) {
	slices.SortFunc(s.claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.Off, b.Off), cmp.Compare(a.order, b.order))
	})
	f := &finder{r: s.m.file, buf: make([]byte, 1<<20)}
	var kept []claim
	keep := func(c claim) error {
		if !c.sparse {
			kept = append(kept, c)
		} else if err := f.present(ctx, c.Range, func(g Range) { kept = append(kept, claim{g, c.stream, c.order, false}) }); err != nil {
			return err
		}
		if len(kept) > maxRanges {
			return fmt.Errorf("%w: ranges", errTooMany)
		}
		return s.err
	}
	// What nobody claims is divided, so that a change touches one part of it.
	rest := func(off, end int64) error {
		for off < end {
			n := min(areaGrid-off%areaGrid, end-off)
			stream := 0
			if n < minArea {
				stream = s.gathered(":rest")
			} else {
				stream = s.stream(fmt.Sprintf(":rest at %#x", off))
			}
			if err := keep(claim{Range{off, n}, stream, len(s.claims), true}); err != nil {
				return err
			}
			off += n
		}
		return nil
	}
	end := int64(0)
	for _, c := range s.claims {
		if c.Off > end {
			if err := rest(end, c.Off); err != nil {
				return nil, err
			}
		}
		if over := end - c.Off; over > 0 {
			if c.Off, c.Size = end, c.Size-over; c.Size <= 0 {
				continue // another claims it, too
			}
		}
		end = c.Off + c.Size
		if err := keep(c); err != nil {
			return nil, err
		}
	}
	if err := rest(end, s.m.size); err != nil {
		return nil, err
	}
	return s.group(kept), nil
}

// group makes streams of claims that are disjoint.
func (s *splitter) group(claims []claim) []Stream {
	begins := make([]int64, len(s.names))
	for i := range begins {
		begins[i] = s.m.size
	}
	for _, c := range claims {
		begins[c.stream] = min(begins[c.stream], c.Off)
	}
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(begins[a.stream], begins[b.stream]), cmp.Compare(a.stream, b.stream), cmp.Compare(a.order, b.order), cmp.Compare(a.Off, b.Off))
	})
	var streams []Stream
	last := -1
	for _, c := range claims {
		if c.stream != last {
			last = c.stream
			streams = append(streams, Stream{Name: s.names[last]})
		}
		t := &streams[len(streams)-1]
		if n := len(t.Ranges); n > 0 && t.Ranges[n-1].Off+t.Ranges[n-1].Size == c.Off {
			t.Ranges[n-1].Size += c.Size
		} else {
			t.Ranges = append(t.Ranges, c.Range)
		}
	}
	return streams
}

// finder tells zeros from other bytes.
type finder struct {
	r   io.ReaderAt
	buf []byte
}

var zeros [grid]byte

// present calls fn for each run of blocks in g that are not all zeros, in order.
func (f *finder) present(ctx context.Context, g Range, fn func(Range)) error {
	run := Range{g.Off, 0}
	for off := g.Off; off < g.Off+g.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := f.buf[:min(int64(len(f.buf))-off%grid, g.Off+g.Size-off)]
		if n, err := f.r.ReadAt(part, off); n < len(part) {
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		for len(part) > 0 {
			n := int(min(grid-off%grid, int64(len(part))))
			if bytes.Equal(part[:n], zeros[:n]) {
				if run.Size > 0 {
					fn(run)
				}
				run = Range{off + int64(n), 0}
			} else {
				run.Size += int64(n)
			}
			part = part[n:]
			off += int64(n)
		}
	}
	if run.Size > 0 {
		fn(run)
	}
	return nil
}
