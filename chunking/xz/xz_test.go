package xz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// text returns n bytes that read like a program's source: words of a small
// vocabulary, numbers, indentation, and copies of earlier lines.
func text(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var b []byte
	var lines [][]byte
	for len(b) < n {
		var line []byte
		if len(lines) > 10 && rng.IntN(4) == 0 {
			line = lines[rng.IntN(len(lines))]
		} else {
			line = append(line, "\t\t\t\t"[:rng.IntN(5)]...)
			for range rng.IntN(12) {
				line = fmt.Appendf(line, "%c%x%s ", 'a'+rune(rng.IntN(26)), rng.IntN(300), []string{"", "Name", "err", "return", "=", "{"}[rng.IntN(6)])
			}
			line = append(line, '\n')
			lines = append(lines, line)
		}
		b = append(b, line...)
	}
	return b[:n]
}

// noise returns bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{3}).Read(b)
	return b
}

// program returns n bytes of a program: of this test.
func program(t testing.TB, n int) []byte {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b[:min(n, len(b))]
}

// tool runs a tool with plain bytes in a file named plain, and returns what it prints.
func tool(t testing.TB, plain []byte, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Skipf("no %s on this system", args[0])
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cmd.Dir, "plain"), plain, 0o666); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, said.Bytes())
	}
	return out
}

// roundTrip decodes a stream of plain bytes, and makes it again.
func roundTrip(t testing.TB, stream, plain []byte) Result {
	t.Helper()
	var got bytes.Buffer
	r, err := Decode(&got, bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), plain) || r.Plain != int64(len(plain)) {
		t.Fatalf("decoded %d bytes (it says %d), want %d", got.Len(), r.Plain, len(plain))
	}
	var again bytes.Buffer
	if err := Encode(&again, bytes.NewReader(plain), r.Reconstruction); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), stream[:r.Coded]) {
		t.Fatalf("made %d bytes that differ from the stream's %d", again.Len(), r.Coded)
	}
	read, err := io.ReadAll(NewReader(bytes.NewReader(stream)))
	if err != nil || !bytes.Equal(read, plain) {
		t.Fatalf("read %d bytes, want %d: %v", len(read), len(plain), err)
	}
	return r
}

// TestTools takes apart what the encoders of this system write.
func TestTools(t *testing.T) {
	mixed := slices.Concat(text(100_000), program(t, 250_000), make([]byte, 100_000), noise(150_000), text(50_000))
	for _, args := range []string{
		"xz -0", "xz -1", "xz -2", "xz -3", "xz -4", "xz -5", "xz -6", "xz -7", "xz -8", "xz -9",
		"xz -0e", "xz -3e", "xz -6e", "xz -9e",
		"xz -T2 --block-size=100KiB", "xz -T2 -9 --block-size=1MiB", "xz -1 --block-size=64KiB", "xz --block-list=1000,2000,300000,0",
		"xz --check=none", "xz --check=crc32", "xz --check=crc64", "xz --check=sha256",
		"xz --lzma2=preset=6,lc=0,lp=4,pb=0", "xz --lzma2=preset=6,lc=4,lp=0,pb=4", "xz --lzma2=preset=6,lc=1,lp=2,pb=1",
		"xz --lzma2=preset=6,dict=4KiB", "xz --lzma2=preset=6,dict=100KiB,nice=273", "xz --lzma2=preset=6,dict=1GiB,mf=bt2", "xz --lzma2=preset=6,mf=bt3,depth=500", "xz --lzma2=preset=1,mf=hc4,nice=8",
	} {
		t.Run(args, func(t *testing.T) {
			stream := tool(t, mixed, append(strings.Fields(args), "-c", "plain")...)
			r := roundTrip(t, stream, mixed)
			if most := len(stream) / 8; len(r.Reconstruction) > most {
				t.Errorf("a reconstruction of %d bytes for a stream of %d, want at most %d", len(r.Reconstruction), len(stream), most)
			}
		})
	}
	for _, level := range []string{"1", "5", "9"} {
		t.Run("7z "+level, func(t *testing.T) {
			if _, err := exec.LookPath("7z"); err != nil {
				t.Skip("no 7z on this system")
			}
			stream := tool(t, mixed, "sh", "-c", "7z a -txz -mx="+level+" a.xz plain >&2 && cat a.xz")
			roundTrip(t, stream, mixed)
		})
	}
	t.Run("python", func(t *testing.T) {
		stream := tool(t, mixed, "python3", "-c", `import lzma, sys
sys.stdout.buffer.write(lzma.compress(open("plain", "rb").read()))`)
		roundTrip(t, stream, mixed)
	})
}

// TestSizes takes apart streams of sizes near the edges of chunks and tables.
func TestSizes(t *testing.T) {
	for name, plain := range map[string][]byte{
		"a byte":         []byte("x"),
		"two bytes":      []byte("xx"),
		"a line":         []byte("to be or not to be, to be or not to be"),
		"noise":          noise(64 << 10),
		"noise and one":  noise(64<<10 + 1),
		"much noise":     noise(300_000),
		"zeros":          make([]byte, 2<<20),
		"zeros, one off": make([]byte, 2<<20+1),
		"many zeros":     make([]byte, 20<<20),
		"2 MiB":          append(program(t, 2<<20), make([]byte, 2<<20)...)[:2<<20],
		"2 MiB - 273":    bytes.Repeat([]byte("abcdefgh"), (2<<20-273+7)/8)[:2<<20-273],
		"twice":          bytes.Repeat(text(100_000), 2),
		"noise twice":    bytes.Repeat(noise(5<<20), 2),
	} {
		t.Run(name, func(t *testing.T) {
			roundTrip(t, tool(t, plain, "xz", "-1", "-c", "plain"), plain)
			if len(plain) < 3<<20 {
				roundTrip(t, tool(t, plain, "xz", "-6", "-c", "plain"), plain)
			}
		})
	}
	t.Run("empty", func(t *testing.T) {
		roundTrip(t, tool(t, nil, "xz", "-c", "plain"), nil)
	})
	t.Run("an empty block", func(t *testing.T) {
		stream := tool(t, nil, "sh", "-c", "printf '' | xz --format=raw --lzma2=preset=0 -c")
		if !bytes.Equal(stream, []byte{0}) {
			t.Fatalf("raw LZMA2 of nothing is %x", stream)
		}
		header := sealed([]byte{2, 0, filterLZMA2, 1, 12, 0, 0, 0}, 0)
		block := append(append(header, stream...), 0, 0, 0)
		x := index{keep: true}
		x.add(int64(len(header)+1), 0)
		x.add(int64(len(header)+1), 0)
		all := append(append(append(streamHeader(checkNone), block...), block...), x.bytes()...)
		roundTrip(t, append(all, streamFooter(checkNone, int64(len(x.bytes())))...), nil)
	})
}

// TestFar takes apart a stream whose matches reach farther than the finder's window, and
// whose positions the window has dropped.
func TestFar(t *testing.T) {
	plain := slices.Concat(noise(9<<20), text(100_000), noise(9<<20), program(t, 300_000), text(100_000))
	stream := tool(t, plain, "xz", "-7", "-c", "plain")
	r := roundTrip(t, stream, plain)
	if len(stream) > 11<<20 {
		t.Fatalf("the stream is of %d bytes: nothing reaches far", len(stream))
	}
	if most := len(stream) / 50; len(r.Reconstruction) > most {
		t.Errorf("a reconstruction of %d bytes for a stream of %d, want at most %d", len(r.Reconstruction), len(stream), most)
	}
}

// TestProgram keeps reconstructions of programs small, at the preset that dpkg uses.
func TestProgram(t *testing.T) {
	plain := program(t, 4<<20)
	stream := tool(t, plain, "xz", "-6", "-c", "plain")
	r := roundTrip(t, stream, plain)
	if most := len(stream) * 12 / 100; len(r.Reconstruction) > most {
		t.Errorf("a reconstruction of %d bytes for a stream of %d, want at most %d", len(r.Reconstruction), len(stream), most)
	}
}

// golden returns a stream that is always there, and its plain bytes.
func golden(t testing.TB, name string) (stream, plain []byte) {
	t.Helper()
	stream, err := os.ReadFile(filepath.Join("testdata", "v3", name+".xz"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err = io.ReadAll(NewReader(bytes.NewReader(stream)))
	if err != nil {
		t.Fatal(err)
	}
	return stream, plain
}

// TestReaders gives bytes in pieces of any size.
func TestReaders(t *testing.T) {
	stream, plain := golden(t, "xz-6")
	want := roundTrip(t, append(bytes.Clone(stream), "behind it"...), plain)
	if want.Coded != int64(len(stream)) {
		t.Errorf("the stream is of %d bytes, want %d", want.Coded, len(stream))
	}
	got, err := Decode(io.Discard, iotest.OneByteReader(bytes.NewReader(stream)))
	if err != nil || got.Coded != want.Coded || !bytes.Equal(got.Reconstruction, want.Reconstruction) {
		t.Fatalf("read byte by byte: %d bytes, a reconstruction of %d: %v", got.Coded, len(got.Reconstruction), err)
	}
	if read, err := io.ReadAll(iotest.OneByteReader(NewReader(iotest.DataErrReader(bytes.NewReader(stream))))); err != nil || !bytes.Equal(read, plain) {
		t.Fatalf("read %d bytes one by one, want %d: %v", len(read), len(plain), err)
	}
	var again bytes.Buffer
	if err := Encode(&again, iotest.HalfReader(bytes.NewReader(plain)), want.Reconstruction); err != nil || !bytes.Equal(again.Bytes(), stream) {
		t.Fatalf("made another stream from a slow reader: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Decode(io.Discard, io.MultiReader(bytes.NewReader(stream[:1000]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a broken reader gives %v", err)
	}
	if err := Encode(io.Discard, io.MultiReader(bytes.NewReader(plain[:1000]), iotest.ErrReader(broken)), want.Reconstruction); !errors.Is(err, broken) {
		t.Errorf("a broken reader gives %v", err)
	}
	if _, err := io.ReadAll(NewReader(io.MultiReader(bytes.NewReader(stream[:1000]), iotest.ErrReader(broken)))); !errors.Is(err, broken) {
		t.Errorf("a broken reader gives %v", err)
	}
	for n := range 4 {
		w := &brokenWriter{n: n * 3000, err: broken}
		if err := Encode(w, bytes.NewReader(plain), want.Reconstruction); !errors.Is(err, broken) {
			t.Errorf("a writer that breaks after %d bytes gives %v", n*3000, err)
		}
	}
}

// brokenWriter breaks after n bytes.
type brokenWriter struct {
	n   int
	err error
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	if len(p) > w.n {
		return 0, w.err
	}
	w.n -= len(p)
	return len(p), nil
}

// TestDamage finds each flipped bit of a stream, and each byte that is missing.
func TestDamage(t *testing.T) {
	stream, _ := golden(t, "blocks")
	for i := range stream {
		for bit := range 8 {
			if i > 600 && i < len(stream)-100 && (i%13 > 0 || bit != i/13%8) {
				continue
			}
			bad := bytes.Clone(stream)
			bad[i] ^= 1 << bit
			if _, err := Decode(io.Discard, bytes.NewReader(bad)); !errors.Is(err, ErrStream) && !errors.Is(err, ErrCostly) {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, i, err)
			}
			if _, err := io.ReadAll(NewReader(bytes.NewReader(bad))); !errors.Is(err, ErrStream) && !errors.Is(err, ErrCostly) {
				t.Fatalf("bit %d of byte %d flipped, read: %v", bit, i, err)
			}
		}
		if i%7 == 0 || i < 100 {
			if _, err := Decode(io.Discard, bytes.NewReader(stream[:i])); !errors.Is(err, ErrStream) {
				t.Fatalf("cut off after %d bytes: %v, want ErrStream", i, err)
			}
		}
	}
}

// TestCostly refuses what it cannot make again.
func TestCostly(t *testing.T) {
	plain := program(t, 200_000)
	for _, args := range []string{"xz --x86 --lzma2", "xz --delta=dist=4 --lzma2"} {
		stream := tool(t, plain, append(strings.Fields(args), "-c", "plain")...)
		if _, err := Decode(io.Discard, bytes.NewReader(stream)); !errors.Is(err, ErrCostly) {
			t.Errorf("%s: %v, want ErrCostly", args, err)
		}
	}
}

// TestReconstructions refuses malformed ones.
func TestReconstructions(t *testing.T) {
	for _, name := range []string{"xz-6", "blocks", "noise"} {
		stream, plain := golden(t, name)
		recon := roundTrip(t, stream, plain).Reconstruction
		for n := range recon {
			if n > 60 && n < len(recon)-60 && n%7 > 0 {
				continue
			}
			if err := Encode(io.Discard, bytes.NewReader(plain), recon[:n]); !errors.Is(err, ErrReconstruction) {
				t.Fatalf("%s: cut off after %d of %d bytes: %v, want ErrReconstruction", name, n, len(recon), err)
			}
		}
		// The last bytes of the choices of a block only end their range coder.
		var flushed []int
		for at := 2; recon[at] != noBlock; {
			at += 4 * (int(recon[at]) + 1)
			n, m := binary.Uvarint(recon[at:])
			at += m + int(n)
			flushed = append(flushed, at-4, at-3, at-2, at-1)
			n, m = binary.Uvarint(recon[at:])
			at += m + int(n)
		}
		var out bytes.Buffer
		for i := range recon {
			if i > 60 && i < len(recon)-60 && i%7 > 0 {
				continue
			}
			bad := bytes.Clone(recon)
			bad[i] ^= 1 << (i % 8)
			out.Reset()
			if err := Encode(&out, bytes.NewReader(plain), bad); err != nil && !errors.Is(err, ErrReconstruction) {
				t.Fatalf("%s: byte %d damaged: %v", name, i, err)
			} else if err == nil && bytes.Equal(out.Bytes(), stream) && !slices.Contains(flushed, i) {
				t.Errorf("%s: byte %d has no meaning", name, i)
			}
		}
		for what, bad := range map[string][]byte{
			"version":     append([]byte{99}, recon[1:]...),
			"check":       append([]byte{Version, 7}, recon[2:]...),
			"more behind": append(bytes.Clone(recon), 0),
		} {
			if err := Encode(io.Discard, bytes.NewReader(plain), bad); !errors.Is(err, ErrReconstruction) {
				t.Errorf("%s: %s: got %v, want ErrReconstruction", name, what, err)
			}
		}
		if err := Encode(io.Discard, bytes.NewReader(plain[:len(plain)-1]), recon); !errors.Is(err, ErrReconstruction) {
			t.Errorf("%s: fewer plain bytes: %v", name, err)
		}
		if err := Encode(io.Discard, bytes.NewReader(append(bytes.Clone(plain), 'x')), recon); !errors.Is(err, ErrReconstruction) {
			t.Errorf("%s: more plain bytes: %v", name, err)
		}
	}
}

// TestMemory takes little for small streams, and no more than it should for large ones.
func TestMemory(t *testing.T) {
	stream, _ := golden(t, "xz-6")
	// Its tables are used again, if no collection of garbage drops them in between.
	least := uint64(math.MaxUint64)
	for range 10 {
		least = min(least, allocated(func() { Decode(io.Discard, bytes.NewReader(stream)) }))
	}
	if least > 2<<20 {
		t.Errorf("a small stream took %d bytes", least)
	}
	zeros := make([]byte, 100<<20)
	stream = tool(t, zeros, "xz", "-0", "-c", "plain")
	if n := allocated(func() { Decode(io.Discard, bytes.NewReader(stream)) }); n > 80<<20 {
		t.Errorf("a stream of 100 MiB took %d bytes", n)
	}
}

// allocated returns how many bytes f allocates, those that are free again too.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// wrap makes a stream of a block's coded bytes, as far as they go, without a check.
func wrap(coded []byte) []byte {
	block := append(sealed([]byte{2, 0, filterLZMA2, 1, 12, 0, 0, 0}, 0), coded...)
	s := newStream(io.MultiReader(bytes.NewReader(streamHeader(checkNone)), bytes.NewReader(block), bytes.NewReader(make([]byte, 3))))
	s.index.keep = true
	for begun := false; !begun || s.inside; begun = true {
		if _, err := s.next(); err != nil {
			break
		}
		s.window.pos = len(s.window.buf)
	}
	n := int(s.in.n) - headerSize // with padding
	block = append(block, make([]byte, max(0, n-len(block)))...)[:n]
	x := s.index.bytes()
	all := append(append(streamHeader(checkNone), block...), x...)
	return append(all, streamFooter(checkNone, int64(len(x)))...)
}

// FuzzChunks looks behind the sums that FuzzDecode's bytes seldom pass.
func FuzzChunks(f *testing.F) {
	for _, name := range goldens {
		if stream, plain := golden(f, name); len(plain) > 0 {
			coded := stream[headerSize+4*(int(stream[headerSize])+1):]
			if _, err := Decode(io.Discard, bytes.NewReader(wrap(coded))); err != nil {
				f.Fatalf("%s: %v", name, err)
			}
			f.Add(coded)
		}
	}
	f.Fuzz(func(t *testing.T, coded []byte) { remake(t, wrap(coded)) })
}

func FuzzDecode(f *testing.F) {
	for _, name := range goldens {
		stream, _ := golden(f, name)
		f.Add(stream)
	}
	f.Fuzz(remake)
}

// remake decodes what may be a stream, and makes it again.
func remake(t *testing.T, stream []byte) {
	var plain bytes.Buffer
	r, err := Decode(&plain, bytes.NewReader(stream))
	if err != nil {
		if !errors.Is(err, ErrStream) && !errors.Is(err, ErrCostly) {
			t.Fatal(err)
		}
		return
	}
	read, err := io.ReadAll(NewReader(bytes.NewReader(stream)))
	if err != nil || !bytes.Equal(read, plain.Bytes()) {
		t.Fatalf("Decode gives %d bytes, the reader %d: %v", plain.Len(), len(read), err)
	}
	var again bytes.Buffer
	if err := Encode(&again, bytes.NewReader(read), r.Reconstruction); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(again.Bytes(), stream[:r.Coded]) {
		return
	}
	// An encoder may write what liblzma would not; what is made again is a stream of the
	// same bytes all the same.
	got, err := io.ReadAll(NewReader(bytes.NewReader(again.Bytes())))
	if err != nil || !bytes.Equal(got, read) {
		t.Fatalf("it made a stream of other bytes: %v", err)
	}
}

func FuzzEncode(f *testing.F) {
	for _, name := range goldens {
		stream, plain := golden(f, name)
		if len(plain) < 200_000 {
			f.Add(plain, roundTrip(f, stream, plain).Reconstruction)
		}
	}
	f.Fuzz(func(t *testing.T, plain, reconstruction []byte) {
		var out bytes.Buffer
		if err := Encode(&out, bytes.NewReader(plain), reconstruction); err != nil {
			if !errors.Is(err, ErrReconstruction) {
				t.Fatal(err)
			}
			return
		}
		if out.Len() > 2*len(plain)+20*len(reconstruction)+100 {
			t.Fatalf("%d bytes and a reconstruction of %d gave %d", len(plain), len(reconstruction), out.Len())
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	plain := program(b, 16<<20)
	stream := tool(b, plain, "xz", "-6", "-c", "plain")
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if _, err := Decode(io.Discard, bytes.NewReader(stream)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	plain := program(b, 16<<20)
	r, err := Decode(io.Discard, bytes.NewReader(tool(b, plain, "xz", "-6", "-c", "plain")))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if err := Encode(io.Discard, bytes.NewReader(plain), r.Reconstruction); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	plain := program(b, 16<<20)
	stream := tool(b, plain, "xz", "-6", "-c", "plain")
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if _, err := io.Copy(io.Discard, NewReader(bytes.NewReader(stream))); err != nil {
			b.Fatal(err)
		}
	}
}
