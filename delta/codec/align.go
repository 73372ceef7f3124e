package codec

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// match says that target[at:at+n] resembles base[from:from+n].
type match struct{ at, from, n int }

// aligner finds what a target has of a base: runs that are equal but for a few
// bytes, as bsdiff has them (C. Percival, "Naive differences of executable code",
// 2003), with hashed seeds in place of a suffix array.
type aligner struct {
	base  []byte
	cost  costs
	step  int // every so many positions of the base are seeds
	head  []int32
	next  []int32 // by position / step
	shift uint
}

const (
	seedSize  = 12 // bytes that a seed hashes
	seedDepth = 32 // candidates looked at for a position
	sureMatch = 32 // a match this long on the diagonal at hand needs no search
)

// newAligner indexes base. Memory is 2 to 12 bytes for each byte of base.
func newAligner(base []byte, effort Effort) *aligner {
	a := &aligner{step: effort.seedStep(len(base)), cost: binaryCosts}
	if IsText(base) {
		a.cost = textCosts
	}
	logSize := max(10, bits.Len(uint(len(base)/a.step))-1)
	a.shift = uint(64 - logSize)
	a.head = make([]int32, 1<<logSize)
	a.next = make([]int32, len(base)/a.step+1)
	a.index(base)
	return a
}

// index makes base, of the same length as before, what is searched.
func (a *aligner) index(base []byte) {
	a.base = base
	clear(a.head)
	for i := 0; i+seedSize <= len(base); i += a.step {
		h := a.hash(base[i:])
		a.next[i/a.step] = a.head[h]
		a.head[h] = int32(i/a.step) + 1
	}
}

func (a *aligner) hash(b []byte) uint64 {
	lo, hi := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:])
	return (lo*0x9e3779b97f4a7c15 ^ (uint64(hi)*0xc2b2ae3d27d4eb4f + lo>>29)) * 0x9e3779b97f4a7c15 >> a.shift
}

// longest returns where target's front stands in the base for longest, and for
// how many bytes; of equal lengths the one nearest to want.
func (a *aligner) longest(target []byte, want int) (pos, n int) {
	if len(target) < seedSize {
		return 0, 0
	}
	first := binary.LittleEndian.Uint64(target)
	i := a.head[a.hash(target)]
	for depth := 0; i != 0 && depth < seedDepth; depth++ {
		p := (int(i) - 1) * a.step
		i = a.next[i-1]
		if binary.LittleEndian.Uint64(a.base[p:]) != first {
			continue
		}
		if n > 0 && (p+n > len(a.base) || a.base[p+n-1] != target[n-1]) {
			continue
		}
		l := equalFront(target, a.base[p:])
		if l > n || l == n && distance(p, want) < distance(pos, want) {
			pos, n = p, l
		}
	}
	if n < seedSize {
		return 0, 0
	}
	return pos, n
}

func distance(a, b int) int {
	if a > b {
		return a - b
	}
	return b - a
}

// equalFront counts the bytes that a and b share at the front.
func equalFront(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// equalBytes counts the places at which a and b agree.
func equalBytes(a, b []byte) int {
	n := 0
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			n++
		}
	}
	return n
}

// What bytes of a match are worth.
const (
	gainEqual = 2
	giveUp    = 4096 // loss after which a match is not extended any further
)

// costs are what else the aligner reckons with (measured in docs/design.md, "Matches
// in text").
type costs struct {
	differ int // what a byte that differs costs; a literal costs less
	change int // equal bytes more than on the diagonal at hand that pay a new match
	least  int // bytes of a match that is worth keeping
}

// Literals of text compress well together, so that it takes a longer match to be better.
var (
	binaryCosts = costs{differ: 3, change: 8, least: 1}
	textCosts   = costs{differ: 6, change: 32, least: 24}
)

// TextSample is how many bytes tell whether something is text.
const TextSample = 8 << 10

// IsText guesses whether bytes are text: it has no NUL at its front.
func IsText(b []byte) bool { return bytes.IndexByte(b[:min(len(b), TextSample)], 0) < 0 }

// align returns matches in the order of the target, apart from each other.
func (a *aligner) align(target []byte) []match {
	var out []match
	base := a.base
	last := match{} // the match being extended: its start is fixed, its end is not
	scan := 0
	for {
		// Find the next place where another diagonal does better.
		diag := last.from - last.at
		var pos, n int
		for scan < len(target) {
			if on := scan + diag; on >= 0 && on < len(base) {
				if d := equalFront(target[scan:], base[on:]); d >= sureMatch {
					scan += d
					continue
				}
			}
			pos, n = a.longest(target[scan:], scan+diag)
			if n > 0 && n > a.onDiagonal(target, scan, n, diag)+a.cost.change {
				break
			}
			scan++
		}
		if scan >= len(target) {
			last.n = a.forward(target, last, len(target))
			if last.n >= a.cost.least {
				out = append(out, last)
			}
			return out
		}
		back := a.backward(target, scan, pos, last.at)
		last.n = a.forward(target, last, scan)
		if overlap := last.at + last.n - (scan - back); overlap > 0 {
			cut := a.split(target, last, scan, pos, back, overlap)
			last.n -= overlap - cut
			back -= cut
		}
		if last.n >= a.cost.least {
			out = append(out, last)
		}
		last = match{at: scan - back, from: pos - back}
		scan += n
	}
}

// onDiagonal counts the bytes of target[at:at+n] that the diagonal gives.
func (a *aligner) onDiagonal(target []byte, at, n, diag int) int {
	from := at + diag
	if from < 0 {
		skip := min(-from, n)
		at, from, n = at+skip, from+skip, n-skip
	}
	if n <= 0 || from >= len(a.base) {
		return 0
	}
	return equalBytes(target[at:at+n], a.base[from:])
}

// forward returns for how many bytes up to target[end] it pays to go on with m.
func (a *aligner) forward(target []byte, m match, end int) int {
	score, best, n := 0, 0, 0
	limit := min(end-m.at, len(a.base)-m.from)
	for i := 0; i < limit; {
		if same := equalFront(target[m.at+i:m.at+limit], a.base[m.from+i:]); same > 0 {
			score += same * gainEqual
			i += same
			if score > best {
				best, n = score, i
			}
			continue
		}
		score -= a.cost.differ
		i++
		if score < best-giveUp {
			break
		}
	}
	return n
}

// backward returns how many bytes before target[at] and base[from] it pays to add,
// down to target[start].
func (a *aligner) backward(target []byte, at, from, start int) int {
	score, best, n := 0, 0, 0
	for i := 1; i <= min(at-start, from); i++ {
		if target[at-i] == a.base[from-i] {
			score += gainEqual
		} else {
			score -= a.cost.differ
			if score < best-giveUp {
				break
			}
		}
		if score > best {
			best, n = score, i
		}
	}
	return n
}

// split returns how much of the overlap of two matches is better taken from the
// first: it ends with overlap, the second begins with it.
func (a *aligner) split(target []byte, first match, at, from, back, overlap int) int {
	score, best, cut := 0, 0, 0
	t := at - back
	for i := range overlap {
		if target[t+i] == a.base[first.from+first.n-overlap+i] {
			score++
		}
		if target[t+i] == a.base[from-back+i] {
			score--
		}
		if score > best {
			best, cut = score, i+1
		}
	}
	return cut
}
