package xz

import (
	"math/bits"

	"ferry/chunking/rangecoder"
)

// rangeEncoder writes LZMA's bits, but for the zero that a chunk begins with.
type rangeEncoder struct{ rangecoder.Writer }

func (r *rangeEncoder) bit(p *prob, bit uint32) { r.Code(p, bit != 0) }

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
	r.Raw((dist-base)>>4, int(footer-4))
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
