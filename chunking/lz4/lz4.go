// Package lz4 decodes LZ4 frames in the legacy format to their plain bytes, and makes the
// very same frame of these again. Linux kernels and initial file systems may be packed so.
//
// The encoder's choices are not noted, but made again: they are those of LZ4's
// high-compression encoder at levels 3 to 9, which has been the same since its version 1.9.
// A frame of another encoder is not taken apart. See docs/format.md.
package lz4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
)

var (
	// ErrCostly says that a frame was made by another encoder.
	ErrCostly = errors.New("it cannot be made again cheaply")
	// ErrStream says that bytes are no LZ4 frame in the legacy format, or a damaged one.
	ErrStream = errors.New("not an LZ4 frame in the legacy format")
	// ErrReconstruction says that a reconstruction is malformed.
	ErrReconstruction = errors.New("bad reconstruction")
)

// Version is what reconstructions begin with; 1 to 4 are of other coders.
const Version = 5

// Magic is what frames begin with ("LZ4 Frame Format Description", "Legacy frame").
const Magic = "\x02\x21\x4c\x18"

// Sizes in bytes of the plain bytes of a block, of which only the last has fewer, and of
// what they are coded to at most.
const (
	blockSize = 8 << 20
	maxCoded  = blockSize + blockSize/255 + 16
)

// Levels that are known.
const (
	leastLevel = 3
	mostLevel  = 9
)

// Result is what Decode found.
type Result struct {
	Coded          int64  // size of the frame in bytes
	Plain          int64  // size of what it decodes to
	Reconstruction []byte // for Encode
}

// Decode reads the frame at the front of r and writes its plain bytes to w, and to again what
// Encode makes of these, block by block: the same frame, or it is an error. Errors match
// [ErrStream], [ErrCostly], or come from r, w or again. It may read further than the frame.
// Memory is bounded.
func Decode(w io.Writer, r io.Reader, again io.Writer) (Result, error) {
	level := byte(0)
	res, err := each(w, r, func(f *frame) error {
		var made []byte
		if level == 0 {
			made = []byte(Magic)
			level = levelOf(f.plain, f.coded)
		}
		made, ok := appendBlock(made, f.plain, level, f.coded)
		if !ok {
			return ErrCostly
		}
		_, err := again.Write(made)
		return err
	})
	res.Reconstruction = []byte{Version, level}
	return res, err
}

// Unpack reads the frame at the front of r and writes its plain bytes to w. Its result has no
// reconstruction: the frame may be of any encoder. Errors match [ErrStream], or come from r
// or w.
func Unpack(w io.Writer, r io.Reader) (Result, error) {
	return each(w, r, func(*frame) error { return nil })
}

// each calls fn at each block of the frame at the front of r, and writes its plain bytes to w.
func each(w io.Writer, r io.Reader, fn func(f *frame) error) (res Result, err error) {
	f := &frame{r: r}
	for {
		err := f.next()
		if errors.Is(err, io.EOF) {
			return res, nil
		}
		if err == nil {
			err = fn(f)
		}
		if err != nil {
			return res, err
		}
		res.Plain += int64(len(f.plain))
		res.Coded = f.end
		if _, err := w.Write(f.plain); err != nil {
			return res, err
		}
	}
}

// levelOf returns the highest level at which a block is encoded as it is; the highest of all
// if there is none.
func levelOf(plain, coded []byte) byte {
	for level := byte(mostLevel); level >= leastLevel; level-- {
		if _, ok := appendBlock(nil, plain, level, coded); ok {
			return level
		}
	}
	return mostLevel
}

// appendBlock appends a block, behind its length. It reports whether that is the one wanted,
// if one is.
func appendBlock(dst, plain []byte, level byte, want []byte) ([]byte, bool) {
	at := len(dst)
	dst, ok := encodeBlock(append(dst, 0, 0, 0, 0), plain, int(level), want)
	n := len(dst) - at - 4
	binary.LittleEndian.PutUint32(dst[at:], uint32(n))
	return dst, ok && (want == nil || n == len(want))
}

// Encode writes the frame that the reconstruction makes of the plain bytes that src gives,
// all and no more. Errors match [ErrReconstruction], or come from src or w. Blocks are
// encoded on all cores; memory is bounded.
func Encode(w io.Writer, src io.Reader, reconstruction []byte) error {
	if len(reconstruction) != 2 || reconstruction[0] != Version || reconstruction[1] < leastLevel || reconstruction[1] > mostLevel {
		return fmt.Errorf("%w: not of a level from %d to %d", ErrReconstruction, leastLevel, mostLevel)
	}
	if _, err := io.WriteString(w, Magic); err != nil {
		return err
	}
	level := reconstruction[1]
	var jobs []chan []byte
	write := func() error {
		coded := <-jobs[0]
		jobs = jobs[1:]
		_, err := w.Write(coded)
		return err
	}
	defer func() {
		for _, j := range jobs {
			<-j
		}
	}()
	for {
		plain, err := nextBlock(src)
		if err != nil {
			return err
		}
		if len(plain) == 0 {
			break
		}
		j := make(chan []byte, 1)
		jobs = append(jobs, j)
		go func() {
			coded, _ := appendBlock(make([]byte, 0, len(plain)/3), plain, level, nil)
			j <- coded
		}()
		if len(jobs) == runtime.GOMAXPROCS(0) {
			if err := write(); err != nil {
				return err
			}
		}
	}
	for len(jobs) > 0 {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// nextBlock returns the plain bytes of a block; none at the end. What is in memory is not
// copied.
func nextBlock(src io.Reader) ([]byte, error) {
	if b, ok := src.(*bytes.Buffer); ok {
		return b.Next(blockSize), nil
	}
	plain := make([]byte, blockSize)
	n, err := io.ReadFull(src, plain)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return plain[:n], err
}

// NewReader returns a reader of the plain bytes of the frame at the front of r. It may read
// further than the frame. Errors are those of [Decode].
func NewReader(r io.Reader) io.Reader { return &reader{frame: frame{r: r}} }

type reader struct {
	frame
	err error // sticky
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 && len(p) > 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.err = r.next()
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// frame reads the blocks of a frame.
type frame struct {
	r     io.Reader
	end   int64  // of what was read of the frame
	done  bool   // there are no more blocks
	coded []byte // the block
	plain []byte // what it decodes to
	buf   []byte // for that
}

// next reads a block; [io.EOF] ends the frame. It ends with a block that is not full, and
// before what cannot be one.
func (f *frame) next() error {
	f.plain = nil
	if f.end == 0 {
		head := make([]byte, len(Magic))
		if _, err := io.ReadFull(f.r, head); err != nil || string(head) != Magic {
			return streamError(err, "another magic")
		}
		f.end = int64(len(Magic))
	}
	if f.done {
		return io.EOF
	}
	first := f.end == int64(len(Magic))
	plain, err := f.block()
	if err != nil && !first && errors.Is(err, ErrStream) {
		return io.EOF // what follows belongs to others
	}
	if err != nil {
		return err
	}
	f.end += 4 + int64(len(f.coded))
	f.done = len(plain) < blockSize
	f.plain = plain
	return nil
}

func (f *frame) block() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return nil, streamError(err, "no block")
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > maxCoded {
		return nil, streamError(nil, fmt.Sprintf("a block of %d bytes", n))
	}
	// Memory grows with what is read, not with what is claimed.
	var b bytes.Buffer
	if m, err := io.CopyN(&b, f.r, int64(n)); err != nil {
		return nil, streamError(err, fmt.Sprintf("a block ends after %d of %d bytes", m, n))
	}
	f.coded = b.Bytes()
	var ok bool
	if f.buf, ok = decodeBlock(f.buf[:0], f.coded); !ok {
		return nil, streamError(nil, "a malformed block")
	}
	return f.buf, nil
}

// streamError says what is wrong with a frame, unless reading it failed.
func streamError(err error, what string) error {
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("%w: %s", ErrStream, what)
}
