package index

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/cas/pack"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The fixture is an index as version 1 writes it. It stays readable for ever: it
// is made anew only when a format change is meant.
const (
	fixture       = "testdata/v1/four-entries.index"
	fixtureGolden = "testdata/v1/four-entries.txt"
)

// fixtureEntries has a key in two packs and fields that fill their bytes.
func fixtureEntries() []Entry {
	return []Entry{
		{Key: keyOf(1), Pack: packOf(1), Codec: pack.Zstd, Kind: pack.Chunk, Frame: 8, Stored: 1000, Off: 0, Size: 1500},
		{Key: keyOf(2), Pack: packOf(1), Codec: pack.Zstd, Kind: pack.Chunk, Frame: 8, Stored: 1000, Off: 1500, Size: 70},
		{Key: keyOf(1), Pack: packOf(2), Codec: pack.Stored, Kind: pack.Chunk, Frame: 0x3fffffff, Stored: 1570, Off: 0x7ffa1d, Size: 1500},
		{Key: keyOf(3), Pack: packOf(2), Codec: pack.Stored, Kind: pack.Record, Frame: 1000, Stored: pack.MaxFrame, Off: 0, Size: pack.MaxFrame},
	}
}

func TestFixture(t *testing.T) {
	built := Build(fixtureEntries())
	if *update {
		write(t, fixture, built)
		write(t, fixtureGolden, dump(built))
	}
	data := read(t, fixture)
	if got, want := dump(data), read(t, fixtureGolden); !bytes.Equal(got, want) {
		t.Errorf("dump of %s differs from %s (-update writes it anew)\ngot:\n%s\nwant:\n%s", fixture, fixtureGolden, got, want)
	}
	checkTable(t, open(t, data), setOf(fixtureEntries()))
	if !bytes.Equal(built, data) {
		t.Errorf("the fixture's entries build another index:\n%s", dump(built))
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

// take prints n bytes. The meaning may have a verb for their number.
func (d *dumper) take(n int, meaning string) int {
	b := d.data[d.off : d.off+n]
	var v uint64
	if n <= 8 {
		v = binary.LittleEndian.Uint64(append(bytes.Clone(b), make([]byte, 8-n)...))
	}
	if strings.Contains(meaning, "%") {
		meaning = fmt.Sprintf(meaning, v)
	}
	for i := 0; i < n; i += 16 {
		line := fmt.Sprintf("%5d  %-32x  %s", d.off+i, b[i:min(i+16, n)], meaning)
		d.out.WriteString(strings.TrimRight(line, " ") + "\n")
		meaning = ""
	}
	d.off += n
	return int(v)
}

func dump(data []byte) []byte {
	d := &dumper{data: data}
	d.take(8, "magic FERRYIX1")
	nPacks := d.take(4, "number of packs: %d")
	fanBits := d.take(4, "fan-out bits: %d")
	n := d.take(8, "number of entries: %d")
	for i := range nPacks {
		d.take(32, fmt.Sprintf("pack %d", i))
	}
	for i := range 1 << fanBits {
		d.take(4, fmt.Sprintf("fan-out %d: ", i)+"%d")
	}
	d.take(32, "BLAKE3-256 of all before")
	for i := range n {
		d.take(32, fmt.Sprintf("entry %d: key", i))
		d.take(4, "pack %d")
		d.take(4, "frame offset %d")
		d.take(4, "frame stored length %d")
		d.take(3, "offset in the frame %d")
		d.take(3, "plain length %d")
		d.take(1, "codec %d")
		d.take(1, "kind %d")
	}
	if d.off != len(data) {
		fmt.Fprintf(&d.out, "%5d  trailing bytes\n", d.off)
	}
	return d.out.Bytes()
}
