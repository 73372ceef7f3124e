package delta

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"ferry/cas"
	"ferry/delta/codec"
	"ferry/manifest"
)

// plan says how the target's files are put together from the base's files and
// the payload. A file of the target without a program in some base stands in
// that base at the same path with the same content.
type plan struct {
	target   cas.Digest // manifest id
	bases    []planBase
	sources  []source
	windows  []window
	streams  []int64 // sizes in bytes of streams of the target's container files
	programs []program
}

// planBase is a version that the delta starts from.
type planBase struct {
	manifest cas.Digest
	label    string
}

// source is a file of the bases that is read from, or a stream of a container file.
type source struct {
	digest cas.Digest // of a stream, an identifier only
	size   int64
	places []sourcePlace // for each base; the path is empty where it is not needed
}

// sourcePlace is where a source stands in a base.
type sourcePlace struct {
	path string
	at   *manifest.Location // of a stream, in the file
}

// file reports whether the place is that of a file.
func (p sourcePlace) file() bool { return p.path != "" && p.at == nil }

// file reports whether the source is a file in that base.
func (s source) file(base int) bool { return s.places[base].file() }

// window is a run of new bytes, coded on its own against pieces of sources.
type window struct {
	kind  codec.Kind
	plain int       // bytes
	coded int       // bytes
	check checkSum  // of the plain bytes
	dict  []span    // base bytes that it is coded against, one after the other
	at    payloadAt // where the coded bytes stand; follows from the windows before
	// Of grouped windows, the first has the coded bytes of all: leader is its number,
	// and item what this one is among them. They follow from the windows before.
	leader, item int
}

// dictSize returns how many base bytes the window is coded against.
func (w window) dictSize() (sum int64) {
	for _, s := range w.dict {
		sum += s.size
	}
	return sum
}

// checkSum is the front of a digest: it tells which window is damaged. That a
// file is right is told by its whole digest.
type checkSum [8]byte

func checkOf(plain []byte) checkSum {
	sum := cas.Sum(plain)
	return checkSum(sum[:8])
}

// payloadAt is a place in the payload.
type payloadAt struct {
	file int // number of the payload file
	off  int64
}

// payloadSize is the length in bytes from which a payload file takes no more
// windows.
const payloadSize = 4 << 20

// next returns where a window stands that follows one of n coded bytes at p.
func (p payloadAt) next(n int) payloadAt {
	p.off += int64(n)
	if p.off >= payloadSize {
		return payloadAt{file: p.file + 1}
	}
	return p
}

// span is a piece of a source.
type span struct {
	source int
	off    int64
	size   int64
}

// program puts one file together, or a stream of one, for the bases in mask.
type program struct {
	entry int // index into the target's entries; behind them, into streams
	mask  uint64
	ops   []op
}

// op gives bytes of a file.
type op struct {
	kind opKind
	ref  int   // of a source, window or stream
	off  int64 // in that
	size int64

	reconstruction []byte // opDeflate: for deflate.Encode
	inner          []op   // opDeflate: gives the plain bytes
}

type opKind uint8

const (
	opCopy   opKind = 0 // bytes of a source
	opWindow opKind = 1 // bytes of a window
	opZero   opKind = 2 // zeros
	// In programs of container files only:
	opStream  opKind = 3 // bytes of a stream of the target
	opDeflate opKind = 4 // what inner gives, deflated
)

const (
	planMagic = "FRYD"
	// planVersion 2 knows container files, 3 streams whose slices are not in the order of
	// the file. The least version that will do is written.
	planVersion = 3
	// Bounds of container files.
	maxNesting  = 16
	maxLocation = 1 << 22 // slices of a stream
	maxBases    = 64
	maxPlan     = 256 << 20
	// maxInstructions bounds those of all programs: each takes 80 bytes of memory.
	maxInstructions = 1 << 22
	maxLabel        = 1 << 10
	maxPlanPath     = 16 << 10
	// maxWindow and maxDict bound what it takes to decode a window, in bytes.
	maxWindow = codec.MaxSize
	maxDict   = codec.MaxSize
)

// payloads returns the lengths in bytes of the payload files.
func (p *plan) payloads() []int64 {
	var sizes []int64
	for _, w := range p.windows {
		if w.at.file == len(sizes) {
			sizes = append(sizes, 0)
		}
		sizes[w.at.file] += int64(w.coded)
	}
	return sizes
}

// lead finds the leader of window i, and reports whether there is one.
func (p *plan) lead(i int) bool {
	w := &p.windows[i]
	switch {
	case w.kind != codec.Grouped:
	case w.coded > 0:
		w.leader, w.item = i, 0
	case i == 0 || p.windows[i-1].kind != codec.Grouped:
		return false
	default:
		w.leader, w.item = p.windows[i-1].leader, p.windows[i-1].item+1
	}
	return true
}

// eachOp calls fn for each instruction, the inner ones too.
func eachOp(ops []op, fn func(op)) {
	for _, o := range ops {
		fn(o)
		eachOp(o.inner, fn)
	}
}

// encode returns the coded plan, as docs/format.md has it.
func (p *plan) encode() []byte {
	version := p.version()
	b := append([]byte(planMagic), version)
	b = append(b, p.target[:]...)
	b = binary.AppendUvarint(b, uint64(len(p.bases)))
	for _, base := range p.bases {
		b = append(b, base.manifest[:]...)
		b = appendString(b, base.label)
	}
	b = binary.AppendUvarint(b, uint64(len(p.sources)))
	for _, s := range p.sources {
		b = append(b, s.digest[:]...)
		b = binary.AppendUvarint(b, uint64(s.size))
		for _, at := range s.places {
			b = appendString(b, at.path)
			if version > 1 && at.path != "" {
				b = appendLocation(b, at.at, version)
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(p.windows)))
	for _, w := range p.windows {
		b = append(b, byte(w.kind))
		b = binary.AppendUvarint(b, uint64(w.plain))
		b = binary.AppendUvarint(b, uint64(w.coded))
		b = append(b, w.check[:]...)
		b = binary.AppendUvarint(b, uint64(len(w.dict)))
		for _, s := range w.dict {
			b = appendNumbers(b, uint64(s.source), uint64(s.off), uint64(s.size))
		}
	}
	if version > 1 {
		b = binary.AppendUvarint(b, uint64(len(p.streams)))
		b = appendNumbers(b, p.streamSizes()...)
	}
	b = binary.AppendUvarint(b, uint64(len(p.programs)))
	prev := 0
	for _, g := range p.programs {
		b = appendNumbers(b, uint64(g.entry-prev), g.mask)
		prev = g.entry
		b = appendOps(b, g.ops)
	}
	return b
}

func (p *plan) streamSizes() []uint64 {
	sizes := make([]uint64, len(p.streams))
	for i, n := range p.streams {
		sizes[i] = uint64(n)
	}
	return sizes
}

// version returns the version that can say it all.
func (p *plan) version() byte {
	switch {
	case slices.ContainsFunc(p.sources, func(s source) bool {
		return slices.ContainsFunc(s.places, func(at sourcePlace) bool { return at.at != nil && !ascending(at.at.Slices) })
	}):
		return 3
	case p.containers():
		return 2
	}
	return 1
}

// ascending reports whether slices are in the order of what they are slices of.
func ascending(all []manifest.Slice) bool {
	return slices.IsSortedFunc(all, func(a, b manifest.Slice) int { return cmp.Compare(a.Off, b.Off) })
}

// containers reports whether the plan reads or makes container files by their streams.
func (p *plan) containers() bool {
	return len(p.streams) > 0 || slices.ContainsFunc(p.sources, func(s source) bool {
		return slices.ContainsFunc(s.places, func(at sourcePlace) bool { return at.at != nil })
	})
}

func appendOps(b []byte, ops []op) []byte {
	b = binary.AppendUvarint(b, uint64(len(ops)))
	for _, o := range ops {
		b = append(b, byte(o.kind))
		if o.kind == opCopy || o.kind == opWindow || o.kind == opStream {
			b = appendNumbers(b, uint64(o.ref), uint64(o.off))
		}
		b = binary.AppendUvarint(b, uint64(o.size))
		if o.kind == opDeflate {
			b = binary.AppendUvarint(b, uint64(len(o.reconstruction)))
			b = append(b, o.reconstruction...)
			b = appendOps(b, o.inner)
		}
	}
	return b
}

// appendLocation codes where a stream stands: its slices as the bytes between them,
// and their sizes. Nothing is a whole file.
func appendLocation(b []byte, l *manifest.Location, version byte) []byte {
	if l == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(l.Slices)))
	end := int64(0)
	for _, s := range l.Slices {
		if version < 3 {
			b = binary.AppendUvarint(b, uint64(s.Off-end))
		} else {
			b = binary.AppendVarint(b, s.Off-end)
		}
		b = binary.AppendUvarint(b, uint64(s.Size))
		end = s.Off + s.Size
	}
	b = binary.AppendUvarint(b, uint64(len(l.Within)))
	for _, off := range l.Within {
		b = binary.AppendUvarint(b, uint64(off))
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendNumbers(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// decodePlan parses a coded plan for a target of nEntries entries. Errors match
// ErrInvalid; every reference in the result is within bounds.
func decodePlan(data []byte, nEntries int) (*plan, error) {
	d := planReader{b: data, what: planName}
	version := d.header(planMagic, planVersion)
	p := &plan{target: d.digest()}
	for range d.countUpTo(33, maxBases) {
		p.bases = append(p.bases, planBase{d.digest(), d.string(maxLabel)})
	}
	if len(p.bases) == 0 {
		d.fail("no base")
	}
	for range d.count(33 + len(p.bases)) {
		s := source{digest: d.digest(), size: d.size()}
		for range p.bases {
			at := sourcePlace{path: d.string(maxPlanPath)}
			if version > 1 && at.path != "" {
				at.at = d.location(s.size, version)
			}
			s.places = append(s.places, at)
		}
		p.sources = append(p.sources, s)
	}
	at := payloadAt{}
	for range d.count(12) {
		w := d.window(p)
		w.at = at
		at = at.next(w.coded)
		p.windows = append(p.windows, w)
		if !p.lead(len(p.windows) - 1) {
			d.fail("grouped window of no group")
		}
	}
	if version > 1 {
		for range d.count(1) {
			p.streams = append(p.streams, d.size())
		}
	}
	prev := 0
	for range d.count(3) {
		g := d.program(p, prev, nEntries)
		if d.err != nil {
			break
		}
		prev = g.entry
		p.programs = append(p.programs, g)
	}
	if len(d.b) != 0 {
		d.fail("more bytes behind its end")
	}
	if d.err == nil && !p.whole(nEntries) {
		d.fail("a program for a base that lacks what it reads")
	}
	if d.err != nil {
		return nil, d.err
	}
	return p, nil
}

// whole reports whether each program has all that it reads in each base that it is for.
func (p *plan) whole(nEntries int) bool {
	in := make([]uint64, len(p.sources)) // the bases that have a source
	for i, s := range p.sources {
		for b, at := range s.places {
			if at.path != "" {
				in[i] |= 1 << b
			}
		}
	}
	windows := make([]uint64, len(p.windows)) // those that have what a window is coded against
	for i, w := range p.windows {
		windows[i] = ^uint64(0)
		for _, s := range w.dict {
			windows[i] &= in[s.source]
		}
	}
	streams := make([]uint64, len(p.streams)) // those that a stream is made for
	for _, g := range p.programs {
		if g.entry >= nEntries {
			streams[g.entry-nEntries] |= g.mask
		}
	}
	for _, g := range p.programs {
		missing := uint64(0)
		eachOp(g.ops, func(o op) {
			switch o.kind {
			case opCopy:
				missing |= g.mask &^ in[o.ref]
			case opWindow:
				missing |= g.mask &^ windows[o.ref]
			case opStream:
				missing |= g.mask &^ streams[o.ref]
			}
		})
		if missing != 0 {
			return false
		}
	}
	return true
}

func (d *planReader) window(p *plan) window {
	w := window{kind: codec.Kind(d.byte())}
	w.plain = int(d.upTo(maxWindow))
	w.coded = int(d.upTo(maxWindow))
	copy(w.check[:], d.bytes(len(w.check)))
	total := int64(0)
	for range d.count(3) {
		s := d.span(p)
		total += s.size
		if total > maxDict {
			d.fail("dictionary too large")
		}
		if d.err != nil {
			break
		}
		w.dict = append(w.dict, s)
	}
	return w
}

func (d *planReader) span(p *plan) span {
	s := span{source: int(d.upTo(1 << 30)), off: d.size(), size: d.size()}
	if s.source >= len(p.sources) || s.off > p.sources[s.source].size || s.size > p.sources[s.source].size-s.off {
		d.fail("piece outside its source")
	}
	return s
}

func (d *planReader) program(p *plan, prev, nEntries int) program {
	g := program{entry: prev + int(d.upTo(1<<30)), mask: d.uvarint()}
	if g.entry >= nEntries+len(p.streams) || g.mask == 0 || g.mask>>len(p.bases) != 0 && len(p.bases) < 64 {
		d.fail("program of no file or for no base")
	}
	g.ops = d.ops(p, g.entry < nEntries, 0)
	return g
}

// ops reads instructions: of a stream, those that need no stream.
func (d *planReader) ops(p *plan, file bool, depth int) (ops []op) {
	if depth > maxNesting {
		d.fail("members in members in members")
	}
	for range d.count(2) {
		o := op{kind: opKind(d.byte())}
		if !file && (o.kind == opStream || o.kind == opDeflate) {
			d.fail("a stream of streams")
		}
		switch o.kind {
		case opStream:
			o.ref, o.off, o.size = int(d.upTo(1<<30)), d.size(), d.size()
			if o.ref >= len(p.streams) || o.off > p.streams[o.ref] || o.size > p.streams[o.ref]-o.off {
				d.fail("piece outside its stream")
			}
		case opDeflate:
			o.size = d.size()
			o.reconstruction = d.bytes(d.count(1))
			o.inner = d.ops(p, file, depth+1)
			sum := int64(0)
			for _, inner := range o.inner {
				if sum += inner.size; sum < 0 || sum >= 1<<62 {
					d.fail("a member too large")
				}
			}
		case opCopy:
			s := d.span(p)
			o.ref, o.off, o.size = s.source, s.off, s.size
		case opWindow:
			o.ref, o.off, o.size = int(d.upTo(1<<30)), d.size(), d.size()
			if o.ref >= len(p.windows) || o.off > int64(p.windows[o.ref].plain) || o.size > int64(p.windows[o.ref].plain)-o.off {
				d.fail("piece outside its window")
			}
		case opZero:
			o.size = d.size()
		default:
			d.fail(fmt.Sprintf("unknown instruction %d", o.kind))
		}
		if o.size <= 0 {
			d.fail("empty instruction")
		}
		if d.instructions++; d.instructions > maxInstructions {
			d.fail("too many instructions")
		}
		if d.err != nil {
			return ops
		}
		ops = append(ops, o)
	}
	return ops
}

// location reads where a stream of size bytes stands; nil for a whole file.
func (d *planReader) location(size int64, version byte) *manifest.Location {
	n := d.countUpTo(2, maxLocation)
	if n == 0 {
		return nil
	}
	l := &manifest.Location{}
	end := int64(0)
	for range n {
		s := manifest.Slice{Off: end}
		if version < 3 {
			s.Off += d.size()
		} else {
			s.Off += d.varint()
		}
		s.Size = d.size()
		if end = s.Off + s.Size; s.Off < 0 || end < 0 || end >= 1<<62 {
			d.fail("slice out of bounds")
		}
		if d.err != nil {
			return nil
		}
		l.Slices = append(l.Slices, s)
	}
	for range d.countUpTo(1, maxNesting) {
		l.Within = append(l.Within, d.size())
	}
	if l.Size() != size {
		d.fail("the slices of a stream are not of its size")
	}
	return l
}

// planReader takes fields off the front of b. Its first error sticks, and all
// later fields are zero.
type planReader struct {
	b    []byte
	what string // is read, for messages
	err  error

	instructions int
}

func (d *planReader) fail(reason string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s: %s", ErrInvalid, d.what, reason)
	}
	d.b = nil
}

func (d *planReader) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail("cut off")
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// header takes the magic and the version that the bytes begin with, and returns it.
func (d *planReader) header(magic string, newest byte) (version byte) {
	if string(d.bytes(len(magic))) != magic {
		d.fail("wrong magic")
	}
	if version = d.byte(); version == 0 || version > newest {
		d.fail(fmt.Sprintf("version %d, this program reads up to %d", version, newest))
	}
	return version
}

func (d *planReader) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *planReader) digest() (v cas.Digest) {
	copy(v[:], d.bytes(len(v)))
	return v
}

func (d *planReader) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *planReader) varint() int64 {
	v := d.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (d *planReader) upTo(limit uint64) uint64 {
	v := d.uvarint()
	if v > limit {
		d.fail("number too large")
		return 0
	}
	return v
}

func (d *planReader) size() int64 { return int64(d.upTo(1<<62 - 1)) }

func (d *planReader) string(limit uint64) string { return string(d.bytes(int(d.upTo(limit)))) }

// count reads a number of things that take at least each bytes.
func (d *planReader) count(each int) int { return d.countUpTo(each, 1<<62) }

func (d *planReader) countUpTo(each int, limit uint64) int {
	v := d.uvarint()
	if v > limit || v > uint64(len(d.b)/each) {
		d.fail("count too large")
		return 0
	}
	return int(v)
}
