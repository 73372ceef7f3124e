package delta

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"

	"ferry/cas"
	"ferry/manifest"
)

// places says where members of a base's container files stand: in *spaces*, which
// are files, and what deflated members decode to.
type places struct {
	members map[cas.Digest]standing  // streams, and deflated members as they are coded
	between map[int][]betweenPiece   // by space: what stands between its members, in order
	zeros   map[int][]manifest.Slice // by space: runs of zeros, in order
}

// betweenPiece is a run of bytes between members.
type betweenPiece struct {
	off, size    int64 // in the space
	file, stream int   // of the container file, and where in it
	streamOff    int64
}

// note notes what stands in a space of the container file i.
func (p *places) note(x *expanded, i int, r *manifest.Recipe, layout []manifest.Op, space int, within []int64) {
	off := int64(0)
	for _, op := range layout {
		switch op.Kind {
		case manifest.OpSlice:
			s := r.Streams[op.Stream]
			if s.Between() {
				p.between[space] = append(p.between[space], betweenPiece{off, op.Size, i, op.Stream, op.Off})
			} else {
				p.add(sliceID(x.ids[i], s, op), standing{space, off})
			}
		case manifest.OpZero:
			p.zeros[space] = append(p.zeros[space], manifest.Slice{Off: off, Size: op.Size})
		case manifest.OpDeflate:
			p.add(partID(x.ids[i], op), standing{space, off})
			in := append(within[:len(within):len(within)], off)
			at := &manifest.Location{Within: in, Slices: []manifest.Slice{{Size: manifest.LayoutSize(op.Inner)}}}
			path := fmt.Sprintf("%s\x00/\x00%v", x.entries[i].Path, in)
			id := cas.Sum(fmt.Appendf(nil, "ferry space %s %v", x.entries[i].Digest.Hex(), in))
			p.note(x, i, r, op.Inner, x.add(path, at.Size(), id, part{file: i, stream: -1, at: at}), in)
		}
		off += op.Size
	}
}

// sliceID identifies the bytes of a slice of a stream.
func sliceID(ids []cas.Digest, s manifest.Stream, op manifest.Op) cas.Digest {
	if op.Size == s.Size {
		return ids[op.Stream]
	}
	return partID(ids, op)
}

// zerosAt returns how many bytes of a space are zeros from off on, as far as its layout
// says.
func (p *places) zerosAt(space int, off int64) int64 {
	all := p.zeros[space]
	k := sort.Search(len(all), func(k int) bool { return all[k].Off+all[k].Size > off })
	if k == len(all) || all[k].Off > off {
		return 0
	}
	return all[k].Off + all[k].Size - off
}

func (p *places) add(id cas.Digest, at standing) {
	if _, ok := p.members[id]; !ok {
		p.members[id] = at
	}
}

// at returns the piece between members that has the byte at off of a space.
func (p *places) at(space int, off int64) (betweenPiece, bool) {
	all := p.between[space]
	k := sort.Search(len(all), func(k int) bool { return all[k].off+all[k].size > off })
	if k == len(all) || all[k].off > off {
		return betweenPiece{}, false
	}
	return all[k], true
}

// matchContainer says how a container file of the target is made of its members, for
// each base that does not have it, and notes which of them are wanted.
func (c *creator) matchContainer(ctx context.Context, i int) error {
	e := c.target.Manifest.Entries[i]
	if e.Type != manifest.TypeFile || e.Size == 0 || c.carried(e) {
		return nil
	}
	first := len(c.matched)
	var r *manifest.Recipe
	for b, m := range c.matchers {
		if standsIn(c.bases[b].Manifest, e) {
			continue
		}
		if _, ok := m.byDig[e.Digest]; ok {
			continue // the whole is copied
		}
		if r == nil {
			var err error
			if r, err = c.expanded.recipe(ctx, i); err != nil || r == nil {
				return err
			}
		}
		m.pair(e, r, c.expanded.ids[i])
		l := layouter{ctx: ctx, c: c, file: i, base: b, recipe: r, between: map[[3]int][]byte{}}
		ops := l.layout(r.Layout)
		if l.err != nil {
			return fmt.Errorf("%s: %w", e.Path, l.err)
		}
		c.noteMatch(first, matchedFile{entry: i, mask: 1 << b, ops: ops})
	}
	return nil
}

// layouter turns the layout of a container file into instructions for a base. What
// stands in the base as it is, members and what is between them, is copied.
type layouter struct {
	ctx     context.Context
	c       *creator
	file    int // in c.expanded
	base    int
	recipe  *manifest.Recipe
	between map[[3]int][]byte // content of streams between members, by side, file and stream
	err     error
}

// laid is an instruction, and of a copy, where it copies from; or a piece of what
// stands between members, which has no instruction yet.
type laid struct {
	op
	from  standing
	piece []byte // the bytes of a piece
}

func (l laid) isCopy() bool { return l.kind == opCopy && l.piece == nil }

func (l *layouter) layout(layout []manifest.Op) []op {
	var all []laid
	members := l.c.matchers[l.base].places.members
	ids := l.c.expanded.ids[l.file]
	for _, o := range layout {
		switch o.Kind {
		case manifest.OpZero:
			all = l.addZeros(all, o.Size)
		case manifest.OpSlice:
			s := l.recipe.Streams[o.Stream]
			if s.Between() {
				all = l.addPiece(all, o)
				continue
			}
			if at, ok := members[sliceID(ids, s, o)]; ok {
				l.c.expanded.streamPath(l.file, o.Stream) // is known to be there
				all = l.addCopy(all, at, o.Size)
				continue
			}
			all = append(all, laid{op: l.stream(l.c.expanded.addStream(l.file, o.Stream), o.Off, o.Size)})
		case manifest.OpDeflate:
			if at, ok := members[partID(ids, o)]; ok {
				l.know(o.Inner)
				all = l.addCopy(all, at, o.Size)
				continue
			}
			all = append(all, laid{op: op{kind: opDeflate, size: o.Size, reconstruction: o.Reconstruction, inner: l.layout(o.Inner)}})
		}
	}
	return l.gather(all)
}

// stream returns the instruction for a piece of an entry that is made.
func (l *layouter) stream(n int, off, size int64) op {
	l.c.want(n, l.base)
	return op{kind: opStream, ref: n - len(l.c.target.Manifest.Entries), off: off, size: size}
}

// know notes the paths of streams that are not made anew.
func (l *layouter) know(layout []manifest.Op) {
	for _, o := range layout {
		if o.Kind == manifest.OpSlice {
			l.c.expanded.streamPath(l.file, o.Stream)
		}
		l.know(o.Inner)
	}
}

// addZeros adds zeros: few of them to the copy before, where the base goes on alike.
func (l *layouter) addZeros(all []laid, size int64) []laid {
	if n := len(all); n > 0 && all[n-1].isCopy() && size <= maxZeros {
		last := &all[n-1]
		k := min(size, l.c.matchers[l.base].places.zerosAt(last.from.entry, last.from.off+last.size))
		last.size += k
		size -= k
	}
	if size == 0 {
		return all
	}
	return append(all, laid{op: op{kind: opZero, size: size}})
}

// maxZeros is how many zeros are copied rather than made: holes are to stay holes.
const maxZeros = 64 << 10

// addPiece adds a piece of what stands between members: the front of it to the copy
// before, as far as the base goes on alike.
func (l *layouter) addPiece(all []laid, o manifest.Op) []laid {
	data := l.read(0, l.c.expanded, l.file, o.Stream)
	if l.err != nil {
		return all
	}
	p := laid{op: op{size: o.Size}, piece: data[o.Off : o.Off+o.Size]}
	if n := len(all); n > 0 && all[n-1].isCopy() {
		last := &all[n-1]
		k := int64(commonFront(p.piece, l.behind(last.from.entry, last.from.off+last.size)))
		last.size += k
		p.size, p.piece = p.size-k, p.piece[k:]
	}
	if p.size == 0 {
		return all
	}
	return append(all, p)
}

// addCopy adds a copy of base bytes, and in front of it the end of the piece before,
// as far as it is alike in the base.
func (l *layouter) addCopy(all []laid, at standing, size int64) []laid {
	n := len(all)
	if n > 0 && all[n-1].piece != nil {
		last := &all[n-1]
		k := int64(commonBack(last.piece, l.before(at.entry, at.off)))
		last.size, last.piece = last.size-k, last.piece[:last.size-k]
		at.off, size = at.off-k, size+k
		if last.size == 0 {
			all = all[:n-1]
			n--
		}
	}
	if n > 0 {
		last := &all[n-1]
		if last.isCopy() && last.from.entry == at.entry && last.from.off+last.size == at.off {
			last.size += size
			return all
		}
	}
	return append(all, laid{op: op{kind: opCopy, size: size}, from: at})
}

// behind returns base bytes between members from off on; before, those up to off.
func (l *layouter) behind(space int, off int64) []byte {
	p, ok := l.c.matchers[l.base].places.at(space, off)
	if !ok || !l.readable(p) {
		return nil
	}
	return l.baseBytes(p)[off-p.off:]
}

func (l *layouter) before(space int, off int64) []byte {
	p, ok := l.c.matchers[l.base].places.at(space, off-1)
	if !ok || !l.readable(p) {
		return nil
	}
	return l.baseBytes(p)[:off-p.off]
}

// readable reports whether a piece of what stands between members of the base can be
// read here.
func (l *layouter) readable(p betweenPiece) bool {
	ok, err := l.c.matchers[l.base].base.availableStream(l.ctx, p.file, p.stream)
	l.err = cmp.Or(l.err, err)
	return ok && err == nil
}

func (l *layouter) baseBytes(p betweenPiece) []byte {
	data := l.read(1, l.c.matchers[l.base].base, p.file, p.stream)
	if l.err != nil {
		return make([]byte, p.size)
	}
	return data[p.streamOff : p.streamOff+p.size]
}

// read reads a stream of what stands between members, once.
func (l *layouter) read(side int, x *expanded, file, stream int) []byte {
	key := [3]int{side, file, stream}
	data, ok := l.between[key]
	if !ok && l.err == nil {
		if len(l.between) > 16 {
			clear(l.between)
		}
		data, l.err = x.between(l.ctx, file, stream)
		l.between[key] = data
	}
	return data
}

// batch is pieces that become one stream.
type batch struct {
	data []byte
	near map[int][]betweenPiece // base pieces that stand where they do, by space
	n    int                    // its entry
}

// maxBatch bounds the bytes of a batch, as it is held in memory when it is made.
const maxBatch = 4 << 20

// gather makes streams of the pieces that are left, coded against those of the base
// that stand where they do, and returns the instructions.
func (l *layouter) gather(all []laid) []op {
	m := l.c.matchers[l.base]
	isCopy := func(k int) bool { return k >= 0 && k < len(all) && all[k].isCopy() }
	ops := make([]op, len(all))
	var batches []*batch
	in := make([]*batch, len(all)) // of each piece
	for k, o := range all {
		if isCopy(k) {
			o.ref, o.off = l.c.source(m.base.entries[o.from.entry].Digest, 1<<l.base), o.from.off
		}
		if o.piece != nil {
			n := len(batches)
			if n == 0 || len(batches[n-1].data)+len(o.piece) > maxBatch {
				batches = append(batches, &batch{near: map[int][]betweenPiece{}})
				n++
			}
			g := batches[n-1]
			in[k] = g
			o.off = int64(len(g.data))
			g.data = append(g.data, o.piece...)
			if isCopy(k - 1) {
				from := all[k-1].from
				p, ok := m.places.at(from.entry, from.off+all[k-1].size)
				g.add(from.entry, p, ok && l.readable(p))
			}
			if isCopy(k + 1) {
				from := all[k+1].from
				p, ok := m.places.at(from.entry, from.off-1)
				g.add(from.entry, p, ok && l.readable(p))
			}
			if k == len(all)-1 { // against the last ones, such as a zip's directory
				for _, space := range l.spaces(all) {
					if pieces := m.places.between[space]; len(pieces) > 0 {
						last := pieces[len(pieces)-1]
						g.add(space, last, l.readable(last))
					}
				}
			}
		}
		ops[k] = o.op
	}
	for _, g := range batches {
		l.finish(g)
	}
	for k, g := range in {
		if g != nil {
			ops[k] = l.stream(g.n, ops[k].off, ops[k].size)
		}
	}
	return ops
}

// spaces returns the spaces that are copied from, and the base file of the same path.
func (l *layouter) spaces(all []laid) []int {
	m := l.c.matchers[l.base]
	spaces := map[int]bool{}
	for _, o := range all {
		if o.isCopy() {
			spaces[o.from.entry] = true
		}
	}
	if i, ok := m.byPath[l.c.expanded.entries[l.file].Path]; ok && m.base.recipes[i] != nil {
		spaces[i] = true
	}
	return sortedKeys(spaces)
}

// add adds a base piece of a space, once.
func (g *batch) add(space int, p betweenPiece, ok bool) {
	if ok && !slices.Contains(g.near[space], p) {
		g.near[space] = append(g.near[space], p)
	}
}

// finish makes a batch an entry, and one of the base of the pieces near it: those of
// the one space that most of them are in.
func (l *layouter) finish(g *batch) {
	key := piecesKey{l.file, cas.Sum(g.data)}
	n, ok := l.c.pieces[key]
	if !ok {
		n = l.c.expanded.addPieces(l.file, fmt.Sprintf("%s\x00/\x00%d", l.c.expanded.entries[l.file].Path, len(l.c.expanded.entries)), g.data, key.digest, nil)
		l.c.pieces[key] = n
	}
	g.n = n
	best := -1
	for _, space := range sortedKeys(g.near) {
		if best < 0 || len(g.near[space]) > len(g.near[best]) {
			best = space
		}
	}
	if best < 0 {
		return
	}
	m := l.c.matchers[l.base]
	pieces := g.near[best]
	slices.SortFunc(pieces, func(a, b betweenPiece) int { return cmp.Compare(a.off, b.off) })
	at := &manifest.Location{}
	if p, ok := m.base.part(best); ok {
		at.Within = p.at.Within
	}
	var old []byte
	for _, p := range pieces {
		old = append(old, l.baseBytes(p)...)
		at.Slices = append(at.Slices, manifest.Slice{Off: p.off, Size: p.size})
	}
	m.addPieces(pieces[0].file, l.c.expanded.entries[n].Path, old, at)
}

type piecesKey struct {
	file   int
	digest cas.Digest
}

// want notes that a part of c.expanded is made for base b.
func (c *creator) want(n, b int) {
	for len(c.wants) <= n {
		c.wants = append(c.wants, 0)
	}
	c.wants[n] |= 1 << b
}

// wanted reports whether an entry of c.expanded is made of chunks, for base b.
func (c *creator) wanted(n, b int) bool {
	e := c.expanded.entries[n]
	if _, ok := c.expanded.part(n); ok {
		return c.wants[n]>>b&1 != 0
	}
	if standsIn(c.bases[b].Manifest, e) {
		return false
	}
	_, whole := c.matchers[b].byDig[e.Digest]
	return whole || c.expanded.recipes[n] == nil
}

func sameOps(a, b []op) bool {
	return slices.EqualFunc(a, b, func(a, b op) bool {
		return a.kind == b.kind && a.ref == b.ref && a.off == b.off && a.size == b.size && bytes.Equal(a.reconstruction, b.reconstruction) && sameOps(a.inner, b.inner)
	})
}

func sortedKeys[V any](m map[int]V) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
