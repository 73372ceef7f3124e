package xz

import "ferry/chunking/rangecoder"

// What LZMA's decoder and encoder share: tokens, and the probabilities of their bits (I.
// Pavlov, LZMA Specification, 2015, whose names these are).

// Kinds of tokens.
const (
	kindLiteral = iota
	kindMatch
	kindShort // one byte from where the last match was
	kindRep   // kindRep + i: a match from where the last but i was
)

const (
	minMatch = 2
	maxMatch = 273

	numStates = 12
	litStates = 7 // those below it stand behind a literal

	maxLcLp = 4 // in LZMA2
	maxPb   = 4

	probBits = 11
	probMove = 5
	topRange = 1 << 24
)

// token is a literal or a match.
type token struct {
	dist uint32 // of kindMatch, less one
	n    uint16 // bytes
	kind uint8
}

// history is what LZMA remembers of the tokens before.
type history struct {
	state uint8
	reps  [4]uint32 // distances of the last matches, less one
}

// Next states.
var (
	afterLiteral = [numStates]uint8{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 4, 5}
	afterMatch   = [numStates]uint8{7, 7, 7, 7, 7, 7, 7, 10, 10, 10, 10, 10}
	afterRep     = [numStates]uint8{8, 8, 8, 8, 8, 8, 8, 11, 11, 11, 11, 11}
	afterShort   = [numStates]uint8{9, 9, 9, 9, 9, 9, 9, 11, 11, 11, 11, 11}
)

// pass goes on behind a token.
func (h *history) pass(t token) {
	switch t.kind {
	case kindLiteral:
		h.state = afterLiteral[h.state]
	case kindMatch:
		h.state = afterMatch[h.state]
		h.reps = [4]uint32{t.dist, h.reps[0], h.reps[1], h.reps[2]}
	case kindShort:
		h.state = afterShort[h.state]
	default:
		h.state = afterRep[h.state]
		i := t.kind - kindRep&3
		d := h.reps[i]
		copy(h.reps[1:i+1], h.reps[:i])
		h.reps[0] = d
	}
}

// prob is the probability of a bit that is not set.
type prob = rangecoder.Prob

// model holds the probabilities of LZMA's bits.
type model struct {
	history
	lc, lp, pb uint8

	isMatch    [numStates << maxPb]prob
	isRep      [numStates]prob
	isRepG0    [numStates]prob
	isRepG1    [numStates]prob
	isRepG2    [numStates]prob
	isRep0Long [numStates << maxPb]prob
	slots      [4][64]prob
	special    [128]prob // reverse trees of distances with slots 4 to 13, from slotBase on
	align      [16]prob
	match      lengths
	rep        lengths
	literal    [0x300 << maxLcLp]prob
}

// lengths are the probabilities of a length's bits.
type lengths struct {
	choice [2]prob
	low    [1 << maxPb][8]prob
	mid    [1 << maxPb][8]prob
	high   [256]prob
}

// setProps takes the byte of lc, lp and pb, and reports whether LZMA2 has such.
func (m *model) setProps(b byte) bool {
	if b >= 9*5*5 {
		return false
	}
	lc, lp, pb := b%9, b/9%5, b/45
	if lc+lp > maxLcLp {
		return false
	}
	m.lc, m.lp, m.pb = lc, lp, pb
	return true
}

// reset forgets all but lc, lp and pb.
func (m *model) reset() {
	m.history = history{}
	for _, list := range [][]prob{
		m.isMatch[:], m.isRep[:], m.isRepG0[:], m.isRepG1[:], m.isRepG2[:], m.isRep0Long[:],
		m.slots[0][:], m.slots[1][:], m.slots[2][:], m.slots[3][:], m.special[:], m.align[:],
		m.literal[:0x300<<(m.lc+m.lp)],
	} {
		fill(list)
	}
	m.match.reset()
	m.rep.reset()
}

func (l *lengths) reset() {
	fill(l.choice[:])
	for i := range l.low {
		fill(l.low[i][:])
		fill(l.mid[i][:])
	}
	fill(l.high[:])
}

func fill(list []prob) {
	for i := range list {
		list[i] = rangecoder.Even
	}
}

// literalAt returns the probabilities of a literal at the position behind the byte prev.
func (m *model) literalAt(pos uint32, prev byte) *[0x300]prob {
	i := (pos&(1<<m.lp-1))<<m.lc + uint32(prev)>>(8-m.lc)
	return (*[0x300]prob)(m.literal[0x300*i:])
}

// slotBase is where the reverse tree of a slot begins in special.
func slotBase(slot uint32) (base, bits uint32) {
	bits = slot>>1 - 1
	return (2 | slot&1) << bits, bits
}
