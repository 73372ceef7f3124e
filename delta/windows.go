package delta

import (
	"slices"

	"ferry/cas"
	"ferry/delta/codec"
	"ferry/manifest"
)

// Sizes of windows in bytes, measured in docs/design.md, "Windows of a delta".
const (
	wholeSize  = codec.MaxSize // files up to this size are one window, coded against a whole file
	windowSize = 16 << 20      // plain bytes of a window of a larger file, or of several small ones
	dictSize   = 32 << 20      // base bytes that such a window is coded against
	wholeDict  = 2 << 20       // base files up to this size are taken whole
	dictSlack  = 1 << 20       // base bytes taken before and behind the likely place
	dictGrid   = 64 << 10
)

// draft is a window being gathered: pieces of target files, and the pieces of one
// base file that they are coded against. A window never draws on several base
// files: then one that a site has changed would spoil the others' update too.
// Pieces that resemble no base file share windows.
type draft struct {
	mask   uint64
	pieces []piece
	origin cas.Digest // base file; zero for none
	dict   []extent   // of origin, sorted and apart
	plain  int64
	packed bool // it may be unpacked
}

// piece is a run of bytes of a target file.
type piece struct {
	entry int
	off   int64
	size  int64
}

// extent is a run of bytes of a base file.
type extent struct{ off, end int64 }

// drafter distributes literal bytes over windows.
type drafter struct {
	entries []manifest.Entry
	drafts  []*draft
	cur     *draft
	placed  map[cas.Digest]placed
}

// placed is where a chunk stands in a window.
type placed struct {
	window int
	off    int64
	mask   uint64
}

// begin starts the windows of programs for the bases in mask.
func (d *drafter) begin(mask uint64) {
	if d.cur != nil && d.cur.mask == mask {
		return
	}
	d.cur = &draft{mask: mask}
	d.drafts = append(d.drafts, d.cur)
}

// file turns the segments of a target file into instructions. sourceOf gives the
// number of a base file's source.
func (d *drafter) file(entry int, mask uint64, segs []segment, sourceOf func(cas.Digest) int) []op {
	if origin := d.wholeOrigin(entry, mask, segs); origin != nil {
		return []op{d.whole(entry, mask, segs, origin)}
	}
	d.begin(mask)
	var ops []op
	shift, known := int64(0), false // base offset − target offset, where last seen
	at := int64(0)
	for _, s := range segs {
		switch s.kind {
		case opZero:
			ops = append(ops, op{kind: opZero, size: s.size})
		case opCopy:
			ops = append(ops, op{kind: opCopy, ref: sourceOf(s.from), off: s.off, size: s.size})
			shift, known = s.off-at, true
		case opWindow:
			off := s.at
			for _, c := range s.keys {
				o := d.chunk(entry, off, c, d.likely(entry, off, c.size, s.origin, shift, known))
				ops = appendOp(ops, o)
				off += c.size
			}
		}
		at += s.size
	}
	return ops
}

// wholeOrigin returns the base file that a target file is best coded against as a
// whole; nil if it is too large, resembles none, or if much of it stands elsewhere.
func (d *drafter) wholeOrigin(entry int, mask uint64, segs []segment) *manifest.Entry {
	size := d.entries[entry].Size
	var origin *manifest.Entry
	for _, s := range segs {
		if s.kind == opWindow {
			origin = s.origin
		}
	}
	if origin == nil || size > wholeSize || origin.Size > wholeSize || origin.Size == 0 {
		return nil
	}
	elsewhere := int64(0)
	for _, s := range segs {
		if s.kind == opCopy && s.from != origin.Digest {
			elsewhere += s.size
		}
		for _, c := range s.keys {
			if p, ok := d.placed[c.key]; ok && p.mask&mask == mask {
				elsewhere += c.size
			}
		}
	}
	if elsewhere > size/8 {
		return nil
	}
	return origin
}

// whole places a target file in a window of its own.
func (d *drafter) whole(entry int, mask uint64, segs []segment, origin *manifest.Entry) op {
	size := d.entries[entry].Size
	window := len(d.drafts)
	d.drafts = append(d.drafts, &draft{
		mask: mask, origin: origin.Digest, dict: []extent{{0, origin.Size}},
		pieces: []piece{{entry, 0, size}}, plain: size,
	})
	d.cur = nil
	for _, s := range segs {
		off := s.at
		for _, c := range s.keys {
			if _, ok := d.placed[c.key]; !ok {
				d.placed[c.key] = placed{window, off, mask}
			}
			off += c.size
		}
	}
	return op{kind: opWindow, ref: window, size: size}
}

func appendOp(ops []op, o op) []op {
	if n := len(ops); n > 0 {
		if last := &ops[n-1]; last.kind == o.kind && last.ref == o.ref && last.off+last.size == o.off {
			last.size += o.size
			return ops
		}
	}
	return append(ops, o)
}

// wanted is a base piece that a chunk should be coded against.
type wanted struct {
	file cas.Digest
	extent
}

// likely returns the base piece that the bytes [off, off+size) of a target file
// most likely resemble; the zero value for none.
func (d *drafter) likely(entry int, off, size int64, origin *manifest.Entry, shift int64, known bool) wanted {
	if origin == nil || origin.Size == 0 {
		return wanted{}
	}
	if origin.Size <= wholeDict {
		return wanted{origin.Digest, extent{0, origin.Size}}
	}
	pos := off + shift
	if !known {
		pos = int64(float64(off) / float64(d.entries[entry].Size) * float64(origin.Size))
	}
	lo := max(0, (pos-dictSlack)/dictGrid*dictGrid)
	hi := min(origin.Size, (pos+size+dictSlack)/dictGrid*dictGrid)
	if lo >= hi {
		return wanted{}
	}
	return wanted{origin.Digest, extent{lo, hi}}
}

// chunk places a chunk in a window, unless it stands in one already.
func (d *drafter) chunk(entry int, off int64, c keyed, w wanted) op {
	if p, ok := d.placed[c.key]; ok && p.mask&d.cur.mask == d.cur.mask {
		return op{kind: opWindow, ref: p.window, off: p.off, size: c.size}
	}
	if d.cur.plain > 0 && (d.cur.origin != w.file || d.cur.plain+c.size > windowSize || total(union(d.cur.dict, w.extent)) > dictSize) {
		mask := d.cur.mask
		d.cur = nil
		d.begin(mask)
	}
	d.cur.origin, d.cur.dict = w.file, union(d.cur.dict, w.extent)
	o := op{kind: opWindow, ref: len(d.drafts) - 1, off: d.cur.plain, size: c.size}
	if n := len(d.cur.pieces); n > 0 && d.cur.pieces[n-1].entry == entry && d.cur.pieces[n-1].off+d.cur.pieces[n-1].size == off {
		d.cur.pieces[n-1].size += c.size
	} else {
		d.cur.pieces = append(d.cur.pieces, piece{entry, off, c.size})
	}
	d.placed[c.key] = placed{o.ref, o.off, d.cur.mask}
	d.cur.plain += c.size
	return o
}

func total(extents []extent) int64 {
	sum := int64(0)
	for _, e := range extents {
		sum += e.end - e.off
	}
	return sum
}

// union returns extents with e.
func union(extents []extent, e extent) []extent {
	if e.end <= e.off {
		return extents
	}
	return joined(append(slices.Clone(extents), e))
}

// spans lists the dictionary of a draft, in the order in which its bytes are
// joined.
func (d *draft) spans(sourceOf func(cas.Digest) int) []span {
	var spans []span
	for _, e := range d.dict {
		spans = append(spans, span{sourceOf(d.origin), e.off, e.end - e.off})
	}
	return spans
}
