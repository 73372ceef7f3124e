package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// FuzzReadFrames is given whole packs, and bodies with directories to which it
// makes a footer that fits, so that the fuzzer gets past the checksum.
func FuzzReadFrames(f *testing.F) {
	data := readSeed(f)
	dirOff := binary.LittleEndian.Uint64(data[len(data)-16:])
	body, dir := data[len(magic):dirOff], data[dirOff:len(data)-footerSize]
	f.Add(data, []byte(nil))
	f.Add(data[:len(data)-1], []byte(nil))
	f.Add(body, dir)
	f.Add(body[1:], dir)
	f.Add([]byte(nil), uvarint(0))
	f.Add([]byte("abcde"), directory(uvarint(1), uvarint(5), uvarint(2), 3, 2))
	f.Add([]byte("abcde"), directory(uvarint(1), uvarint(5), uvarint(0)))
	f.Add([]byte("abcde"), directory(uvarint(1<<62), uvarint(5), uvarint(1<<30), 1<<23))
	f.Fuzz(func(t *testing.T, data, dir []byte) {
		if len(dir) > 0 {
			data = sealed(data, dir)
		}
		frames, err := ReadFrames(int64(len(data)), from(data))
		if err != nil {
			if frames != nil || !errors.Is(err, ErrInvalid) {
				t.Fatalf("ReadFrames = %v, %v, want nil, ErrInvalid", frames, err)
			}
			return
		}
		end := int64(len(magic))
		for i, fr := range frames {
			if fr.Off != end {
				t.Fatalf("frame %d starts at %d, want %d", i, fr.Off, end)
			}
			end += int64(fr.Stored)
			plain := 0
			for _, b := range fr.Blobs {
				if b.Off != plain {
					t.Fatalf("frame %d: blob at %d, want %d", i, b.Off, plain)
				}
				plain += b.Size
			}
			if plain != fr.Plain || plain > MaxFrame {
				t.Fatalf("frame %d has %d plain bytes, blobs of %d", i, fr.Plain, plain)
			}
		}
		dirOff := int64(binary.LittleEndian.Uint64(data[len(data)-16:]))
		if end != dirOff {
			t.Fatalf("frames end at %d, the directory is at %d", end, dirOff)
		}
		if got, want := encodeDirectory(frames), data[dirOff:len(data)-footerSize]; !bytes.Equal(got, want) {
			t.Fatalf("directory %x encodes to %x", want, got)
		}
	})
}

func FuzzDecodeFrame(f *testing.F) {
	data := readSeed(f)
	frames, err := ReadFrames(int64(len(data)), from(data))
	if err != nil {
		f.Fatal(err)
	}
	for _, fr := range frames {
		f.Add(byte(fr.Codec), data[fr.Off:fr.Off+int64(fr.Stored)])
	}
	enc := NewEncoder()
	for _, plain := range [][]byte{nil, make([]byte, MaxFrame), noise(3, 5000)} {
		body, codec := enc.Encode(nil, plain)
		f.Add(byte(codec), body)
	}
	f.Add(byte(9), []byte("unknown codec"))
	dec := NewDecoder()
	f.Fuzz(func(t *testing.T, codec byte, body []byte) {
		plain, err := dec.Decode(Codec(codec), body)
		switch {
		case err != nil && (plain != nil || !errors.Is(err, ErrInvalid)):
			t.Fatalf("Decode = %d bytes, %v, want nil, ErrInvalid", len(plain), err)
		case len(plain) > MaxFrame:
			t.Fatalf("Decode = %d bytes, want at most %d", len(plain), MaxFrame)
		case err == nil && Codec(codec) == Stored && !bytes.Equal(plain, body):
			t.Fatalf("Decode of a stored frame changed its bytes")
		}
	})
}

func readSeed(f *testing.F) []byte {
	f.Helper()
	data := read(f, fixture)
	if len(data) == 0 {
		f.Fatalf("no seed in %s", fixture)
	}
	return data
}
