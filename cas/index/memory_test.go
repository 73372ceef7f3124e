package index

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"ferry/cas/pack"
)

// A table of a million entries costs an open store next to nothing.
func TestMemory(t *testing.T) {
	const n = 1_000_000
	path := filepath.Join(t.TempDir(), "index")
	writeLarge(t, path, n)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	table, err := Open(info.Size(), func(p []byte, off int64) error {
		_, err := f.ReadAt(p, off)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if used := heap() - before; used > 1<<20 {
		t.Errorf("an open table of %d entries takes %d bytes, want at most 1 MiB", n, used)
	}
	for i := 0; i < n; i += 9973 {
		if got, _ := find(t, table, keyOf(i)); len(got) != 1 || got[0] != largeEntry(i) {
			t.Fatalf("Find(key %d) = %v, want %v", i, got, largeEntry(i))
		}
	}
	if got, _ := find(t, table, keyOf(n)); len(got) != 0 {
		t.Errorf("Find(absent key) = %v, want none", got)
	}
	if table.entries != nil {
		t.Errorf("the entries of a table of %d bytes are in memory", info.Size())
	}
	if table.Len() != n {
		t.Errorf("Len() = %d, want %d", table.Len(), n)
	}
}

func largeEntry(i int) Entry {
	return Entry{Key: keyOf(i), Pack: packOf(i / 100_000), Kind: pack.Chunk, Frame: int64(i), Stored: i & 0xfffff, Off: i & 0xffff, Size: 1}
}

// writeLarge writes the index of n entries, in their order of keys.
func writeLarge(t *testing.T, path string, n int) {
	t.Helper()
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = largeEntry(i)
	}
	// Most keys differ in their first bytes: this sorts faster than Build.
	slices.SortFunc(entries, func(a, b Entry) int {
		x, y := binary.BigEndian.Uint64(a.Key[:]), binary.BigEndian.Uint64(b.Key[:])
		return cmp.Or(cmp.Compare(x, y), compare(a, b))
	})
	w := newWriter(int64(n))
	for _, e := range entries {
		w.count(e)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := bufio.NewWriter(f)
	if err := w.head(buf); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		buf.Write(w.entry(e))
	}
	if err := buf.Flush(); err != nil {
		t.Fatal(err)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // the second frees what finalizers held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
