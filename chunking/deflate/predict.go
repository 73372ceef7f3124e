package deflate

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

// hashKind is how an encoder finds where some bytes stood before.
type hashKind uint8

const (
	hashRolling hashKind = iota // three bytes, shifted and XORed: zlib, gzip, Info-ZIP
	hashCRC3                    // CRC-32C of three bytes: zlib in Chromium and Node.js from level 6 on
	hashCRC4                    // CRC-32C of four bytes: the same below level 6
	hashGo                      // four bytes, multiplied: Go's compress/flate
	hashMul                     // four bytes, multiplied: zlib in Chromium and Node.js since 2022
	hashFast                    // none: see fast
)

// encoder describes how an encoder of the LZ77 kind with hash chains chooses its
// tokens. All of that is from reading what zlib 1.3 (deflate.c: deflate_fast,
// deflate_slow, longest_match, configuration_table) and Go's compress/flate do.
type encoder struct {
	hash     hashKind
	hashBits uint8
	greedy   bool   // takes a match at once; else looks whether the next byte has a longer one
	good     uint16 // a pending match of this length makes it search a quarter as long
	lazy     uint16 // of this length it does not look further; greedy: inserts none of longer matches
	nice     uint16 // a match of this length ends the search
	chain    uint16 // how many candidates are looked at; 0: it writes literals only
	minLen   uint8  // the shortest match
	maxDist  uint16 // less 1
	farLen   uint8  // a match of this length, if farther than farDist, is not taken; 0: any is
}

const (
	farDist     = 4096
	maxHashBits = 17
)

// margin is how many bytes beyond its place the predictor may look at.
const margin = 2 + maxMatch + 4

// predictor tells which token an encoder would write next. Told what it did
// write, it goes on from there.
type predictor struct {
	encoder
	// buf holds plain bytes: at least windowSize before pos, as far as there are
	// so many, then those to come. Index 0 is never a match, as it is not in zlib.
	buf  []byte
	pos  int
	last bool // the stream ends with buf

	fast  *fast // of Go's level 1
	table *[1 << maxHashBits]uint32
	head  []uint32            // of table
	prev  *[windowSize]uint16 // how far before it the one before in the chain is; 0: too far
	shift uint8               // of the rolling hash

	inserted int   // positions below it are in the chains
	next     found // what was found at pos already
	hasNext  bool
	nextHead uint32 // chain at pos, where that is inserted and next unknown
	hasHead  bool
	primed   int   // where prime was called last
	dropped  int64 // plain bytes that stood before buf
	piece    int64 // it begins anew at each multiple of so many plain bytes; 0: nowhere
}

// found is the best earlier match of a place; length is below minLen where there is none.
type found struct{ length, dist int }

func newPredictor(e encoder) *predictor {
	p := predictors.Get().(*predictor)
	*p = predictor{encoder: e, fast: p.fast, table: p.table, buf: p.buf[:0], prev: p.prev, shift: (e.hashBits + 2) / 3}
	p.head = p.table[:1<<e.hashBits]
	clear(p.head)
	if e.hash == hashFast {
		if p.fast == nil {
			p.fast = new(fast)
		}
		p.fast.reset()
		return p
	}
	if e.hash == hashGo { // which matches the first byte, too
		p.buf = append(p.buf, 0)
		p.pos, p.inserted = 1, 1
	}
	return p
}

// predictors are used again: their tables are large.
var predictors = sync.Pool{New: func() any {
	return &predictor{table: new([1 << maxHashBits]uint32), prev: new([windowSize]uint16)}
}}

// release gives the predictor back.
func (p *predictor) release() {
	if cap(p.buf) <= 2*slideAt {
		predictors.Put(p)
	}
}

// slideAt is how long buf may grow behind pos before it slides.
const slideAt = 512 << 10

// feed gives bytes to come.
func (p *predictor) feed(plain []byte) {
	if p.pos > slideAt {
		keep := windowSize + 1024
		if p.hash == hashFast {
			keep += fastPiece
		}
		drop := (p.pos - keep) / windowSize * windowSize // so that prev stays where it is
		p.buf = p.buf[:copy(p.buf, p.buf[drop:])]
		p.pos -= drop
		p.inserted -= drop
		p.primed -= drop
		p.dropped += int64(drop)
		for i, v := range p.head {
			p.head[i] = max(v, uint32(drop)) - uint32(drop)
		}
		if p.hasHead {
			p.nextHead = max(p.nextHead, uint32(drop)) - uint32(drop)
		}
	}
	p.buf = append(p.buf, plain...)
}

// ready reports whether n bytes from pos on can be predicted or skipped.
func (p *predictor) ready(n int) bool {
	if p.hash == hashFast {
		n += fastPiece
	}
	return p.last || len(p.buf)-p.pos >= n+margin
}

// hashAt returns the hash at i, which hashLen bytes follow.
func (p *predictor) hashAt(i int) uint32 {
	var b uint32
	if len(p.buf)-i > 3 {
		b = binary.LittleEndian.Uint32(p.buf[i:])
	} else {
		b = uint32(p.buf[i]) | uint32(p.buf[i+1])<<8 | uint32(p.buf[i+2])<<16
	}
	switch p.hash {
	case hashRolling:
		return p.rolling(b)
	case hashCRC3:
		return (crcTable[3][b&0xff] ^ crcTable[2][b>>8&0xff] ^ crcTable[1][b>>16&0xff]) & (1<<p.hashBits - 1)
	case hashCRC4:
		return (crcTable[3][b&0xff] ^ crcTable[2][b>>8&0xff] ^ crcTable[1][b>>16&0xff] ^ crcTable[0][b>>24]) & (1<<p.hashBits - 1)
	default:
		return p.four(b)
	}
}

func (p *predictor) hashLen() int {
	if p.hash == hashCRC4 || p.hash == hashGo || p.hash == hashMul {
		return 4
	}
	return 3
}

// crcTable[k][b] is the CRC-32C, begun with 0 and not inverted, of b followed by k
// zero bytes.
var crcTable = func() (t [4][256]uint32) {
	for b := range 256 {
		crc := uint32(b)
		for k := range 4 {
			for range 8 {
				crc = crc>>1 ^ 0x82f63b78&-(crc&1)
			}
			t[k][b] = crc
		}
	}
	return t
}()

// insert puts position i into the chains and returns what was at their head.
func (p *predictor) insert(i int) uint32 {
	p.inserted = i + 1
	if len(p.buf)-i < p.hashLen() {
		return 0
	}
	h := &p.head[p.hashAt(i)]
	was := *h
	p.prev[uint(i)%windowSize] = stepTo(uint32(i), was)
	*h = uint32(i)
	return was
}

// rolling is hashAt for hashRolling, of the first three of four bytes.
func (p *predictor) rolling(b uint32) uint32 {
	shift := p.shift & 7
	return (b&0xff<<(2*shift) ^ b>>8&0xff<<shift ^ b>>16&0xff) & (1<<(p.hashBits&31) - 1) % (1 << maxHashBits)
}

// insertTo inserts all positions below end.
func (p *predictor) insertTo(end int) {
	switch p.hash {
	case hashFast:
		return
	case hashRolling:
		p.insertRolling(end)
	case hashMul, hashGo:
		p.insertFour(end)
	}
	for i := p.inserted; i < end; i++ {
		p.insert(i)
	}
}

// insertRolling is insertTo for hashRolling, as far as three bytes follow: there each hash
// follows from the one before.
func (p *predictor) insertRolling(end int) {
	first, end := p.inserted, min(end, len(p.buf)-2)
	if first >= end {
		return
	}
	mask, shift := uint32(1)<<(p.hashBits&31)-1, p.shift&31
	b := p.buf[first : end+2]
	h := uint32(b[0])<<shift ^ uint32(b[1])
	table, prev := p.table, p.prev
	for k, c := range b[2:] {
		h = (h<<shift ^ uint32(c)) & mask
		at := &table[h%(1<<maxHashBits)]
		i := uint32(first + k)
		prev[i%windowSize] = stepTo(i, *at)
		*at = i
	}
	p.inserted = end
}

// insertFour is insertTo for hashes of four bytes that are multiplied, as far as four follow.
func (p *predictor) insertFour(end int) {
	first, end := p.inserted, min(end, len(p.buf)-3)
	if first >= end {
		return
	}
	table, prev := p.table, p.prev
	b := p.buf[first:]
	for k := range end - first {
		at := &table[p.four(binary.LittleEndian.Uint32(b[k:]))]
		i := uint32(first + k)
		prev[i%windowSize] = stepTo(i, *at)
		*at = i
	}
	p.inserted = end
}

// four is hashAt for hashMul and hashGo.
func (p *predictor) four(b uint32) uint32 {
	if p.hash == hashGo {
		return bits.ReverseBytes32(b) * 0x1e35a7bd >> (32 - maxHashBits)
	}
	return (b*66521 + 66521) >> 16 & (1<<(p.hashBits&31) - 1) % (1 << maxHashBits)
}

// stepTo returns how far before i the place was is; 0 if that is none, or too far.
func stepTo(i, was uint32) uint16 {
	step := i - was
	if was == 0 || step >= windowSize {
		step = 0
	}
	return uint16(step)
}

// search returns the best match at pos among the chain from head on, if one is
// longer than least, which is at least 2.
func (p *predictor) search(pos int, head uint32, least int) found {
	best := found{length: least}
	ahead := min(len(p.buf)-pos, maxMatch)
	lowest := max(pos-int(p.maxDist)-1, 0)
	cur := int(head)
	if cur == 0 || cur >= pos || cur < lowest || least >= ahead {
		return best
	}
	tries := int(p.chain)
	if least >= int(p.good) {
		tries >>= 2
	}
	nice := min(int(p.nice), ahead)
	if p.hash != hashGo {
		lowest++ // zlib looks as far as maxDist only at the head of a chain
	}
	lowest = max(lowest, 1)
	buf, prev := p.buf, p.prev
	scan := buf[pos : pos+ahead]
	// What is longer than length agrees in the four bytes that end there, or the
	// three that there are.
	length, off, mask := least, max(least-3, 0), uint32(1<<32-1)
	end := uint32(scan[0]) | uint32(scan[1])<<8 | uint32(scan[2])<<16
	if length == 2 {
		mask = 1<<24 - 1
	} else {
		end = binary.LittleEndian.Uint32(scan[off:])
	}
	for {
		if binary.LittleEndian.Uint32(buf[cur+off:])&mask == end {
			if n := matchLen(buf[cur:cur+ahead], scan); n > length {
				best = found{n, pos - cur}
				if n >= nice {
					return best
				}
				length, off, mask = n, n-3, 1<<32-1
				end = binary.LittleEndian.Uint32(scan[off:])
			}
		}
		step := int(prev[uint(cur)%windowSize])
		cur -= step
		if tries--; tries <= 0 || cur < lowest || step == 0 {
			return best
		}
	}
}

// matchLen returns how many bytes of b stand at the front of a, which is as long.
func matchLen(a, b []byte) int {
	a = a[:len(b)]
	n := 0
	for len(b)-n >= 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)>>3
		}
		n += 8
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// take is search for an encoder that leaves out short matches from far away.
func (p *predictor) take(pos int, head uint32, pending int) found {
	if p.chain == 0 {
		return found{}
	}
	least := int(p.minLen) - 1
	if p.hash != hashGo {
		least = max(least, pending)
	}
	m := p.search(pos, head, least)
	if m.dist == 0 || m.length == int(p.farLen) && m.dist > farDist {
		return found{}
	}
	return m
}

// predict returns the token that the encoder would write at pos. The stream must
// not be at its end.
func (p *predictor) predict() token {
	if p.hash == hashFast {
		return p.predictFast()
	}
	m := p.next
	if !p.hasNext {
		head := p.nextHead
		if !p.hasHead {
			head = p.insert(p.pos)
		}
		m = p.take(p.pos, head, 0)
	}
	p.hasNext, p.hasHead = false, false
	if m.dist == 0 {
		return literal(p.buf[p.pos])
	}
	if !p.greedy && m.length < int(p.lazy) && p.pos+1 < len(p.buf) {
		head := p.insert(p.pos + 1)
		p.next = p.take(p.pos+1, head, m.length)
		if p.next.length > m.length {
			p.hasNext = true
			return literal(p.buf[p.pos])
		}
		p.nextHead, p.hasHead = head, true
	}
	return match(m.length, m.dist)
}

// noToken is no token.
const noToken = matchFlag

// follow predicts tokens one after another, as long as it is ready for them. If they are
// known, it accepts those that it predicts; at another one it stops and returns what it
// predicted in its place, and noToken otherwise. If they are not known, it fills them in.
// It returns how many.
func (p *predictor) follow(tokens []token, known bool) (n int, other token) {
	if p.greedy && p.chain > 0 && p.hash == hashRolling && p.inserted == p.pos {
		if n, other = p.followGreedy(tokens, known); other != noToken {
			return n, other
		}
	}
	for ; n < len(tokens) && p.ready(0) && p.pos < len(p.buf); n++ {
		t := p.predict()
		if !known {
			tokens[n] = t
		} else if tokens[n] != t {
			return n, t
		}
		p.accept(t)
	}
	return n, noToken
}

// followGreedy is follow for greedy encoders with hashRolling, while a margin of bytes is
// to come.
func (p *predictor) followGreedy(tokens []token, known bool) (n int, other token) {
	buf, prev, table := p.buf, p.prev, p.table
	for ; n < len(tokens) && len(buf)-p.pos >= margin; n++ {
		pos := p.pos
		first := binary.LittleEndian.Uint32(buf[pos:])
		h := &table[p.rolling(first)]
		cur := int(*h)
		*h = uint32(pos)
		step := stepTo(uint32(pos), uint32(cur))
		prev[uint(pos)%windowSize] = step
		p.inserted = pos + 1

		t := literal(byte(first))
		if step > 0 && int(step) <= int(p.maxDist)+1 {
			if m := p.longest(pos, cur, first); m.length >= minMatch {
				t = match(m.length, m.dist)
			}
		}
		if !known {
			tokens[n] = t
		} else if tokens[n] != t {
			return n, t
		}
		if !t.isMatch() {
			p.pos++
			continue
		}
		p.pos += t.length()
		if t.length() > int(p.lazy) {
			p.inserted = p.pos
		} else {
			p.insertRolling(p.pos)
		}
	}
	return n, noToken
}

// longest is search for greedy encoders, with a margin of bytes to come, the first four of
// them given, at least one candidate, and nothing found yet.
func (p *predictor) longest(pos, cur int, first uint32) (best found) {
	buf, prev := p.buf, p.prev
	scan := buf[pos : pos+maxMatch]
	lowest := max(pos-int(p.maxDist), 1)
	length, off, end, mask := minMatch-1, 0, first&(1<<24-1), uint32(1<<24-1)
	for tries := p.chain; ; {
		if binary.LittleEndian.Uint32(buf[cur+off:])&mask == end {
			if n := matchLen(buf[cur:cur+maxMatch], scan); n > length {
				best = found{n, pos - cur}
				if n >= int(p.nice) {
					return best
				}
				length, off, mask = n, n-3, 1<<32-1
				end = binary.LittleEndian.Uint32(scan[off:])
			}
		}
		step := int(prev[uint(cur)%windowSize])
		cur -= step
		if tries--; tries == 0 || cur < lowest || step == 0 {
			return best
		}
	}
}

// predictFast is predict for Go's level 1.
func (p *predictor) predictFast() token {
	p.fastTo(p.offset() + 1)
	return p.fast.at(p.offset(), p.buf[p.pos])
}

// fastTo goes on to the piece in which the byte before an offset lies.
func (p *predictor) fastTo(off int64) {
	for p.fast.end < off {
		from := p.pos - int(p.offset()-p.fast.end)
		p.fast.next(p.buf[from:min(from+fastPiece, len(p.buf))])
	}
}

// accept moves past the token that was written.
func (p *predictor) accept(t token) {
	n := t.size()
	switch {
	case p.hash == hashFast:
	case !t.isMatch():
		if p.inserted == p.pos { // a correction: nothing was looked for
			p.insert(p.pos)
		}
	case p.greedy && n > int(p.lazy):
		p.hasNext, p.hasHead = false, false
		p.inserted = p.pos + n
	default:
		p.hasNext, p.hasHead = false, false
		p.insertTo(p.pos + n)
	}
	p.pos += n
}

// forget makes the predictor find nothing that stands before pos.
func (p *predictor) forget() {
	clear(p.head)
	p.hasNext, p.hasHead = false, false
	p.inserted = p.pos
}

// minPiece is how many bytes there must be between primings, as each takes time.
const minPiece = 16 << 10

// prime makes the predictor one that was just begun, with the last 32 KiB as its
// dictionary: so pigz begins each of the pieces that it compresses side by side.
func (p *predictor) prime() {
	if p.pos-p.primed < minPiece {
		return
	}
	p.primed = p.pos
	clear(p.head)
	p.hasNext, p.hasHead = false, false
	p.inserted = max(p.pos-windowSize, p.first())
	p.insertTo(p.pos)
}

// beginPiece primes the predictor where a piece begins.
func (p *predictor) beginPiece() {
	if p.piece > 0 && p.offset()%p.piece == 0 {
		p.prime()
	}
}

// offset returns how many plain bytes stand before pos.
func (p *predictor) offset() int64 { return p.dropped + int64(p.pos-p.first()) }

// first is the place in buf of the first plain byte.
func (p *predictor) first() int { return bit(p.hash == hashGo) }

// skip moves past n stored bytes.
func (p *predictor) skip(n int) {
	p.hasNext, p.hasHead = false, false
	p.insertTo(p.pos + n)
	p.pos += n
	if p.hash == hashFast {
		p.fastTo(p.offset())
	}
}
