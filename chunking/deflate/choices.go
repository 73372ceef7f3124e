package deflate

import (
	"sync"

	"ferry/chunking/rangecoder"
)

// choices codes the tokens of a stream whose encoder is not known, by what a known one
// would have written in their place: whether that is right, and if not, what stands
// there, where matches are looked up in the plain bytes. Bits are coded as LZMA does (a
// binary range coder with adaptive probabilities; LZMA specification, I. Pavlov, 2015).
// The same code writes and reads them, so that both come to the same models.
type choices struct {
	bits rangecoder.Coder

	history uint8 // the outcomes of the last three predictions
	right   [8][6]rangecoder.Prob
	literal [8][6]rangecoder.Prob
	same    [6]rangecoder.Prob      // the length predicted
	lengths [2][256]rangecoder.Prob // else: a tree; by whether a match was predicted
	nearest [16]rangecoder.Prob     // whether it is the next nearest

	head [1 << chainBits]uint32 // positions in the stream, by hash; plus 1
	prev [windowSize]uint16     // how far before it the one before in the chain is; 0: too far
	at   uint32                 // positions of the stream below it are in the chains; may wrap
}

const (
	chainBits = 15
	// maxLooked bounds the positions of a chain that are looked at, and maxRank those of
	// them that would do.
	maxLooked = 256
	maxRank   = 32
)

func newChoices(bits rangecoder.Coder) *choices {
	c := allChoices.Get().(*choices)
	clear(c.head[:]) // which leads to all that prev has
	c.bits, c.history, c.at = bits, 0, 0
	for _, list := range [][]rangecoder.Prob{c.same[:], c.lengths[0][:], c.lengths[1][:], c.nearest[:]} {
		for i := range list {
			list[i] = rangecoder.Even
		}
	}
	for i := range c.right {
		for k := range c.right[i] {
			c.right[i][k], c.literal[i][k] = rangecoder.Even, rangecoder.Even
		}
	}
	return c
}

// allChoices are used again: their tables are large.
var allChoices = sync.Pool{New: func() any { return new(choices) }}

// release gives the choices back.
func (c *choices) release() {
	c.bits = nil
	allChoices.Put(c)
}

// classOf sorts predicted tokens by how likely they are right.
func classOf(t token) int {
	switch n := t.length(); {
	case !t.isMatch():
		return 0
	case n == 3:
		return 1
	case n < 6:
		return 2
	case n < 10:
		return 3
	case n < 32:
		return 4
	}
	return 5
}

// token codes what stands at p's place, where predicted was.
func (c *choices) token(p *predictor, predicted, t token) token {
	class, history := classOf(predicted), c.history
	right := c.bits.Code(&c.right[history][class], t == predicted)
	c.history = history<<1&7 | uint8(bit(right))
	if right {
		return predicted
	}
	// What is no literal where one was predicted is a match.
	if predicted.isMatch() && c.bits.Code(&c.literal[history][class], !t.isMatch()) {
		return literal(p.buf[p.pos])
	}
	n := predicted.length()
	if !predicted.isMatch() {
		n = c.length(0, t)
	} else if !c.bits.Code(&c.same[class], t.length() == n) {
		n = c.length(1, t)
	}
	return match(n, c.dist(p, predicted, n, t))
}

// length codes a length that was not predicted.
func (c *choices) length(tree int, t token) int {
	v := t.length() - minMatch
	m := 1
	for i := 7; i >= 0; i-- {
		m = m<<1 | bit(c.bits.Code(&c.lengths[tree][m], v>>i&1 != 0))
	}
	return m&0xff + minMatch
}

// dist codes how far back a match of n bytes is, by which of the places that would do it
// is, the nearest first.
func (c *choices) dist(p *predictor, predicted token, n int, t token) int {
	if n <= len(p.buf)-p.pos {
		scan := p.buf[p.pos : p.pos+n]
		dist, rank, step := uint32(0), 0, uint32(0)
		if last := c.head[c.hash(scan)]; last > 0 {
			step = c.at + 1 - last
		}
		for range maxLooked {
			if dist += step; step == 0 || dist > windowSize || int(dist) > p.pos || rank == maxRank {
				break
			}
			from := p.pos - int(dist)
			if matchLen(p.buf[from:from+n], scan) == n && (!predicted.isMatch() || int(dist) != predicted.dist() || n != predicted.length()) {
				if !c.bits.Code(&c.nearest[min(rank, 15)], t.dist() != int(dist)) {
					return int(dist)
				}
				rank++
			}
			step = uint32(c.prev[(c.at-dist)%windowSize])
		}
	}
	return int(c.bits.Raw(uint32(t.dist()-1), 15)) + 1
}

func (c *choices) hash(b []byte) uint32 {
	return (uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16) * 0x9e3779b1 >> (32 - chainBits)
}

// pass puts n positions of plain bytes, from p.buf[from] on, into the chains.
func (c *choices) pass(p *predictor, from, n int) {
	for i := from; i < from+n; i++ {
		if len(p.buf)-i >= minMatch {
			h := &c.head[c.hash(p.buf[i:])]
			step := c.at + 1 - *h
			if *h == 0 || step > windowSize {
				step = 0
			}
			c.prev[c.at%windowSize] = uint16(step)
			*h = c.at + 1
		}
		c.at++
	}
}
