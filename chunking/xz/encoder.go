package xz

import "math/bits"

// rangeEncoder writes LZMA's bits. It is like the range coder of the choices, but for the
// first byte and the bits' loops: most of the time is spent in them.
type rangeEncoder struct {
	low  uint64
	size uint32
	held byte // the byte before, which may change by a carry; at first the zero that begins a chunk
	ones int  // bytes of 0xff behind it, likewise
	out  []byte
}

// reset begins a chunk.
func (r *rangeEncoder) reset() {
	*r = rangeEncoder{size: 1<<32 - 1, out: r.out[:0]}
}

// shift moves the top byte out, once it is known whether it carries.
func (r *rangeEncoder) shift() {
	if r.low < 0xff<<24 || r.low > 1<<32-1 {
		carry := byte(r.low >> 32)
		r.out = append(r.out, r.held+carry)
		for ; r.ones > 0; r.ones-- {
			r.out = append(r.out, 0xff+carry)
		}
		r.ones, r.held = 0, byte(r.low>>24)
	} else {
		r.ones++
	}
	r.low = r.low & 0xffffff << 8
}

// len returns how many bytes there will be, or a few less.
func (r *rangeEncoder) len() int { return len(r.out) + r.ones }

// finish returns the chunk's bytes.
func (r *rangeEncoder) finish() []byte {
	for range 5 {
		r.shift()
	}
	return r.out
}

func (r *rangeEncoder) bit(p *prob, bit uint32) {
	v := uint32(*p)
	bound := r.size >> probBits * v
	if bit == 0 {
		r.size = bound
		*p = prob(v + (1<<probBits-v)>>probMove)
	} else {
		r.low += uint64(bound)
		r.size -= bound
		*p = prob(v - v>>probMove)
	}
	if r.size < topRange {
		r.size <<= 8
		r.shift()
	}
}

// tree writes the n low bits of v, the highest first.
func (r *rangeEncoder) tree(probs []prob, n int, v uint32) {
	m := uint32(1)
	for i := n - 1; i >= 0; i-- {
		b := v >> i & 1
		r.bit(&probs[m], b)
		m = m<<1 | b
	}
}

// reverse writes the n low bits of v, the lowest first.
func (r *rangeEncoder) reverse(probs []prob, n, v uint32) {
	m := uint32(1)
	for range n {
		b := v & 1
		v >>= 1
		r.bit(&probs[m], b)
		m = m<<1 | b
	}
}

// direct writes the n low bits of v, which are not modelled.
func (r *rangeEncoder) direct(n, v uint32) {
	for i := int(n) - 1; i >= 0; i-- {
		r.size >>= 1
		if v>>i&1 != 0 {
			r.low += uint64(r.size)
		}
		if r.size < topRange {
			r.size <<= 8
			r.shift()
		}
	}
}

// matched writes a byte behind a match, where the match would go on with other.
func (r *rangeEncoder) matched(probs *[0x300]prob, b, other byte) {
	m, offs := uint32(1), uint32(0x100)
	o, v := uint32(other), uint32(b)|0x100
	for m < 0x100 {
		o <<= 1
		v <<= 1
		same := o & offs
		bit := v >> 8 & 1
		r.bit(&probs[offs+same+m], bit)
		m = m<<1 | bit
		offs &= ^(o ^ v)
	}
}

func (r *rangeEncoder) length(l *lengths, posState uint32, n int) {
	v := uint32(n - minMatch)
	switch {
	case v < 8:
		r.bit(&l.choice[0], 0)
		r.tree(l.low[posState][:], 3, v)
	case v < 16:
		r.bit(&l.choice[0], 1)
		r.bit(&l.choice[1], 0)
		r.tree(l.mid[posState][:], 3, v-8)
	default:
		r.bit(&l.choice[0], 1)
		r.bit(&l.choice[1], 1)
		r.tree(l.high[:], 8, v-16)
	}
}

func (r *rangeEncoder) dist(m *model, n int, dist uint32) {
	slot := dist
	if dist >= 4 {
		top := uint32(bits.Len32(dist)) - 1
		slot = top<<1 | dist>>(top-1)&1
	}
	r.tree(m.slots[min(n-minMatch, 3)][:], 6, slot)
	if slot < 4 {
		return
	}
	base, footer := slotBase(slot)
	if slot < 14 {
		r.reverse(m.special[base-slot:], footer, dist-base)
		return
	}
	r.direct(footer-4, (dist-base)>>4)
	r.reverse(m.align[:], 4, dist&15)
}

// encoder writes LZMA chunks.
type encoder struct {
	model
	rangeEncoder
}

// token writes the token at w's pos.
func (e *encoder) token(w *window, t token) {
	m, r := &e.model, &e.rangeEncoder
	at := uint32(w.base + uint64(w.pos) - w.reset)
	posState := at & (1<<m.pb - 1)
	s := uint32(m.state)
	if t.kind == kindLiteral {
		r.bit(&m.isMatch[s<<maxPb|posState], 0)
		prev := byte(0)
		if at > 0 {
			prev = w.buf[w.pos-1]
		}
		probs := m.literalAt(at, prev)
		b := w.buf[w.pos]
		if s < litStates {
			r.tree(probs[:0x100], 8, uint32(b))
		} else {
			r.matched(probs, b, w.buf[w.pos-1-int(m.reps[0])])
		}
		m.state = afterLiteral[s]
		return
	}
	r.bit(&m.isMatch[s<<maxPb|posState], 1)
	if t.kind == kindMatch {
		r.bit(&m.isRep[s], 0)
		r.length(&m.match, posState, int(t.n))
		r.dist(m, int(t.n), t.dist)
	} else {
		r.bit(&m.isRep[s], 1)
		e.rep(t, posState)
	}
	m.pass(t)
}

// rep writes which of the last matches goes on, and how long.
func (e *encoder) rep(t token, posState uint32) {
	m, r := &e.model, &e.rangeEncoder
	s := m.state
	long := &m.isRep0Long[uint32(s)<<maxPb|posState]
	switch t.kind {
	case kindShort:
		r.bit(&m.isRepG0[s], 0)
		r.bit(long, 0)
		return
	case kindRep:
		r.bit(&m.isRepG0[s], 0)
		r.bit(long, 1)
	case kindRep + 1:
		r.bit(&m.isRepG0[s], 1)
		r.bit(&m.isRepG1[s], 0)
	default:
		r.bit(&m.isRepG0[s], 1)
		r.bit(&m.isRepG1[s], 1)
		r.bit(&m.isRepG2[s], uint32(t.kind-kindRep-2))
	}
	r.length(&m.rep, posState, int(t.n))
}
