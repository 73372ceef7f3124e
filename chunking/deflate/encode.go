package deflate

import (
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
	fixes   []fix
	codes   blockCodes
	given   *inflater // reads headers
	out     bitWriter
}

// known makes a block again that an analysis has the predictions of, by its record.
func (e *assembly) known(b *block, usual int, record []byte) error {
	e.usual, e.recon = usual, record
	r, err := e.record()
	if err != nil {
		return err
	}
	if len(e.recon) > 0 {
		return badReconstruction("more bytes behind a block's record")
	}
	e.out.put(uint64(r.head), 3)
	if r.kind == kindStored {
		e.stored(b.plain, r.pad)
	} else {
		e.tokens = append(e.tokens[:0], b.predicted...)
		for _, f := range r.fixes {
			if e.tokens[f.at] = f.token; f.token == noToken {
				e.tokens[f.at] = literal(byte(b.tokens[f.at]))
			}
		}
		if err := e.code(r); err != nil {
			return err
		}
	}
	if r.final {
		return e.send(0)
	}
	return e.send(64 << 10)
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
	r, err := e.record()
	if err != nil {
		return false, err
	}
	if err := e.need(0); err != nil {
		return false, err
	}
	e.p.beginPiece()
	e.out.put(uint64(r.head), 3)
	if r.kind == kindStored {
		if err := e.need(r.n); err != nil {
			return false, err
		}
		if len(e.p.buf)-e.p.pos < r.n {
			return false, badReconstruction("there are fewer plain bytes")
		}
		e.stored(e.p.buf[e.p.pos:e.p.pos+r.n], r.pad)
		if e.choices != nil {
			e.choices.pass(e.p, e.p.pos, r.n)
		}
		e.p.skip(r.n)
		if r.prime {
			e.p.prime()
		}
		return r.final, e.send(64 << 10)
	}
	if r.forget {
		e.p.forget()
	}
	if e.choices != nil {
		err = e.chose(r.n)
	} else {
		err = e.predict(r.n, r.fixes)
	}
	if err != nil {
		return false, err
	}
	return r.final, e.code(r)
}

// stored writes the rest of a stored block.
func (e *assembly) stored(plain []byte, pad byte) {
	e.out.align(pad)
	e.out.put(uint64(len(plain)), 16)
	e.out.put(uint64(^uint16(len(plain))), 16)
	e.out.out = append(e.out.out, plain...)
}

// predict makes the n tokens of a block.
func (e *assembly) predict(n int, fixes []fix) error {
	e.tokens = e.tokens[:0]
	for len(e.tokens) < n {
		if err := e.more(); err != nil {
			return err
		}
		at := len(e.tokens)
		if len(fixes) > 0 && int(fixes[0].at) == at {
			e.p.predict() // as the encoder did
			t := fixes[0].token
			if t == noToken {
				t = literal(e.p.buf[e.p.pos])
			}
			fixes = fixes[1:]
			if err := e.accept(t); err != nil {
				return err
			}
			continue
		}
		most := min(n-at, segmentTokens)
		if len(fixes) > 0 {
			most = min(most, int(fixes[0].at)-at)
		}
		e.tokens = slices.Grow(e.tokens, most)[:at+most]
		most, _ = e.p.follow(e.tokens[at:], false)
		e.tokens = e.tokens[:at+most]
	}
	return nil
}

// chose makes the n tokens of a block by choices.
func (e *assembly) chose(n int) error {
	e.tokens = e.tokens[:0]
	for range n {
		if err := e.more(); err != nil {
			return err
		}
		t := e.choices.token(e.p, e.p.predict(), 0)
		if e.chosen.Behind() {
			return badReconstruction("choices cut off")
		}
		at := e.p.pos
		if err := e.accept(t); err != nil {
			return err
		}
		e.choices.pass(e.p, at, t.size())
	}
	return nil
}

// accept adds a token that need not be the one predicted.
func (e *assembly) accept(t token) error {
	if t.size() > len(e.p.buf)-e.p.pos {
		return badReconstruction("a match beyond the end")
	}
	e.tokens = append(e.tokens, t)
	e.p.accept(t)
	return nil
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

// code writes the rest of a block of tokens.
func (e *assembly) code(r record) error {
	lit, dist := &e.codes.lit, &e.codes.dist
	switch {
	case r.kind == kindFixed:
		lit.set(fixedLit[:])
		dist.set(fixedDist[:])
	case r.header.n > 0:
		if e.given == nil {
			e.given = newInflater(nil)
		}
		lens, read, err := e.given.headerOf(r.header.bytes)
		if err != nil || read.n != r.header.n {
			return badReconstruction("a malformed header")
		}
		lit.set(lens.lit[:])
		dist.set(lens.dist[:])
		e.out.putBits(r.header)
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
	if r.final {
		w.align(r.pad)
	}
	return e.send(64 << 10)
}
