// Package xz decodes xz streams to their plain bytes and a small reconstruction, from
// which the very same stream can be made again.
//
// What LZMA's encoders choose, which matches and how long, is looked up in the plain
// bytes and coded as what is most likely there; given all tokens, LZMA leaves nothing
// open. See docs/format.md. How matches are looked up is part of the format.
package xz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ferry/chunking/rangecoder"
)

var (
	// ErrCostly says that a stream can be made again only with too many bytes, too much
	// memory, or not at all.
	ErrCostly = errors.New("it cannot be made again cheaply")
	// ErrStream says that bytes are no xz stream, or a damaged one.
	ErrStream = errors.New("not an xz stream")
	// ErrReconstruction says that a reconstruction is malformed, or of other bytes.
	ErrReconstruction = errors.New("bad reconstruction")
)

// Version is what reconstructions begin with; 1, 2 and 4 are of deflate streams.
const Version = 3

// Magic is what streams begin with.
const Magic = magic

const (
	// noBlock stands in place of a block's header, behind the last one.
	noBlock = 0
	// A reconstruction may take one byte of so many of the stream, and a few.
	costShare = 4
	costFree  = 512
)

// Result is what Decode found.
type Result struct {
	Coded          int64  // size of the stream in bytes
	Plain          int64  // size of what it decodes to
	Reconstruction []byte // for Encode
}

// Decode reads the stream at the front of r and writes its plain bytes to w, which
// may be io.Discard. Errors match [ErrStream], [ErrCostly], or come from r or w. It may
// read further than the stream. Memory is bounded, whatever the stream. That a stream
// is made again is not certain, as encoders may end chunks in ways of their own:
// compare what Encode gives.
func Decode(w io.Writer, r io.Reader) (Result, error) {
	s := newStream(r)
	a := &analysis{stream: s, w: w}
	err := a.run()
	if a.choices != nil {
		a.choices.release()
	}
	res := Result{Coded: s.in.n, Plain: a.plain}
	if err == nil {
		res.Reconstruction = a.out
	}
	return res, err
}

// analysis is one run of Decode.
type analysis struct {
	*stream
	w       io.Writer
	plain   int64
	blocks  int64
	chosen  *rangecoder.Writer // of a block
	choices *choices           // likewise; nil where there is none
	records []byte             // likewise: headers of its chunks
	out     []byte
}

func (a *analysis) run() error {
	for {
		p, err := a.next()
		if errors.Is(err, io.EOF) {
			if len(a.out) == 0 { // no blocks
				a.out = []byte{Version, a.check}
			}
			a.out = append(a.out, noBlock)
			return nil
		}
		if err != nil {
			return err
		}
		if p.header != nil {
			if err := a.begins(p.header); err != nil {
				return err
			}
			continue
		}
		plain := a.window.buf[a.window.pos:]
		a.plain += int64(len(plain))
		if _, err := a.w.Write(plain); err != nil {
			return err
		}
		a.records = append(a.records, p.chunk...)
		if p.chunk[0] == chunkEnd {
			a.ends()
			continue
		}
		a.take(p)
		if int64(len(a.out)+len(a.records)+a.chosen.Len()) > a.in.n/costShare+costFree {
			return ErrCostly
		}
	}
}

// begins begins a block.
func (a *analysis) begins(header []byte) error {
	if len(a.out) == 0 {
		a.out = []byte{Version, a.check}
	}
	if tooMany(a.blocks, a.plain) {
		return fmt.Errorf("%w: its blocks are small", ErrCostly)
	}
	a.blocks++
	a.out = append(a.out, header...)
	a.chosen = rangecoder.NewWriter()
	a.choices = newChoices(a.chosen)
	return nil
}

// ends ends it.
func (a *analysis) ends() {
	a.choices.release()
	a.choices = nil
	chosen := a.chosen.Finish()
	a.out = append(binary.AppendUvarint(a.out, uint64(len(chosen))), chosen...)
	a.out = append(binary.AppendUvarint(a.out, uint64(len(a.records))), a.records...)
	a.records = a.records[:0]
}

// tooMany reports whether so many blocks, each of which takes some time, are more than there
// should be before another, of so many plain bytes.
func tooMany(blocks, plain int64) bool { return blocks >= 64 && blocks > plain>>16 }

// take codes the choices of a chunk.
func (a *analysis) take(p piece) {
	a.choices.begin(p.chunk[0])
	for _, t := range p.tokens {
		a.choices.token(&a.window, t)
		a.window.pos += int(t.n)
	}
	a.window.pos = len(a.window.buf)
	a.choices.end(&a.window)
}
