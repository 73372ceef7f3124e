// Package rangecoder codes bits by adaptive probabilities, as LZMA does (a binary range
// coder: I. Pavlov, LZMA Specification, 2015; its first byte, always zero, is left out).
package rangecoder

// Prob is the probability of a bit that is not set, of 2^11. It adapts.
type Prob uint16

// Even is the probability of a bit about which nothing is known yet.
const Even Prob = 1 << probBits / 2

const (
	probBits = 11
	probMove = 5 // of what is missing to certainty, one in 2^5
	topRange = 1 << 24
)

// Coder writes bits, or reads them and pays no heed to those it is given. It returns
// what was coded: so the same code can write and read.
type Coder interface {
	Code(p *Prob, bit bool) bool
	// Raw codes the n low bits of v, about which nothing is known.
	Raw(v uint32, n int) uint32
}

var (
	_ Coder = (*Writer)(nil)
	_ Coder = (*Reader)(nil)
)

// Writer writes bits.
type Writer struct {
	low   uint64
	size  uint32
	held  byte // the byte before, which may change by a carry
	begun bool // there is one
	ones  int  // bytes of 0xff behind it, likewise
	out   []byte
}

// NewWriter returns a Writer.
func NewWriter() *Writer { return &Writer{size: 1<<32 - 1} }

// Reset makes w as it was at first. It writes over what Finish returned.
func (w *Writer) Reset() { *w = Writer{size: 1<<32 - 1, out: w.out[:0]} }

// Code writes a bit and adapts p.
func (w *Writer) Code(p *Prob, bit bool) bool {
	bound := w.size >> probBits * uint32(*p)
	if !bit {
		w.size = bound
		*p += (1<<probBits - *p) >> probMove
	} else {
		w.low += uint64(bound)
		w.size -= bound
		*p -= *p >> probMove
	}
	for w.size < topRange {
		w.size <<= 8
		w.shift()
	}
	return bit
}

// Raw writes the n low bits of v, the highest first.
func (w *Writer) Raw(v uint32, n int) uint32 {
	for i := n - 1; i >= 0; i-- {
		w.size >>= 1
		if v>>i&1 != 0 {
			w.low += uint64(w.size)
		}
		for w.size < topRange {
			w.size <<= 8
			w.shift()
		}
	}
	return v
}

// shift moves the top byte out, once it is known whether it carries.
func (w *Writer) shift() {
	if w.low < 0xff<<24 || w.low > 1<<32-1 {
		carry := byte(w.low >> 32)
		if w.begun {
			w.out = append(w.out, w.held+carry)
		}
		for ; w.ones > 0; w.ones-- {
			w.out = append(w.out, 0xff+carry)
		}
		w.begun, w.held = true, byte(w.low>>24)
	} else {
		w.ones++
	}
	w.low = w.low & 0xffffff << 8
}

// Len returns about how many bytes were written.
func (w *Writer) Len() int { return len(w.out) }

// Finish returns all that was written.
func (w *Writer) Finish() []byte {
	for range 5 {
		w.shift()
	}
	return w.out
}

// Reader reads bits; behind the end, zeros.
type Reader struct {
	in     []byte
	value  uint32
	size   uint32
	behind bool // what was read is behind the end
}

// NewReader returns a Reader of what a Writer wrote.
func NewReader(in []byte) *Reader {
	r := &Reader{in: in, size: 1<<32 - 1}
	for range 4 {
		r.value = r.value<<8 | uint32(r.next())
	}
	return r
}

func (r *Reader) next() byte {
	if len(r.in) == 0 {
		r.behind = true
		return 0
	}
	b := r.in[0]
	r.in = r.in[1:]
	return b
}

// Code reads a bit and adapts p.
func (r *Reader) Code(p *Prob, _ bool) bool {
	bound := r.size >> probBits * uint32(*p)
	set := r.value >= bound
	if !set {
		r.size = bound
		*p += (1<<probBits - *p) >> probMove
	} else {
		r.value -= bound
		r.size -= bound
		*p -= *p >> probMove
	}
	for r.size < topRange {
		r.size <<= 8
		r.value = r.value<<8 | uint32(r.next())
	}
	return set
}

// Raw reads n bits.
func (r *Reader) Raw(_ uint32, n int) (v uint32) {
	for range n {
		r.size >>= 1
		v <<= 1
		if r.value >= r.size {
			r.value -= r.size
			v |= 1
		}
		for r.size < topRange {
			r.size <<= 8
			r.value = r.value<<8 | uint32(r.next())
		}
	}
	return v
}

// Behind reports whether bits behind the end were read.
func (r *Reader) Behind() bool { return r.behind }

// Ended reports whether all was read, and no more.
func (r *Reader) Ended() bool { return len(r.in) == 0 && !r.behind }
