package chunking

import (
	"bytes"
	"errors"
	"io"

	"github.com/restic/chunker"
)

// Chunk is a run of bytes of a stream.
type Chunk struct {
	// Offset is where the chunk starts in the stream, in bytes.
	Offset int64
	// Size is the chunk's length in bytes, at least 1.
	Size int64
	// Data holds the bytes; it is nil for a run of zeros. It is valid until the
	// next call of Next or Reset.
	Data []byte
}

// Zero reports whether the chunk is a run of zero bytes.
func (c Chunk) Zero() bool { return c.Data == nil }

// Chunker cuts the bytes of a reader into chunks.
type Chunker struct {
	params Params
	rabin  *chunker.BaseChunker
	r      io.Reader

	buf   []byte // buf[start:end] has been read and not yet been returned
	start int
	end   int
	eof   bool
	off   int64 // stream offset of buf[start]
	clean int   // no zero run starts in buf[start:clean]
	err   error // sticky
}

// New returns a Chunker that cuts r under p. It returns an error wrapping
// [ErrParams] when p is invalid. The Chunker does not close r.
func New(r io.Reader, p Params) (*Chunker, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	window := p.Max + p.ZeroRun
	return &Chunker{
		params: p,
		rabin: chunker.NewBase(chunker.Pol(p.Polynomial),
			chunker.WithBaseAverageBits(p.AverageBits),
			chunker.WithBaseBoundaries(uint(p.Min), uint(p.Max))),
		r:   r,
		buf: make([]byte, max(2*window, 1<<20)),
	}, nil
}

// Reset makes the Chunker start anew on r with the same Params.
func (c *Chunker) Reset(r io.Reader) {
	c.r, c.start, c.end, c.clean, c.off, c.eof, c.err = r, 0, 0, 0, 0, false, nil
}

// Next returns the next chunk, or io.EOF after the last. Any other error comes
// from the reader and is returned by every later call too.
func (c *Chunker) Next() (Chunk, error) {
	if c.err != nil {
		return Chunk{}, c.err
	}
	if err := c.fill(c.params.Max + c.params.ZeroRun); err != nil {
		return Chunk{}, err
	}
	if c.start == c.end {
		c.err = io.EOF
		return Chunk{}, io.EOF
	}
	limit := c.dataLimit()
	if limit == c.start {
		return c.zeroRun()
	}
	split := c.rabin.NextSplitPoint(c.buf[c.start:limit])
	if split < 0 {
		split = limit - c.start
		c.resetRabin()
	}
	chunk := Chunk{Offset: c.off, Size: int64(split), Data: c.buf[c.start : c.start+split : c.start+split]}
	c.advance(split)
	return chunk, nil
}

// resetRabin drops the fingerprint of a chunk that ended without a cut.
func (c *Chunker) resetRabin() {
	c.rabin.Reset(chunker.Pol(c.params.Polynomial),
		chunker.WithBaseAverageBits(c.params.AverageBits),
		chunker.WithBaseBoundaries(uint(c.params.Min), uint(c.params.Max)))
}

func (c *Chunker) advance(n int) {
	c.start += n
	c.off += int64(n)
	c.clean = max(c.clean, c.start)
}

// fill makes at least want bytes available in buf[start:end], or all that is left.
func (c *Chunker) fill(want int) error {
	if c.eof || c.end-c.start >= want {
		return nil
	}
	copy(c.buf, c.buf[c.start:c.end])
	c.clean -= c.start
	c.end -= c.start
	c.start = 0
	n, err := io.ReadFull(c.r, c.buf[c.end:])
	c.end += n
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		c.eof = true
		return nil
	}
	c.err = err
	return err
}

// dataLimit returns the end of the bytes that the next data chunk may hold:
// the start of the first zero run, the largest chunk, or the end of the stream.
// It equals start when a zero run begins there.
func (c *Chunker) dataLimit() int {
	limit := min(c.start+c.params.Max, c.end)
	if c.clean >= limit {
		return limit
	}
	window := c.buf[:min(limit+c.params.ZeroRun, c.end)]
	if run := findZeroRun(window, c.clean, c.params.ZeroRun); run >= 0 {
		c.clean = run
		return run
	}
	c.clean = max(c.clean, len(window)-c.params.ZeroRun+1)
	return limit
}

// findZeroRun returns the first index i ≥ from with b[i:i+n] all zero, or -1.
// A run of n zeros covers a byte at every multiple of n/2, so only those are
// probed: the scan costs next to nothing on data.
func findZeroRun(b []byte, from, n int) int {
	step := n / 2
	for probe := from; probe < len(b); probe += step {
		if b[probe] != 0 {
			continue
		}
		lo := probe
		for lo > from && b[lo-1] == 0 {
			lo--
		}
		hi := probe + zeroPrefix(b[probe:])
		if hi-lo >= n {
			return lo
		}
		probe = max(probe, hi-step) // the run ends at hi: go on just behind it
	}
	return -1
}

// zeroRun takes the zero run at the front, however long, reading on as needed.
func (c *Chunker) zeroRun() (Chunk, error) {
	chunk := Chunk{Offset: c.off}
	for {
		n := zeroPrefix(c.buf[c.start:c.end])
		chunk.Size += int64(n)
		c.advance(n)
		if c.start < c.end || c.eof {
			return chunk, nil
		}
		if err := c.fill(1); err != nil {
			return Chunk{}, err
		}
	}
}

var zeros [4096]byte

// zeroPrefix returns how many bytes at the front of b are zero.
func zeroPrefix(b []byte) int {
	n := 0
	for len(b)-n >= len(zeros) && bytes.Equal(b[n:n+len(zeros)], zeros[:]) {
		n += len(zeros)
	}
	for n < len(b) && b[n] == 0 {
		n++
	}
	return n
}
