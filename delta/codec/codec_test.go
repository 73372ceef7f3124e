package codec

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// noise returns n bytes that do not compress.
func noise(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// edited returns b with a few bytes changed and a few pieces moved.
func edited(b []byte, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 2))
	out := bytes.Clone(b)
	for range 20 {
		out[rng.IntN(len(out))] ^= 0x55
	}
	cut := rng.IntN(len(out))
	return append(out[cut:], out[:cut]...)
}

func TestEncodeChoosesSmallest(t *testing.T) {
	base := noise(1, 300<<10)
	text := bytes.Repeat([]byte("a line of text that says the same\n"), 4000)
	for _, test := range []struct {
		name         string
		target, base []byte
		kind         Kind
		atMost       int
	}{
		{"noise alone", noise(2, 300<<10), nil, Stored, 300 << 10},
		{"noise against other noise", noise(2, 300<<10), base, Stored, 300 << 10},
		{"text", text, nil, Brotli, 60},
		{"noise against itself", base, base, BrotliDict, 200},
		{"noise against itself, edited", edited(base, 3), base, Patch, 200},
		{"a short line against itself", text[:100], text[:3000], BrotliDict, 20},
		{"a short line, edited, against a large base", append([]byte("new "), base[5000:5200]...), base, BrotliDict, 30},
		{"nothing", nil, base, Stored, 0},
	} {
		coded, kind := Encode(nil, test.target, test.base, Default)
		if kind != test.kind || len(coded) > test.atMost {
			t.Errorf("%s: %v, %d bytes; want %v, at most %d", test.name, kind, len(coded), test.kind, test.atMost)
		}
		plain, err := Decode([]byte("before"), coded, test.base, kind, len(test.target))
		if err != nil || string(plain) != "before"+string(test.target) {
			t.Errorf("%s: Decode: %v, equal %t", test.name, err, bytes.Equal(plain, test.target))
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	target, base := noise(1, 10<<10), noise(1, 20<<10)
	coded, kind := Encode(nil, target, base, Default)
	if kind != BrotliDict {
		t.Fatalf("kind = %v, want %v", kind, BrotliDict)
	}
	for name, decode := range map[string]func() ([]byte, error){
		"size too small": func() ([]byte, error) { return Decode(nil, coded, base, kind, len(target)-1) },
		"size too large": func() ([]byte, error) { return Decode(nil, coded, base, kind, len(target)+1) },
		"size negative":  func() ([]byte, error) { return Decode(nil, coded, base, kind, -1) },
		"size huge":      func() ([]byte, error) { return Decode(nil, coded, base, kind, MaxSize+1) },
		"unknown kind":   func() ([]byte, error) { return Decode(nil, coded, base, 9, len(target)) },
		"no base":        func() ([]byte, error) { return Decode(nil, coded, nil, kind, len(target)) },
		"cut off":        func() ([]byte, error) { return Decode(nil, coded[:len(coded)/2], base, kind, len(target)) },
		"stored, short":  func() ([]byte, error) { return Decode(nil, target[1:], nil, Stored, len(target)) },
	} {
		if plain, err := decode(); err == nil || plain != nil {
			t.Errorf("%s: got %d bytes and no error", name, len(plain))
		}
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SliceOfN(rapid.Byte(), 0, 4000).Draw(t, "base")
		target := rapid.SliceOfN(rapid.Byte(), 0, 4000).Draw(t, "target")
		if rapid.Bool().Draw(t, "alike") && len(base) > 0 {
			target = append(edited(base, 7), target...)
		}
		coded, kind := Encode(nil, target, base, Default)
		again, kind2 := Encode(nil, target, base, Default)
		if !bytes.Equal(coded, again) || kind != kind2 {
			t.Fatal("Encode gave different bytes for the same arguments")
		}
		plain, err := Decode(nil, coded, base, kind, len(target))
		if err != nil || !bytes.Equal(plain, target) {
			t.Fatalf("Decode(Encode) = %d bytes, %v; want %d bytes", len(plain), err, len(target))
		}
	})
}

func FuzzDecode(f *testing.F) {
	base := noise(1, 2000)
	coded, kind := Encode(nil, edited(base, 1), base, Default)
	f.Add(coded, base, uint8(kind), 2000)
	coded, kind = Encode(nil, bytes.Repeat([]byte("text "), 200), nil, Default)
	f.Add(coded, []byte{}, uint8(kind), 1000)
	f.Add([]byte("stored"), []byte{}, uint8(Stored), 6)
	f.Fuzz(func(t *testing.T, coded, base []byte, kind uint8, size int) {
		size = min(size, 1<<20)
		plain, err := Decode(nil, coded, base, Kind(kind), size)
		if err != nil && plain != nil {
			t.Fatalf("Decode gave %d bytes with an error", len(plain))
		}
		if err == nil && len(plain) != size {
			t.Fatalf("Decode gave %d bytes, want %d", len(plain), size)
		}
	})
}
