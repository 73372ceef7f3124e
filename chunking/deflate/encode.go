package deflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"ferry/chunking/rangecoder"
)

// Encode writes the stream that Decode took apart: src gives its plain bytes, all
// and no more. Errors match [ErrReconstruction], or come from src or w. A
// reconstruction of other plain bytes gives another stream or an error: compare
// the result's digest. Memory is bounded.
func Encode(w io.Writer, src io.Reader, reconstruction []byte) error {
	e := &assembly{recon: reconstruction, src: src, w: w, feed: make([]byte, 64<<10)}
	err := e.run()
	if e.p != nil {
		e.p.release()
	}
	if e.choices != nil {
		e.choices.release()
	}
	return err
}

// assembly is one run of Encode.
type assembly struct {
	recon []byte // what is left of it
	src   io.Reader
	w     io.Writer
	feed  []byte

	p       *predictor
	choices *choices // of version 2
	chosen  *rangecoder.Reader
	usual   int
	tokens  []token
	codes   blockCodes
	given   *inflater // reads headers
	out     bitWriter
	block   *block // if its predictions are known: the one that is made again
}

// known makes a block again that an analysis has the predictions of, by its record.
func (e *assembly) known(b *block, usual int, record []byte) error {
	e.block, e.usual, e.recon = b, usual, record
	final, err := e.next()
	if err == nil && len(e.recon) > 0 {
		err = badReconstruction("more bytes behind a block's record")
	}
	if err == nil && final {
		err = e.send(0)
	}
	return err
}

func badReconstruction(reason string) error {
	return fmt.Errorf("%w: %s", ErrReconstruction, reason)
}

func (e *assembly) run() error {
	if len(e.recon) < 2 {
		return badReconstruction("cut off")
	}
	format := e.recon[0]
	if format != version && format != versionChoices && format != versionPieces {
		return badReconstruction(fmt.Sprintf("version %d is not known to this program", format))
	}
	if int(e.recon[1]) >= len(encoders) {
		return badReconstruction(fmt.Sprintf("unknown encoder %d", e.recon[1]))
	}
	e.p = newPredictor(encoders[e.recon[1]])
	e.recon = e.recon[2:]
	usual, err := e.number(maxBlock)
	if err != nil {
		return err
	}
	e.usual = usual
	if format == versionPieces {
		piece, err := e.number(maxPiece)
		if err != nil || piece == 0 {
			return badReconstruction("bad size of pieces")
		}
		e.p.piece = int64(piece)
	}
	if format == versionChoices {
		n, err := e.number(len(e.recon))
		if err != nil || n > len(e.recon) {
			return badReconstruction("cut off")
		}
		e.chosen = rangecoder.NewReader(e.recon[:n])
		e.choices = newChoices(e.chosen)
		e.recon = e.recon[n:]
	}
	for final := false; !final; {
		if final, err = e.next(); err != nil {
			return err
		}
	}
	if len(e.recon) > 0 || e.chosen != nil && !e.chosen.Ended() {
		return badReconstruction("more bytes behind its end, or fewer")
	}
	if err := e.need(1); err != nil {
		return err
	}
	if e.p.pos < len(e.p.buf) {
		return badReconstruction("there are more plain bytes")
	}
	return e.send(0)
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

// need makes n bytes ready in the predictor, or all that are left.
func (e *assembly) need(n int) error {
	for !e.p.ready(n) {
		m, err := io.ReadFull(e.src, e.feed)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		e.p.feed(e.feed[:m])
		e.p.last = err != nil
	}
	return nil
}

// send writes whole bytes out, once there are enough of them.
func (e *assembly) send(enough int) error {
	if len(e.out.out) <= enough {
		return nil
	}
	_, err := e.w.Write(e.out.out)
	e.out.out = e.out.out[:0]
	return err
}

// next makes the next block.
func (e *assembly) next() (final bool, err error) {
	flags, err := e.byte()
	if err != nil {
		return false, err
	}
	final = flags&flagFinal != 0
	kind := flags >> kindShift & 3
	if kind > kindDynamic {
		return false, badReconstruction("unknown kind of block")
	}
	n := e.usual
	if kind == kindStored {
		n, err = e.number(1<<16 - 1)
	} else if flags&flagCount != 0 {
		n, err = e.number(maxBlock)
	}
	if err != nil {
		return false, err
	}
	pad := byte(0)
	if flags&flagPad != 0 {
		if pad, err = e.byte(); err != nil {
			return false, err
		}
	}
	if e.block == nil {
		if err := e.need(0); err != nil {
			return false, err
		}
		e.p.beginPiece()
	}
	e.out.put(uint64(flags&7), 3)
	if kind == kindStored {
		if err := e.stored(n, pad); err != nil {
			return false, err
		}
		if flags&flagPrime != 0 && e.block == nil {
			e.p.prime()
		}
		return final, nil
	}
	var header bitString
	if flags&flagHeader != 0 {
		if header, err = e.header(); err != nil {
			return false, err
		}
	}
	if flags&flagForget != 0 && e.block == nil {
		e.p.forget()
	}
	if err := e.predict(n, flags&flagCorrected != 0); err != nil {
		return false, err
	}
	if err := e.code(kind, header); err != nil {
		return false, err
	}
	if final {
		e.out.align(pad)
	}
	return final, nil
}

func (e *assembly) stored(n int, pad byte) error {
	e.out.align(pad)
	e.out.put(uint64(n), 16)
	e.out.put(uint64(^uint16(n)), 16)
	if e.block != nil {
		e.out.out = append(e.out.out, e.block.plain...)
		return e.send(64 << 10)
	}
	if err := e.need(n); err != nil {
		return err
	}
	if len(e.p.buf)-e.p.pos < n {
		return badReconstruction("there are fewer plain bytes")
	}
	e.out.out = append(e.out.out, e.p.buf[e.p.pos:e.p.pos+n]...)
	if e.choices != nil {
		e.choices.pass(e.p, e.p.pos, n)
	}
	e.p.skip(n)
	return e.send(64 << 10)
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

// predict makes the tokens of a block.
func (e *assembly) predict(n int, corrected bool) (err error) {
	corrections, next := 0, n
	if corrected && e.choices != nil {
		return badReconstruction("corrections beside choices")
	}
	if corrected {
		if corrections, err = e.number(n); err != nil {
			return err
		}
		if corrections == 0 {
			return badReconstruction("no corrections")
		}
		if next, err = e.number(n); err != nil {
			return err
		}
	}
	e.tokens = e.tokens[:0]
	for len(e.tokens) < n {
		i := len(e.tokens)
		if e.block == nil && e.choices == nil && i < next {
			if err := e.follow(min(next-i, segmentTokens)); err != nil {
				return err
			}
			continue
		}
		var t token
		if e.block != nil {
			t = e.block.predicted[i]
		} else if t, err = e.predicted(); err != nil {
			return err
		}
		if i == next {
			if t, err = e.correction(i); err != nil {
				return err
			}
			next = n
			if corrections--; corrections > 0 {
				gap, err := e.number(n)
				if err != nil {
					return err
				}
				next = i + 1 + gap
			}
		}
		if e.choices != nil {
			if t = e.choices.token(e.p, t, 0); t.size() > len(e.p.buf)-e.p.pos || e.chosen.Behind() {
				return badReconstruction("a match beyond the end, or choices cut off")
			}
			e.choices.pass(e.p, e.p.pos, t.size())
		}
		e.tokens = append(e.tokens, t)
		if e.block == nil {
			e.p.accept(t)
		}
	}
	if corrections > 0 {
		return badReconstruction("corrections behind the end of a block")
	}
	return nil
}

// follow adds up to n tokens as they are predicted, at least one.
func (e *assembly) follow(n int) error {
	if err := e.more(); err != nil {
		return err
	}
	at := len(e.tokens)
	e.tokens = slices.Grow(e.tokens, n)[:at+n]
	n, _ = e.p.follow(e.tokens[at:], false)
	e.tokens = e.tokens[:at+n]
	return nil
}

// predicted returns the token that is predicted next.
func (e *assembly) predicted() (token, error) {
	if err := e.more(); err != nil {
		return 0, err
	}
	return e.p.predict(), nil
}

// more makes bytes ready of which a token can be predicted.
func (e *assembly) more() error {
	if err := e.need(0); err != nil {
		return err
	}
	if e.p.pos >= len(e.p.buf) {
		return badReconstruction("there are fewer plain bytes")
	}
	return nil
}

// correction reads what stands in place of a predicted token, the i-th of its block.
func (e *assembly) correction(i int) (token, error) {
	n, err := e.number(maxMatch - minMatch + 1)
	if err != nil {
		return 0, err
	}
	if n == 0 && e.block != nil {
		return literal(byte(e.block.tokens[i])), nil
	}
	if n == 0 {
		return literal(e.p.buf[e.p.pos]), nil
	}
	dist, err := e.number(windowSize - 1)
	if err != nil {
		return 0, err
	}
	t := match(n+minMatch-1, dist+1)
	if e.block == nil && t.length() > len(e.p.buf)-e.p.pos {
		return 0, badReconstruction("a match beyond the end")
	}
	return t, nil
}

// code writes a block's header, tokens and end.
func (e *assembly) code(kind uint8, header bitString) error {
	lit, dist := &e.codes.lit, &e.codes.dist
	switch {
	case kind == kindFixed:
		lit.set(fixedLit[:])
		dist.set(fixedDist[:])
	case header.n > 0:
		if e.given == nil {
			e.given = newInflater(nil)
		}
		lens, read, err := e.given.headerOf(header.bytes)
		if err != nil || read.n != header.n {
			return badReconstruction("a malformed header")
		}
		lit.set(lens.lit[:])
		dist.set(lens.dist[:])
		e.out.putBits(header)
	default:
		var freq frequencies
		for _, t := range e.tokens {
			freq.add(t)
		}
		e.out.putBits(e.codes.predict(&freq))
	}
	w := &e.out
	for _, t := range e.tokens {
		if !t.isMatch() {
			w.put(uint64(lit.code[t]), uint(lit.bits[t]))
			continue
		}
		n := lengthCode[t.length()]
		sym := endOfBlock + 1 + int(n)
		w.put(uint64(lit.code[sym])|uint64(t.length()-int(lengthBase[n]))<<lit.bits[sym], uint(lit.bits[sym]+lengthExtra[n]))
		d := distCode(t.dist())
		w.put(uint64(dist.code[d])|uint64(t.dist()-1-int(distBase[d]))<<dist.bits[d], uint(dist.bits[d]+distExtra[d]))
		if len(w.out) > 64<<10 {
			if err := e.send(0); err != nil {
				return err
			}
		}
	}
	w.put(uint64(lit.code[endOfBlock]), uint(lit.bits[endOfBlock]))
	return e.send(64 << 10)
}
