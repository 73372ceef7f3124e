package codec

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// Literals of text are coded bit by bit by context mixing (M. Mahoney, "Adaptive weighing
// of context models for lossless data compression", 2005): chances that several contexts
// give are averaged by weights that learn which of them to trust, in the logistic domain.
// It takes about a microsecond a byte, so that it is for little text. All numbers are
// integers: every machine comes to the same chances.

// Sizes of texts in bytes: maxMixed bounds one that is coded so, from leastMixed on it is
// worth it, and from surelyMixed on nothing else that is tried takes less.
const (
	maxMixed    = 4 << 20
	leastMixed  = 1 << 10
	surelyMixed = 64 << 10
)

// mixer gives the chance of the next bit of a text.
type mixer struct {
	contexts  [mixContexts]context
	order1    [1 << 16]estimate // by the byte before, and the bits of this one
	matched   [64]estimate      // by the bit that a match predicts, and how long it is
	weights   [3][]int32        // sets of them, of one input each
	refined   [256 * 33]uint16  // chances by the bits of this byte, and the mixed chance
	refined2  [(33 << 12)]uint16
	inputs    [mixInputs]int32 // chances, in the logistic domain
	sets      [3]int           // where those begin that are in use
	guesses   [3]int32         // what each set came to
	refine    [2]int           // entries in use
	matchSlot int              // entry in use; -1 without a match

	text   []byte
	bit    int    // of the byte, how many are known
	partly uint32 // these, below a one
	nibble uint32 // those of this half of it, below a one
	last   uint64 // bytes, the newest lowest
	word   uint32 // hash of the letters and digits before
	head   uint32 // first four bytes of the line
	column int

	places []int32 // by hash of six bytes: where those behind them stand
	match  int     // where the text is thought to go on as it did
	length int     // of what agreed before; 0 without a match
}

const (
	mixContexts = 5
	mixInputs   = 2*mixContexts + 3
	mostCount   = 255
)

// context is a table of what bits came behind the hash of something.
type context struct {
	buckets   []bucket
	hash      uint32
	bucket    *bucket
	histories [256]estimate // by the history of a slot
}

// bucket has a slot for each beginning of four bits. Of a slot, the highest 16 bits are the
// chance of a one, the lowest 8 how often it was seen, and those between the last bits seen
// behind a one: seven, and then, the first of them lost, again. Slot 0 is a check of the
// hash.
type bucket [16]uint32

const newSlot = 1<<31 | 1<<8

// estimate is a chance of 22 bits, and 10 bits of how often it was seen.
type estimate uint32

const evenEstimate estimate = 1 << 31

func (e *estimate) learn(bit, most uint32) {
	n := uint32(*e) & 1023
	v := int64(*e >> 10)
	v += (int64(bit)*(1<<22-1) - v) * int64(learnRates[n]) >> 16
	*e = estimate(uint32(v)<<10 | min(n+1, most))
}

// chance returns the chance in the logistic domain.
func (e estimate) chance() int32 { return int32(stretched[e>>20]) }

// learnRates say of 2^16 how much of a difference is learnt, by how often it was seen.
var learnRates = func() (rates [1024]int32) {
	for i := range rates {
		rates[i] = int32(1 << 17 / (2*i + 3))
	}
	return rates
}()

// squashed is 2^12/(1+e^-x) for x of 2^-8 from -8 on, and stretched its inverse.
var squashed, stretched = func() (s [1 << 12]int16, inverse [1 << 12]int16) {
	points := [33]int{1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785, 3901, 3975, 4024, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094}
	next := 0
	for x := range s {
		i, part := x>>7, x&127
		s[x] = int16((points[i]*(128-part) + points[i+1]*part + 64) >> 7)
		for ; next <= int(s[x]); next++ {
			inverse[next] = int16(x - 1<<11)
		}
	}
	for ; next < len(inverse); next++ {
		inverse[next] = 1<<11 - 1
	}
	return s, inverse
}()

const mostStretched = 1<<11 - 1

func squash(x int32) int32 {
	return int32(squashed[min(max(x, -mostStretched), mostStretched)+1<<11])
}

// newMixer returns a mixer for a text of n bytes. It takes up to 50 MB of memory.
func newMixer(n int) *mixer {
	m := &mixer{partly: 1, text: make([]byte, 0, n), places: make([]int32, 1<<18)}
	size := 1 << min(max(bits.Len(uint(n/16)), 8), 17)
	for i := range m.contexts {
		c := &m.contexts[i]
		c.buckets = make([]bucket, size)
		for k := range c.histories {
			c.histories[k] = evenEstimate
		}
	}
	for i := range m.order1 {
		m.order1[i] = evenEstimate
	}
	for i := range m.matched {
		m.matched[i] = evenEstimate
	}
	for i, sets := range [3]int{5 << 8, 1 << 8, 1 << 8} {
		m.weights[i] = make([]int32, sets*mixInputs)
		for k := range m.weights[i] {
			m.weights[i][k] = 1 << 16 / 5
		}
	}
	for _, table := range [][]uint16{m.refined[:], m.refined2[:]} {
		for i := range table {
			table[i] = uint16(squash(int32(i%33-16)*128) * 16)
		}
	}
	m.hash()
	return m
}

// hash finds the contexts of the next byte.
func (m *mixer) hash() {
	c := m.last
	for i, key := range [mixContexts]uint64{
		c & (1<<16 - 1), c & (1<<24 - 1), c & (1<<32 - 1), uint64(m.word), uint64(m.head)<<8 | c&0xff,
	} {
		m.contexts[i].hash = mixHash(key<<8 | uint64(i))
	}
}

func mixHash(key uint64) uint32 { return uint32(key * 0x9e3779b97f4a7c15 >> 32) }

// find finds the bucket of the next four bits; what was in it of another hash is lost.
func (c *context) find(m *mixer) {
	h := c.hash
	if m.bit == 4 {
		h += m.partly * 0x2545f491
	}
	h *= 0x9e3779b1
	h ^= h >> 15
	c.bucket = &c.buckets[h&uint32(len(c.buckets)-1)]
	if check := h>>16 | 1<<16; c.bucket[0] != check {
		c.bucket[0] = check
		for i := 1; i < len(c.bucket); i++ {
			c.bucket[i] = newSlot
		}
	}
}

// chance returns the chance of a one, of 2^16.
func (m *mixer) chance() uint32 {
	if m.bit&3 == 0 {
		m.nibble = 1
		for i := range m.contexts {
			m.contexts[i].find(m)
		}
	}
	in := &m.inputs
	for i := range m.contexts {
		c := &m.contexts[i]
		in[2*i], in[2*i+1] = 0, 0
		if slot := c.bucket[m.nibble&15]; slot&mostCount > 0 {
			in[2*i] = int32(stretched[slot>>20])
			in[2*i+1] = c.histories[slot>>8&255].chance()
		}
	}
	in[2*mixContexts] = m.order1[uint32(m.last&0xff)<<8|m.partly&0xff].chance()
	agreed := m.predictMatch()
	m.sets = [3]int{agreed<<8 | int(m.partly), int(m.last & 0xff), int(m.last >> 8 & 0xff)}
	sum := int32(0)
	for k := range m.sets {
		m.sets[k] *= mixInputs
		dot := int64(0)
		for i, w := range (*[mixInputs]int32)(m.weights[k][m.sets[k]:]) {
			dot += int64(w) * int64(in[i])
		}
		x := int32(min(max(dot>>16, -mostStretched), mostStretched))
		m.guesses[k] = squash(x)
		sum += x
	}
	x := sum / 3
	place := int(x+1<<11) * 32
	i, part := place>>12, place&(1<<12-1)
	m.refine[0] = int(m.partly)*33 + i
	m.refine[1] = int(mixHash(m.last&0xffff|uint64(m.partly)<<24)>>20)*33 + i
	first := interpolated(m.refined[m.refine[0]:], part)
	second := interpolated(m.refined2[m.refine[1]:], part)
	nearer := part >> 11
	m.refine[0] += nearer
	m.refine[1] += nearer
	return min(max((uint32(squash(x))<<4+first+2*second)/4, 16), 1<<16-16)
}

func interpolated(table []uint16, part int) uint32 {
	return (uint32(table[0])*uint32(1<<12-part) + uint32(table[1])*uint32(part)) >> 12
}

// predictMatch sets the inputs of the match, and sorts how long it is.
func (m *mixer) predictMatch() int {
	in := m.inputs[2*mixContexts+1:]
	in[0], in[1] = 0, 0
	m.matchSlot = -1
	if m.length == 0 {
		return 0
	}
	n := m.length
	if n > 15 {
		n = min(14+n/8, 31)
	}
	m.matchSlot = 2*n + int(m.text[m.match]>>(7-m.bit)&1)
	e := m.matched[m.matchSlot]
	in[0], in[1] = e.chance(), int32(e>>20)-1<<11
	switch {
	case m.length > 32:
		return 4
	case m.length >= 16:
		return 3
	}
	return 1 + m.length/8
}

// learn takes the bit whose chance was asked for.
func (m *mixer) learn(bit uint32) {
	for i := range m.contexts {
		c := &m.contexts[i]
		slot := &c.bucket[m.nibble&15]
		seen, n := *slot>>8&255, *slot&mostCount
		c.histories[seen].learn(bit, mostCount)
		v := int32(*slot >> 16)
		v += int32(int64(int32(bit)*(1<<16-1)-v) * int64(learnRates[n]) >> 16)
		if seen >= 128 {
			seen = seen&63 | 64
		}
		*slot = uint32(v)<<16 | (seen<<1|bit)<<8 | min(n+1, mostCount)
	}
	m.order1[uint32(m.last&0xff)<<8|m.partly&0xff].learn(bit, mostCount)
	if m.matchSlot >= 0 {
		m.matched[m.matchSlot].learn(bit, 1023)
		if uint32(m.matchSlot&1) != bit {
			m.length = 0
		}
	}
	for k, rate := range [3]int32{6, 3, 4} {
		err := (int32(bit)<<12 - m.guesses[k]) * rate
		w := (*[mixInputs]int32)(m.weights[k][m.sets[k]:])
		for i, x := range m.inputs {
			w[i] += (x*err + 1<<13) >> 14
		}
	}
	for _, r := range [2]*uint16{&m.refined[m.refine[0]], &m.refined2[m.refine[1]]} {
		*r += uint16((int(bit)*(1<<16-1) - int(*r)) >> 5)
	}
	m.partly, m.nibble = m.partly<<1|bit, m.nibble<<1|bit
	if m.bit++; m.bit == 8 {
		m.take(byte(m.partly))
		m.partly, m.bit = 1, 0
	}
}

// mostLength bounds the length of a match, leastLength is that of one to trust.
const (
	mostLength  = 400
	leastLength = 5
)

// take takes a whole byte.
func (m *mixer) take(c byte) {
	m.text = append(m.text, c)
	m.last = m.last<<8 | uint64(c)
	if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c >= 128 {
		m.word = (m.word + uint32(c) + 1) * 0x2f0b4c47
	} else {
		m.word = 0
	}
	if c == '\n' {
		m.head, m.column = 0, 0
	} else if m.column < 4 {
		m.head = m.head<<8 | uint32(c)
		m.column++
	}
	if m.length > 0 {
		m.match++
		m.length = min(m.length+1, mostLength)
	}
	m.findMatch()
	m.hash()
}

// findMatch looks up where the last bytes stood before.
func (m *mixer) findMatch() {
	n := len(m.text)
	if n < 6 {
		return
	}
	place := &m.places[mixHash(m.last&(1<<48-1))>>(32-18)]
	if m.length == 0 {
		m.match = int(*place)
		for m.length < min(mostLength, m.match) && m.text[n-1-m.length] == m.text[m.match-1-m.length] {
			m.length++
		}
		if m.length < leastLength {
			m.length = 0
		}
	}
	*place = int32(n)
}

// The arithmetic coder narrows an interval of 32 bits, its bounds included: a one takes the
// lower part. The bytes in which both bounds agree are put out. So the bytes that follow
// are those of any number within.

// split returns the end of the part of a one.
func split(lo, hi, chance uint32) uint32 {
	return lo + uint32(uint64(hi-lo)*uint64(chance)>>16)
}

func encodeMixed(plain []byte) []byte {
	m := newMixer(len(plain))
	var out []byte
	lo, hi := uint32(0), ^uint32(0)
	for _, c := range plain {
		for i := 7; i >= 0; i-- {
			bit := uint32(c>>i) & 1
			if mid := split(lo, hi, m.chance()); bit != 0 {
				hi = mid
			} else {
				lo = mid + 1
			}
			m.learn(bit)
			for (lo^hi)>>24 == 0 {
				out = append(out, byte(hi>>24))
				lo, hi = lo<<8, hi<<8|0xff
			}
		}
	}
	return binary.BigEndian.AppendUint32(out, hi)
}

// decodeMixed returns the n bytes that encodeMixed had.
func decodeMixed(packed []byte, n int) ([]byte, error) {
	m := newMixer(n)
	lo, hi, at := uint32(0), ^uint32(0), uint32(0)
	short := false
	take := func() {
		if short = len(packed) == 0; !short {
			at = at<<8 | uint32(packed[0])
			packed = packed[1:]
		}
	}
	for range 4 {
		take()
	}
	for len(m.text) < n && !short {
		mid := split(lo, hi, m.chance())
		bit := uint32(0)
		if at <= mid {
			bit, hi = 1, mid
		} else {
			lo = mid + 1
		}
		m.learn(bit)
		for (lo^hi)>>24 == 0 {
			lo, hi = lo<<8, hi<<8|0xff
			take()
		}
	}
	if short || len(packed) > 0 {
		return nil, errors.New("not as many bytes as were coded")
	}
	return m.text, nil
}
