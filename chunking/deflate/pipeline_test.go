package deflate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
)

// TestPipeline writes pieces in order, however long each takes to encode.
func TestPipeline(t *testing.T) {
	var got, want bytes.Buffer
	p := NewPipeline(&got)
	write := func(b []byte) {
		want.Write(b)
		if _, err := p.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		write(fmt.Appendf(nil, "header %d", i))
		n := []int{100, 200_000, 3_000, 70_000}[i%4]
		if i == 17 {
			n = heldStream + 5 // is encoded as it comes
		}
		plain := text(n)
		if i == 17 {
			plain = make([]byte, n)
		}
		stream := goDeflate(t, plain, []int{6, 9, 4}[i%3])
		r, err := Decode(io.Discard, bytes.NewReader(stream), nil)
		if err != nil {
			t.Fatal(err)
		}
		want.Write(stream)
		err = p.Encode(r.Coded, r.Plain, r.Reconstruction, func(w io.Writer) error {
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
	r, _ := roundTrip(t, goDeflate(t, plain, 6))
	give := func(w io.Writer) error { _, err := w.Write(plain); return err }
	run := func(w io.Writer, size, n int64, recon []byte, write func(io.Writer) error) error {
		p := NewPipeline(w)
		err := p.Encode(size, n, recon, write)
		if _, later := p.Write([]byte("more")); err == nil {
			err = later
		}
		if last := p.Close(); err == nil {
			err = last
		}
		return err
	}
	for name, test := range map[string]struct {
		err, want error
	}{
		"sound":          {run(io.Discard, r.Coded, r.Plain, r.Reconstruction, give), nil},
		"reading fails":  {run(io.Discard, r.Coded, r.Plain, r.Reconstruction, func(io.Writer) error { return broken }), broken},
		"writing fails":  {run(failing{broken}, r.Coded, r.Plain, r.Reconstruction, give), broken},
		"too few bytes":  {run(io.Discard, r.Coded+1, r.Plain, r.Reconstruction, give), ErrReconstruction},
		"too many bytes": {run(io.Discard, r.Coded-1, r.Plain, r.Reconstruction, give), ErrReconstruction},
		"too much plain": {run(io.Discard, r.Coded, r.Plain-1, r.Reconstruction, give), ErrReconstruction},
		"bad":            {run(io.Discard, r.Coded, r.Plain, []byte{1, 2, 3}, give), ErrReconstruction},
		"large and bad":  {run(io.Discard, r.Coded, heldStream+1, []byte{1, 2, 3}, give), ErrReconstruction},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: got %v, want %v", name, test.err, test.want)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
