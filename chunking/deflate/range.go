package deflate

// prob is the probability of a bit that is not set, of 2^11.
type prob uint16

const (
	probBits = 11
	probMove = 5 // of what is missing to certainty, one in 2^5
	evenProb = 1 << probBits / 2
	topRange = 1 << 24
)

// rangeWriter writes bits.
type rangeWriter struct {
	low   uint64
	size  uint32
	held  byte // the byte before, which may change by a carry
	begun bool // there is one
	ones  int  // bytes of 0xff behind it, likewise
	out   []byte
}

func newRangeWriter() *rangeWriter { return &rangeWriter{size: 1<<32 - 1} }

func (w *rangeWriter) code(p *prob, bit bool) bool {
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

func (w *rangeWriter) raw(v uint32, n int) uint32 {
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
func (w *rangeWriter) shift() {
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

// finish returns all that was written.
func (w *rangeWriter) finish() []byte {
	for range 5 {
		w.shift()
	}
	return w.out
}

// rangeReader reads bits; behind the end, zeros.
type rangeReader struct {
	in     []byte
	value  uint32
	size   uint32
	behind bool // what was read is behind the end
}

func newRangeReader(in []byte) *rangeReader {
	r := &rangeReader{in: in, size: 1<<32 - 1}
	for range 4 {
		r.value = r.value<<8 | uint32(r.next())
	}
	return r
}

func (r *rangeReader) next() byte {
	if len(r.in) == 0 {
		r.behind = true
		return 0
	}
	b := r.in[0]
	r.in = r.in[1:]
	return b
}

func (r *rangeReader) code(p *prob, _ bool) bool {
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

func (r *rangeReader) raw(_ uint32, n int) (v uint32) {
	for range n {
		r.size >>= 1
		set := r.value >= r.size
		if set {
			r.value -= r.size
		}
		v = v<<1 | uint32(bit(set))
		for r.size < topRange {
			r.size <<= 8
			r.value = r.value<<8 | uint32(r.next())
		}
	}
	return v
}

// ended reports whether all was read, and no more.
func (r *rangeReader) ended() bool { return len(r.in) == 0 && !r.behind }
