package index

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// merged returns the bytes that Merge writes.
func merged(t rapid.TB, tables []*Table, drop map[[32]byte]bool) []byte {
	t.Helper()
	m, err := Merge(tables, drop)
	if err != nil {
		t.Fatalf("Merge: %v", err)
	}
	var buf bytes.Buffer
	n, err := m.WriteTo(&buf)
	if err != nil {
		t.Fatalf("WriteTo: %v", err)
	}
	if n != int64(buf.Len()) || m.Size() != n {
		t.Fatalf("WriteTo gave %d bytes and said %d, Size() = %d", buf.Len(), n, m.Size())
	}
	if table := open(t, buf.Bytes()); table.Len() != m.Len() {
		t.Fatalf("Len() = %d, the file has %d entries", m.Len(), table.Len())
	}
	return buf.Bytes()
}

func TestMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		drop := map[[32]byte]bool{}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 11), 0, 4).Draw(t, "drop") {
			drop[packOf(i)] = true
		}
		var tables []*Table
		union, want := set{}, set{}
		for i := range rapid.IntRange(0, 5).Draw(t, "tables") {
			entries := drawEntries(t, fmt.Sprintf("table %d", i))
			maps.Copy(union, setOf(entries))
			table := open(t, Build(entries))
			if rapid.Bool().Draw(t, "on disk") {
				onDisk(table)
			}
			tables = append(tables, table)
		}
		for p, e := range union {
			if !drop[p.pack] {
				want[p] = e
			}
		}
		checkTable(t, open(t, merged(t, tables, drop)), want)

		var each []Entry
		err := Each(tables, func(e Entry) error { each = append(each, e); return nil })
		if err != nil || !slices.Equal(each, union.sorted()) {
			t.Fatalf("Each = %d entries, %v, want %d", len(each), err, len(union))
		}
	})
}

// A table that is larger than the steps in which it is read.
func TestMergeOfLargeTables(t *testing.T) {
	want := set{}
	var tables []*Table
	for i := range 3 {
		var entries []Entry
		for key := range 5000 {
			entries = append(entries, entryOf(key*(i+1), key%7))
		}
		maps.Copy(want, setOf(entries))
		table := open(t, Build(entries))
		if i > 0 {
			onDisk(table)
		}
		tables = append(tables, table)
	}
	got := all(t, open(t, merged(t, tables, nil)))
	if !slices.Equal(got, want.sorted()) {
		t.Errorf("Merge = %d entries, want %d", len(got), len(want))
	}
}

// A merge depends on the entries of its tables, not on their order.
func TestMergeIsDeterministic(t *testing.T) {
	var tables []*Table
	for i := range 4 {
		tables = append(tables, open(t, Build([]Entry{entryOf(i, 1), entryOf(i+1, 2), entryOf(9, i)})))
	}
	want := merged(t, tables, nil)
	slices.Reverse(tables)
	if !bytes.Equal(merged(t, tables, nil), want) {
		t.Error("Merge of the same tables in another order gives other bytes")
	}
}

func TestMergeReturnsErrors(t *testing.T) {
	data := Build([]Entry{entryOf(1, 1), entryOf(2, 2)})
	failed := errors.New("disk on fire")
	var failing bool
	table, err := Open(int64(len(data)), func(p []byte, off int64) error {
		if failing {
			return failed
		}
		return from(data)(p, off)
	})
	if err != nil {
		t.Fatal(err)
	}
	onDisk(table)
	m, err := Merge([]*Table{table}, nil)
	if err != nil {
		t.Fatal(err)
	}
	failing = true
	if _, err := m.WriteTo(new(bytes.Buffer)); !errors.Is(err, failed) {
		t.Errorf("WriteTo with failing reads = %v, want %v", err, failed)
	}
	if _, err := Merge([]*Table{table}, nil); !errors.Is(err, failed) {
		t.Errorf("Merge with failing reads = %v, want %v", err, failed)
	}
	failing = false
	if err := Each([]*Table{table}, func(Entry) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("Each = %v, want the callback's %v", err, failed)
	}
	if _, err := m.WriteTo(failingWriter{failed}); !errors.Is(err, failed) {
		t.Errorf("WriteTo(failing writer) = %v, want %v", err, failed)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
