package deflate

import "encoding/binary"

// fast is what Go's compress/flate does at level 1 (deflatefast.go and encSpeed in Go 1.25):
// it codes pieces of 65535 bytes, and looks up fewer and fewer places where it finds
// nothing. All tokens of a piece are worked out at its start.
type fast struct {
	table  [1 << fastBits]fastEntry
	before []byte // the piece before
	begin  int64  // offset in the stream of the piece
	end    int64  // and behind it
	tokens [fastPiece]token
}

type fastEntry struct {
	value uint32
	at    int64 // offset in the stream, plus fastPiece; 0: none
}

const (
	fastPiece  = 65535
	fastBits   = 14
	fastMargin = 15  // bytes at the end of a piece where nothing is looked for
	fastSmall  = 128 // the last piece, if it is smaller, is literals
)

func fastHash(v uint32) uint32 { return v * 0x1e35a7bd >> (32 - fastBits) }

// reset makes f as it is at the start of a stream.
func (f *fast) reset() {
	clear(f.table[:])
	f.before, f.begin, f.end = f.before[:0], 0, 0
}

// next works out the tokens of the piece that src is.
func (f *fast) next(src []byte) {
	clear(f.tokens[:])
	f.begin, f.end = f.end, f.end+int64(len(src))
	if len(src) >= fastSmall && f.match(src) > len(src)-len(src)>>4 {
		clear(f.tokens[:]) // too little was saved: the block is literals
	}
	f.before = append(f.before[:0], src...)
}

// match finds matches, and returns how many tokens there are with the literals between.
func (f *fast) match(src []byte) (tokens int) {
	tokens = len(src)
	limit := len(src) - fastMargin
	value := func(i int) uint32 { return binary.LittleEndian.Uint32(src[i:]) }
	// swap enters a place, and returns the match that stood there, if it is one.
	swap := func(i int) (from int, ok bool) {
		v := value(i)
		e := &f.table[fastHash(v)]
		was := *e
		*e = fastEntry{v, f.begin + int64(i) + fastPiece}
		back := f.begin + int64(i) + fastPiece - was.at
		ok = was.at > 0 && was.value == v && back <= windowSize
		if ok {
			from = i - int(back)
		}
		return from, ok
	}
	for s := 0; ; {
		from := 0
		for skip, next := 32, s; ; {
			s = next
			step := skip >> 5
			next += step
			skip += step
			if next > limit {
				return tokens
			}
			var ok bool
			if from, ok = swap(s); ok {
				break
			}
		}
		for ok := true; ok; from, ok = swap(s) {
			n := 4 + f.extend(src, s+4, from+4)
			f.tokens[s] = match(n, s-from)
			tokens -= n - 1
			if s += n; s >= limit {
				return tokens
			}
			swap(s - 1)
		}
		s++
	}
}

// extend returns how many bytes more of src agree at s and at t, which may lie in the piece
// before.
func (f *fast) extend(src []byte, s, t int) int {
	most := min(maxMatch-4, len(src)-s)
	n := 0
	for n < most {
		b := byte(0)
		if i := t + n; i >= 0 {
			b = src[i]
		} else if i += len(f.before); i >= 0 {
			b = f.before[i]
		} else {
			return 0
		}
		if b != src[s+n] {
			break
		}
		n++
	}
	return n
}

// at returns the token at an offset of the stream, in the current piece.
func (f *fast) at(off int64, b byte) token {
	if t := f.tokens[off-f.begin]; t.isMatch() {
		return t
	}
	return literal(b)
}
