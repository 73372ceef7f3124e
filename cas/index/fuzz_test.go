package index

import (
	"encoding/binary"
	"errors"
	"testing"
)

// FuzzOpen opens what it is given, as it is and with the head's checksum made to
// fit, and reads all of it.
func FuzzOpen(f *testing.F) {
	seed := read(f, fixture)
	if len(seed) == 0 {
		f.Fatalf("no seed in %s", fixture)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-1])
	f.Add(Build(nil))
	f.Add(Build([]Entry{entryOf(1, 1), entryOf(1, 2), entryOf(2, 1)}))
	f.Fuzz(func(t *testing.T, data []byte) {
		readAll(t, data)
		if len(data) < headerSize || binary.LittleEndian.Uint32(data[8:]) > 1<<10 || binary.LittleEndian.Uint32(data[12:]) > 10 {
			return
		}
		if end := headEnd(data); end+32 <= len(data) {
			readAll(t, reseal(append([]byte(nil), data...)))
		}
	})
}

// readAll does with a table all that can be done.
func readAll(t *testing.T, data []byte) {
	table, err := Open(int64(len(data)), from(data))
	if err != nil {
		if table != nil || !errors.Is(err, ErrInvalid) {
			t.Fatalf("Open = %v, %v, want nil, ErrInvalid", table, err)
		}
		return
	}
	var keys [][32]byte
	err = table.All(func(pos int64, e Entry) error {
		if pos >= table.Len() {
			t.Fatalf("All gave position %d of %d", pos, table.Len())
		}
		keys = append(keys, e.Key)
		return nil
	})
	if err != nil && !errors.Is(err, ErrInvalid) {
		t.Fatalf("All = %v, want ErrInvalid", err)
	}
	for _, key := range append(keys, [32]byte{}, [32]byte{0xff, 0xff, 0xff, 0xff}) {
		err := table.Find(key, func(pos int64, e Entry) bool {
			if pos < 0 || pos >= table.Len() || e.Key != key {
				t.Fatalf("Find(%x) = %x at %d of %d", key, e.Key, pos, table.Len())
			}
			return true
		})
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("Find = %v, want ErrInvalid", err)
		}
	}
	if m, err := Merge([]*Table{table, table}, nil); err == nil && m.Len() > 2*table.Len() {
		t.Fatalf("Merge has %d entries of %d", m.Len(), table.Len())
	}
}
