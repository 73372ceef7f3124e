package xz

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

const (
	// finderWindow is how far back the last place with a hash may be, chainWindow a place
	// in a chain.
	finderWindow = 8 << 20
	chainWindow  = 1 << 20
	// longMatch is what the longest hash is of. Behind a place at which matches are looked
	// up, or that is in the tables, there are so many bytes.
	longMatch = 12

	shortChain = 5
	longChain  = 8
)

// depths are how many places of the chains are looked at, at first, and further ones if
// the match is longer, and again. Deeper takes more time than it saves bytes.
var depths = [...]struct{ short, long int }{{4, 4}, {8, 8}, {0, 32}}

// finder looks up matches in the plain bytes before w's pos. Its tables have the last
// place with each hash of 2, 3, 4, 5, 8 and 12 bytes; from those of 5 and 8, chains lead to
// the places before. What they lead to is compared, so they may be wrong.
type finder struct {
	at     uint64 // positions of the stream below it are in the tables
	head2  [1 << 16]uint32
	head3  [1 << 16]uint32
	head4  [1 << 18]uint32
	head12 [1 << 18]uint32
	short  chain
	long   chain

	found  []candidate // longer and longer ones, and farther
	begun  bool        // the chains were looked at
	closed bool        // there are no more places to look at
}

// candidate is a match that was found.
type candidate struct {
	dist uint32 // less one
	n    int
}

// chain leads from a place to those before that have the same hash.
type chain struct {
	head [1 << 18]uint32 // links, by hash
	prev []uint32        // links of positions

	// Where a walk is:
	link   uint32 // to the next place
	dist   uint32 // of the place before
	ended  bool
	wanted uint32 // what links to long matches say
}

// A link is a position modulo chainWindow, and above it ten bits: the byte behind those
// hashed, and the low two of the next one. From these it is often seen that no match there
// is longer.
const linkBits = 22

func linkTo(at uint32, behind uint64) uint32 {
	return at%chainWindow | uint32(behind)<<linkBits
}

// agreeBeyond returns the bits of links to matches of more than n bytes that agree, if
// size bytes are hashed.
func agreeBeyond(n, size int) uint32 {
	switch {
	case n < size:
		return 0
	case n == size:
		return 0xff << linkBits
	}
	return 0x3ff << linkBits
}

// Multipliers of the hashes: 2^32 and 2^64 by the golden ratio, and an odd number.
const (
	golden32 = 0x9e3779b1
	golden64 = 0x9e3779b97f4a7c15
	other64  = 0xd6e8feb86659fd93
)

// Hashes of the first bytes of a, little-endian; b is the last eight of twelve.
func hash3(a uint64) uint32     { return uint32(a) << 8 * golden32 >> (32 - 16) }
func hash4(a uint64) uint32     { return uint32(a) * golden32 >> (32 - 18) }
func hash5(a uint64) uint32     { return uint32(a << 24 * golden64 >> (64 - 18)) }
func hash8(a uint64) uint32     { return uint32(a * golden64 >> (64 - 18)) }
func hash12(a, b uint64) uint32 { return uint32((a + b*other64) * golden64 >> (64 - 18)) }

// twelve returns the first eight bytes and the last eight of twelve.
func twelve(b []byte) (first, last uint64) {
	return binary.LittleEndian.Uint64(b[:longMatch]), binary.LittleEndian.Uint64(b[longMatch-8 : longMatch])
}

// behindShort and behindLong return what is behind the bytes that the chains hash.
func behindShort(first uint64) uint64 { return first >> (8 * shortChain) }
func behindLong(last uint64) uint64   { return last >> (8 * (longChain - (longMatch - 8))) }

// finders are used again: their tables are large.
var finders = sync.Pool{New: func() any { return new(finder) }}

func newFinder() *finder {
	f := finders.Get().(*finder)
	f.at = 0
	clear(f.head2[:])
	clear(f.head3[:])
	clear(f.head4[:])
	clear(f.head12[:])
	for _, c := range []*chain{&f.short, &f.long} {
		clear(c.head[:]) // which leads to all that prev has
		c.prev = c.prev[:0]
	}
	return f
}

func (f *finder) release() { finders.Put(f) }

// insert puts the positions before w's pos into the tables, but for those that too few
// bytes are behind as yet.
func (f *finder) insert(w *window) {
	end := min(w.pos, len(w.buf)-longMatch+1)
	i := int(f.at - w.base)
	if i >= end {
		return
	}
	at := uint32(f.at)
	f.at += uint64(end - i)
	size := int(min(f.at, chainWindow))
	f.short.grow(size)
	f.long.grow(size)
	for buf := w.buf; i < end; i++ {
		a, b := twelve(buf[i:])
		f.head2[a&0xffff] = at
		f.head3[hash3(a)] = at
		f.head4[hash4(a)] = at
		f.head12[hash12(a, b)] = at
		f.short.add(at, hash5(a), behindShort(a))
		f.long.add(at, hash8(a), behindLong(b))
		at++
	}
}

func (c *chain) grow(n int) {
	if n > cap(c.prev) {
		c.prev = append(make([]uint32, 0, min(chainWindow, max(2*n, 1<<14))), c.prev...)
	}
	if n > len(c.prev) {
		c.prev = c.prev[:n]
	}
}

func (c *chain) add(at, hash uint32, behind uint64) {
	head := &c.head[hash%uint32(len(c.head))]
	c.prev[at%chainWindow] = *head
	*head = linkTo(at, behind)
}

// begin begins a walk.
func (c *chain) begin(hash uint32, behind uint64) {
	c.link, c.dist, c.ended, c.wanted = c.head[hash], 0, false, linkTo(0, behind)
}

// longest returns the longest match that was found, of length 0 if there is none.
func (f *finder) longest() (n int, dist uint32) {
	if len(f.found) == 0 {
		return 0, 0
	}
	m := f.found[len(f.found)-1]
	return m.n, m.dist
}

// begin looks up matches of at most most bytes at w's pos: the last place only of each
// hash but the longest.
func (f *finder) begin(w *window, most int) {
	f.found, f.begun, f.closed = f.found[:0], false, most < longMatch
	if f.closed {
		return
	}
	a := binary.LittleEndian.Uint64(w.buf[w.pos:])
	f.short.begin(hash5(a), behindShort(a))
	at := uint32(w.base) + uint32(w.pos)
	f.take(w, most, (at-f.head2[a&0xffff])%finderWindow)
	f.take(w, most, (at-f.head3[hash3(a)])%finderWindow)
	f.take(w, most, (at-f.head4[hash4(a)])%finderWindow)
	f.take(w, most, (at-f.short.link)%chainWindow)
}

// take adds the match at a distance if it is longer and farther than all others.
func (f *finder) take(w *window, most int, dist uint32) {
	n, after := f.bar()
	if n == most || dist <= after || dist > uint32(w.back(w.pos)) {
		return
	}
	if m := matchLen(w.buf, w.pos-int(dist), w.pos, most); m > n {
		f.found = append(f.found, candidate{dist - 1, m})
	}
}

// bar returns what a match must be longer and farther than.
func (f *finder) bar() (n int, dist uint32) {
	if len(f.found) == 0 {
		return minMatch - 1, 0
	}
	m := f.found[len(f.found)-1]
	return m.n, m.dist + 1
}

// search looks at so many more places of the chains, and at first at the last place of
// twelve bytes. What is as long as the long chain's hash is left to that one.
func (f *finder) search(w *window, most, short, long int) {
	if f.closed {
		return
	}
	a, b := twelve(w.buf[w.pos:])
	if !f.begun {
		f.long.begin(hash8(a), behindLong(b))
	}
	f.walk(w, &f.short, shortChain, min(most, longChain-1), short)
	f.walk(w, &f.long, longChain, most, long)
	if !f.begun {
		f.begun = true
		f.take(w, most, (uint32(w.base)+uint32(w.pos)-f.head12[hash12(a, b)])%finderWindow)
	}
	n, _ := f.bar()
	f.closed = f.long.ended && (f.short.ended || n >= longChain-1)
}

// walk looks at so many more places of a chain that hashes size bytes, for matches of up
// to enough bytes or a longer one.
func (f *finder) walk(w *window, c *chain, size, enough, depth int) {
	n, after := f.bar()
	if n >= enough || c.ended {
		return
	}
	most := min(maxMatch, len(w.buf)-w.pos)
	p, buf, prev := w.pos, w.buf, c.prev
	at := uint32(w.base) + uint32(p)
	back := uint32(min(w.back(p), chainWindow-1))
	agree, dist, link := agreeBeyond(n, size), c.dist, c.link
	for range depth {
		next := (at - link) % chainWindow
		if next <= dist || next > back {
			c.ended = true
			break
		}
		dist = next
		said := link
		link = prev[(at-dist)%chainWindow]
		if dist <= after || (said^c.wanted)&agree != 0 {
			continue
		}
		from := p - int(dist)
		if buf[from+n] != buf[p+n] {
			continue
		}
		if m := matchLen(buf, from, p, most); m > n {
			n, after, agree = m, dist, agreeBeyond(m, size)
			f.found = append(f.found, candidate{dist - 1, m})
			if n >= enough {
				break
			}
		}
	}
	c.dist, c.link = dist, link
}

// matchLen returns how many bytes agree at a < b, up to n, which are all there.
func matchLen(buf []byte, a, b, n int) int {
	x, y := buf[a:a+n], buf[b:b+n]
	i := 0
	for ; i+8 <= n; i += 8 {
		if d := binary.LittleEndian.Uint64(x[i:]) ^ binary.LittleEndian.Uint64(y[i:]); d != 0 {
			return i + bits.TrailingZeros64(d)>>3
		}
	}
	for ; i < n && x[i] == y[i]; i++ {
	}
	return i
}
