package coded

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"ferry/chunking/deflate"
)

// text returns n bytes that compress.
func text(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "line %d of %x\n", rng.IntN(3000), rng.IntN(1<<16))
	}
	return b[:n]
}

// deflated returns a stream of plain, and how to make it again.
func deflated(t *testing.T, plain []byte, level int) ([]byte, deflate.Result) {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain)
	w.Close()
	r, err := deflate.Decode(io.Discard, bytes.NewReader(b.Bytes()), nil)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), r
}

// TestPipeline writes pieces in order, however long each takes to encode.
func TestPipeline(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), heldStream/16+1)
	largeStream, largeResult := deflated(t, large, 6)
	var got, want bytes.Buffer
	p := NewPipeline(&got)
	write := func(b []byte) {
		want.Write(b)
		if _, err := p.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 12 {
		write(fmt.Appendf(nil, "header %d", i))
		plain := text([]int{100, 50_000, 3_000, 20_000}[i%4])
		stream, r := deflated(t, plain, []int{6, 9, 4}[i%3])
		if i == 3 || i == 7 || i == 8 { // are encoded as they come
			plain, stream, r = large, largeStream, largeResult
		}
		want.Write(stream)
		err := p.Encode(r.Coded, r.Plain, r.Reconstruction, func(w io.Writer) error {
			_, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(plain)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("end"))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("wrote %d bytes that differ from the %d wanted", got.Len(), want.Len())
	}
}

// TestPipelineErrors gives back errors of reading, writing and of reconstructions,
// at once or at a later call.
func TestPipelineErrors(t *testing.T) {
	broken := errors.New("broken")
	plain := text(50_000)
	_, r := deflated(t, plain, 6)
	noise := make([]byte, heldStream+1)
	if !testing.Short() { // else of zeros: it takes the race detector a minute
		rand.NewChaCha8([32]byte{1}).Read(noise)
	}
	_, largest := deflated(t, noise, flate.NoCompression)
	give := func(b []byte) func(io.Writer) error {
		return func(w io.Writer) error { _, err := w.Write(b); return err }
	}
	run := func(w io.Writer, size, n int64, recon []byte, write func(io.Writer) error) error {
		p := NewPipeline(w)
		err := p.Encode(size, n, recon, write)
		if _, later := p.Write([]byte("more")); err == nil {
			err = later
		}
		if err == nil {
			err = p.Encode(largest.Coded, largest.Plain, largest.Reconstruction, give(noise))
		}
		if last := p.Close(); err == nil {
			err = last
		}
		return err
	}
	for name, test := range map[string]struct {
		err, want error
	}{
		"sound":                {run(io.Discard, r.Coded, r.Plain, r.Reconstruction, give(plain)), nil},
		"reading fails":        {run(io.Discard, r.Coded, r.Plain, r.Reconstruction, func(io.Writer) error { return broken }), broken},
		"writing fails":        {run(failing{broken}, r.Coded, r.Plain, r.Reconstruction, give(plain)), broken},
		"too few bytes":        {run(io.Discard, r.Coded+1, r.Plain, r.Reconstruction, give(plain)), ErrReconstruction},
		"too many bytes":       {run(io.Discard, r.Coded-1, r.Plain, r.Reconstruction, give(plain)), ErrReconstruction},
		"too much plain":       {run(io.Discard, r.Coded, r.Plain-1, r.Reconstruction, give(plain)), ErrReconstruction},
		"bad":                  {run(io.Discard, r.Coded, r.Plain, []byte{1, 2, 3}, give(plain)), ErrReconstruction},
		"large and bad":        {run(io.Discard, r.Coded, heldStream+1, []byte{1, 2, 3}, give(plain)), ErrReconstruction},
		"ends too soon":        {run(io.Discard, r.Coded, r.Plain, r.Reconstruction, func(io.Writer) error { return fmt.Errorf("at 5: %w", io.ErrUnexpectedEOF) }), io.ErrUnexpectedEOF},
		"large, ends too soon": {run(io.Discard, largest.Coded, largest.Plain, largest.Reconstruction, func(io.Writer) error { return fmt.Errorf("at 5: %w", io.ErrUnexpectedEOF) }), io.ErrUnexpectedEOF},
		"large, reading fails": {run(io.Discard, largest.Coded, largest.Plain, largest.Reconstruction, func(io.Writer) error { return broken }), broken},
		"large, writing fails": {run(failing{broken}, largest.Coded, largest.Plain, largest.Reconstruction, give(noise)), broken},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: got %v, want %v", name, test.err, test.want)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
