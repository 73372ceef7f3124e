package codec

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("update", false, "write golden files anew")

// words is text of n bytes.
func words(n int) []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	list := strings.Fields("if err != nil { return nil, fmt.Errorf(\"%s: %w\", name, err) } func (s *Store) open(ctx context.Context) // chunk pack index manifest")
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(list[min(rng.IntN(len(list)), rng.IntN(len(list)))])
		b.WriteByte(" \t\n"[rng.IntN(30)/14])
	}
	return b.Bytes()[:n]
}

func TestMixed(t *testing.T) {
	noise := make([]byte, 50<<10)
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for name, plain := range map[string][]byte{
		"nothing": {}, "a byte": {0}, "five": []byte("aaaaa"), "text": words(100 << 10), "noise": noise,
		"zeros": make([]byte, 100<<10), "one again": bytes.Repeat(noise[:1000], 50),
	} {
		packed := encodeMixed(plain)
		if back, err := decodeMixed(packed, len(plain)); err != nil || !bytes.Equal(back, plain) {
			t.Errorf("%s: decoded otherwise: %v", name, err)
		}
		if _, err := decodeMixed(append(packed, 0), len(plain)); err == nil {
			t.Errorf("%s: a byte more is not noticed", name)
		}
		if _, err := decodeMixed(packed[:len(packed)-1], len(plain)); err == nil {
			t.Errorf("%s: a byte less is not noticed", name)
		}
		if len(packed) > len(plain)+len(plain)/50+8 {
			t.Errorf("%s: %d bytes become %d", name, len(plain), len(packed))
		}
	}
	text := words(200 << 10)
	if mixed, brotli := len(encodeMixed(text)), len(encodeBrotli(text, nil)); mixed > brotli*85/100 {
		t.Errorf("text takes %d bytes, by brotli %d", mixed, brotli)
	}
}

// TestMixedGolden keeps what is decoded from changing.
func TestMixedGolden(t *testing.T) {
	name, text := filepath.Join("testdata", "mixed"), words(20<<10)
	packed := encodeMixed(text)
	if *rewrite {
		if err := os.WriteFile(name, packed, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := decodeMixed(golden, len(text)); err != nil || !bytes.Equal(back, text) {
		t.Errorf("the golden file is decoded otherwise: %v", err)
	}
	if !bytes.Equal(packed, golden) {
		t.Error("text is coded otherwise than in the golden file")
	}
}

// TestMixedInGroup takes the way of a delta: literals of a group.
func TestMixedInGroup(t *testing.T) {
	items := []Item{{words(30 << 10), nil}, {words(40 << 10)[30<<10:], nil}}
	for _, mix := range []bool{false, true} {
		coded, _ := EncodeGroup(nil, items, Default, mix)
		g, err := OpenGroup(coded)
		if err != nil {
			t.Fatal(err)
		}
		for i, item := range items {
			if back, err := g.Decode(nil, i, nil, len(item.Target)); err != nil || !bytes.Equal(back, item.Target) {
				t.Errorf("mix %v: item %d is decoded otherwise: %v", mix, i, err)
			}
		}
	}
	plain, _ := EncodeGroup(nil, items, Default, false)
	if mixed, _ := EncodeGroup(nil, items, Default, true); len(mixed) >= len(plain) {
		t.Errorf("mixed takes %d bytes, else it is %d", len(mixed), len(plain))
	}
}

func FuzzDecodeMixed(f *testing.F) {
	f.Add(encodeMixed(words(1000)), uint16(1000))
	f.Add([]byte("no such text"), uint16(100))
	f.Fuzz(func(t *testing.T, packed []byte, n uint16) {
		if plain, err := decodeMixed(packed, int(n)); err == nil {
			if back, err := decodeMixed(encodeMixed(plain), len(plain)); err != nil || !bytes.Equal(back, plain) {
				t.Fatalf("not the same after a round trip: %v", err)
			}
		}
	})
}

func BenchmarkDecodeMixed(b *testing.B) {
	text := words(1 << 20)
	packed := encodeMixed(text)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		decodeMixed(packed, len(text))
	}
}
