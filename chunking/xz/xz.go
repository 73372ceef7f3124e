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
	chosen := rangecoder.NewWriter()
	a := &analysis{stream: s, w: w, chosen: chosen, choices: newChoices(chosen)}
	defer a.choices.release()
	err := a.run()
	res := Result{Coded: s.in.n, Plain: a.plain}
	if err == nil {
		res.Reconstruction = a.reconstruction()
	}
	return res, err
}

// analysis is one run of Decode.
type analysis struct {
	*stream
	w       io.Writer
	plain   int64
	chosen  *rangecoder.Writer
	choices *choices
	records []byte // headers of blocks and chunks
}

func (a *analysis) run() error {
	for {
		p, err := a.next()
		if errors.Is(err, io.EOF) {
			a.records = append(a.records, chunkEnd)
			return nil
		}
		if err != nil {
			return err
		}
		plain := a.window.buf[a.window.pos:]
		a.plain += int64(len(plain))
		if _, err := a.w.Write(plain); err != nil {
			return err
		}
		a.records = append(append(a.records, p.header...), p.chunk...)
		a.take(p)
		if int64(len(a.records)+a.chosen.Len()) > a.in.n/costShare+costFree {
			return ErrCostly
		}
	}
}

// take codes the choices of a piece.
func (a *analysis) take(p piece) {
	if p.chunk == nil {
		return
	}
	a.choices.begin(p.chunk[0])
	for _, t := range p.tokens {
		a.choices.token(&a.window, t)
		a.window.pos += int(t.n)
	}
	a.window.pos = len(a.window.buf)
	a.choices.end(&a.window)
}

func (a *analysis) reconstruction() []byte {
	chosen := a.chosen.Finish()
	b := binary.AppendUvarint([]byte{Version, a.check}, uint64(len(chosen)))
	return append(append(b, chosen...), a.records...)
}
