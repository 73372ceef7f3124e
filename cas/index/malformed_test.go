package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/zeebo/blake3"

	"ferry/cas/pack"
)

// reseal makes the checksum of an index's head fit its bytes again.
func reseal(data []byte) []byte {
	sumOff := headEnd(data)
	sum := blake3.Sum256(data[:sumOff])
	copy(data[sumOff:], sum[:])
	return data
}

// headEnd returns the offset of the head's checksum.
func headEnd(data []byte) int {
	nPacks := binary.LittleEndian.Uint32(data[8:])
	fanBits := binary.LittleEndian.Uint32(data[12:])
	return headerSize + 32*int(nPacks) + 4<<fanBits
}

// editor returns copies of data with some bytes changed.
func editor(data []byte) func(fn func(b []byte)) []byte {
	return func(fn func(b []byte)) []byte {
		b := slices.Clone(data)
		fn(b)
		return b
	}
}

func TestOpenMalformed(t *testing.T) {
	var entries []Entry
	for i := range 200 {
		entries = append(entries, entryOf(i, i%3))
	}
	good := Build(entries)
	open(t, good)
	edit := editor(good)
	set32 := func(off int, v uint32) []byte {
		return edit(func(b []byte) { binary.LittleEndian.PutUint32(b[off:], v) })
	}
	fanOff := headerSize + 32*3
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"head alone", good[:headerSize]},
		{"foreign", bytes.Repeat([]byte("not an index "), 20)},
		{"bad magic", edit(func(b []byte) { b[0] ^= 1 })},
		{"cut off in the head", good[:fanOff+5]},
		{"cut off at the end", good[:len(good)-1]},
		{"an entry missing", good[:len(good)-entrySize]},
		{"trailing byte", append(slices.Clone(good), 0)},
		{"trailing entry", append(slices.Clone(good), good[len(good)-entrySize:]...)},
		{"checksum", edit(func(b []byte) { b[headEnd(b)] ^= 1 })},
		{"pack id", edit(func(b []byte) { b[headerSize] ^= 1 })},
		{"fan-out bit", edit(func(b []byte) { b[fanOff] ^= 1 })},
		{"more packs", set32(8, 4)},
		{"packs beyond any", set32(8, 1<<32-1)},
		{"more fan-out bits", set32(12, 3)},
		{"fan-out bits beyond any", set32(12, 64)},
		{"more entries", set32(16, 201)},
		{"entries beyond any", edit(func(b []byte) { binary.LittleEndian.PutUint64(b[16:], 1<<63) })},
		{"fan-out falls", reseal(set32(fanOff, 1000))},
		{"fan-out ends early", reseal(set32(headEnd(good)-4, 199))},
		{"fan-out ends late", reseal(set32(headEnd(good)-4, 201))},
	} {
		table, err := Open(int64(len(test.data)), from(test.data))
		if !errors.Is(err, ErrInvalid) || table != nil {
			t.Errorf("%s: Open = %v, %v, want nil, ErrInvalid", test.name, table, err)
		}
	}
}

func TestOpenReturnsReadErrors(t *testing.T) {
	data := Build([]Entry{entryOf(1, 1)})
	failed := errors.New("disk on fire")
	for n := range 3 {
		calls := 0
		table, err := Open(int64(len(data)), func(p []byte, off int64) error {
			if calls++; calls == n+1 {
				return failed
			}
			return from(data)(p, off)
		})
		if !errors.Is(err, failed) || errors.Is(err, ErrInvalid) || table != nil {
			t.Errorf("Open with read %d failing = %v, %v, want nil, %v", n, table, err, failed)
		}
	}
}

// Entries have no checksum of their own: those out of range are refused when
// they are met.
func TestMalformedEntries(t *testing.T) {
	good := Build([]Entry{entryOf(1, 1)})
	edit := editor(good)
	at := len(good) - entrySize
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"no such pack", edit(func(b []byte) { b[at+32] = 1 })},
		{"stored length beyond any", edit(func(b []byte) { binary.LittleEndian.PutUint32(b[at+40:], 2*pack.MaxFrame+1) })},
		{"stored length beyond int32", edit(func(b []byte) { binary.LittleEndian.PutUint32(b[at+40:], 1<<31) })},
		{"blob ends outside any frame", edit(func(b []byte) { putUint24(b[at+44:], 1); putUint24(b[at+47:], pack.MaxFrame) })},
	} {
		table := open(t, test.data)
		calls := 0
		if err := table.Find(keyOf(1), func(int64, Entry) bool { calls++; return true }); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Find = %v, want ErrInvalid", test.name, err)
		}
		if err := table.All(func(int64, Entry) error { calls++; return nil }); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: All = %v, want ErrInvalid", test.name, err)
		}
		if err := Each([]*Table{table}, func(Entry) error { calls++; return nil }); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Each = %v, want ErrInvalid", test.name, err)
		}
		if calls != 0 {
			t.Errorf("%s: the bad entry was handed out %d times", test.name, calls)
		}
	}
}

// A bucket that no honest index has is not read into memory.
func TestFindInHugeBucket(t *testing.T) {
	n := maxBucket + 1
	w := newWriter(0) // as for an empty table: one bucket
	for i := range n {
		w.count(Entry{Key: keyOf(0), Size: i})
	}
	var buf bytes.Buffer
	if err := w.head(&buf); err != nil {
		t.Fatal(err)
	}
	buf.Write(make([]byte, n*entrySize))
	err := open(t, buf.Bytes()).Find(keyOf(0), func(int64, Entry) bool { return true })
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("Find in a bucket of %d entries = %v, want ErrInvalid", n, err)
	}
}
