package deflate

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

func goDeflate(t testing.TB, plain []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// roundTrip decodes a stream and makes it again.
func roundTrip(t testing.TB, stream []byte) (Result, []byte) {
	t.Helper()
	var plain, onTheWay bytes.Buffer
	r, err := Decode(&plain, bytes.NewReader(stream), &onTheWay)
	if err != nil {
		t.Fatal(err)
	}
	if choices := r.Reconstruction[0] == versionChoices; r.Again == choices {
		t.Fatalf("made again on the way: %v", r.Again)
	}
	if r.Again && !bytes.Equal(onTheWay.Bytes(), stream[:r.Coded]) {
		t.Fatalf("made %d bytes on the way that differ from the stream's %d", onTheWay.Len(), r.Coded)
	}
	want, err := io.ReadAll(flate.NewReader(bytes.NewReader(stream)))
	if err != nil || !bytes.Equal(plain.Bytes(), want) || r.Plain != int64(len(want)) {
		t.Fatalf("decoded %d bytes (it says %d), want %d: %v", plain.Len(), r.Plain, len(want), err)
	}
	var again bytes.Buffer
	if err := Encode(&again, bytes.NewReader(plain.Bytes()), r.Reconstruction); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), stream[:r.Coded]) {
		t.Fatalf("made %d bytes that differ from the stream's %d", again.Len(), r.Coded)
	}
	return r, plain.Bytes()
}

// TestTools takes apart what the encoders of this system write.
func TestTools(t *testing.T) {
	plain := text(400_000)
	file := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(file, plain, 0o666); err != nil {
		t.Fatal(err)
	}
	python := `import sys, zlib
c = zlib.compressobj(int(sys.argv[2]), zlib.DEFLATED, -15, int(sys.argv[3]))
sys.stdout.buffer.write(c.compress(open(sys.argv[1], "rb").read()) + c.flush())`
	node := `const z = require("zlib"), fs = require("fs")
fs.writeSync(1, z.deflateRawSync(fs.readFileSync(process.argv[1]), {level: +process.argv[2]}))`
	for level := 1; level <= 9; level++ {
		for _, tool := range []struct {
			name string
			args []string
			head int
		}{
			{"gzip", []string{"gzip", "-nc", fmt.Sprint("-", level), file}, 10},
			{"pigz", []string{"pigz", "-nc", fmt.Sprint("-", level), file}, 10},
			{"pigz, pieces of 64 KiB", []string{"pigz", "-nc", fmt.Sprint("-", level), "-b", "64", file}, 10},
			{"pigz, each piece alone", []string{"pigz", "-nci", fmt.Sprint("-", level), file}, 10},
			{"zip", []string{"sh", "-c", fmt.Sprintf("cd %s && zip -qXD -%d - plain | tail -c +36", filepath.Dir(file), level)}, 0},
			{"python zlib", []string{"python3", "-c", python, file, fmt.Sprint(level), "8"}, 0},
			{"python zlib, memLevel 9", []string{"python3", "-c", python, file, fmt.Sprint(level), "9"}, 0},
			{"node", []string{"node", "-e", node, file, fmt.Sprint(level)}, 0},
			{"7z", []string{"sh", "-c", fmt.Sprintf("cd %s && rm -f a.zip && 7z a -tzip -mx=%d a.zip plain >&2 && tail -c +36 a.zip", filepath.Dir(file), level)}, 0},
			{"libdeflate-gzip", []string{"libdeflate-gzip", "-nc", fmt.Sprint("-", level), file}, 10},
			{"advzip", []string{"sh", "-c", fmt.Sprintf("cd %s && rm -f a.zip && advzip -qa -%d a.zip plain && tail -c +36 a.zip", filepath.Dir(file), min(level, 4))}, 0},
			{"zopfli", []string{"zopfli", "-c", "--i5", file}, 10},
		} {
			if tool.name == "advzip" && level > 4 || tool.name == "zopfli" && level > 1 {
				continue // it has no such levels
			}
			t.Run(fmt.Sprint(tool.name, " ", level), func(t *testing.T) {
				what := tool.args[0]
				if what == "sh" {
					what, _, _ = strings.Cut(tool.name, " ")
				}
				if _, err := exec.LookPath(what); err != nil {
					t.Skipf("no %s on this system", what)
				}
				stream, err := exec.Command(tool.args[0], tool.args[1:]...).Output()
				if err != nil {
					t.Fatal(err)
				}
				r, got := roundTrip(t, stream[tool.head:])
				if !bytes.Equal(got, plain) {
					t.Fatal("decoded other bytes")
				}
				most := len(stream) / 200
				switch tool.name {
				case "7z", "libdeflate-gzip", "advzip", "zopfli": // whose choices are their own
					most = len(stream) / 5
				}
				if len(r.Reconstruction) > most {
					t.Errorf("a reconstruction of %d bytes for a stream of %d, want at most %d", len(r.Reconstruction), len(stream), most)
				}
			})
		}
	}
}

// TestGo takes apart what Go's encoder writes.
func TestGo(t *testing.T) {
	plain := bytes.Join([][]byte{text(400_000), noise(100_000), make([]byte, 90_000), text(70_000)}, nil)
	for level := 1; level <= 9; level++ {
		t.Run(fmt.Sprint(level), func(t *testing.T) {
			stream := goDeflate(t, plain, level)
			r, _ := roundTrip(t, stream)
			if most := len(stream) / 100; len(r.Reconstruction) > most {
				t.Errorf("a reconstruction of %d bytes for a stream of %d, want at most %d", len(r.Reconstruction), len(stream), most)
			}
		})
	}
}

// TestShapes takes apart streams at the edges of the format.
func TestShapes(t *testing.T) {
	flushed := func(plain []byte, every int) []byte {
		var b bytes.Buffer
		w, _ := flate.NewWriter(&b, 6)
		for len(plain) > 0 {
			n := min(every, len(plain))
			w.Write(plain[:n])
			w.Flush()
			plain = plain[n:]
		}
		w.Close()
		return b.Bytes()
	}
	for name, stream := range map[string][]byte{
		"empty":                  goDeflate(t, nil, 6),
		"a byte":                 goDeflate(t, []byte("x"), 6),
		"stored":                 goDeflate(t, noise(200_000), 0),
		"noise":                  goDeflate(t, noise(200_000), 6),
		"zeros":                  goDeflate(t, make([]byte, 5<<20), 6),
		"huffman only":           goDeflate(t, text(10_000), flate.HuffmanOnly),
		"text and noise":         goDeflate(t, append(append(text(200_000), noise(200_000)...), text(300_000)...), 9),
		"flushes":                flushed(text(100_000), 7_000),
		"fixed codes, padding":   {0x4b, 0x04, 0xf8},
		"stored, padding":        {0xf9, 0x01, 0x00, 0xfe, 0xff, 'x'},
		"flush at the end":       hexBytes(t, "3230343236313533b7b04c4c4a4e494d4bcfc014c1144904000000ffff02d2800100"),
		"bytes behind it":        append(goDeflate(t, text(1000), 6), "trailer"...),
		"fixed codes, one block": goDeflate(t, []byte("to be or not to be, to be or not to be"), 9),
	} {
		t.Run(name, func(t *testing.T) { roundTrip(t, stream) })
	}
}

func hexBytes(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEmptyBlocks does not keep blocks that hold nothing without end.
func TestEmptyBlocks(t *testing.T) {
	empty := bytes.Repeat([]byte{0x82, 0x20, 0x08, 0x82, 0x20}, 1<<20) // fixed codes, the end, again and again
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Decode(io.Discard, bytes.NewReader(empty), nil); err == nil {
		t.Error("empty blocks without end give no error")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
		t.Errorf("it took %d bytes of memory", n)
	}
}

// TestReaders gives bytes in pieces of any size.
func TestReaders(t *testing.T) {
	plain := text(300_000)
	stream := goDeflate(t, plain, 6)
	want, _ := roundTrip(t, stream)
	got, err := Decode(io.Discard, iotest.OneByteReader(bytes.NewReader(stream)), nil)
	if err != nil || got.Coded != want.Coded || !bytes.Equal(got.Reconstruction, want.Reconstruction) {
		t.Fatalf("read byte by byte: %d bytes, a reconstruction of %d: %v", got.Coded, len(got.Reconstruction), err)
	}
	var again bytes.Buffer
	if err := Encode(&again, iotest.HalfReader(bytes.NewReader(plain)), want.Reconstruction); err != nil || !bytes.Equal(again.Bytes(), stream) {
		t.Fatalf("made another stream from a slow reader: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Decode(io.Discard, io.MultiReader(bytes.NewReader(stream[:1000]), iotest.ErrReader(broken)), nil); !errors.Is(err, broken) {
		t.Errorf("a broken reader gives %v", err)
	}
	if err := Encode(io.Discard, io.MultiReader(bytes.NewReader(plain[:100_000]), iotest.ErrReader(broken)), want.Reconstruction); !errors.Is(err, broken) {
		t.Errorf("a broken reader gives %v", err)
	}
}

// TestUnknown says no where what was chosen takes too much.
func TestUnknown(t *testing.T) {
	// Matches of any length and from anywhere, all of which would do.
	rng := rand.New(rand.NewPCG(3, 4))
	tokens := []token{literal('x')}
	for n := 1; n < 4<<20; n += tokens[len(tokens)-1].size() {
		tokens = append(tokens, match(minMatch+rng.IntN(30), 1+rng.IntN(min(n, windowSize))))
	}
	if _, err := Decode(io.Discard, bytes.NewReader(fixedStream(tokens)), nil); !errors.Is(err, ErrCostly) {
		t.Errorf("got %v, want ErrCostly", err)
	}
}

// fixedStream codes tokens in a block of fixed codes.
func fixedStream(tokens []token) []byte {
	e := assembly{tokens: tokens, w: io.Discard}
	e.out.put(3, 3)
	var out bytes.Buffer
	e.w = &out
	e.code(record{kind: kindFixed})
	e.send(0)
	return append(out.Bytes(), e.out.flush()...)
}

// TestChoices takes apart streams of an encoder that nobody knows: it takes the best
// match now and then, and often another, or none.
func TestChoices(t *testing.T) {
	plain := text(300_000)
	for _, often := range []int{2, 5, 20} {
		rng := rand.New(rand.NewPCG(5, uint64(often)))
		p := newPredictor(encoders[zlib15+5])
		p.feed(plain)
		p.last = true
		var tokens []token
		for p.pos < len(plain) {
			tk := p.predict()
			if rng.IntN(often) == 0 {
				if tk.isMatch() && tk.length() > 4 && rng.IntN(2) == 0 {
					tk = match(minMatch+rng.IntN(tk.length()-minMatch), tk.dist())
				} else {
					tk = literal(plain[p.pos])
				}
			}
			tokens = append(tokens, tk)
			p.accept(tk)
		}
		stream := fixedStream(tokens)
		r, got := roundTrip(t, stream)
		if !bytes.Equal(got, plain) {
			t.Fatal("the test made a stream of other bytes")
		}
		if r.Reconstruction[0] != versionChoices || len(r.Reconstruction) > len(stream)/choicesShare {
			t.Errorf("1 in %d: version %d, %d bytes for a stream of %d", often, r.Reconstruction[0], len(r.Reconstruction), len(stream))
		}
		for n := range len(r.Reconstruction) {
			if n%97 == 0 || n < 20 {
				if err := Encode(io.Discard, bytes.NewReader(plain), r.Reconstruction[:n]); !errors.Is(err, ErrReconstruction) {
					t.Fatalf("cut off after %d bytes: %v, want ErrReconstruction", n, err)
				}
			}
		}
	}
}

// TestMalformed refuses what is no deflate stream.
func TestMalformed(t *testing.T) {
	stream := goDeflate(t, text(50_000), 6)
	for name, bad := range map[string][]byte{
		"nothing":           nil,
		"cut off":           stream[:len(stream)/2],
		"cut off in a head": stream[:20],
		"kind 3":            {0x07, 0},
		"stored size":       {0x01, 1, 0, 1, 0, 'x'},
		"far":               {0x03 | 0x02<<3, 0x02},
	} {
		if _, err := Decode(io.Discard, bytes.NewReader(bad), nil); !errors.Is(err, ErrStream) {
			t.Errorf("%s: got %v, want ErrStream", name, err)
		}
	}
	r, plain := roundTrip(t, stream)
	recon := r.Reconstruction
	for name, bad := range map[string][]byte{
		"nothing":     nil,
		"version":     append([]byte{99}, recon[1:]...),
		"encoder":     append([]byte{1, 255}, recon[2:]...),
		"cut off":     recon[:len(recon)-1],
		"more behind": append(bytes.Clone(recon), 0),
	} {
		if err := Encode(io.Discard, bytes.NewReader(plain), bad); !errors.Is(err, ErrReconstruction) {
			t.Errorf("%s: got %v, want ErrReconstruction", name, err)
		}
	}
	crash := []byte{1, 5, 21, 34, 2, 18, 16, 17, 1, 0, 0, 0, 43, 1, 1, 0, 1, 7}
	if err := Encode(io.Discard, strings.NewReader(strings.Repeat("0123456789abcdefgh", 3)+"abcd"), crash); err != nil && !errors.Is(err, ErrReconstruction) {
		t.Errorf("an empty stored block near the end: got %v", err)
	}
	if err := Encode(io.Discard, bytes.NewReader(plain[:100]), recon); !errors.Is(err, ErrReconstruction) {
		t.Errorf("fewer plain bytes: got %v", err)
	}
	if err := Encode(io.Discard, bytes.NewReader(append(bytes.Clone(plain), 'x')), recon); !errors.Is(err, ErrReconstruction) {
		t.Errorf("more plain bytes: got %v", err)
	}
}

func TestReader(t *testing.T) {
	plain := append(text(200_000), noise(70_000)...)
	stream := goDeflate(t, plain, 6)
	got, err := io.ReadAll(iotest.OneByteReader(NewReader(io.MultiReader(bytes.NewReader(stream), strings.NewReader("what follows")))))
	if err != nil || !bytes.Equal(got, plain) {
		t.Errorf("read %d bytes, %v, want %d", len(got), err, len(plain))
	}
	if _, err := io.ReadAll(NewReader(bytes.NewReader(stream[:len(stream)-1]))); !errors.Is(err, ErrStream) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v, want %v", err, ErrStream)
	}
	broken := errors.New("broken")
	if _, err := io.ReadAll(NewReader(io.MultiReader(bytes.NewReader(stream[:1000]), iotest.ErrReader(broken)))); !errors.Is(err, broken) {
		t.Errorf("a reader that breaks: %v, want %v", err, broken)
	}
}

func FuzzDecode(f *testing.F) {
	for _, level := range []int{0, 1, 6, 9, flate.HuffmanOnly} {
		f.Add(goDeflate(f, text(3000), level))
		f.Add(goDeflate(f, append(noise(300), text(300)...), level))
	}
	for _, name := range []string{"v2/7zip", "v2/zopfli", "v4/pigz-2"} {
		stream, err := os.ReadFile(filepath.Join("testdata", name+".deflate"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(stream)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		var plain, onTheWay bytes.Buffer
		r, err := Decode(&plain, bytes.NewReader(stream), &onTheWay)
		if err != nil {
			if !errors.Is(err, ErrStream) && !errors.Is(err, ErrCostly) {
				t.Fatal(err)
			}
			return
		}
		if got, err := io.ReadAll(NewReader(bytes.NewReader(stream))); err != nil || !bytes.Equal(got, plain.Bytes()) {
			t.Fatalf("read %d bytes, %v, want %d", len(got), err, plain.Len())
		}
		want, err := io.ReadAll(flate.NewReader(bytes.NewReader(stream)))
		if err != nil || !bytes.Equal(want, plain.Bytes()) {
			t.Fatalf("compress/flate decodes to %d bytes, Decode to %d: %v", len(want), plain.Len(), err)
		}
		var again bytes.Buffer
		if err := Encode(&again, &plain, r.Reconstruction); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), stream[:r.Coded]) {
			t.Fatal("made another stream")
		}
		if r.Again && !bytes.Equal(onTheWay.Bytes(), stream[:r.Coded]) {
			t.Fatal("made another stream on the way")
		}
	})
}

func FuzzEncode(f *testing.F) {
	plain := text(3000)
	for _, level := range []int{0, 6, flate.HuffmanOnly} {
		r, err := Decode(io.Discard, bytes.NewReader(goDeflate(f, plain, level)), nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain, r.Reconstruction)
	}
	f.Add(plain, append([]byte{versionChoices, 8, 0, 100}, noise(300)...))
	f.Add(plain, append([]byte{version, goFast, 0, 8}, noise(30)...))
	f.Add(text(300_000), []byte{versionPieces, goFast, 0x80, 0x80, 4, 0x80, 0x80, 1, 2, 2, 3})
	f.Fuzz(func(t *testing.T, plain, reconstruction []byte) {
		if err := Encode(io.Discard, bytes.NewReader(plain), reconstruction); err != nil && !errors.Is(err, ErrReconstruction) {
			t.Fatal(err)
		}
	})
}
