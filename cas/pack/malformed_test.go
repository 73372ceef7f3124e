package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
)

// sealed returns a pack of body and dir whose footer fits them.
func sealed(body, dir []byte) []byte {
	data := append([]byte(magic), body...)
	dirOff := len(data)
	data = append(data, dir...)
	sum := blake3.Sum256(dir)
	data = append(data, sum[:]...)
	data = binary.LittleEndian.AppendUint64(data, uint64(dirOff))
	data = binary.LittleEndian.AppendUint32(data, uint32(len(dir)))
	return append(data, endMagic...)
}

// directory codes one frame of the given lengths, each a uvarint's bytes.
func directory(nFrames, stored, nBlobs []byte, sizes ...uint64) []byte {
	dir := slices.Concat(nFrames, []byte{byte(Stored)}, stored, nBlobs)
	for _, size := range sizes {
		dir = append(dir, byte(Chunk))
		dir = append(dir, make([]byte, 32)...)
		dir = binary.AppendUvarint(dir, size)
	}
	return dir
}

func uvarint(v uint64) []byte { return binary.AppendUvarint(nil, v) }

func TestReadFramesMalformed(t *testing.T) {
	one := uvarint(1)
	body := []byte("abcde")
	good := sealed(body, directory(one, uvarint(5), one, 5))
	if _, err := ReadFrames(int64(len(good)), from(good)); err != nil {
		t.Fatalf("ReadFrames(sound pack): %v", err)
	}
	edit := func(fn func(b []byte)) []byte {
		b := slices.Clone(good)
		fn(b)
		return b
	}
	foot := len(good) - footerSize
	dirOff := uint64(len(magic) + len(body))
	dirLen := uint32(foot) - uint32(dirOff)
	setFoot := func(off uint64, n uint32) []byte {
		return edit(func(b []byte) {
			binary.LittleEndian.PutUint64(b[foot+32:], off)
			binary.LittleEndian.PutUint32(b[foot+40:], n)
		})
	}
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"magic alone", []byte(magic)},
		{"foreign", bytes.Repeat([]byte("not a pack "), 20)},
		{"bad magic", edit(func(b []byte) { b[0] ^= 1 })},
		{"bad end magic", edit(func(b []byte) { b[len(b)-1] ^= 1 })},
		{"cut off at the end", good[:len(good)-1]},
		{"cut off in the directory", good[:foot-3]},
		{"cut off at the front", good[1:]},
		{"trailing byte", append(slices.Clone(good), 0)},
		{"trailing footer", append(slices.Clone(good), good[foot:]...)},
		{"directory checksum", edit(func(b []byte) { b[foot] ^= 1 })},
		{"directory bit", edit(func(b []byte) { b[foot-1] ^= 1 })},
		{"directory too early", setFoot(dirOff-1, dirLen)},
		{"directory too late", setFoot(dirOff+1, dirLen)},
		{"directory shorter", setFoot(dirOff+1, dirLen-1)},
		{"directory longer", setFoot(dirOff-1, dirLen+1)},
		{"directory in the magic", setFoot(0, uint32(foot))},
		{"directory length wraps the offset", setFoot(uint64(foot)-0xffffffff, 0xffffffff)},
		{"directory offset beyond int64", setFoot(1<<63, dirLen)},
		{"no directory", sealed(body, nil)},
		{"no frames over a body", sealed(body, uvarint(0))},
		{"more frames than bytes", sealed(body, directory(uvarint(1<<20), uvarint(5), one, 5))},
		{"frame count beyond any", sealed(body, directory(uvarint(1<<62), uvarint(5), one, 5))},
		{"two frames, one given", sealed(body, directory(uvarint(2), uvarint(5), one, 5))},
		{"more blobs than bytes", sealed(body, directory(one, uvarint(5), uvarint(2), 5))},
		{"blob count beyond any", sealed(body, directory(one, uvarint(5), uvarint(1<<40), 5))},
		{"fewer blobs than bytes", sealed(body, directory(one, uvarint(5), one, 3, 2))},
		{"frame too short for the body", sealed(body, directory(one, uvarint(4), one, 4))},
		{"frame too long for the body", sealed(body, directory(one, uvarint(6), one, 6))},
		{"frame longer than any", sealed(body, directory(one, uvarint(1<<40), one, 5))},
		{"blob longer than any", sealed(body, directory(one, uvarint(5), one, MaxFrame+1))},
		{"blobs longer than a frame", sealed(body, directory(one, uvarint(5), uvarint(2), MaxFrame, 1))},
		{"uvarint without end", sealed(body, bytes.Repeat([]byte{0x80}, 64))},
		{"uvarint not in its shortest form", sealed(body, directory(one, []byte{0x85, 0}, one, 5))},
		{"directory cut in a key", sealed(body, directory(one, uvarint(5), one, 5)[:20])},
		{"bytes behind the last frame", sealed(body, append(directory(one, uvarint(5), one, 5), 0))},
	} {
		frames, err := ReadFrames(int64(len(test.data)), from(test.data))
		if !errors.Is(err, ErrInvalid) || frames != nil {
			t.Errorf("%s: ReadFrames = %v, %v, want nil, ErrInvalid", test.name, frames, err)
		}
	}
}

// A size beyond any pack's is refused before a byte is read.
func TestReadFramesTooLong(t *testing.T) {
	frames, err := ReadFrames(MaxPack+1, func([]byte, int64) error {
		t.Error("ReadFrames read from a pack that is too long")
		return nil
	})
	if !errors.Is(err, ErrInvalid) || frames != nil {
		t.Errorf("ReadFrames(MaxPack+1) = %v, %v, want nil, ErrInvalid", frames, err)
	}
}

func TestDecodeMalformed(t *testing.T) {
	dec := NewDecoder()
	coded, _ := NewEncoder().Encode(nil, text(1, 10000))
	// bomb holds n frames that do not tell their length, of one block of a
	// repeated byte each.
	bomb := func(n int) []byte {
		enc, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		for range n {
			enc.Reset(&out)
			enc.Write(make([]byte, 3<<20))
			enc.Flush()
			enc.Write(make([]byte, 1<<20))
			enc.Close()
		}
		return out.Bytes()
	}
	if plain, err := dec.Decode(Zstd, bomb(2)); err != nil || len(plain) != MaxFrame {
		t.Fatalf("Decode(two zstd frames) = %d bytes, %v, want %d", len(plain), err, MaxFrame)
	}
	for _, test := range []struct {
		name  string
		codec Codec
		body  []byte
	}{
		{"unknown codec", 2, []byte("abc")},
		{"stored, too long", Stored, make([]byte, MaxFrame+1)},
		{"foreign", Zstd, []byte("not zstd at all")},
		{"cut off", Zstd, coded[:len(coded)-1]},
		{"trailing bytes", Zstd, append(slices.Clone(coded), 1, 2, 3, 4, 5)},
		{"longer than a frame", Zstd, bomb(3)},
		{"far longer than a frame", Zstd, bomb(50)},
	} {
		plain, err := dec.Decode(test.codec, test.body)
		if !errors.Is(err, ErrInvalid) || plain != nil {
			t.Errorf("%s: Decode = %d bytes, %v, want nil, ErrInvalid", test.name, len(plain), err)
		}
	}
}
