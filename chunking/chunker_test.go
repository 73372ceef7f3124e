package chunking

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// cutAll returns all chunks of r, with data of their own.
func cutAll(t rapid.TB, r io.Reader, p Params) []Chunk {
	t.Helper()
	c, err := New(r, p)
	if err != nil {
		t.Fatalf("New(%+v) = %v", p, err)
	}
	return drain(t, c)
}

func drain(t rapid.TB, c *Chunker) []Chunk {
	t.Helper()
	var chunks []Chunk
	for {
		chunk, err := c.Next()
		if errors.Is(err, io.EOF) {
			return chunks
		}
		if err != nil {
			t.Fatalf("Next() = %v", err)
		}
		if !chunk.Zero() {
			chunk.Data = bytes.Clone(chunk.Data)
		}
		chunks = append(chunks, chunk)
	}
}

// diffChunks says where two lists of chunks differ first, "" when nowhere.
func diffChunks(got, want []Chunk) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("%d chunks, want %d", len(got), len(want))
		case i >= len(want):
			return fmt.Sprintf("%d chunks, want %d: one of %d bytes at %d", len(got), len(want), got[i].Size, got[i].Offset)
		}
		g, w := got[i], want[i]
		if g.Offset != w.Offset || g.Size != w.Size || g.Zero() != w.Zero() || !bytes.Equal(g.Data, w.Data) {
			return fmt.Sprintf("chunk %d is [%d,+%d) zero=%t, want [%d,+%d) zero=%t", i, g.Offset, g.Size, g.Zero(), w.Offset, w.Size, w.Zero())
		}
	}
	return ""
}

// holes returns seeded bytes with runs of zeros of many lengths in them.
func holes(seed byte, n int) []byte {
	data := seeded(seed, n)
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	for off := 0; off < n; {
		off += rng.IntN(n / 8)
		end := min(n, off+rng.IntN(n/16))
		if off < end {
			clear(data[off:end])
		}
		off = end
	}
	return data
}

// checkChunks holds what the package comment guarantees of any chunks of data.
func checkChunks(t rapid.TB, chunks []Chunk, data []byte, p Params) {
	t.Helper()
	off := int64(0)
	for i, c := range chunks {
		part := data[off : off+c.Size]
		last := i == len(chunks)-1
		switch {
		case c.Offset != off || c.Size < 1:
			t.Fatalf("chunk %d = [%d,+%d), want one at %d", i, c.Offset, c.Size, off)
		case c.Zero() && (c.Size < int64(p.ZeroRun) || len(bytes.Trim(part, "\x00")) > 0):
			t.Fatalf("chunk %d of %d bytes is no zero run of at least %d", i, c.Size, p.ZeroRun)
		case c.Zero():
		case !bytes.Equal(c.Data, part):
			t.Fatalf("chunk %d does not hold the bytes at %d", i, off)
		case c.Size > int64(p.Max):
			t.Fatalf("chunk %d has %d bytes, want at most %d", i, c.Size, p.Max)
		case c.Size < int64(p.Min) && !last && !chunks[i+1].Zero():
			t.Fatalf("chunk %d has %d bytes, want at least %d", i, c.Size, p.Min)
		}
		off += c.Size
	}
	if off != int64(len(data)) {
		t.Fatalf("chunks have %d bytes, want %d", off, len(data))
	}
}

func TestChunksAreTheStream(t *testing.T) {
	for _, p := range []Params{Default(), small(8, 1024, 256), {Algorithm, Polynomial, 64 << 10, 12, 64 << 10, 1 << 20}} {
		for _, n := range []int{0, 1, 63, 64, 65, p.Min, p.Max, p.Max + 1, p.Max + p.ZeroRun, 2_000_000} {
			data := seeded(3, n)
			checkChunks(t, cutAll(t, bytes.NewReader(data), p), data, p)
			if n > 1000 {
				data = holes(4, n)
				checkChunks(t, cutAll(t, bytes.NewReader(data), p), data, p)
			}
		}
	}
}

// slicer gives the bytes of a reader in pieces whose sizes next says.
type slicer struct {
	r    io.Reader
	next func() int
}

func (s slicer) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.next())]) }

func TestSlicing(t *testing.T) {
	for _, p := range []Params{Default(), small(8, 1024, 256)} {
		data := holes(5, 700_000)
		want := cutAll(t, bytes.NewReader(data), p)
		rng := rand.New(rand.NewPCG(1, 2))
		readers := map[string]io.Reader{
			"one byte":   iotest.OneByteReader(bytes.NewReader(data)),
			"half":       iotest.HalfReader(bytes.NewReader(data)),
			"data error": iotest.DataErrReader(bytes.NewReader(data)),
			"random":     slicer{bytes.NewReader(data), func() int { return 1 + rng.IntN(100_000) }},
			"with empty": slicer{bytes.NewReader(data), func() int { return rng.IntN(2) * 1000 }},
		}
		for name, r := range readers {
			if diff := diffChunks(cutAll(t, r, p), want); diff != "" {
				t.Errorf("%s: chunks depend on how the reader slices: %s", name, diff)
			}
		}
	}
}

func TestSlicingRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := small(7, 300, 100)
		data := drawInput(p).Draw(t, "input")
		sizes := rapid.SliceOfN(rapid.IntRange(1, 400), 1, 8).Draw(t, "reads")
		i := 0
		got := cutAll(t, slicer{bytes.NewReader(data), func() int { i++; return sizes[i%len(sizes)] }}, p)
		if diff := diffChunks(got, cutAll(t, bytes.NewReader(data), p)); diff != "" {
			t.Fatalf("chunks depend on how the reader slices: %s", diff)
		}
	})
}

func TestReset(t *testing.T) {
	p := small(8, 1024, 256)
	c, err := New(iotest.ErrReader(errors.New("broken")), p)
	if err != nil {
		t.Fatal(err)
	}
	for i, data := range [][]byte{holes(6, 50_000), nil, make([]byte, 5000), seeded(7, 50_000)} {
		c.Next() // leaves something behind, an error or a chunk
		c.Reset(bytes.NewReader(data))
		if diff := diffChunks(drain(t, c), oracleCuts(data, p)); diff != "" {
			t.Errorf("after Reset %d: %s", i, diff)
		}
		c.Reset(bytes.NewReader(seeded(8, 3000)))
	}
}

// zeroReader gives n zeros.
type zeroReader struct{ n int64 }

func (r *zeroReader) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), r.n)
	clear(p[:n])
	r.n -= n
	return int(n), nil
}

func TestLongZeroRun(t *testing.T) {
	const run = 200<<20 + 12345
	head, tail := seeded(9, 100), seeded(10, 100)
	head[99], tail[0] = 1, 1
	p := Default()
	c, err := New(io.MultiReader(bytes.NewReader(head), &zeroReader{run}, bytes.NewReader(tail)), p)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := drain(t, c)
	runtime.ReadMemStats(&after)
	want := []Chunk{{0, 100, head}, {100, run, nil}, {100 + run, 100, tail}}
	if diff := diffChunks(got, want); diff != "" {
		t.Error(diff)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d MiB of zeros took %d bytes of memory, want less than 1 MiB", run>>20, grown)
	}
}

func TestReadErrorIsSticky(t *testing.T) {
	broken := errors.New("broken")
	for name, data := range map[string][]byte{
		"at once":        nil,
		"in data":        seeded(11, 3_000_000),
		"in a zero run":  make([]byte, 3_000_000),
		"behind a chunk": append(make([]byte, 3_000_000), 1),
	} {
		t.Run(name, func(t *testing.T) {
			more := bytes.NewReader(seeded(12, 1000)) // a reader that recovers
			c, err := New(io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken), more), Default())
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = c.Next()
			}
			for range 3 {
				if !errors.Is(err, broken) {
					t.Fatalf("Next() = %v, want %v", err, broken)
				}
				_, err = c.Next()
			}
		})
	}
}

func TestEOFIsSticky(t *testing.T) {
	c, err := New(bytes.NewReader([]byte("x")), Default())
	if err != nil {
		t.Fatal(err)
	}
	drain(t, c)
	for range 3 {
		if _, err := c.Next(); err != io.EOF {
			t.Errorf("Next() behind the end = %v, want io.EOF", err)
		}
	}
}
