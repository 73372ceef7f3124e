package lz4

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync"
)

// The encoder makes the choices of lz4hc.c, LZ4 1.9: each match is the longest of those that
// a chain of places with the same hash leads to, and is held against one that begins
// before its end, and that against a third.

const (
	hashBits    = 15
	maxDistance = 1<<16 - 1
	// Bytes at the end of a block that no match covers, and before the end of which none
	// begins.
	lastLiterals = 5
	lastMatch    = 12
	// optimalMatch is the longest match that takes one token.
	optimalMatch = longLength - 1 + minMatch
	// patternAttempts is from how many attempts on runs of one byte are seen.
	patternAttempts = 128
	// origin is added to positions in the table of hashes: below it are none.
	origin = 1 << 16
)

// attempts returns how many places of a chain are looked at.
func attempts(level int) int { return 4 << (level - leastLevel) }

// match says that src[start:start+n] stands at from, too.
type match struct{ start, from, n int }

func (m match) end() int { return m.start + m.n }

// cut takes bytes off the front.
func (m *match) cut(n int) {
	if n > 0 {
		m.start, m.from, m.n = m.start+n, m.from+n, m.n-n
	}
}

// encoder encodes one block.
type encoder struct {
	src      []byte
	attempts int
	next     int // position to be inserted
	head     [1 << hashBits]uint32
	prev     [1 << 16]uint16 // by position modulo 2^16: how far back the place before is

	dst    []byte
	anchor int    // up to where src is coded
	want   []byte // what dst must begin as; nil for anything
	from   int    // where the block begins in dst
	failed bool   // it does not
}

// encoders are used again: their tables are large.
var encoders = sync.Pool{New: func() any { return new(encoder) }}

// encodeBlock appends the block that the encoder makes of src. If want is given, it gives
// up as soon as it is another.
func encodeBlock(dst, src []byte, level int, want []byte) (out []byte, ok bool) {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	clear(e.head[:])
	e.src, e.attempts, e.next = src, attempts(level), 0
	e.dst, e.anchor, e.want, e.from, e.failed = dst, 0, want, len(dst), false
	if len(src) > lastMatch {
		e.matches()
	}
	e.sequence(match{start: len(src)})
	out = e.dst
	e.src, e.dst, e.want = nil, nil, nil
	return out, !e.failed
}

// sequence codes the literals before a match, and the match.
func (e *encoder) sequence(m match) {
	before := len(e.dst)
	e.dst = appendSequence(e.dst, e.src[e.anchor:m.start], m.start-m.from, m.n)
	e.anchor = m.end()
	if e.want != nil && !e.failed {
		at := before - e.from
		e.failed = at > len(e.want) || !bytes.HasPrefix(e.want[at:], e.dst[before:])
	}
}

// matches codes all sequences but the last.
func (e *encoder) matches() {
	last := len(e.src) - lastMatch
	for at := 0; at <= last && !e.failed; {
		first := e.longest(at)
		if first.n < minMatch {
			at++
			continue
		}
		e.follow(first, last)
		at = e.anchor
	}
}

// follow codes a match, or better ones that begin in it, and what these lead to.
func (e *encoder) follow(first match, last int) {
	kept := first // in case first is given up for one that begins later
	for !e.failed {
		second := first
		if first.end() <= last {
			second = e.wider(first.end()-2, first.start, first.n)
		}
		if second.n == first.n {
			e.sequence(first)
			return
		}
		if kept.start < first.start && second.start < first.start+kept.n {
			first = kept
		}
		if second.start-first.start < 3 {
			first = second
			continue
		}
		if first, kept = e.three(first, second, last); first.n == 0 {
			return
		}
	}
}

// three codes first, and second with what follows it, as far as they are settled. What is
// left is to be followed, with what is kept; nothing if its length is 0.
func (e *encoder) three(first, second match, last int) (left, kept match) {
	for !e.failed {
		second.cut(e.roomFor(first, second))
		third := second
		if second.end() <= last {
			third = e.wider(second.end()-3, second.start, second.n)
		}
		if third.n == second.n { // none is better
			first.n = min(first.n, second.start-first.start)
			e.sequence(first)
			e.sequence(second)
			return match{}, match{}
		}
		if third.start < first.end()+3 { // there is no room for the second
			if third.start < first.end() {
				second = third
				continue
			}
			if second.start < first.end() {
				if second.cut(first.end() - second.start); second.n < minMatch {
					second = third
				}
			}
			e.sequence(first)
			return third, second
		}
		if second.start < first.end() {
			if second.start-first.start < optimalMatch {
				n := e.roomFor(first, second)
				first.n = second.start - first.start + n
				second.cut(n)
			} else {
				first.n = second.start - first.start
			}
		}
		e.sequence(first)
		first, second = second, third
	}
	return match{}, match{}
}

// roomFor returns how many bytes of second, which begins shortly behind first, are better
// left to that.
func (e *encoder) roomFor(first, second match) int {
	between := second.start - first.start
	if between >= optimalMatch {
		return 0
	}
	return min(first.n, optimalMatch, between+second.n-minMatch) - between
}

func (e *encoder) hash(at int) uint32 {
	return binary.LittleEndian.Uint32(e.src[at:]) * 2654435761 >> (32 - hashBits)
}

// insert puts the positions below at into the tables.
func (e *encoder) insert(at int) {
	for ; e.next < at; e.next++ {
		head := &e.head[e.hash(e.next)]
		i := uint32(e.next + origin)
		e.prev[e.next&maxDistance] = uint16(min(i-*head, maxDistance))
		*head = i
	}
}

// longest returns the longest match at a position; of length less than minMatch if there
// is none.
func (e *encoder) longest(at int) match { return e.wider(at, at, minMatch-1) }

// wider returns a match that covers at, begins at low or behind, and is longer than n
// bytes; one of length n if there is none.
func (e *encoder) wider(at, low, n int) match {
	e.insert(at)
	src, high := e.src, len(e.src)-lastLiterals
	found := match{n: n}
	lowest := max(0, at-maxDistance)
	lookBack := at - low
	pattern := binary.LittleEndian.Uint32(src[at:])
	run := 0 // of the byte at at, if there are four; -1 if not
	from := int(e.head[e.hash(at)]) - origin
	for left := e.attempts; from >= lowest && left > 0; left-- {
		end := low + found.n - 1
		if other := from - lookBack + found.n - 1; src[end] == src[other] && src[end+1] == src[other+1] && binary.LittleEndian.Uint32(src[from:]) == pattern {
			back := 0
			for back < lookBack && back < from && src[at-back-1] == src[from-back-1] {
				back++
			}
			if n := minMatch + equal(src, from+minMatch, at+minMatch, high) + back; n > found.n {
				found = match{at - back, from - back, n}
			}
		}
		back := int(e.prev[from&maxDistance])
		if back != 1 || e.attempts <= patternAttempts || run < 0 {
			from -= back
			continue
		}
		if run == 0 {
			if run = e.runAt(at, high); run < minMatch {
				run = -1
			}
		}
		if next := from - 1; run > 0 && next >= lowest && binary.LittleEndian.Uint32(src[next:]) == pattern {
			var ended bool
			if from, ended = e.skipRun(&found, at, lookBack, next, lowest, run); ended {
				break
			}
			continue
		}
		from -= back
	}
	return found
}

// skipRun goes on in a run of one byte, of which there are run at at, and some at next: to where
// as many end, or to where the run begins.
func (e *encoder) skipRun(found *match, at, lookBack, next, lowest, run int) (from int, ended bool) {
	src := e.src
	forward := e.runAt(next, len(src)-lastLiterals)
	back := 0
	for back < next-lowest && src[next-back-1] == src[next] {
		back++
	}
	if back+forward >= run && forward <= run {
		return next + forward - run, false
	}
	from = next - back
	if lookBack > 0 {
		return from, false
	}
	if most := min(back+forward, run); found.n < most {
		if at-from > maxDistance {
			return from, true
		}
		*found = match{at, from, most}
	}
	return from - int(e.prev[from&maxDistance]), false
}

// runAt counts the bytes from at to high that are the same.
func (e *encoder) runAt(at, high int) int {
	n := 1
	for at+n < high && e.src[at+n] == e.src[at] {
		n++
	}
	return n
}

// equal counts the bytes that agree at a < b, up to where b is high.
func equal(src []byte, a, b, high int) int {
	n := 0
	for ; b+n+8 <= high; n += 8 {
		if x := binary.LittleEndian.Uint64(src[a+n:]) ^ binary.LittleEndian.Uint64(src[b+n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for b+n < high && src[a+n] == src[b+n] {
		n++
	}
	return n
}
