package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"
)

// from returns a readAt over data, as ReadFrames takes it.
func from(data []byte) func(p []byte, off int64) error {
	return func(p []byte, off int64) error {
		if off < 0 || off > int64(len(data)) {
			return fmt.Errorf("read of %d bytes at %d in %d", len(p), off, len(data))
		}
		if copy(p, data[off:]) < len(p) {
			return io.ErrUnexpectedEOF
		}
		return nil
	}
}

// frameOf returns a frame of the given chunks and its plain bytes.
func frameOf(kind Kind, blobs ...[]byte) (Frame, []byte) {
	var f Frame
	var plain []byte
	for _, b := range blobs {
		f.Blobs = append(f.Blobs, Blob{Kind: kind, Key: blake3.Sum256(b), Size: len(b)})
		plain = append(plain, b...)
	}
	return f, plain
}

// noise returns n seeded bytes that do not compress.
func noise(seed uint64, n int) []byte {
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	src.Read(b)
	return b
}

// text returns n seeded bytes that compress well.
func text(seed uint64, n int) []byte {
	var b bytes.Buffer
	for i := uint64(0); b.Len() < n; i++ {
		fmt.Fprintf(&b, "line %d of file %d\n", i, seed)
	}
	return b.Bytes()[:n]
}

func equalFrames(a, b []Frame) bool {
	return slices.EqualFunc(a, b, func(a, b Frame) bool {
		return a.Codec == b.Codec && a.Off == b.Off && a.Stored == b.Stored && a.Plain == b.Plain && slices.Equal(a.Blobs, b.Blobs)
	})
}

func TestRoundTrip(t *testing.T) {
	enc, dec := NewEncoder(), NewDecoder()
	rapid.Check(t, func(t *rapid.T) {
		var b Builder
		var plains [][]byte
		for i := range rapid.IntRange(1, 6).Draw(t, "frames") {
			var blobs [][]byte
			for j := range rapid.IntRange(0, 8).Draw(t, "blobs") {
				make := text
				if rapid.Bool().Draw(t, "noise") {
					make = noise
				}
				blobs = append(blobs, make(uint64(i*100+j), rapid.IntRange(1, 3000).Draw(t, "size")))
			}
			kind := rapid.SampledFrom([]Kind{Chunk, Record}).Draw(t, "kind")
			f, plain := frameOf(kind, blobs...)
			var body []byte
			body, f.Codec = enc.Encode(nil, plain)
			b.Add(f, body)
			plains = append(plains, plain)
		}
		size := b.Size()
		data, id, frames := b.Finish()
		if b.Size() != 0 {
			t.Fatalf("Size() after Finish = %d, want 0", b.Size())
		}
		if id != blake3.Sum256(data) {
			t.Fatalf("Finish gave id %x, want the hash of its bytes", id)
		}
		got, err := ReadFrames(int64(len(data)), from(data))
		if err != nil {
			t.Fatal(err)
		}
		if !equalFrames(got, frames) {
			t.Fatalf("ReadFrames = %v, want %v", got, frames)
		}
		end := int64(len(magic))
		for i, f := range got {
			plain, err := dec.Decode(f.Codec, data[f.Off:f.Off+int64(f.Stored)])
			if err != nil || !bytes.Equal(plain, plains[i]) {
				t.Fatalf("Decode(frame %d) = %d bytes, %v, want %d bytes", i, len(plain), err, len(plains[i]))
			}
			for _, blob := range f.Blobs {
				if blake3.Sum256(plain[blob.Off:blob.Off+blob.Size]) != blob.Key {
					t.Fatalf("frame %d: blob at %d does not hash to its key", i, blob.Off)
				}
			}
			end += int64(f.Stored)
		}
		if end != int64(size) {
			t.Fatalf("frames end at %d, want %d", end, size)
		}
	})
}

func TestEncodeChoosesCodec(t *testing.T) {
	enc, dec := NewEncoder(), NewDecoder()
	prefix := []byte("prefix")
	for _, test := range []struct {
		name  string
		plain []byte
		want  Codec
	}{
		{"empty", nil, Stored},
		{"one byte", []byte("x"), Stored},
		{"text", text(1, 1<<20), Zstd},
		{"noise", noise(1, 1<<20), Stored},
		{"largest", make([]byte, MaxFrame), Zstd},
	} {
		out, codec := enc.Encode(slices.Clone(prefix), test.plain)
		if codec != test.want {
			t.Errorf("%s: Encode chose codec %d, want %d", test.name, codec, test.want)
		}
		if !bytes.HasPrefix(out, prefix) {
			t.Errorf("%s: Encode lost the bytes before its own", test.name)
			continue
		}
		if n := len(out) - len(prefix); n > len(test.plain) {
			t.Errorf("%s: Encode gave %d bytes for %d", test.name, n, len(test.plain))
		}
		plain, err := dec.Decode(codec, out[len(prefix):])
		if err != nil || !bytes.Equal(plain, test.plain) {
			t.Errorf("%s: Decode = %d bytes, %v, want the %d encoded", test.name, len(plain), err, len(test.plain))
		}
	}
}

// A pack depends on its blobs alone, not on what its encoder or builder did before.
func TestBuildIsDeterministic(t *testing.T) {
	build := func(enc *Encoder, b *Builder) [32]byte {
		for i := range 3 {
			f, plain := frameOf(Chunk, text(uint64(i), 5000), noise(uint64(i), 700))
			var body []byte
			body, f.Codec = enc.Encode(nil, plain)
			b.Add(f, body)
		}
		_, id, _ := b.Finish()
		return id
	}
	used, usedBuilder := NewEncoder(), &Builder{}
	used.Encode(nil, noise(9, 100000))
	want := build(NewEncoder(), &Builder{})
	for i := range 3 {
		if got := build(used, usedBuilder); got != want {
			t.Fatalf("build %d: pack %x, want %x", i, got, want)
		}
	}
}

func TestReadFramesReturnsReadErrors(t *testing.T) {
	f, plain := frameOf(Chunk, []byte("abc"))
	var b Builder
	b.Add(f, plain)
	data, _, _ := b.Finish()
	failed := errors.New("disk on fire")
	for n := range 3 {
		calls := 0
		frames, err := ReadFrames(int64(len(data)), func(p []byte, off int64) error {
			if calls++; calls == n+1 {
				return failed
			}
			return from(data)(p, off)
		})
		if !errors.Is(err, failed) || errors.Is(err, ErrInvalid) || frames != nil {
			t.Errorf("ReadFrames with read %d failing = %v, %v, want nil, %v", n, frames, err, failed)
		}
	}
}

func TestFinishPanicsOnEmptyPack(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Finish of an empty Builder did not panic")
		}
	}()
	new(Builder).Finish()
}
