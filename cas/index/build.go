package index

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"slices"

	"github.com/zeebo/blake3"
)

// fanBitsFor returns the fan-out bits of a table of n entries.
func fanBitsFor(n int64) int {
	bits := 0
	for bits < maxFanBits && n>>bits > perBucket {
		bits++
	}
	return bits
}

func compare(a, b Entry) int {
	if c := bytes.Compare(a.Key[:], b.Key[:]); c != 0 {
		return c
	}
	return bytes.Compare(a.Pack[:], b.Pack[:])
}

// Build returns the index file of entries, which it sorts in place. Exact
// duplicates are dropped.
func Build(entries []Entry) []byte {
	slices.SortFunc(entries, compare)
	entries = slices.CompactFunc(entries, func(a, b Entry) bool { return compare(a, b) == 0 })
	w := newWriter(int64(len(entries)))
	for _, e := range entries {
		w.count(e)
	}
	var buf bytes.Buffer
	w.head(&buf)
	for _, e := range entries {
		buf.Write(w.entry(e))
	}
	return buf.Bytes()
}

// writer makes an index file of entries that it is shown twice, in order: first
// with count, then with entry.
type writer struct {
	packs   map[[32]byte]uint32
	ids     [][32]byte
	fan     []uint32
	fanBits int
	n       int64
	buf     [entrySize]byte
}

// newWriter returns a writer for about n entries.
func newWriter(n int64) *writer {
	bits := fanBitsFor(n)
	return &writer{packs: map[[32]byte]uint32{}, fan: make([]uint32, 1<<bits), fanBits: bits}
}

func (w *writer) count(e Entry) {
	if _, ok := w.packs[e.Pack]; !ok {
		w.packs[e.Pack] = 0
		w.ids = append(w.ids, e.Pack)
	}
	w.fan[bucketOf(e.Key, w.fanBits)]++
	w.n++
}

// size returns the length of the file, once all entries were counted.
func (w *writer) size() int64 {
	return headerSize + 32*int64(len(w.ids)) + 4*int64(len(w.fan)) + 32 + w.n*entrySize
}

func (w *writer) head(dst io.Writer) error {
	slices.SortFunc(w.ids, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	buf := append(make([]byte, 0, headerSize), magic...)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(w.ids)))
	buf = binary.LittleEndian.AppendUint32(buf, uint32(w.fanBits))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(w.n))
	for i, id := range w.ids {
		w.packs[id] = uint32(i)
		buf = append(buf, id[:]...)
	}
	sum := uint32(0)
	for _, n := range w.fan {
		sum += n
		buf = binary.LittleEndian.AppendUint32(buf, sum)
	}
	check := blake3.Sum256(buf)
	_, err := dst.Write(append(buf, check[:]...))
	return err
}

// entry returns the coded entry, valid until the next call.
func (w *writer) entry(e Entry) []byte {
	b := w.buf[:]
	copy(b, e.Key[:])
	binary.LittleEndian.PutUint32(b[32:], w.packs[e.Pack])
	binary.LittleEndian.PutUint32(b[36:], uint32(e.Frame))
	binary.LittleEndian.PutUint32(b[40:], uint32(e.Stored))
	putUint24(b[44:], e.Off)
	putUint24(b[47:], e.Size)
	b[50], b[51] = byte(e.Codec), byte(e.Kind)
	return b
}

// Merged is the union of several tables, less the entries of dropped packs.
type Merged struct {
	tables []*Table
	drop   map[[32]byte]bool
	w      *writer
}

// Merge plans the union of tables without the packs in drop. It reads the
// tables once to size the result; memory does not grow with their entries.
func Merge(tables []*Table, drop map[[32]byte]bool) (*Merged, error) {
	total := int64(0)
	for _, t := range tables {
		total += t.n
	}
	m := &Merged{tables: tables, drop: drop, w: newWriter(total)}
	err := m.each(func(e Entry) error {
		m.w.count(e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Len returns the number of entries.
func (m *Merged) Len() int64 { return m.w.n }

// Size returns the length of the index file in bytes.
func (m *Merged) Size() int64 { return m.w.size() }

// WriteTo writes the index file. It reads the tables a second time.
func (m *Merged) WriteTo(dst io.Writer) (int64, error) {
	out := bufio.NewWriterSize(dst, 1<<20)
	if err := m.w.head(out); err != nil {
		return 0, err
	}
	err := m.each(func(e Entry) error {
		_, err := out.Write(m.w.entry(e))
		return err
	})
	if err != nil {
		return 0, err
	}
	return m.Size(), out.Flush()
}

func (m *Merged) each(fn func(Entry) error) error {
	return Each(m.tables, func(e Entry) error {
		if m.drop[e.Pack] {
			return nil
		}
		return fn(e)
	})
}

// Each calls fn with the entries of all tables in order of key and pack, those
// that several tables hold once. Memory is O(number of tables).
func Each(tables []*Table, fn func(Entry) error) error {
	heads := make([]*cursor, 0, len(tables))
	for _, t := range tables {
		c := &cursor{t: t}
		if err := c.next(); err != nil {
			return err
		}
		if !c.done {
			heads = append(heads, c)
		}
	}
	var last Entry
	for first := true; len(heads) > 0; {
		least := 0
		for i := range heads {
			if compare(heads[i].e, heads[least].e) < 0 {
				least = i
			}
		}
		e := heads[least].e
		if first || compare(last, e) != 0 {
			if err := fn(e); err != nil {
				return err
			}
			last, first = e, false
		}
		if err := heads[least].next(); err != nil {
			return err
		}
		if heads[least].done {
			heads = slices.Delete(heads, least, least+1)
		}
	}
	return nil
}

// cursor walks a table in steps.
type cursor struct {
	t    *Table
	have []byte // coded entries not yet taken
	pos  int64
	e    Entry
	done bool
}

func (c *cursor) next() error {
	const step = 4096
	if len(c.have) == 0 {
		n := min(step, c.t.n-c.pos)
		if n == 0 {
			c.done = true
			return nil
		}
		var err error
		if c.have, err = c.t.read(c.pos, c.pos+n); err != nil {
			return err
		}
		c.pos += n
	}
	e, err := c.t.decode(c.have)
	c.e, c.have = e, c.have[entrySize:]
	return err
}
