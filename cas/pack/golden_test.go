package pack

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The fixture is a pack as version 1 writes it. It stays readable for ever: it is
// made anew only when a format change is meant.
const (
	fixture       = "testdata/v1/three-frames.pack"
	fixtureGolden = "testdata/v1/three-frames.txt"
)

// fixtureFrames returns what the fixture holds: stored chunks, compressed chunks,
// and a frame of records.
func fixtureFrames() (frames []Frame, plains [][]byte) {
	add := func(f Frame, plain []byte) {
		frames = append(frames, f)
		plains = append(plains, plain)
	}
	add(frameOf(Chunk, noise(1, 40), noise(2, 150)))
	add(frameOf(Chunk, text(1, 600), text(2, 300), []byte("x")))
	add(frameOf(Record, []byte("a record and its checksum")))
	return frames, plains
}

func TestFixture(t *testing.T) {
	frames, plains := fixtureFrames()
	if *update {
		var b Builder
		enc := NewEncoder()
		for i, f := range frames {
			var body []byte
			body, f.Codec = enc.Encode(nil, plains[i])
			b.Add(f, body)
		}
		data, _, _ := b.Finish()
		write(t, fixture, data)
		write(t, fixtureGolden, dump(data))
	}
	data := read(t, fixture)
	if got, want := dump(data), read(t, fixtureGolden); !bytes.Equal(got, want) {
		t.Errorf("dump of %s differs from %s (-update writes it anew)\ngot:\n%s\nwant:\n%s", fixture, fixtureGolden, got, want)
	}
	got, err := ReadFrames(int64(len(data)), from(data))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(frames) {
		t.Fatalf("ReadFrames(fixture) = %d frames, want %d", len(got), len(frames))
	}
	var again Builder
	dec := NewDecoder()
	for i, f := range got {
		body := data[f.Off : f.Off+int64(f.Stored)]
		plain, err := dec.Decode(f.Codec, body)
		if err != nil || !bytes.Equal(plain, plains[i]) {
			t.Errorf("Decode(frame %d) = %q, %v, want %q", i, plain, err, plains[i])
		}
		again.Add(Frame{Codec: f.Codec, Blobs: f.Blobs}, body)
	}
	if built, _, _ := again.Finish(); !bytes.Equal(built, data) {
		t.Errorf("the fixture's frames build another pack:\n%s", dump(built))
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.FromSlash(name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// dumper prints the fields of a file, each with its offset, bytes and meaning.
// It knows the format on its own: it shares no code with the decoder.
type dumper struct {
	data []byte
	off  int
	out  bytes.Buffer
}

func (d *dumper) field(n int, format string, args ...any) []byte {
	b := d.data[d.off : d.off+n]
	for i := 0; i == 0 || i < n; i += 16 {
		line := fmt.Sprintf("%5d  %-48x", d.off+i, b[i:min(i+16, n)])
		if i == 0 {
			line = fmt.Sprintf("%5d  %-32x  %s", d.off, b[:min(16, n)], fmt.Sprintf(format, args...))
		}
		d.out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	d.off += n
	return b
}

func (d *dumper) uvarint(what string) int {
	v, n := binary.Uvarint(d.data[d.off:])
	d.field(n, "%s %d", what, v)
	return int(v)
}

func dump(data []byte) []byte {
	d := &dumper{data: data}
	foot := data[len(data)-48:]
	dirOff := int(binary.LittleEndian.Uint64(foot[32:]))
	d.field(8, "magic %q", data[:8])
	// The directory says where the frames end, so it is read first.
	dir := &dumper{data: data, off: dirOff}
	nFrames := dir.uvarint("number of frames")
	for i := range nFrames {
		codec := dir.field(1, "frame %d: codec %d", i, data[dir.off])[0]
		stored := dir.uvarint("stored length")
		d.field(stored, "frame %d: codec %d, %d bytes", i, codec, stored)
		for j := range dir.uvarint("number of blobs") {
			dir.field(1, "blob %d: kind %d", j, data[dir.off])
			dir.field(32, "key")
			dir.uvarint("plain length")
		}
	}
	dir.field(32, "BLAKE3-256 of the directory")
	dir.field(8, "directory offset %d", dirOff)
	dir.field(4, "directory length %d", binary.LittleEndian.Uint32(foot[40:]))
	dir.field(4, "magic %q", foot[44:])
	return append(d.out.Bytes(), dir.out.Bytes()...)
}
