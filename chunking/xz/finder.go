package xz

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

const (
	// finderWindow is how far back matches are looked up.
	finderWindow = 8 << 20
	// longMatch is what the longest hash is of; behind a place at which matches are looked
	// up, there must be so many bytes.
	longMatch = 12
	// filterBytes is what the hash of the chains is of; what they lead to says more.
	chainMatch = 5
)

// depths are how many places of a chain are looked at, at first and if the match is
// longer. Deeper takes more time than it saves bytes.
var depths = [...]int{8, 16, 32, 64}

// finder looks up matches in the plain bytes, up to w's pos. Its tables have the last
// place with each hash of 2, 3, 4, 5 and 12 bytes; from that of 5, a chain leads to those before.
// All are positions in the stream modulo the window; what they lead to is compared.
type finder struct {
	at     uint64 // positions below it are in the tables
	head2  [1 << 16]uint32
	head3  [1 << 16]uint32
	head4  [1 << 18]uint32
	head5  [1 << 18]uint32 // links
	head12 [1 << 18]uint32
	prev   []uint32 // links of positions: to those before with the same hash of 5 bytes

	found []candidate // longer and longer ones, and farther
	ended bool        // the chain did

	// Where a search goes on:
	bytes uint64 // the first eight
	link  uint32 // to the next place
	dist  uint32 // of the place before
	begun bool
}

// candidate is a match that was found.
type candidate struct {
	dist uint32 // less one
	n    int
}

// A link is a position, and above it the byte behind the hash there and the lowest bit of
// the next one: whether a match may be longer is often seen from these.
const linkBits = 23

func linkTo(at uint32, bytes uint64) uint32 {
	return at%finderWindow | uint32(bytes>>(8*chainMatch))<<linkBits
}

// beyond returns what must agree of links to matches longer than n.
func beyond(n int) uint32 {
	switch {
	case n < chainMatch:
		return 0
	case n == chainMatch:
		return 0xff << linkBits
	}
	return 0x1ff << linkBits
}

const (
	golden32 = 0x9e3779b1
	golden64 = 0x9e3779b97f4a7c15
)

func hash3(b uint64) uint32 { return uint32(b) << 8 * golden32 >> (32 - 16) }
func hash4(b uint64) uint32 { return uint32(b) * golden32 >> (32 - 18) }
func hash5(b uint64) uint32 { return uint32(b << 24 * golden64 >> (64 - 18)) }

// hash12 is of twelve bytes: the first eight, and the last.
func hash12(a, b uint64) uint32 {
	return uint32((a + b*0xd6e8feb86659fd93) * golden64 >> (64 - 18))
}

// finders are used again: their tables are large.
var finders = sync.Pool{New: func() any { return new(finder) }}

func newFinder() *finder {
	f := finders.Get().(*finder)
	f.at = 0
	f.prev = f.prev[:0]
	clear(f.head2[:])
	clear(f.head3[:])
	clear(f.head4[:])
	clear(f.head5[:])
	clear(f.head12[:])
	return f
}

func (f *finder) release() { finders.Put(f) }

// insert puts the positions before w's pos into the tables, but for those that too few
// bytes are behind as yet.
func (f *finder) insert(w *window) {
	p := min(w.pos, len(w.buf)-longMatch+1)
	i := int(f.at - w.base)
	if i >= p {
		return
	}
	at := uint32(f.at)
	f.at += uint64(p - i)
	f.grow(int(min(f.at, finderWindow)))
	buf, prev := w.buf, f.prev
	for ; i < p; i++ {
		b := buf[i : i+longMatch]
		v := binary.LittleEndian.Uint64(b)
		f.head2[v&0xffff] = at
		f.head3[hash3(v)] = at
		f.head4[hash4(v)] = at
		f.head12[hash12(v, binary.LittleEndian.Uint64(b[longMatch-8:]))] = at
		h := &f.head5[hash5(v)]
		prev[at%finderWindow] = *h
		*h = linkTo(at, v)
		at++
	}
}

func (f *finder) grow(n int) {
	if n > cap(f.prev) {
		f.prev = append(make([]uint32, 0, min(finderWindow, max(2*n, 1<<16))), f.prev...)
	}
	if n > len(f.prev) {
		f.prev = f.prev[:n]
	}
}

// longest returns the longest match that was found, of length 0 if there is none.
func (f *finder) longest() (n int, dist uint32) {
	if len(f.found) == 0 {
		return 0, 0
	}
	m := f.found[len(f.found)-1]
	return m.n, m.dist
}

// begin looks up matches of at most most bytes at w's pos: the last places only.
func (f *finder) begin(w *window, most int) {
	f.found, f.ended, f.begun = f.found[:0], false, false
	if most < longMatch {
		f.ended = true
		return
	}
	v := binary.LittleEndian.Uint64(w.buf[w.pos:])
	f.bytes, f.link, f.dist = v, f.head5[hash5(v)], 0
	for _, place := range [4]uint32{f.head2[v&0xffff], f.head3[hash3(v)], f.head4[hash4(v)], f.link} {
		f.take(w, place, most)
	}
}

// take adds the match at a place if it is longer and farther than all others.
func (f *finder) take(w *window, place uint32, most int) {
	n, after := 1, uint32(0)
	if k := len(f.found); k > 0 {
		n, after = f.found[k-1].n, f.found[k-1].dist+1
	}
	d := (uint32(w.base) + uint32(w.pos) - place) % finderWindow
	if n == most || d <= after || d > uint32(min(w.back(w.pos), finderWindow-1)) {
		return
	}
	from := w.pos - int(d)
	if w.buf[from+n] != w.buf[w.pos+n] {
		return
	}
	if m := matchLen(w.buf, from, w.pos, most); m > n {
		f.found = append(f.found, candidate{d - 1, m})
	}
}

// search looks at so many more places of the chain, and at first at the last place of 12
// bytes that agree.
func (f *finder) search(w *window, most, depth int) {
	n, _ := f.longest()
	if n == most || f.ended {
		return
	}
	n = max(n, 1)
	p, buf, prev := w.pos, w.buf, f.prev
	at := uint32(w.base) + uint32(p)
	back := uint32(min(w.back(p), finderWindow-1))
	agree, d, link := beyond(n), f.dist, f.link
	bytes := linkTo(0, f.bytes)
	for range depth {
		next := (at - link) % finderWindow
		if next <= d || next > back {
			f.ended = true
			break
		}
		d = next
		said := link
		link = prev[(at-d)%finderWindow]
		if (said^bytes)&agree != 0 {
			continue
		}
		from := p - int(d)
		if buf[from+n] != buf[p+n] {
			continue
		}
		if m := matchLen(buf, from, p, most); m > n {
			n = m
			agree = beyond(n)
			f.found = append(f.found, candidate{d - 1, m})
			if n == most {
				break
			}
		}
	}
	f.dist, f.link = d, link
	if !f.begun {
		f.begun = true
		f.take(w, f.head12[hash12(f.bytes, binary.LittleEndian.Uint64(buf[p+longMatch-8:]))], most)
	}
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
