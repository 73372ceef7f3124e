package deflate

import (
	"encoding/binary"
	"fmt"
)

// Flags of a block's record. The lowest bit is the stream's for the last block, as
// are the two above it for the kind.
const (
	flagFinal     = 1 << 0
	kindShift     = 1
	flagCount     = 1 << 3 // the number of tokens follows
	flagHeader    = 1 << 4 // the header follows, bit for bit
	flagCorrected = 1 << 5 // corrections follow
	flagPad       = 1 << 6 // the bits up to the next byte are not zero and follow
	flagForget    = 1 << 7 // no match reaches before the block: a full flush
	flagPrime     = 1 << 3 // of a stored block: the encoder begins anew, with a dictionary
)

// correct notes a token that was not predicted.
func (b *block) correct(t token) {
	b.corrections = binary.AppendUvarint(b.corrections, uint64(b.since))
	if t.isMatch() {
		b.corrections = binary.AppendUvarint(b.corrections, uint64(t.length()-minMatch+1))
		b.corrections = binary.AppendUvarint(b.corrections, uint64(t.dist()-1))
	} else {
		b.corrections = append(b.corrections, 0)
	}
	b.corrected++
	b.since = 0
}

// note writes the record of a block.
func (a *analysis) note(b *block) {
	flags := b.kind << kindShift
	if b.final {
		flags |= flagFinal
	}
	if b.pad != 0 {
		flags |= flagPad
	}
	if b.kind != kindStored && len(b.tokens) != a.usual {
		flags |= flagCount
	}
	if b.kind == kindDynamic && !a.codes.predict(&b.freq).equal(b.header) {
		flags |= flagHeader
	}
	if b.corrected > 0 {
		flags |= flagCorrected
	}
	if b.forgot {
		flags |= flagForget
	}
	if b.isFlush() && a.anew.flushes {
		flags |= flagPrime
	}
	a.out = append(a.out, flags)
	switch {
	case b.kind == kindStored:
		a.out = binary.AppendUvarint(a.out, uint64(b.stored))
	case flags&flagCount != 0:
		a.out = binary.AppendUvarint(a.out, uint64(len(b.tokens)))
	}
	if flags&flagPad != 0 {
		a.out = append(a.out, b.pad)
	}
	if flags&flagHeader != 0 {
		a.out = binary.AppendUvarint(a.out, uint64(b.header.n))
		a.out = append(a.out, b.header.bytes...)
	}
	if b.corrected > 0 {
		a.out = binary.AppendUvarint(a.out, uint64(b.corrected))
		a.out = append(a.out, b.corrections...)
	}
}

// record is what a reconstruction says of a block. It is valid until the next one.
type record struct {
	head   byte // the three bits that a block begins with
	final  bool
	kind   uint8
	n      int // tokens, or stored bytes
	pad    byte
	header bitString // none if it is as predicted
	prime  bool
	forget bool
	fixes  []fix
}

// fix is a token that stands where another was predicted; noToken, where that is the literal.
type fix struct {
	at    uint32
	token token
}

// record reads the record of the next block.
func (e *assembly) record() (r record, err error) {
	flags, err := e.byte()
	if err != nil {
		return r, err
	}
	r = record{head: flags & 7, final: flags&flagFinal != 0, kind: flags >> kindShift & 3, n: e.usual}
	switch {
	case r.kind > kindDynamic:
		return r, badReconstruction("unknown kind of block")
	case r.kind == kindStored:
		r.prime = flags&flagPrime != 0
		r.n, err = e.number(1<<16 - 1)
	case flags&flagCount != 0:
		r.n, err = e.number(maxBlock)
	}
	if err == nil && flags&flagPad != 0 {
		r.pad, err = e.byte()
	}
	if err != nil || r.kind == kindStored {
		return r, err
	}
	if flags&flagHeader != 0 {
		if r.header, err = e.header(); err != nil {
			return r, err
		}
	}
	r.forget = flags&flagForget != 0
	if flags&flagCorrected != 0 {
		r.fixes, err = e.corrections(r.n)
	}
	return r, err
}

// header reads a block's header.
func (e *assembly) header() (bitString, error) {
	n, err := e.number(1 << 13)
	if err != nil {
		return bitString{}, err
	}
	m := (n + 7) / 8
	if m > len(e.recon) {
		return bitString{}, badReconstruction("cut off")
	}
	s := bitString{e.recon[:m], n}
	e.recon = e.recon[m:]
	return s, nil
}

// corrections reads those of a block of n tokens.
func (e *assembly) corrections(n int) ([]fix, error) {
	if e.choices != nil {
		return nil, badReconstruction("corrections beside choices")
	}
	count, err := e.number(n)
	if err != nil {
		return nil, err
	}
	if count == 0 {
		return nil, badReconstruction("no corrections")
	}
	e.fixes = e.fixes[:0]
	for at := 0; count > 0; count-- {
		gap, err := e.number(n)
		if err != nil {
			return nil, err
		}
		if at += gap; at >= n {
			return nil, badReconstruction("corrections behind the end of a block")
		}
		f := fix{uint32(at), noToken}
		length, err := e.number(maxMatch - minMatch + 1)
		if err != nil {
			return nil, err
		}
		if length > 0 {
			dist, err := e.number(windowSize - 1)
			if err != nil {
				return nil, err
			}
			f.token = match(length+minMatch-1, dist+1)
		}
		e.fixes = append(e.fixes, f)
		at++
	}
	return e.fixes, nil
}

func (e *assembly) number(most int) (int, error) {
	v, n := binary.Uvarint(e.recon)
	if n <= 0 || v > uint64(most) {
		return 0, badReconstruction("bad number")
	}
	e.recon = e.recon[n:]
	return int(v), nil
}

func (e *assembly) byte() (byte, error) {
	if len(e.recon) == 0 {
		return 0, badReconstruction("cut off")
	}
	b := e.recon[0]
	e.recon = e.recon[1:]
	return b, nil
}

func badReconstruction(reason string) error {
	return fmt.Errorf("%w: %s", ErrReconstruction, reason)
}
