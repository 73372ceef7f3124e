package delta

import (
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

// memory is about what it takes to decode the window, in bytes.
func (w window) memory() int64 {
	n := int64(w.plain) + w.dictSize()
	if w.kind == codec.Unpacked {
		n *= packedMemory
	}
	return n
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

	reconstruction []byte // opDeflate: for coded.Encode
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
	// planVersion is what is written. Version 2 knew container files first, 3 streams whose
	// slices are not in the order of the file, and 4 and 5 say most in fewer bytes.
	planVersion = 5 // which has less of the sources' digests
	// Bounds of container files.
	maxNesting  = 16
	maxLocation = 1 << 22 // slices of a stream
	maxBases    = 64
	maxPlan     = 256 << 20
	// maxItems bounds all that a plan lists: sources, where they are, windows, spans, slices,
	// streams, programs, instructions. Each takes up to 130 bytes of memory.
	maxItems = 1 << 22
	// A place takes more than others, as what base.need says follows from it.
	placeItems  = 3
	maxLabel    = 1 << 10
	maxPlanPath = 16 << 10
	// maxWindow and maxDict bound what it takes to decode a window, in bytes.
	maxWindow = codec.MaxSize
	maxDict   = codec.MaxSize
)

// sourceSize is how many bytes of a source's digest a plan carries: they tell a wrong
// base from a damaged delta. That what is made of it is right, the target's digests say.
func sourceSize(version byte) int {
	switch {
	case version < 4:
		return cas.DigestSize
	case version == 4:
		return frontSize
	}
	return shortSize
}

// version is that which can say the plan's sources.
func (p *plan) version() byte {
	if slices.ContainsFunc(p.sources, func(s source) bool { return shortened(s.digest, shortSize).IsZero() }) {
		return 4
	}
	return planVersion
}

// asRead is the plan with what a reader gets of its sources' digests.
func (p *plan) asRead() *plan {
	out := *p
	out.sources = slices.Clone(p.sources)
	n := sourceSize(p.version())
	for i, s := range out.sources {
		out.sources[i].digest = shortened(s.digest, n)
	}
	return &out
}

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

// encode returns the coded plan of a target with those entries, as docs/format.md has it.
func (p *plan) encode(entries []manifest.Entry, effort codec.Effort) []byte {
	w := planWriter{p: p, entries: entries}
	version := p.version()
	w.b = append(w.b, p.target[:]...)
	w.count(len(p.bases))
	for _, base := range p.bases {
		w.b = append(w.b, base.manifest[:]...)
		w.b = appendString(w.b, base.label)
	}
	w.count(len(p.sources))
	for _, s := range p.sources {
		w.b = append(w.b, s.digest[:sourceSize(version)]...)
		w.b = binary.AppendUvarint(w.b, uint64(s.size))
		for _, at := range s.places {
			w.place(at)
		}
	}
	w.count(len(p.windows))
	files := p.wholeFiles(entries)
	for i, win := range p.windows {
		w.window(win, files[i])
	}
	w.count(len(p.streams))
	for _, size := range p.streams {
		w.b = binary.AppendUvarint(w.b, uint64(size))
	}
	w.count(len(p.programs))
	prev := 0
	for _, g := range p.programs {
		w.b = appendNumbers(w.b, uint64(g.entry-prev), g.mask)
		prev = g.entry
		w.ops(g.ops)
	}
	return appendColumn(append([]byte(planMagic), version), w.b, effort)
}

// wholeFiles finds the windows that are a file of the target, whole: its size and its
// digest need not be said again. It returns the entry, or -1.
func (p *plan) wholeFiles(entries []manifest.Entry) []int {
	files := make([]int, len(p.windows))
	for i := range files {
		files[i] = -1
	}
	for _, g := range p.programs {
		if g.entry >= len(entries) || len(g.ops) != 1 || g.ops[0].kind != opWindow {
			continue
		}
		e, o := entries[g.entry], g.ops[0]
		if e.Size == o.size && e.Size == p.sizeOf(o) && p.windows[o.ref].check == checkSum(e.Digest[:8]) {
			files[o.ref] = g.entry
		}
	}
	return files
}

// planWriter codes the fields of a plan. Numbers that go up are coded by what is
// between them.
type planWriter struct {
	p       *plan
	entries []manifest.Entry
	b       []byte
	near
}

// near has the numbers coded last.
type near struct {
	place  int // an entry of the target that has the path of a source
	window int // an entry of the target that is a window
	source int // of a window's span
	refs   [opDeflate]int
}

func (w *planWriter) count(n int) { w.b = binary.AppendUvarint(w.b, uint64(n)) }

// step codes n by its distance from the number before.
func (w *planWriter) step(prev *int, n int) {
	w.b = binary.AppendVarint(w.b, int64(n-*prev))
	*prev = n
}

// How a path is coded.
const (
	pathNone  = 0
	pathText  = 1 // a string
	pathEntry = 2 // that of an entry of the target
)

func (w *planWriter) place(at sourcePlace) {
	if at.path == "" {
		w.b = append(w.b, pathNone)
		return
	}
	target := manifest.Manifest{Entries: w.entries}
	if i, ok := target.Index(at.path); ok {
		w.b = append(w.b, pathEntry)
		w.step(&w.near.place, i)
	} else {
		w.b = appendString(append(w.b, pathText), at.path)
	}
	w.b = appendLocation(w.b, at.at)
}

// ofFile marks the kind of a window that is a whole file of the target.
const ofFile = 0x80

func (w *planWriter) window(win window, file int) {
	if file >= 0 {
		w.b = append(w.b, byte(win.kind)|ofFile)
		w.step(&w.near.window, file)
	} else {
		w.b = binary.AppendUvarint(append(w.b, byte(win.kind)), uint64(win.plain))
		w.b = append(w.b, win.check[:]...)
	}
	w.b = binary.AppendUvarint(w.b, uint64(win.coded))
	if len(win.dict) == 1 && win.dict[0].off == 0 && win.dict[0].size == w.p.sizeOf(op{kind: opCopy, ref: win.dict[0].source}) {
		w.b = append(w.b, 1) // a whole source
		w.step(&w.source, win.dict[0].source)
		return
	}
	if len(win.dict) == 0 {
		w.b = append(w.b, 0)
		return
	}
	w.count(len(win.dict) + 1)
	for _, s := range win.dict {
		w.step(&w.source, s.source)
		w.b = appendNumbers(w.b, uint64(s.off), uint64(s.size))
	}
}

func (w *planWriter) ops(ops []op) {
	w.count(len(ops))
	for _, o := range ops {
		w.b = append(w.b, byte(o.kind))
		if o.kind == opCopy || o.kind == opWindow || o.kind == opStream {
			w.step(&w.refs[o.kind], o.ref)
			if o.off == 0 && o.size == w.p.sizeOf(o) {
				w.b = append(w.b, 0) // all of it
				continue
			}
			w.b = appendNumbers(w.b, uint64(o.size), uint64(o.off))
			continue
		}
		w.b = binary.AppendUvarint(w.b, uint64(o.size))
		if o.kind == opDeflate {
			w.count(len(o.reconstruction))
			w.b = append(w.b, o.reconstruction...)
			w.ops(o.inner)
		}
	}
}

// sizeOf returns the size in bytes of what an instruction refers to; -1 if there is none.
func (p *plan) sizeOf(o op) int64 {
	switch {
	case o.ref < 0:
	case o.kind == opCopy && o.ref < len(p.sources):
		return p.sources[o.ref].size
	case o.kind == opWindow && o.ref < len(p.windows):
		return int64(p.windows[o.ref].plain)
	case o.kind == opStream && o.ref < len(p.streams):
		return p.streams[o.ref]
	}
	return -1
}

// appendLocation codes where a stream stands: its slices as the bytes between them,
// and their sizes. Nothing is a whole file.
func appendLocation(b []byte, l *manifest.Location) []byte {
	if l == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(l.Slices)))
	end := int64(0)
	for _, s := range l.Slices {
		b = binary.AppendVarint(b, s.Off-end)
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

// decodePlan parses a coded plan for a target with those entries. Errors match
// ErrInvalid; every reference in the result is within bounds.
func decodePlan(data []byte, entries []manifest.Entry) (*plan, error) {
	d := planReader{b: data, what: planName, entries: entries}
	if d.version = d.header(planMagic, planVersion); d.version > 3 {
		body := d.column()
		if len(d.b) != 0 {
			d.fail("more bytes behind its end")
		}
		if d.err == nil {
			d.b = body
		}
	}
	p := &plan{target: d.digest()}
	for range d.countUpTo(33, maxBases) {
		p.bases = append(p.bases, planBase{d.digest(), d.string(maxLabel)})
	}
	if len(p.bases) == 0 {
		d.fail("no base")
	}
	for range d.count(sourceSize(d.version) + 1 + len(p.bases)) {
		if d.spend(1 + placeItems*len(p.bases)); d.err != nil {
			break
		}
		p.sources = append(p.sources, d.source(len(p.bases)))
	}
	at := payloadAt{}
	for range d.count(4) {
		if d.spend(1); d.err != nil {
			break
		}
		w := d.window(p)
		w.at = at
		at = at.next(w.coded)
		p.windows = append(p.windows, w)
		if !p.lead(len(p.windows) - 1) {
			d.fail("grouped window of no group")
		}
	}
	if d.version > 1 {
		for range d.count(1) {
			if d.spend(1); d.err != nil {
				break
			}
			p.streams = append(p.streams, d.size())
		}
	}
	prev := 0
	for range d.count(3) {
		g := d.program(p, prev)
		if d.spend(1); d.err != nil {
			break
		}
		prev = g.entry
		p.programs = append(p.programs, g)
	}
	if len(d.b) != 0 {
		d.fail("more bytes behind its end")
	}
	if d.err == nil && !p.whole(len(entries)) {
		d.fail("a program for a base that lacks what it reads")
	}
	if d.err != nil {
		return nil, d.err
	}
	return p, nil
}

func (d *planReader) source(bases int) source {
	var s source
	copy(s.digest[:], d.bytes(sourceSize(d.version)))
	s.size = d.size()
	for range bases {
		at := sourcePlace{path: d.path()}
		if d.version > 1 && at.path != "" {
			at.at = d.location(s.size)
		}
		s.places = append(s.places, at)
	}
	return s
}

// path reads the path of a source; it is empty where there is none.
func (d *planReader) path() string {
	if d.version < 4 {
		return d.string(maxPlanPath)
	}
	switch d.byte() {
	case pathNone:
	case pathText:
		path := d.string(maxPlanPath)
		if path == "" {
			d.fail("empty path")
		}
		return path
	case pathEntry:
		if e := d.entry(&d.near.place); e != nil {
			return e.Path
		}
	default:
		d.fail("unknown kind of path")
	}
	return ""
}

// entry reads the number of an entry of the target, by its distance from the one before.
func (d *planReader) entry(prev *int) *manifest.Entry {
	i := d.step(prev, len(d.entries))
	if d.err != nil {
		return nil
	}
	return &d.entries[i]
}

// step reads a number below limit by its distance from the one before.
func (d *planReader) step(prev *int, limit int) int {
	n := int64(*prev) + d.varint()
	if n < 0 || n >= int64(limit) {
		d.fail("reference to nothing")
		return 0
	}
	*prev = int(n)
	return *prev
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
	kind := d.byte()
	w := window{kind: codec.Kind(kind)}
	if d.version > 3 && kind&ofFile != 0 {
		w.kind &^= ofFile
		if e := d.entry(&d.near.window); e != nil {
			if e.Type != manifest.TypeFile || e.Size > maxWindow {
				d.fail("window of what is no file, or too large")
				return w
			}
			w.plain, w.check = int(e.Size), checkSum(e.Digest[:8])
		}
		w.coded = int(d.upTo(maxWindow))
	} else if d.version > 3 {
		w.plain = int(d.upTo(maxWindow))
		copy(w.check[:], d.bytes(len(w.check)))
		w.coded = int(d.upTo(maxWindow))
	} else {
		if kind&ofFile != 0 {
			d.fail("unknown kind of window")
		}
		w.plain = int(d.upTo(maxWindow))
		w.coded = int(d.upTo(maxWindow))
		copy(w.check[:], d.bytes(len(w.check)))
	}
	n, all := d.count(2), false // one span of a whole source
	if d.version > 3 && n > 0 {
		if all = n == 1; !all {
			n--
		}
	}
	total := int64(0)
	for range n {
		s := d.span(p, all)
		if total += s.size; total > maxDict {
			d.fail("dictionary too large")
		}
		if d.spend(1); d.err != nil {
			break
		}
		w.dict = append(w.dict, s)
	}
	return w
}

// span reads a piece of a source, or which source it is all of.
func (d *planReader) span(p *plan, all bool) (s span) {
	if d.version > 3 {
		s.source = d.step(&d.near.source, len(p.sources))
	} else {
		s.source = int(d.upTo(1 << 30))
	}
	if !all {
		s.off, s.size = d.size(), d.size()
	}
	size := p.sizeOf(op{kind: opCopy, ref: s.source})
	if all && d.err == nil {
		s.size = size
	}
	if d.err == nil && (s.off > size || s.size > size-s.off) {
		d.fail("piece outside its source")
		return span{}
	}
	return s
}

// spend counts items.
func (d *planReader) spend(n int) {
	if d.items += n; d.items > maxItems {
		d.fail("too much for one plan")
	}
}

func (d *planReader) program(p *plan, prev int) program {
	g := program{entry: prev + int(d.upTo(1<<30)), mask: d.uvarint()}
	if g.entry >= len(d.entries)+len(p.streams) || g.mask == 0 || g.mask>>len(p.bases) != 0 && len(p.bases) < 64 {
		d.fail("program of no file or for no base")
	}
	g.ops = d.ops(p, g.entry < len(d.entries), 0)
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
		case opCopy, opWindow, opStream:
			d.piece(p, &o)
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
		case opZero:
			o.size = d.size()
		default:
			d.fail(fmt.Sprintf("unknown instruction %d", o.kind))
		}
		if o.size <= 0 {
			d.fail("empty instruction")
		}
		if d.spend(1); d.err != nil {
			return ops
		}
		ops = append(ops, o)
	}
	return ops
}

// piece reads what piece of a source, window or stream an instruction gives.
func (d *planReader) piece(p *plan, o *op) {
	if d.version < 4 {
		o.ref, o.off, o.size = int(d.upTo(1<<30)), d.size(), d.size()
	} else {
		o.ref = d.step(&d.refs[o.kind], 1<<30)
		if o.size = d.size(); o.size > 0 {
			o.off = d.size()
		} else {
			o.size = p.sizeOf(*o)
		}
	}
	if all := p.sizeOf(*o); d.err == nil && (o.off > all || o.size > all-o.off) {
		d.fail("piece outside its source, window or stream")
	}
}

// location reads where a stream of size bytes stands; nil for a whole file.
func (d *planReader) location(size int64) *manifest.Location {
	n := d.countUpTo(2, maxLocation)
	if n == 0 {
		return nil
	}
	l := &manifest.Location{}
	end := int64(0)
	for range n {
		s := manifest.Slice{Off: end}
		if d.version < 3 {
			s.Off += d.size()
		} else {
			s.Off += d.varint()
		}
		s.Size = d.size()
		if end = s.Off + s.Size; s.Off < 0 || end < 0 || end >= 1<<62 {
			d.fail("slice out of bounds")
		}
		if d.spend(1); d.err != nil {
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

	// Of a plan:
	version byte
	entries []manifest.Entry // of the target
	items   int
	near
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
