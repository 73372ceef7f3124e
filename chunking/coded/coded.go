// Package coded makes coded streams again from their plain bytes, bit for bit: members
// of container files, as a layout has them. How, a reconstruction says, which package
// deflate or another of the coders gave; its first byte tells which (docs/format.md,
// "Reconstruction").
package coded

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"ferry/chunking/deflate"
	"ferry/chunking/lz4"
	"ferry/chunking/xz"
)

// ErrReconstruction says that a reconstruction is malformed, or of other bytes.
var ErrReconstruction = errors.New("a member cannot be made again")

// coder is one besides deflate.
type coder struct {
	magic     string // what its streams begin with
	version   byte   // what its reconstructions begin with
	encode    func(w io.Writer, src io.Reader, reconstruction []byte) error
	newReader func(r io.Reader) io.Reader
}

var coders = []coder{
	{xz.Magic, xz.Version, xz.Encode, xz.NewReader},
	{lz4.Magic, lz4.Version, lz4.Encode, lz4.NewReader},
}

// Encode writes the stream that the reconstruction makes of the plain bytes that src
// gives, all and no more. Errors match [ErrReconstruction], or come from src or w. A
// reconstruction of other plain bytes gives another stream or an error: compare the
// result's digest. Memory is bounded.
func Encode(w io.Writer, src io.Reader, reconstruction []byte) error {
	encode := deflate.Encode
	for _, c := range coders {
		if len(reconstruction) > 0 && reconstruction[0] == c.version {
			encode = c.encode
		}
	}
	err := encode(w, src, reconstruction)
	if errors.Is(err, deflate.ErrReconstruction) || errors.Is(err, xz.ErrReconstruction) || errors.Is(err, lz4.ErrReconstruction) {
		err = fmt.Errorf("%w: %w", ErrReconstruction, err)
	}
	return err
}

// NewReader returns the plain bytes of the coded stream at the front of r. Which coder
// it is of, its first bytes tell: see [OtherCoder].
func NewReader(r io.Reader) io.Reader {
	b := bufio.NewReader(r)
	head, _ := b.Peek(Head) // what fails, fails again
	if c := coderOf(head); c != nil {
		return c.newReader(b)
	}
	return deflate.NewReader(b)
}

// Head is how many bytes of a stream tell which coder it is of.
const Head = len(xz.Magic)

// OtherCoder reports whether a stream that begins with head is not taken for a deflate
// stream. No such begins as an xz stream does; one that begins as an LZ4 frame does is not
// taken apart.
func OtherCoder(head []byte) bool { return coderOf(head) != nil }

func coderOf(head []byte) *coder {
	for i, c := range coders {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return &coders[i]
		}
	}
	return nil
}

// Damaged reports whether an error of [Encode], or of what [NewReader] returns, says that
// bytes are not what they should be, rather than that they could not be read.
func Damaged(err error) bool {
	for _, bad := range []error{ErrReconstruction, deflate.ErrStream, xz.ErrStream, xz.ErrCostly, lz4.ErrStream, io.ErrUnexpectedEOF} {
		if errors.Is(err, bad) {
			return true
		}
	}
	return false
}

// encodeFrom is Encode for plain bytes that write writes, which runs on a goroutine
// of its own. It returns an error, too, when the stream is not of size bytes.
func encodeFrom(w io.Writer, size int64, reconstruction []byte, write func(io.Writer) error) error {
	r, plain := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(plain)
		plain.CloseWithError(err)
		written <- err
	}()
	limited := &limitedWriter{w, size}
	err := Encode(limited, r, reconstruction)
	r.CloseWithError(err)
	if failed := <-written; failed != nil && !errors.Is(failed, err) {
		err = failed // of which what Encode says follows
	}
	if err == nil {
		err = limited.ended()
	}
	return err
}

// limitedWriter takes no more than left bytes.
type limitedWriter struct {
	w    io.Writer
	left int64
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		return 0, fmt.Errorf("%w: it gives more bytes than it should", ErrReconstruction)
	}
	n, err := l.w.Write(p)
	l.left -= int64(n)
	return n, err
}

func (l *limitedWriter) ended() error {
	if l.left > 0 {
		return fmt.Errorf("%w: it gives %d bytes less than it should", ErrReconstruction, l.left)
	}
	return nil
}
