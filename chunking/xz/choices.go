package xz

import (
	"math/bits"

	"ferry/chunking/rangecoder"
)

// choices codes the tokens of a stream by what is likely in their place: which matches
// there are, it looks up in the plain bytes. The same code writes and reads them, so that
// both come to the same chances.
//
// Classes that chances depend on: sizeClass of the longest match that was looked up, and
// of the longest of those from where the last four were; reachClass of a distance; and
// LZMA's state.
type choices struct {
	bits rangecoder.Coder
	prob rangecoder.Prob // what bits.Code adapts; chances do so in their own way
	find *finder
	history
	chances
}

type chances struct {
	single [12][12][4][3][3]chance // a byte: a literal, or a short match
	short  [numStates][2][12]chance
	again  [numStates][12][12]chance // a match from where one of the last four was
	which  [3][2][5]chance           // of the four
	whole  [4][12][2]chance          // all of it
	less   [4][512]chance            // else: a tree
	longer [3][20][2][4]chance       // than what was looked up so far
	best   [12][4][2][4][9]chance    // the longest of what was looked up
	within [64][512]chance           // none of these: a tree
	beyond [12][512]chance           // longer by: a tree
	near   [12]chance                // the nearest that has the length
	digits [4][32]chance             // of the distance: a tree
}

// chance is how likely a bit is not set, of 2^11, and above these bits, how many such bits
// there were, up to 15: the first ones count more. So that the zero value is even, that bit
// is held inverted.
type chance uint16

const (
	chanceBits = 11
	chanceMost = 15
	evenChance = 1 << chanceBits / 2
)

// chanceMoves is what a bit moves a chance by: one in 2^n of what is missing to certainty.
var chanceMoves = [chanceMost + 1]uint8{1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5}

// Bounds of a chance, as a range coder that moves by one in 2^5 has them.
const (
	leastChance = 31
	mostChance  = 1<<chanceBits - 31
)

func newChoices(bits rangecoder.Coder) *choices {
	return &choices{bits: bits}
}

// release gives back what is used again.
func (c *choices) release() {
	if c.find != nil {
		c.find.release()
	}
}

// begin begins a chunk.
func (c *choices) begin(control byte) {
	if c.find == nil { // what proves to be no stream needs none
		c.find = newFinder()
	}
	if control >= chunkLZMA+chunkReset {
		c.history = history{}
	}
}

// end ends a chunk, all of whose bytes are done.
func (c *choices) end(w *window) { c.find.insert(w) }

// code codes a bit of that chance, and moves the chance.
func (c *choices) code(p *chance, bit bool) bool {
	v, n := (*p^evenChance)&(1<<chanceBits-1), *p>>chanceBits
	c.prob = rangecoder.Prob(v)
	bit = c.bits.Code(&c.prob, bit)
	if bit {
		v = max(v-v>>chanceMoves[n], leastChance)
	} else {
		v = min(v+(1<<chanceBits-v)>>chanceMoves[n], mostChance)
	}
	*p = (v | min(n+1, chanceMost)<<chanceBits) ^ evenChance
	return bit
}

// tree codes v ≤ most, the highest bit first.
func (c *choices) tree(list []chance, most, v int) int {
	n := bits.Len(uint(most))
	m := 1
	for i := n - 1; i >= 0; i-- {
		m = m<<1 | bit(c.code(&list[m], v>>i&1 != 0))
	}
	return m - 1<<n
}

// sizeClass sorts lengths of matches.
var sizeClass = func() (class [maxMatch + 1]uint8) {
	for n := range class {
		for _, from := range []int{2, 3, 4, 5, 6, 7, 8, 10, 14, 20, 64} {
			class[n] += uint8(bit(n >= from))
		}
	}
	return class
}()

// reachClass sorts distances.
func reachClass(dist uint32) int {
	switch {
	case dist < 1<<7:
		return 0
	case dist < 1<<11:
		return 1
	case dist < 1<<15:
		return 2
	}
	return 3
}

// stateClass sorts states: behind a literal, behind a match behind a literal, behind two
// matches.
func stateClass(state uint8) int {
	return bit(state >= litStates) + bit(state >= 10)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// token codes what stands at w's pos. What it reads may be longer than the bytes that are
// left, or reach back further than there are any: that is for the caller to see.
func (c *choices) token(w *window, t token) token {
	left := min(maxMatch, len(w.buf)-w.pos)
	f := c.find
	f.insert(w)
	f.begin(w, left)
	var reps [4]int // how long a match is from where each of the last ones was
	rep := 0
	back := uint32(w.back(w.pos))
	for i, d := range c.reps {
		if d < back {
			reps[i] = matchLen(w.buf, w.pos-1-int(d), w.pos, left)
			rep = max(rep, reps[i])
		}
	}
	found, dist := f.longest()
	size, repSize := sizeClass[found], sizeClass[rep]
	single := left < minMatch
	if !single {
		p := &c.chances.single[size][repSize][reachClass(dist)][stateClass(c.state)][c.goesOn(w, left)]
		single = c.code(p, t.n == 1)
	}
	switch {
	case single:
		short := reps[0] > 0 && c.code(&c.short[c.state][bit(rep > 1)][size], t.kind == kindShort)
		t = token{kind: kindLiteral, n: 1}
		if short {
			t.kind = kindShort
		}
	case rep >= minMatch && c.code(&c.again[c.state][size][repSize], t.kind >= kindRep):
		t = c.rep(&reps, size, t)
	default:
		n := c.length(w, rep, left, int(t.n))
		t = token{kind: kindMatch, n: uint16(n), dist: c.dist(n, t.dist)}
	}
	c.history.pass(t)
	return t
}

// goesOn sorts how the last match goes on behind the next byte.
func (c *choices) goesOn(w *window, left int) int {
	d := int(c.reps[0])
	if d >= w.back(w.pos) || left < 6 {
		return 0
	}
	return max(1, min(3, matchLen(w.buf, w.pos-d, w.pos+1, 3))) - 1
}

// rep codes which of the last matches goes on, of those that do for at least two bytes.
func (c *choices) rep(reps *[4]int, found uint8, t token) token {
	k := 0
	for ; k < 3; k++ {
		if reps[k] < minMatch {
			continue
		}
		others := 0 // 1: others would do; 2: longer ones
		for _, n := range reps[k+1:] {
			if n > reps[k] {
				others = 2
			} else if n >= minMatch {
				others = max(others, 1)
			}
		}
		if others == 0 || c.code(&c.which[k][others-1][min(reps[k]-minMatch, 4)], t.kind == kindRep+uint8(k)) {
			break
		}
	}
	n := reps[k]
	size := sizeClass[n]
	if n > minMatch && !c.code(&c.whole[k][size][bit(found > size)], int(t.n) == n) {
		n = minMatch + c.tree(c.less[min(n-minMatch-1, 3)][:], n-minMatch-1, int(t.n)-minMatch)
	}
	return token{kind: kindRep + uint8(k), n: uint16(n)}
}

// length codes the length of a match. Where it is longer than any that was found, more
// are looked for.
func (c *choices) length(w *window, rep, left, n int) int {
	f := c.find
	seen := 0
	for stage, depth := range depths {
		f.search(w, left, depth.short, depth.long)
		most, _ := f.longest()
		most = max(most, 1)
		p := &c.longer[stage][min(most, 19)][bit(f.closed)][min(len(f.found)-seen, 3)]
		if most == left || !c.code(p, n > most) {
			return c.lengthOf(f.found, seen, rep, n)
		}
		seen = len(f.found)
	}
	most, _ := f.longest()
	most = max(most, 1)
	return most + 1 + c.tree(c.beyond[sizeClass[most]][:], maxMatch-minMatch, n-most-1)
}

// lengthOf codes a length that is at most that of the longest match found. Of those that
// were seen before, it is none.
func (c *choices) lengthOf(found []candidate, seen, rep, n int) int {
	for i := len(found) - 1; i >= seen; i-- {
		m := found[i]
		nearer := 0 // how near the next shorter is; 4 more if it is just so
		if i > 0 {
			nearer = 1 + reachClass(found[i-1].dist) + 4*bit(found[i-1].n+1 == m.n)
		}
		p := &c.best[sizeClass[m.n]][min(len(found)-1-i, 3)][bit(rep >= m.n)][reachClass(m.dist)][nearer]
		if c.code(p, n == m.n) {
			return m.n
		}
	}
	most := 0
	if len(found) > 0 {
		most = found[len(found)-1].n
	}
	return minMatch + c.tree(c.within[min(most, 63)][:], max(most-minMatch-1, 0), n-minMatch)
}

// dist codes how far back a match of n bytes is.
func (c *choices) dist(n int, dist uint32) uint32 {
	for _, m := range c.find.found {
		if m.n >= n {
			if c.code(&c.near[sizeClass[min(n, maxMatch)]], dist == m.dist) {
				return m.dist
			}
			break
		}
	}
	k := c.tree(c.digits[min(n-minMatch, 3)][:], 31, bits.Len32(dist))
	if k < 2 {
		return uint32(k)
	}
	return 1<<(k-1) | c.bits.Raw(dist&(1<<(k-1)-1), k-1)
}
