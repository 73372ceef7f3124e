package index

import (
	"bufio"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"ferry/cas/pack"
)

// writeEven writes an index of n entries with evenly spread keys, without
// holding them.
func writeEven(b *testing.B, n int64) (string, int64) {
	b.Helper()
	entries := func(fn func(Entry)) {
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range n {
			e := Entry{Codec: pack.Zstd, Kind: pack.Chunk, Frame: i % (32 << 20), Stored: 300000, Off: int(i % (1 << 20)), Size: 24000}
			binary.BigEndian.PutUint64(e.Key[:], uint64(i)*(math.MaxUint64/uint64(n)))
			binary.BigEndian.PutUint64(e.Key[8:], rng.Uint64())
			e.Pack[0] = byte(i % 200)
			fn(e)
		}
	}
	w := newWriter(n)
	entries(w.count)
	name := filepath.Join(b.TempDir(), "index")
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	out := bufio.NewWriter(f)
	if err := w.head(out); err != nil {
		b.Fatal(err)
	}
	entries(func(e Entry) { out.Write(w.entry(e)) })
	if err := out.Flush(); err != nil {
		b.Fatal(err)
	}
	return name, w.size()
}

// BenchmarkLarge opens an index of 16 million entries and looks keys up in it. It
// reports the memory that the open table keeps.
func BenchmarkLarge(b *testing.B) {
	const n = 16 << 20
	name, size := writeEven(b, n)
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	readAt := func(p []byte, off int64) error {
		_, err := f.ReadAt(p, off)
		return err
	}
	b.Run("Open", func(b *testing.B) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var t *Table
		for b.Loop() {
			if t, err = Open(size, readAt); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB-kept")
		b.ReportMetric(float64(size)/(1<<20), "MiB-file")
		runtime.KeepAlive(t)
	})
	t, err := Open(size, readAt)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Find", func(b *testing.B) {
		var key [32]byte
		rng := rand.New(rand.NewPCG(3, 4))
		for b.Loop() {
			binary.BigEndian.PutUint64(key[:], rng.Uint64())
			if err := t.Find(key, func(int64, Entry) bool { return true }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
