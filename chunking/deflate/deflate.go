// Package deflate decodes deflate streams (RFC 1951) to their plain bytes and a
// small reconstruction, from which the very same stream can be made again.
//
// It predicts what a known encoder would write, token by token, and how that
// encoder would code a block. The reconstruction names the encoder that fits best
// and holds what differs: see docs/format.md. The predictor is part of the format:
// what it predicts never changes.
package deflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ferry/chunking/rangecoder"
)

var (
	// ErrCostly says that a stream's encoder is unknown: what differs from any
	// known one would take too many bytes.
	ErrCostly = errors.New("its encoder is not known")
	// ErrStream says that bytes are no deflate stream.
	ErrStream = errBadStream
	// ErrReconstruction says that a reconstruction is malformed, or of other bytes.
	ErrReconstruction = errors.New("bad reconstruction")
)

const (
	// version is of reconstructions by corrections; versionChoices of those by choices,
	// where there would be many; versionPieces of those by corrections to an encoder of
	// pieces of one size.
	version        = 1
	versionChoices = 2
	versionPieces  = 4

	// maxBlock bounds the tokens of a block, which are held in memory.
	maxBlock = 4 << 20
	// Corrections may take one byte of so many of the stream, and a few.
	costShare = 12
	costFree  = 256
	// Choices may take one of so many.
	choicesShare = 5
)

// Result is what Decode found.
type Result struct {
	Coded          int64  // size of the stream in bytes
	Plain          int64  // size of what it decodes to
	Reconstruction []byte // for Encode
	// Again says that the stream was made again already, by what the reconstruction says.
	Again bool
}

// Decode reads the stream at the front of r and writes its plain bytes to w, which
// may be io.Discard. Errors match [ErrStream], [ErrCostly], or come from r, w or again.
// Memory is bounded, whatever the stream.
//
// If again is not nil, the stream is made again from the reconstruction on the way, where
// that can be done with the predictions at hand, and written there: compare it with the
// stream. Where it cannot, nothing is written, and [Result] says so.
func Decode(w io.Writer, r io.Reader, again io.Writer) (Result, error) {
	a := &analysis{in: newInflater(r), w: w, share: choicesShare}
	if again != nil {
		a.again = &assembly{w: again}
	}
	err := a.run()
	if a.p != nil {
		a.p.release()
	}
	if a.choices != nil {
		defer a.choices.release()
	}
	return Result{Coded: a.in.used(), Plain: a.plain, Reconstruction: a.reconstruction(), Again: a.again != nil && err == nil}, err
}

// reconstruction returns all that was noted.
func (a *analysis) reconstruction() []byte {
	if a.choices == nil {
		return a.out
	}
	chosen := a.chosen.Finish()
	head := append([]byte(nil), a.head...)
	head = binary.AppendUvarint(head, uint64(len(chosen)))
	return append(append(head, chosen...), a.out...)
}

// analysis is one run of Decode.
type analysis struct {
	in    *inflater
	w     io.Writer
	plain int64
	head  []byte // version, encoder, usual; of version 1 in out
	out   []byte // records of blocks

	p       *predictor
	choices *choices // of version 2
	chosen  *rangecoder.Writer
	share   int64 // what is noted may take one byte of so many
	anew    restarts
	usual   int      // tokens of a block
	blocks  []*block // read and not yet compared
	flushed bool     // the block read last was stored and empty
	codes   blockCodes
	again   *assembly // makes the stream again; nil if that is not wanted, or cannot be done
}

// restarts are where an encoder begins anew, with what it wrote last as its dictionary:
// at flushes, or at each multiple of piece plain bytes.
type restarts struct {
	flushes bool
	piece   int64
}

// block is a block as it was read.
type block struct {
	kind   uint8
	at     int64 // plain bytes before it
	final  bool
	whole  bool // all of it was read
	pad    byte
	header bitString
	tokens []token
	freq   frequencies // of a dynamic block, all of which was read
	stored int
	// flushed says that the block before is stored and empty, as a flush leaves one.
	flushed bool
	// predicted and plain are kept to make the block again: what was predicted in place of
	// its tokens, and the bytes of a stored block.
	predicted []token
	plain     []byte

	begun       bool // the predictor is at its tokens
	done        int  // tokens that were compared
	forgot      bool
	corrections []byte
	corrected   int // how many
	since       int // tokens since the last one
}

// isFlush reports whether the block is stored and empty, as a flush leaves one.
func (b *block) isFlush() bool { return b.kind == kindStored && b.stored == 0 }

// Bounds of what is read before an encoder is chosen, and of the first look at it.
const (
	sampleTokens = 48 << 10
	samplePlain  = 2 << 20
	firstTokens  = 4096
	firstMisses  = 64
)

func (a *analysis) run() error {
	var sample []byte
	tokens := 0
	var seg segment
	for {
		err := a.in.next(&seg)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		ended := err != nil
		if ended {
			seg = segment{}
		} else {
			if _, err := a.w.Write(seg.plain); err != nil {
				return err
			}
			if err := a.take(&seg); err != nil {
				return err
			}
			a.plain += int64(len(seg.plain))
			tokens += len(seg.tokens)
			// A block that waits takes more memory than its record will.
			if cost := len(a.out) + 8*len(a.blocks); int64(cost) > a.in.used()/a.share+costFree+segmentTokens {
				return ErrCostly
			}
		}
		if a.p != nil {
			a.p.feed(seg.plain)
		} else {
			sample = append(sample, seg.plain...)
			if !ended && tokens < sampleTokens && len(sample) < samplePlain {
				continue
			}
			a.choose(sample, ended)
			sample = nil
		}
		a.p.last = ended
		if err := a.compare(); err != nil || ended {
			return err
		}
	}
}

// take adds a segment to the blocks.
func (a *analysis) take(s *segment) error {
	var b *block
	if n := len(a.blocks); n > 0 && !a.blocks[n-1].whole {
		b = a.blocks[n-1]
	} else {
		b = &block{kind: s.kind, at: a.plain, header: bitString{append([]byte(nil), s.header.bytes...), s.header.n}, flushed: a.flushed}
		a.blocks = append(a.blocks, b)
	}
	a.flushed = s.kind == kindStored && len(s.plain) == 0
	b.tokens = append(b.tokens, s.tokens...)
	if len(b.tokens) > maxBlock {
		return fmt.Errorf("%w: a block of more than %d tokens", ErrCostly, maxBlock)
	}
	if s.kind == kindStored {
		b.stored = len(s.plain)
		if a.again != nil {
			b.plain = append(b.plain, s.plain...)
		}
	}
	b.whole, b.freq, b.final, b.pad = s.last, s.freq, s.final, s.pad
	return nil
}

// begin takes an encoder, as far ahead as it is, and returns what a reconstruction of that
// version begins with.
func (a *analysis) begin(version byte, encoder int, sample []byte, ahead lead) []byte {
	if a.p = ahead.p; a.p == nil {
		a.p = newPredictor(encoders[encoder])
		a.p.piece = a.anew.piece
		a.p.feed(sample)
	}
	for i, l := range ahead.blocks {
		b := a.blocks[i]
		b.begun, b.forgot, b.since = true, l.forgot, l.tokens
		a.compared(b, b.tokens[:l.tokens])
	}
	return binary.AppendUvarint([]byte{version, byte(encoder)}, uint64(a.usual))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// compare predicts what can be predicted of the blocks, and notes what differs.
func (a *analysis) compare() error {
	for len(a.blocks) > 0 {
		b := a.blocks[0]
		if !b.begun {
			from := a.p.pos
			ready, forgot := b.begin(a.p, a.anew.flushes)
			if !ready {
				return nil
			}
			if a.choices != nil {
				a.choices.pass(a.p, from, a.p.pos-from)
			}
			b.begun, b.forgot = true, forgot
		}
		for b.done < len(b.tokens) {
			left := b.tokens[b.done:]
			n, predicted := 0, noToken
			if a.choices == nil {
				n, predicted = a.p.follow(left, true)
			} else if a.p.ready(0) {
				predicted = a.p.predict()
			}
			b.since += n
			a.compared(b, left[:n])
			if n == len(left) {
				break
			}
			if predicted == noToken {
				return nil
			}
			if t := left[n]; a.choices != nil {
				a.choices.token(a.p, predicted, t)
				a.choices.pass(a.p, a.p.pos, t.size())
			} else {
				b.correct(t)
			}
			a.p.accept(left[n])
			a.compared(b, []token{predicted})
		}
		if !b.whole {
			break
		}
		at := len(a.out)
		a.note(b)
		if a.again != nil {
			if err := a.again.known(b, a.usual, a.out[at:]); err != nil {
				return err
			}
		}
		a.blocks[0] = nil
		a.blocks = a.blocks[1:]
	}
	cost := len(a.out)
	if len(a.blocks) > 0 {
		cost += len(a.blocks[0].corrections)
	}
	if a.choices != nil {
		cost += a.chosen.Len()
	}
	if int64(cost) > a.in.used()/a.share+costFree {
		return ErrCostly
	}
	return nil
}

// compared notes what was predicted of the tokens of a block that come next.
func (a *analysis) compared(b *block, predicted []token) {
	b.done += len(predicted)
	if a.again != nil {
		b.predicted = append(b.predicted, predicted...)
	}
}

// begin moves p past the stored bytes of a block, or to its first token. It reports
// whether p has all that this takes, and whether p forgot what is before the block.
func (b *block) begin(p *predictor, flushes bool) (ready, forgot bool) {
	if !p.ready(b.stored) {
		return false, false
	}
	p.beginPiece()
	if b.kind == kindStored {
		p.skip(b.stored)
		if flushes && b.stored == 0 {
			p.prime()
		}
	}
	if forgot = b.forgets(); forgot {
		p.forget()
	}
	return true, forgot
}

// forgets reports whether the encoder most likely forgot all before the block: there
// was a flush, and no match reaches beyond it.
func (b *block) forgets() bool {
	if !b.flushed {
		return false
	}
	at := 0
	for _, t := range b.tokens {
		if t.isMatch() && t.dist() > at {
			return false
		}
		at += t.size()
	}
	return at > 0
}
