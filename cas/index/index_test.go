package index

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"ferry/cas/pack"
)

// from returns a ReadAt over data.
func from(data []byte) ReadAt {
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

func open(t rapid.TB, data []byte) *Table {
	t.Helper()
	table, err := Open(int64(len(data)), from(data))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return table
}

// onDisk makes a small table behave as a large one, whose entries are not kept
// in memory.
func onDisk(table *Table) { table.entries = nil }

// keyOf and packOf give hashes, as real keys are.
func keyOf(i int) [32]byte  { return blake3.Sum256(fmt.Appendf(nil, "key %d", i)) }
func packOf(i int) [32]byte { return blake3.Sum256(fmt.Appendf(nil, "pack %d", i)) }

// entryOf is the entry of a key in a pack: a blob stands at one place in a pack.
func entryOf(key, inPack int) Entry {
	r := rand.New(rand.NewPCG(uint64(key), uint64(inPack)))
	return Entry{
		Key: keyOf(key), Pack: packOf(inPack), Codec: pack.Codec(r.IntN(2)), Kind: pack.Kind(1 + r.IntN(2)),
		Frame: r.Int64N(1 << 32), Stored: r.IntN(pack.MaxFrame), Off: r.IntN(pack.MaxFrame / 2), Size: 1 + r.IntN(pack.MaxFrame/2),
	}
}

// place is what is unique in an index.
type place struct{ key, pack [32]byte }

func placeOf(e Entry) place { return place{e.Key, e.Pack} }

// set is the obvious index.
type set map[place]Entry

func setOf(entries []Entry) set {
	s := set{}
	for _, e := range entries {
		s[placeOf(e)] = e
	}
	return s
}

// sorted lists a set in the order of a table.
func (s set) sorted() []Entry {
	return slices.SortedFunc(maps.Values(s), func(a, b Entry) int {
		return cmp.Or(bytes.Compare(a.Key[:], b.Key[:]), bytes.Compare(a.Pack[:], b.Pack[:]))
	})
}

// nKeys is how many keys the drawn entries have between them.
const nKeys = 300

// drawEntries gives entries of up to nKeys keys in up to 9 packs, some of them
// several times.
func drawEntries(t *rapid.T, label string) []Entry {
	// A draw for each entry would take long.
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, label+" seed"), 0))
	var entries []Entry
	for range rapid.IntRange(0, 600).Draw(t, label) {
		entries = append(entries, entryOf(r.IntN(nKeys), r.IntN(9)))
	}
	return entries
}

func all(t rapid.TB, table *Table) []Entry {
	t.Helper()
	var got []Entry
	err := table.All(func(pos int64, e Entry) error {
		if pos != int64(len(got)) {
			t.Fatalf("All gave position %d, want %d", pos, len(got))
		}
		got = append(got, e)
		return nil
	})
	if err != nil {
		t.Fatalf("All: %v", err)
	}
	return got
}

func find(t rapid.TB, table *Table, key [32]byte) (got []Entry, at []int64) {
	t.Helper()
	err := table.Find(key, func(pos int64, e Entry) bool {
		got, at = append(got, e), append(at, pos)
		return true
	})
	if err != nil {
		t.Fatalf("Find: %v", err)
	}
	return got, at
}

// checkTable compares a table with the obvious one.
func checkTable(t rapid.TB, table *Table, want set) {
	t.Helper()
	entries, sorted := all(t, table), want.sorted()
	if !slices.Equal(entries, sorted) {
		t.Fatalf("All = %d entries, want %d others", len(entries), len(sorted))
	}
	ofKey := map[[32]byte][]Entry{}
	for _, e := range sorted {
		ofKey[e.Key] = append(ofKey[e.Key], e)
	}
	if table.Len() != int64(len(want)) {
		t.Fatalf("Len() = %d, want %d", table.Len(), len(want))
	}
	for i := range nKeys + 20 {
		got, at := find(t, table, keyOf(i))
		if !slices.Equal(got, ofKey[keyOf(i)]) {
			t.Fatalf("Find(key %d) = %v, want %v", i, got, ofKey[keyOf(i)])
		}
		for j, pos := range at {
			if entries[pos] != got[j] {
				t.Fatalf("Find(key %d) gave position %d, where All has another entry", i, pos)
			}
		}
	}
	packs := map[[32]byte]bool{}
	for p := range want {
		packs[p.pack] = true
	}
	if got := table.Packs(); len(got) != len(packs) || !slices.IsSortedFunc(got, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) }) {
		t.Fatalf("Packs() = %x, want %d, sorted", got, len(packs))
	}
}

func TestBuildAndFind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := drawEntries(t, "entries")
		r := rand.New(rand.NewPCG(uint64(len(entries)), 1))
		want := setOf(entries)
		data := Build(slices.Clone(entries))
		table := open(t, data)
		checkTable(t, table, want)
		onDisk(table)
		checkTable(t, table, want)
		r.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		if !bytes.Equal(Build(entries), data) {
			t.Fatal("Build of the same entries in another order gives other bytes")
		}
	})
}

func TestEmptyTable(t *testing.T) {
	table := open(t, Build(nil))
	checkTable(t, table, set{})
	if got := table.Packs(); len(got) != 0 {
		t.Errorf("Packs() = %x, want none", got)
	}
}

// Find and All end where their callback says so.
func TestStops(t *testing.T) {
	table := open(t, Build([]Entry{entryOf(1, 1), entryOf(1, 2), entryOf(1, 3), entryOf(2, 1)}))
	calls := 0
	err := table.Find(keyOf(1), func(int64, Entry) bool { calls++; return calls < 2 })
	if err != nil || calls != 2 {
		t.Errorf("Find made %d calls, %v, want 2", calls, err)
	}
	calls, stop := 0, errors.New("enough")
	err = table.All(func(int64, Entry) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("All made %d calls, %v, want 1, %v", calls, err, stop)
	}
}

// Entries lists the blobs of frames in their order.
func TestEntries(t *testing.T) {
	frames := []pack.Frame{
		{Codec: pack.Zstd, Off: 8, Stored: 70, Plain: 100, Blobs: []pack.Blob{
			{Kind: pack.Chunk, Key: keyOf(1), Off: 0, Size: 60}, {Kind: pack.Chunk, Key: keyOf(2), Off: 60, Size: 40},
		}},
		{Codec: pack.Stored, Off: 78, Stored: 5, Plain: 5, Blobs: []pack.Blob{{Kind: pack.Record, Key: keyOf(3), Off: 0, Size: 5}}},
	}
	want := []Entry{
		{keyOf(1), packOf(1), pack.Zstd, pack.Chunk, 8, 70, 0, 60},
		{keyOf(2), packOf(1), pack.Zstd, pack.Chunk, 8, 70, 60, 40},
		{keyOf(3), packOf(1), pack.Stored, pack.Record, 78, 5, 0, 5},
	}
	if got := slices.Collect(Entries(packOf(1), frames)); !slices.Equal(got, want) {
		t.Errorf("Entries = %v, want %v", got, want)
	}
}
