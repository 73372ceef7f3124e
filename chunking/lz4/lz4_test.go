package lz4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/iotest"
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

func noise(n int) []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// runs returns n bytes of runs of one byte, between others.
func runs(n int) []byte {
	rng := rand.New(rand.NewPCG(5, 6))
	var b []byte
	for len(b) < n {
		b = append(b, bytes.Repeat([]byte{byte(rng.IntN(3))}, 1+rng.IntN(1<<rng.IntN(12)))...)
		b = append(b, noise(rng.IntN(20))...)
	}
	return b[:n]
}

func program(t *testing.T) []byte {
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// samples are what is packed, by what it is.
func samples(t *testing.T) map[string][]byte {
	s := map[string][]byte{
		"a byte": {1}, "twelve": text(12), "thirteen": make([]byte, 13), "text": text(300 << 10), "noise": noise(100 << 10),
		"zeros": make([]byte, 1<<20), "runs": runs(1 << 20), "a program": program(t),
		"a block": text(blockSize), "two blocks": append(runs(blockSize), text(1000)...),
	}
	for i := range 40 {
		s[fmt.Sprintf("runs %d", i)] = runs(5000 + 700*i)[i*100:]
	}
	return s
}

// TestTool takes what the lz4 program makes.
func TestTool(t *testing.T) {
	tool, err := exec.LookPath("lz4")
	if err != nil {
		t.Skip("needs lz4")
	}
	dir := t.TempDir()
	for name, plain := range samples(t) {
		in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		if err := os.WriteFile(in, plain, 0o666); err != nil {
			t.Fatal(err)
		}
		for level := leastLevel; level <= mostLevel; level++ {
			if len(plain) > 1<<20 && level < mostLevel {
				continue
			}
			if msg, err := exec.Command(tool, "-l", fmt.Sprintf("-%d", level), "-f", "-q", in, out).CombinedOutput(); err != nil {
				t.Fatalf("lz4: %v: %s", err, msg)
			}
			coded, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			checkFrame(t, fmt.Sprintf("%s at level %d", name, level), coded, plain)
		}
	}
}

func checkFrame(t *testing.T, name string, coded, plain []byte) {
	t.Helper()
	var back, again bytes.Buffer
	res, err := Decode(&back, bytes.NewReader(coded), &again)
	if err != nil || !bytes.Equal(back.Bytes(), plain) || res.Coded != int64(len(coded)) || res.Plain != int64(len(plain)) {
		t.Errorf("%s: Decode = %+v, %v; want %d bytes from %d", name, res, err, len(plain), len(coded))
		return
	}
	if !bytes.Equal(again.Bytes(), coded) {
		t.Errorf("%s: Decode gives another frame again", name)
	}
	again.Reset()
	if err := Encode(&again, &back, res.Reconstruction); err != nil || !bytes.Equal(again.Bytes(), coded) {
		t.Errorf("%s: not the same when made again: %v", name, err)
	}
	read, err := io.ReadAll(NewReader(iotest.OneByteReader(bytes.NewReader(append(coded, "\xff\xff\xff\xff behind it"...)))))
	if len(plain) < 1<<20 && (err != nil || !bytes.Equal(read, plain)) {
		t.Errorf("%s: read otherwise: %v", name, err)
	}
}

// TestRoundTrip needs no program.
func TestRoundTrip(t *testing.T) {
	for name, plain := range samples(t) {
		for _, level := range []byte{3, 9} {
			var coded bytes.Buffer
			if err := Encode(&coded, bytes.NewReader(plain), []byte{Version, level}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			checkFrame(t, name, coded.Bytes(), plain)
		}
	}
}

// TestOthers refuses what another encoder made, and what is no frame.
func TestOthers(t *testing.T) {
	plain := text(100 << 10)
	var coded bytes.Buffer
	if err := Encode(&coded, bytes.NewReader(plain), []byte{Version, 9}); err != nil {
		t.Fatal(err)
	}
	frame := coded.Bytes()
	// Literals only are a sound block, that this encoder would not have made.
	block := appendSequence(nil, plain, 0, 0)
	other := binary.LittleEndian.AppendUint32([]byte(Magic), uint32(len(block)))
	if _, err := Decode(io.Discard, bytes.NewReader(append(other, block...)), io.Discard); !errors.Is(err, ErrCostly) {
		t.Errorf("another encoder's frame: %v, want ErrCostly", err)
	}
	for n := range frame[:len(frame)/50] {
		if _, err := Decode(io.Discard, bytes.NewReader(frame[:n*50]), io.Discard); !errors.Is(err, ErrStream) {
			t.Errorf("cut off after %d bytes: %v, want ErrStream", n*50, err)
		}
	}
	for name, data := range map[string]string{"another magic": "\x04\x22\x4d\x18", "a large block": Magic + "\xff\xff\xff\xff", "an empty block": Magic + "\x00\x00\x00\x00", "a match before the start": Magic + "\x04\x00\x00\x00\x00\x01\x00\x00"} {
		if _, err := Decode(io.Discard, bytes.NewReader([]byte(data)), io.Discard); !errors.Is(err, ErrStream) {
			t.Errorf("%s: %v, want ErrStream", name, err)
		}
	}
	for name, reconstruction := range map[string][]byte{"nothing": {}, "another version": {4, 9}, "level 2": {Version, 2}, "level 10": {Version, 10}, "a byte more": {Version, 9, 0}} {
		if err := Encode(io.Discard, bytes.NewReader(plain), reconstruction); !errors.Is(err, ErrReconstruction) {
			t.Errorf("%s: %v, want ErrReconstruction", name, err)
		}
	}
	broken := errors.New("broken")
	if _, err := Decode(io.Discard, io.MultiReader(bytes.NewReader(frame[:100]), iotest.ErrReader(broken)), io.Discard); !errors.Is(err, broken) {
		t.Errorf("reading fails: %v", err)
	}
	if err := Encode(io.Discard, iotest.ErrReader(broken), []byte{Version, 9}); !errors.Is(err, broken) {
		t.Errorf("reading fails: %v", err)
	}
	if err := Encode(failingWriter{}, bytes.NewReader(runs(3*blockSize)), []byte{Version, 3}); !errors.Is(err, errFull) {
		t.Errorf("writing fails: %v", err)
	}
}

var errFull = errors.New("full")

type failingWriter struct{}

func (failingWriter) Write(p []byte) (int, error) {
	if len(p) == len(Magic) {
		return len(p), nil
	}
	return 0, errFull
}

// TestGolden keeps what is made from changing: a sum of what each level makes.
func TestGolden(t *testing.T) {
	plain := append(append(text(200<<10), runs(200<<10)...), noise(1000)...)
	for level := leastLevel; level <= mostLevel; level++ {
		coded, _ := encodeBlock(nil, plain, level, nil)
		sum := uint64(14695981039346656037) // FNV-1a
		for _, b := range coded {
			sum = (sum ^ uint64(b)) * 1099511628211
		}
		if sum != golden[level] {
			t.Errorf("level %d: %#x, golden is %#x", level, sum, golden[level])
		}
	}
}

var golden = map[int]uint64{
	3: 0x93d8c6349043617b, 4: 0x776e2525e7ab036f, 5: 0xbb8c1a05fca51bf5, 6: 0x81db69a0f8c82abe,
	7: 0x27d2d80a0c58f707, 8: 0x5b3aa7ded27b0017, 9: 0xc2e6b9e98ad12200,
}

func FuzzDecode(f *testing.F) {
	var coded bytes.Buffer
	if err := Encode(&coded, bytes.NewReader(runs(3000)), []byte{Version, 9}); err != nil {
		f.Fatal(err)
	}
	f.Add(coded.Bytes())
	f.Add([]byte(Magic + "\x06\x00\x00\x00\x10a\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var plain, again bytes.Buffer
		res, err := Decode(&plain, bytes.NewReader(data), io.Discard)
		if err != nil {
			return
		}
		if err := Encode(&again, &plain, res.Reconstruction); err != nil || !bytes.Equal(again.Bytes(), data[:res.Coded]) {
			t.Fatalf("not the same when made again: %v", err)
		}
	})
}

// FuzzEncode packs anything, and unpacks it again.
func FuzzEncode(f *testing.F) {
	f.Add(runs(1000), byte(9))
	f.Add(text(1000), byte(4))
	f.Fuzz(func(t *testing.T, plain []byte, level byte) {
		if len(plain) == 0 {
			return
		}
		coded, _ := encodeBlock(nil, plain, leastLevel+int(level)%(mostLevel-leastLevel+1), nil)
		if back, ok := decodeBlock(nil, coded); !ok || !bytes.Equal(back, plain) {
			t.Fatal("decoded otherwise")
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	plain := append(text(2<<20), runs(2<<20)...)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		encodeBlock(nil, plain, 9, nil)
	}
}
