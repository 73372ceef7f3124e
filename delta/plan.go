package delta

import (
	"encoding/binary"
	"fmt"

	"ferry/cas"
	"ferry/delta/codec"
)

// plan says how the target's files are put together from the base's files and
// the payload. A file of the target without a program in some base stands in
// that base at the same path with the same content.
type plan struct {
	target   cas.Digest // manifest id
	bases    []planBase
	sources  []source
	windows  []window
	programs []program
}

// planBase is a version that the delta starts from.
type planBase struct {
	manifest cas.Digest
	label    string
}

// source is a file of the bases that is read from.
type source struct {
	digest cas.Digest
	size   int64
	paths  []string // for each base, where it stands; empty where it is not needed
}

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

// program puts one file together, for the bases in mask.
type program struct {
	entry int // index into the target's entries
	mask  uint64
	ops   []op
}

// op gives bytes of a file.
type op struct {
	kind opKind
	ref  int   // of a source or window
	off  int64 // in the source or window
	size int64
}

type opKind uint8

const (
	opCopy   opKind = 0 // bytes of a source
	opWindow opKind = 1 // bytes of a window
	opZero   opKind = 2 // zeros
)

const (
	planMagic   = "FRYD"
	planVersion = 1
	maxBases    = 64
	maxPlan     = 256 << 20
	maxLabel    = 1 << 10
	maxPlanPath = 16 << 10
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

// encode returns the coded plan, as docs/format.md has it.
func (p *plan) encode() []byte {
	b := append([]byte(planMagic), planVersion)
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
		for _, path := range s.paths {
			b = appendString(b, path)
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
	b = binary.AppendUvarint(b, uint64(len(p.programs)))
	prev := 0
	for _, g := range p.programs {
		b = appendNumbers(b, uint64(g.entry-prev), g.mask, uint64(len(g.ops)))
		prev = g.entry
		for _, o := range g.ops {
			b = append(b, byte(o.kind))
			if o.kind != opZero {
				b = appendNumbers(b, uint64(o.ref), uint64(o.off))
			}
			b = binary.AppendUvarint(b, uint64(o.size))
		}
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
	d.header(planMagic, planVersion)
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
			s.paths = append(s.paths, d.string(maxPlanPath))
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
	if d.err != nil {
		return nil, d.err
	}
	return p, nil
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
	if g.entry >= nEntries || g.mask == 0 || g.mask>>len(p.bases) != 0 && len(p.bases) < 64 {
		d.fail("program of no file or for no base")
	}
	for range d.count(2) {
		o := op{kind: opKind(d.byte())}
		switch o.kind {
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
		if d.err != nil {
			return g
		}
		g.ops = append(g.ops, o)
	}
	return g
}

// planReader takes fields off the front of b. Its first error sticks, and all
// later fields are zero.
type planReader struct {
	b    []byte
	what string // is read, for messages
	err  error
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

// header takes the magic and the version that the bytes begin with.
func (d *planReader) header(magic string, version byte) {
	if string(d.bytes(len(magic))) != magic {
		d.fail("wrong magic")
	}
	if v := d.byte(); v != version {
		d.fail(fmt.Sprintf("version %d, this program reads %d", v, version))
	}
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
