package deflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
)

// Kinds of blocks; RFC 1951, section 3.2.3.
const (
	kindStored  = 0
	kindFixed   = 1
	kindDynamic = 2
)

// segment is a part of a block, as it was read.
type segment struct {
	kind   uint8
	plain  []byte  // of the tokens, or stored; valid until the next segment
	tokens []token // none in a stored block; valid until the next segment
	header bitString
	last   bool        // the block ends here
	freq   frequencies // then: of all of it, if it is dynamic
	final  bool        // and it is the last one
	pad    byte        // bits skipped before stored bytes, and behind the last block
}

// bitString is bits, the first at the low end of the first byte.
type bitString struct {
	bytes []byte
	n     int
}

// segmentTokens bounds the tokens of a segment, and so its plain bytes.
const segmentTokens = 4096

// inflater reads a deflate stream as tokens.
type inflater struct {
	r   io.Reader
	in  []byte // read and not yet used: in[at:]
	at  int
	buf [64 << 10]byte
	n   int64 // bytes read from r
	eof bool

	acc  uint64
	have uint // bits in acc

	hist   []byte // up to windowSize of history, then the segment's plain bytes
	start  int    // of the segment's bytes in hist
	tokens []token
	open   bool // within a block
	kind   uint8
	final  bool
	lit    huffman
	dist   huffman
	freq   frequencies // of the block
	header []byte
}

func newInflater(r io.Reader) *inflater {
	return &inflater{r: r}
}

var errBadStream = errors.New("not a deflate stream")

func badStream(reason string) error { return fmt.Errorf("%w: %s", errBadStream, reason) }

// refill makes at least 32 bits available, or all that are left.
func (f *inflater) refill() (err error) {
	f.acc, f.have, err = f.more(f.acc, f.have)
	return err
}

// more is refill for bits held elsewhere.
func (f *inflater) more(acc uint64, have uint) (uint64, uint, error) {
	if len(f.in)-f.at >= 8 {
		acc |= binary.LittleEndian.Uint64(f.in[f.at:]) << have
		n := (63 - have) >> 3
		f.at += int(n)
		have += n * 8
		return acc & (1<<have - 1), have, nil
	}
	f.acc, f.have = acc, have
	err := f.byByte()
	return f.acc, f.have, err
}

// byByte is refill where few bytes are at hand.
func (f *inflater) byByte() error {
	for f.have <= 56 {
		if f.at == len(f.in) {
			if f.eof {
				return nil
			}
			n, err := io.ReadFull(f.r, f.buf[:])
			f.in, f.at = f.buf[:n], 0
			f.n += int64(n)
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					return err
				}
				f.eof = true
				if n == 0 {
					return nil
				}
			}
		}
		f.acc |= uint64(f.in[f.at]) << f.have
		f.at++
		f.have += 8
	}
	return nil
}

// bits takes n ≤ 32 bits.
func (f *inflater) bits(n uint) (uint32, error) {
	if f.have < n {
		if err := f.refill(); err != nil {
			return 0, err
		}
		if f.have < n {
			return 0, fmt.Errorf("%w: %w", errBadStream, io.ErrUnexpectedEOF)
		}
	}
	v := uint32(f.acc & (1<<n - 1))
	f.acc >>= n
	f.have -= n
	return v, nil
}

// used returns how many bytes of the reader the stream took.
func (f *inflater) used() int64 { return f.n - int64(len(f.in)-f.at) - int64(f.have/8) }

// next reads the next segment into s, or returns io.EOF behind the last.
func (f *inflater) next(s *segment) error {
	if !f.open && f.final {
		return io.EOF
	}
	if f.hist == nil {
		f.hist = make([]byte, 0, windowSize+1<<16+segmentTokens)
		f.tokens = make([]token, 0, segmentTokens)
	}
	if keep := len(f.hist) - windowSize; keep > 0 {
		f.hist = f.hist[:copy(f.hist, f.hist[keep:])]
	}
	f.start = len(f.hist)
	*s = segment{}
	if !f.open {
		if err := f.begin(s); err != nil {
			return err
		}
	}
	s.kind = f.kind
	if f.kind != kindStored {
		f.tokens = f.tokens[:0]
		done, err := f.decode()
		if err != nil {
			return err
		}
		f.open = !done
		s.tokens = f.tokens
	}
	s.plain = f.hist[f.start:]
	if s.last = !f.open; s.last && f.kind == kindDynamic {
		s.freq = f.freq
	}
	if s.final = s.last && f.final; s.final {
		pad, err := f.bits(f.have % 8)
		if err != nil {
			return err
		}
		if s.kind != kindStored {
			s.pad = byte(pad)
		}
	}
	return nil
}

// begin reads the head of a block, and all of a stored one.
func (f *inflater) begin(s *segment) error {
	head, err := f.bits(3)
	if err != nil {
		return err
	}
	f.final, f.kind, f.open = head&1 != 0, uint8(head>>1), true
	f.freq = frequencies{}
	switch f.kind {
	case kindStored:
		f.open = false
		return f.stored(s)
	case kindFixed:
		if err := f.lit.build(fixedLit[:]); err != nil {
			return err
		}
		return f.dist.build(fixedDist[:])
	case kindDynamic:
		_, s.header, err = f.dynamic()
		return err
	}
	return badStream("unknown kind of block")
}

func (f *inflater) stored(s *segment) error {
	pad, err := f.bits(f.have % 8)
	if err != nil {
		return err
	}
	s.pad = byte(pad)
	sizes, err := f.bits(32)
	if err != nil {
		return err
	}
	n := int(sizes & 0xffff)
	if uint32(n) != ^sizes>>16 {
		return badStream("a stored block's size and its complement differ")
	}
	for n > 0 && f.have > 0 {
		f.hist = append(f.hist, byte(f.acc))
		f.acc >>= 8
		f.have -= 8
		n--
	}
	for n > 0 {
		if f.at == len(f.in) {
			if err := f.refill(); err != nil {
				return err
			}
			if f.have == 0 {
				return fmt.Errorf("%w: %w", errBadStream, io.ErrUnexpectedEOF)
			}
			for n > 0 && f.have > 0 {
				f.hist = append(f.hist, byte(f.acc))
				f.acc >>= 8
				f.have -= 8
				n--
			}
			continue
		}
		m := min(n, len(f.in)-f.at)
		f.hist = append(f.hist, f.in[f.at:f.at+m]...)
		f.at += m
		n -= m
	}
	return nil
}

// codeLengths are those of a dynamic block.
type codeLengths struct {
	lit  [maxLit]uint8
	dist [maxDist]uint8
}

// dynamic reads the codes of a block, and keeps their bits.
func (f *inflater) dynamic() (lens codeLengths, header bitString, err error) {
	w := bitWriter{out: f.header[:0]}
	take := func(n uint) (uint32, error) {
		v, err := f.bits(n)
		w.put(uint64(v), n)
		return v, err
	}
	counts, err := take(14)
	if err != nil {
		return lens, header, err
	}
	nLit, nDist, nCode := int(counts&31)+257, int(counts>>5&31)+1, int(counts>>10)+4
	if nLit > maxLit || nDist > maxDist {
		return lens, header, badStream("too many codes")
	}
	var codeLens [maxCodeLens]uint8
	for _, c := range codeOrder[:nCode] {
		v, err := take(3)
		if err != nil {
			return lens, header, err
		}
		codeLens[c] = uint8(v)
	}
	if err := f.lit.build(codeLens[:]); err != nil {
		return lens, header, err
	}
	var all [maxLit + maxDist]uint8
	for i := 0; i < nLit+nDist; {
		if err := f.refill(); err != nil {
			return lens, header, err
		}
		e := f.lit.find(f.acc)
		n := uint(e & 15)
		if n == 0 || n > f.have {
			return lens, header, cut(n == 0, f.have)
		}
		if _, err := take(n); err != nil {
			return lens, header, err
		}
		sym := e >> 4
		if sym < 16 {
			all[i] = uint8(sym)
			i++
			continue
		}
		extra, least := uint(2), 3
		switch sym {
		case 17:
			extra = 3
		case 18:
			extra, least = 7, 11
		}
		v, err := take(extra)
		if err != nil {
			return lens, header, err
		}
		value := uint8(0)
		if sym == 16 {
			if i == 0 {
				return lens, header, badStream("repeats no code length")
			}
			value = all[i-1]
		}
		rep := least + int(v)
		if i+rep > nLit+nDist {
			return lens, header, badStream("too many code lengths")
		}
		for range rep {
			all[i] = value
			i++
		}
	}
	copy(lens.lit[:nLit], all[:])
	copy(lens.dist[:], all[nLit:nLit+nDist])
	if lens.lit[endOfBlock] == 0 {
		return lens, header, badStream("a block without an end")
	}
	n := w.bits()
	f.header = w.flush()
	header = bitString{f.header, n}
	if err := f.lit.build(lens.lit[:]); err != nil {
		return lens, header, err
	}
	return lens, header, f.dist.build(lens.dist[:])
}

// headerOf is dynamic for the header that b holds.
func (f *inflater) headerOf(b []byte) (codeLengths, bitString, error) {
	f.r, f.in, f.at, f.n, f.eof, f.acc, f.have = nil, b, 0, 0, true, 0, 0
	return f.dynamic()
}

// decode reads tokens until the segment is full or the block ends.
func (f *inflater) decode() (done bool, err error) {
	acc, have, hist := f.acc, f.have, f.hist
	tokens, made := f.tokens[:segmentTokens], 0
	for made < segmentTokens {
		// 15 bits hold any code, 48 the longest token: 15 + 5 + 15 + 13.
		if have < 15 {
			if acc, have, err = f.more(acc, have); err != nil {
				break
			}
		}
		e := f.lit.find(acc)
		n := uint(e & 15)
		if n == 0 || n > have {
			err = cut(n == 0, have)
			break
		}
		sym := int(e >> 4)
		if len(hist)+maxMatch+8 > cap(hist) {
			hist = slices.Grow(hist, maxMatch+8)
		}
		if sym < endOfBlock {
			acc >>= n
			have -= n
			hist = append(hist, byte(sym))
			f.freq.lit[sym]++
			tokens[made] = literal(byte(sym))
			made++
			continue
		}
		if sym == endOfBlock {
			acc >>= n
			have -= n
			done = true
			break
		}
		if have < 48 {
			if acc, have, err = f.more(acc, have); err != nil {
				break
			}
		}
		var length, dist int
		var used uint
		if length, dist, used, err = f.match(acc, n, sym-endOfBlock-1, have); err != nil {
			break
		}
		acc >>= used
		have -= used
		if dist > len(hist) {
			err = badStream("a match before the start")
			break
		}
		at := len(hist)
		hist = hist[:at+length]
		repeat(hist[:at+length+8], at, dist, length)
		tokens[made] = match(length, dist)
		made++
	}
	f.acc, f.have, f.hist, f.tokens = acc, have, hist, tokens[:made]
	return done, err
}

// match reads the rest of a match whose length has symbol sym, in n bits of acc; used is
// how many bits all of it has.
func (f *inflater) match(acc uint64, n uint, sym int, have uint) (length, dist int, used uint, err error) {
	if sym >= len(lengthBase) {
		return 0, 0, 0, badStream("unknown length")
	}
	f.freq.lit[endOfBlock+1+sym]++
	used = n
	acc >>= n
	n = uint(lengthExtra[sym])
	length = int(lengthBase[sym]) + int(acc&(1<<n-1))
	acc >>= n
	used += n
	if length > maxMatch || length == maxMatch && sym != 28 {
		return 0, 0, 0, badStream("a length written in a way that no encoder does")
	}
	e := f.dist.find(acc)
	n = uint(e & 15)
	if n == 0 {
		return 0, 0, 0, cut(true, have)
	}
	used += n
	acc >>= n
	if sym = int(e >> 4); sym >= len(distBase) {
		return 0, 0, 0, badStream("unknown distance")
	}
	f.freq.dist[sym]++
	n = uint(distExtra[sym])
	dist = int(distBase[sym]) + int(acc&(1<<n-1)) + 1
	if used += n; used > have {
		return 0, 0, 0, cut(false, have)
	}
	return length, dist, used, nil
}

// repeat writes n bytes at b[at:] that stand dist before, and may write up to 8 more.
func repeat(b []byte, at, dist, n int) {
	if dist < 8 {
		for i := at; i < at+n; i++ {
			b[i] = b[i-dist]
		}
		return
	}
	to, from := b[at:], b[at-dist:]
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(from[i:]))
	}
}

// cut returns the error of a code that is none, or that is longer than the bits that are left.
func cut(bad bool, have uint) error {
	if bad && have >= 15 {
		return badStream("unknown code")
	}
	return fmt.Errorf("%w: %w", errBadStream, io.ErrUnexpectedEOF)
}

const primaryBits = 10

// huffman decodes canonical codes of up to 15 bits. An entry is symbol<<4 | bits;
// 0 is no code.
type huffman struct {
	primary   [1 << primaryBits]uint16
	secondary []uint16 // tables of 32 entries, by what primary says
}

// overflow marks a primary entry that leads to a secondary table: bits is 0 of no
// code, so a symbol number above all symbols tells them apart.
const overflow = 0x8000

func (h *huffman) build(lens []uint8) error {
	var count [16]int
	for _, n := range lens {
		count[n]++
	}
	zeros := count[0]
	count[0] = 0
	var next [16]int
	code, left := 0, 1
	for n := 1; n <= 15; n++ {
		code = (code + count[n-1]) << 1
		next[n] = code
		left = left<<1 - count[n]
		if left < 0 {
			return badStream("too many short codes")
		}
	}
	if total := len(lens) - zeros; left > 0 && total > 0 && (total > 1 || count[1] != 1) {
		return badStream("codes that are not used") // of one, a single code of one bit is usual
	}
	clear(h.primary[:])
	h.secondary = h.secondary[:0]
	for sym, n := range lens {
		if n == 0 {
			continue
		}
		c := int(bits.Reverse16(uint16(next[n]))) >> (16 - n)
		next[n]++
		e := uint16(sym)<<4 | uint16(n)
		if n <= primaryBits {
			for i := c; i < 1<<primaryBits; i += 1 << n {
				h.primary[i] = e
			}
			continue
		}
		low := c & (1<<primaryBits - 1)
		if h.primary[low] == 0 {
			h.primary[low] = overflow | uint16(len(h.secondary)/32)<<4
			h.secondary = append(h.secondary, make([]uint16, 32)...)
		}
		table := h.secondary[int(h.primary[low]&^overflow)>>4*32:]
		for i := c >> primaryBits; i < 32; i += 1 << (n - primaryBits) {
			table[i] = e
		}
	}
	return nil
}

// find returns the entry of the code at the low end of acc.
func (h *huffman) find(acc uint64) uint16 {
	e := h.primary[acc&(1<<primaryBits-1)]
	if e&overflow == 0 {
		return e
	}
	return h.secondary[int(e&^overflow)>>4*32+int(acc>>primaryBits&31)]
}
