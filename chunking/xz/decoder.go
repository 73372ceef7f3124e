package xz

// chunkBuffer holds the coded bytes of a chunk, and zeros.
type chunkBuffer [1 << 17]byte

// rangeDecoder reads LZMA's bits. Whether it read too far is for the caller to see.
type rangeDecoder struct {
	in   *chunkBuffer
	at   uint32
	size uint32
	code uint32
}

func (r *rangeDecoder) bit(p *prob) uint32 {
	size, code := r.size, r.code
	if size < topRange {
		size <<= 8
		code = code<<8 | uint32(r.in[r.at%uint32(len(r.in))])
		r.at++
	}
	v := uint32(*p)
	bound := size >> probBits * v
	if code < bound {
		r.size, r.code = bound, code
		*p = prob(v + (1<<probBits-v)>>probMove)
		return 0
	}
	r.size, r.code = size-bound, code-bound
	*p = prob(v - v>>probMove)
	return 1
}

// tree reads n bits, the highest first.
func (r *rangeDecoder) tree(probs []prob, n int) uint32 {
	m := uint32(1)
	size, code, at := r.size, r.code, r.at
	for range n {
		if size < topRange {
			size <<= 8
			code = code<<8 | uint32(r.in[at%uint32(len(r.in))])
			at++
		}
		p := &probs[m]
		v := uint32(*p)
		bound := size >> probBits * v
		if code < bound {
			size = bound
			*p = prob(v + (1<<probBits-v)>>probMove)
			m <<= 1
		} else {
			size -= bound
			code -= bound
			*p = prob(v - v>>probMove)
			m = m<<1 | 1
		}
	}
	r.size, r.code, r.at = size, code, at
	return m - 1<<n
}

// reverse reads n bits, the lowest first.
func (r *rangeDecoder) reverse(probs []prob, n uint32) (v uint32) {
	m := uint32(1)
	for i := range n {
		bit := r.bit(&probs[m])
		m = m<<1 | bit
		v |= bit << i
	}
	return v
}

// direct reads n bits that are not modelled.
func (r *rangeDecoder) direct(n uint32) (v uint32) {
	size, code, at := r.size, r.code, r.at
	for range n {
		if size < topRange {
			size <<= 8
			code = code<<8 | uint32(r.in[at%uint32(len(r.in))])
			at++
		}
		size >>= 1
		t := (code - size) >> 31 // 1 if code < size
		code -= size & (t - 1)
		v = v<<1 + 1 - t
	}
	r.size, r.code, r.at = size, code, at
	return v
}

func (r *rangeDecoder) length(l *lengths, posState uint32) int {
	if r.bit(&l.choice[0]) == 0 {
		return minMatch + int(r.tree(l.low[posState][:], 3))
	}
	if r.bit(&l.choice[1]) == 0 {
		return minMatch + 8 + int(r.tree(l.mid[posState][:], 3))
	}
	return minMatch + 16 + int(r.tree(l.high[:], 8))
}

func (r *rangeDecoder) dist(m *model, n int) uint32 {
	slot := r.tree(m.slots[min(n-minMatch, 3)][:], 6)
	if slot < 4 {
		return slot
	}
	base, bits := slotBase(slot)
	if slot < 14 {
		return base + r.reverse(m.special[base-slot:], bits)
	}
	return base + r.direct(bits-4)<<4 + r.reverse(m.align[:], 4)
}

// decoder reads LZMA chunks.
type decoder struct {
	model
	tokens []token // of the last chunk
	in     *chunkBuffer
}

// decode reads a chunk of coded bytes in d.in, behind which there are zeros, and appends
// n plain bytes to w.
func (d *decoder) decode(w *window, coded, n int, dict int64) error {
	r := rangeDecoder{in: d.in, at: 5, size: 1<<32 - 1}
	for _, b := range d.in[1:5] {
		r.code = r.code<<8 | uint32(b)
	}
	if d.in[0] != 0 || coded < 5 {
		return badStream("a chunk's first byte")
	}
	w.room(n)
	pos, end := len(w.buf), len(w.buf)+n
	buf := w.buf[:end]
	w.buf = buf
	at := uint32(w.base + uint64(pos) - w.reset)
	prev := byte(0)
	if at > 0 {
		prev = buf[pos-1]
	}
	posMask := uint32(1)<<d.pb - 1
	d.tokens = d.tokens[:0]
	for pos < end && r.at <= uint32(coded) {
		posState := at & posMask
		if r.bit(&d.isMatch[uint32(d.state)<<maxPb|posState]) == 0 {
			probs := d.literalAt(at, prev)
			if d.state < litStates {
				prev = byte(r.tree(probs[:0x100], 8))
			} else {
				if d.reps[0] >= uint32(w.back(pos)) {
					return w.tooFar(d.reps[0], pos, dict)
				}
				prev = r.matched(probs, buf[pos-1-int(d.reps[0])])
			}
			buf[pos] = prev
			pos++
			at++
			d.state = afterLiteral[d.state]
			d.tokens = append(d.tokens, token{n: 1})
			continue
		}
		t := r.match(&d.model, posState)
		n := int(t.n)
		if d.reps[0] >= uint32(w.back(pos)) {
			return w.tooFar(d.reps[0], pos, dict)
		}
		if n > end-pos {
			return badStream("a match beyond the end of a chunk")
		}
		dist := int(d.reps[0]) + 1
		from := pos - dist
		if dist >= n {
			copy(buf[pos:pos+n], buf[from:])
		} else {
			for i := range n {
				buf[pos+i] = buf[from+i]
			}
		}
		pos += n
		at += uint32(n)
		prev = buf[pos-1]
		d.tokens = append(d.tokens, t)
	}
	if r.size < topRange {
		r.code = r.code<<8 | uint32(d.in[r.at%uint32(len(d.in))])
		r.at++
	}
	if pos < end || r.at != uint32(coded) || r.code != 0 {
		return badStream("a chunk of another size")
	}
	return nil
}

// match reads what is no literal, and goes on behind it.
func (r *rangeDecoder) match(m *model, posState uint32) (t token) {
	s := m.state
	if r.bit(&m.isRep[s]) == 0 {
		n := r.length(&m.match, posState)
		t = token{kind: kindMatch, n: uint16(n), dist: r.dist(m, n)}
	} else if rep := r.rep(m, posState); rep == kindShort {
		t = token{kind: kindShort, n: 1}
	} else {
		t = token{kind: rep, n: uint16(r.length(&m.rep, posState))}
	}
	m.pass(t)
	return t
}

// rep reads which of the last matches goes on.
func (r *rangeDecoder) rep(m *model, posState uint32) uint8 {
	s := m.state
	switch {
	case r.bit(&m.isRepG0[s]) == 0:
		if r.bit(&m.isRep0Long[uint32(s)<<maxPb|posState]) == 0 {
			return kindShort
		}
		return kindRep
	case r.bit(&m.isRepG1[s]) == 0:
		return kindRep + 1
	case r.bit(&m.isRepG2[s]) == 0:
		return kindRep + 2
	}
	return kindRep + 3
}

// matched reads a byte behind a match, where the match would go on with other.
func (r *rangeDecoder) matched(probs *[0x300]prob, other byte) byte {
	m, offs := uint32(1), uint32(0x100)
	size, code, at := r.size, r.code, r.at
	o := uint32(other)
	for m < 0x100 {
		if size < topRange {
			size <<= 8
			code = code<<8 | uint32(r.in[at%uint32(len(r.in))])
			at++
		}
		o <<= 1
		same := o & offs
		p := &probs[(offs+same+m)%0x300]
		v := uint32(*p)
		bound := size >> probBits * v
		if code < bound {
			size = bound
			*p = prob(v + (1<<probBits-v)>>probMove)
			m <<= 1
			offs &^= same
		} else {
			size -= bound
			code -= bound
			*p = prob(v - v>>probMove)
			m = m<<1 | 1
			offs = same
		}
	}
	r.size, r.code, r.at = size, code, at
	return byte(m)
}
