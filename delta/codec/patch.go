package codec

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// streams are the parts of a patch, packed apart because each has statistics of
// its own.
type streams struct {
	gaps     []byte // literal bytes before each match
	lengths  []byte // of the matches
	seeks    []byte // from the end of the match before, in the base
	fixGaps  []byte // bytes between what is put right
	fixBytes []byte // differences of bytes
	fixRefs  []byte // differences of predicted fields
	literals []byte
}

// rules returns all but the literals, in the order of the format.
func (s *streams) rules() []*[]byte {
	return []*[]byte{&s.gaps, &s.lengths, &s.seeks, &s.fixGaps, &s.fixBytes, &s.fixRefs}
}

// minMatch is the least length in bytes of a match in a patch.
const minMatch = 8

// patch is a patch that is not packed yet.
type patch struct {
	matches int
	guide   []byte
	streams
}

// size is about what a patch takes when packed with others.
func (p *patch) size() int {
	n := len(p.guide) + len(p.literals)
	for _, b := range p.rules() {
		n += len(*b)
	}
	return n
}

// encodePatch appends a patch that makes target of base; nothing if there is none that a
// reader takes.
func encodePatch(dst, target, base []byte, effort Effort) []byte {
	predicted, plain := makePatch(target, base, effort)
	if !predicted.fits(len(target)) {
		return dst
	}
	packed := predicted.pack(nil, base, effort)
	if plain != nil && len(packed) < fewBytes && plain.fits(len(target)) {
		// What the guide takes may be more than it saves.
		if other := plain.pack(nil, base, effort); len(other) < len(packed) {
			packed = other
		}
	}
	return append(dst, packed...)
}

// maxRules bounds what a patch of a target of size bytes says besides its literals: more
// is no patch.
func maxRules(size int) int { return size/2 + 64<<10 }

// fits reports whether a reader takes the patch.
func (p *patch) fits(size int) bool {
	n := 0
	for _, b := range p.rules() {
		n += len(*b)
	}
	return n <= maxRules(size)
}

// makePatch returns a patch, and if that predicts references, one that does not.
func makePatch(target, base []byte, effort Effort) (best, plain *patch) {
	a := newAligner(base, effort)
	matches := a.align(target)
	t := newPairing(target, base)
	if t == nil {
		return patchOf(target, base, matches, nil), nil
	}
	first := matches
	for range effort.passes() {
		a.index(t.translate(matches))
		matches = a.align(target)
	}
	best = patchOf(target, base, matches, t.guide(matches, newAddrMap(matches, t.old, t.new)))
	if best.size() < 4*fewBytes {
		plain = patchOf(target, base, first, nil)
	}
	return best, plain
}

// fewBytes is the size of a patch up to which a guide's size matters.
const fewBytes = 16 << 10

// guide is what a predictor is made of, besides base and matches.
type guide struct {
	old, new *image
	origins  []origin
	lists    [][]uint8
	blocks   []uint8
}

// patchOf codes target by matches and, if a guide is given, predictions.
func patchOf(target, base []byte, matches []match, g *guide) *patch {
	matches = kept(matches)
	out := &patch{matches: len(matches), guide: g.encode()}
	s := &out.streams
	end, from := 0, 0
	for _, m := range matches {
		s.gaps = binary.AppendUvarint(s.gaps, uint64(m.at-end))
		s.lengths = binary.AppendUvarint(s.lengths, uint64(m.n))
		s.seeks = binary.AppendVarint(s.seeks, int64(m.from-from))
		s.literals = append(s.literals, target[end:m.at]...)
		end, from = m.at+m.n, m.from+m.n
	}
	s.literals = append(s.literals, target[end:]...)

	f := fixWriter{s: s, target: target, base: base}
	each := f.begin
	if g != nil {
		p := g.predictor(base, newAddrMap(matches, g.old, g.new))
		p.start, p.truth = f.begin, f.field
		each = p.match
	}
	for _, m := range matches {
		each(m)
	}
	f.upTo(f.m.at + f.m.n)
	return out
}

// pack appends the packed patch.
func (p *patch) pack(dst, base []byte, effort Effort) []byte {
	dst = binary.AppendUvarint(dst, uint64(p.matches))
	dst = appendStream(dst, p.guide, nil, effort)
	for _, b := range p.rules() {
		dst = appendStream(dst, *b, nil, effort)
	}
	return appendStream(dst, p.literals, base, effort)
}

// kept drops matches that are not worth their cost.
func kept(matches []match) []match {
	return slices.DeleteFunc(slices.Clone(matches), func(m match) bool { return m.n < minMatch })
}

// fixWriter notes where what is predicted differs from the target.
type fixWriter struct {
	s      *streams
	target []byte
	base   []byte
	m      match
	at     int // up to where bytes were compared
	last   int // end of what was put right last
}

// begin starts a run of bytes, after finishing the one before.
func (f *fixWriter) begin(m match) {
	f.upTo(f.m.at + f.m.n)
	f.m, f.at = m, m.at
}

// upTo compares bytes up to a place in the target.
func (f *fixWriter) upTo(end int) {
	shift := f.m.from - f.m.at
	for f.at < end {
		f.at += equalFront(f.target[f.at:end], f.base[f.at+shift:end+shift])
		if f.at == end {
			return
		}
		f.gap(f.at)
		f.s.fixBytes = append(f.s.fixBytes, f.target[f.at]-f.base[f.at+shift])
		f.at++
		f.last = f.at
	}
}

func (f *fixWriter) gap(at int) {
	f.s.fixGaps = binary.AppendUvarint(f.s.fixGaps, uint64(at-f.last))
}

func (f *fixWriter) field(at int, predicted uint32) uint32 {
	f.upTo(at)
	t := binary.LittleEndian.Uint32(f.target[at:])
	if t != predicted {
		f.gap(at)
		f.s.fixRefs = binary.AppendVarint(f.s.fixRefs, int64(int32(t-predicted)))
		f.last = at + 4
	}
	f.at = at + 4
	return t
}

// encode returns the guide's bytes: none of no guide.
func (g *guide) encode() []byte {
	if g == nil {
		return nil
	}
	dst := g.old.encode(nil)
	dst = g.new.encode(dst)
	dst = binary.AppendUvarint(dst, uint64(len(g.origins)))
	for _, o := range g.origins {
		dst = append(dst, byte(o.kind))
		dst = binary.AppendUvarint(dst, uint64(o.old))
		dst = binary.AppendUvarint(dst, uint64(o.new))
	}
	dst = binary.AppendUvarint(dst, uint64(len(g.lists)))
	for _, l := range g.lists {
		dst = binary.AppendUvarint(dst, uint64(len(l)))
		dst = append(dst, l...)
	}
	return append(dst, g.blocks...)
}

// maxGuide bounds what a guide takes besides its blocks, in bytes.
const maxGuide = 1 << 20

func decodeGuide(data []byte, base, size int) (*guide, error) {
	if len(data) == 0 {
		return nil, nil
	}
	r := &reader{b: data}
	g := &guide{old: takeImage(r, base)}
	g.new = takeImage(r, size)
	for range r.upTo(maxOrigins) {
		o := origin{kind: originKind(r.byte())}
		o.old, o.new = uint32(r.upTo(maxAddress)), uint32(r.upTo(maxAddress))
		if r.err == nil && (o.kind > fromMemory || o.old > g.old.extent) {
			r.fail("origin outside its image")
		}
		g.origins = append(g.origins, o)
	}
	for range r.upTo(maxLists) {
		list := r.bytes(r.upTo(maxList))
		for i, k := range list {
			if int(k) >= len(g.origins) || i > 0 && k <= list[i-1] {
				r.fail("list of unknown origins")
			}
		}
		g.lists = append(g.lists, list)
	}
	g.blocks = r.b
	for _, b := range g.blocks {
		if int(b) > len(g.lists) {
			r.fail("unknown list of origins")
		}
	}
	return g, r.err
}

// decodePatch appends the size bytes that a patch makes of base.
func decodePatch(dst, packed, base []byte, size int) ([]byte, error) {
	r := &reader{b: packed}
	p := &patch{matches: r.upTo(uint64(size)/minMatch + 1)}
	p.guide = r.stream(maxGuide + size>>blockBits)
	limit := maxRules(size)
	for _, b := range p.rules() {
		*b = r.stream(limit)
		limit -= len(*b)
	}
	literals, n := r.streamReader(size, base)
	if len(r.b) != 0 {
		r.fail("more bytes behind its end")
	}
	if r.err != nil {
		return nil, r.err
	}
	return p.apply(dst, base, size, literals, n)
}

// apply appends the size bytes that a patch makes of base; of its n literals, it
// reads from literals.
func (p *patch) apply(dst, base []byte, size int, literals io.Reader, n int) ([]byte, error) {
	g, err := decodeGuide(p.guide, len(base), size)
	if err != nil {
		return nil, err
	}
	r := &reader{}
	matches := takeMatches(r, &p.streams, p.matches, n, len(base), size)
	if r.err != nil {
		return nil, r.err
	}
	start := len(dst)
	dst = slices.Grow(dst, size)[:start+size]
	out := dst[start:]
	end := 0
	for _, m := range append(matches, match{at: size}) {
		if _, err := io.ReadFull(literals, out[end:m.at]); err != nil {
			return nil, fmt.Errorf("%w: literals: %w", ErrInvalid, err)
		}
		copy(out[m.at:m.at+m.n], base[m.from:])
		end = m.at + m.n
	}
	f := newFixReader(&p.streams, out)
	if g != nil {
		p := g.predictor(base, newAddrMap(matches, g.old, g.new))
		p.start = func(match) {}
		p.truth = f.field
		for _, m := range matches {
			p.match(m)
		}
	}
	f.upTo(size)
	return dst, f.close()
}

// takeMatches reads n matches, within the base and the target.
func takeMatches(r *reader, s *streams, n, literals, base, size int) []match {
	if r.err != nil {
		return nil
	}
	gaps, lengths, seeks := &reader{b: s.gaps}, &reader{b: s.lengths}, &reader{b: s.seeks}
	matches := make([]match, 0, min(n, len(s.lengths)))
	end, from := 0, 0
	for range n {
		gap, length, seek := gaps.upTo(uint64(literals)), lengths.upTo(uint64(size)), seeks.varint()
		at := end + gap
		pos := int64(from) + seek
		if gaps.err != nil || lengths.err != nil || seeks.err != nil || length < minMatch || length > size-at || pos < 0 || pos > int64(base-length) {
			r.fail("match outside base or target")
			return nil
		}
		matches = append(matches, match{at, int(pos), length})
		end, from, literals = at+length, int(pos)+length, literals-gap
	}
	if literals != size-end || len(gaps.b)+len(lengths.b)+len(seeks.b) != 0 {
		r.fail("streams do not make up the target")
		return nil
	}
	return matches
}

// fixReader puts right what is predicted. Its first error sticks.
type fixReader struct {
	out        []byte
	gaps, refs reader
	bytes      []byte
	next       int // place of the next correction; len(out) behind the last
}

func newFixReader(s *streams, out []byte) *fixReader {
	f := &fixReader{out: out, gaps: reader{b: s.fixGaps}, refs: reader{b: s.fixRefs}, bytes: s.fixBytes}
	f.advance(0)
	return f
}

// advance finds the correction that comes after one that ends at end.
func (f *fixReader) advance(end int) {
	f.next = len(f.out)
	if len(f.gaps.b) == 0 {
		return
	}
	if gap := f.gaps.upTo(uint64(len(f.out))); gap < len(f.out)-end {
		f.next = end + gap
	} else {
		f.gaps.fail("correction outside the target")
	}
}

// upTo corrects the bytes up to end.
func (f *fixReader) upTo(end int) {
	for f.next < end {
		if len(f.bytes) == 0 {
			f.gaps.fail("corrections are cut off")
			f.next = len(f.out)
			return
		}
		f.out[f.next] += f.bytes[0]
		f.bytes = f.bytes[1:]
		f.advance(f.next + 1)
	}
}

// field writes a predicted field, corrected, and returns it.
func (f *fixReader) field(at int, predicted uint32) uint32 {
	f.upTo(at)
	if f.next == at {
		predicted += uint32(f.refs.varint())
		f.advance(at + 4)
	}
	binary.LittleEndian.PutUint32(f.out[at:], predicted)
	return predicted
}

func (f *fixReader) close() error {
	if f.gaps.err == nil && f.refs.err == nil && len(f.gaps.b)+len(f.refs.b)+len(f.bytes) > 0 {
		f.gaps.fail("corrections are left over")
	}
	if f.gaps.err != nil {
		return f.gaps.err
	}
	return f.refs.err
}
