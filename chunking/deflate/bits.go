package deflate

import (
	"bytes"
	"encoding/binary"
)

// bitWriter packs bits into bytes, low end first.
type bitWriter struct {
	out  []byte
	acc  uint64
	have uint
}

// put adds the low n ≤ 32 bits of v, which has no others.
func (w *bitWriter) put(v uint64, n uint) {
	w.acc |= v << w.have
	w.have += n
	if w.have >= 32 {
		w.out = binary.LittleEndian.AppendUint32(w.out, uint32(w.acc))
		w.acc >>= 32
		w.have -= 32
	}
}

// bits returns how many bits out and acc hold.
func (w *bitWriter) bits() int { return len(w.out)*8 + int(w.have) }

// align adds the low bits of pad up to the next byte.
func (w *bitWriter) align(pad byte) {
	for ; w.have >= 8; w.have -= 8 {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
	}
	if w.have > 0 {
		w.out = append(w.out, byte(w.acc)|pad<<w.have)
		w.acc, w.have = 0, 0
	}
}

// flush returns all bytes, the last filled up with zeros.
func (w *bitWriter) flush() []byte {
	w.align(0)
	return w.out
}

// putBits adds the bits of s.
func (w *bitWriter) putBits(s bitString) {
	n := s.n
	for _, b := range s.bytes {
		m := uint(min(n, 8))
		w.put(uint64(b)&(1<<m-1), m)
		n -= int(m)
	}
}

func (s bitString) equal(t bitString) bool { return s.n == t.n && bytes.Equal(s.bytes, t.bytes) }
