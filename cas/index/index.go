package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/zeebo/blake3"

	"ferry/cas/pack"
)

const (
	magic      = "FERRYIX1"
	headerSize = 24
	entrySize  = 52
	perBucket  = 64 // entries that a lookup reads, about
	maxBucket  = 1 << 16
	maxFanBits = 24
	maxPacks   = 1 << 24
)

// ErrInvalid says that bytes are not a well-formed index.
var ErrInvalid = errors.New("malformed index")

// Entry says where a blob stands.
type Entry struct {
	Key    [32]byte
	Pack   [32]byte
	Codec  pack.Codec
	Kind   pack.Kind
	Frame  int64 // offset of the frame in the pack, in bytes
	Stored int   // length of the frame in the pack, in bytes
	Off    int   // offset of the blob in the decoded frame, in bytes
	Size   int   // plain length of the blob, in bytes
}

// Entries yields the entries of a pack's frames, in their order.
func Entries(id [32]byte, frames []pack.Frame) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, f := range frames {
			for _, b := range f.Blobs {
				e := Entry{
					Key: b.Key, Pack: id, Codec: f.Codec, Kind: b.Kind,
					Frame: f.Off, Stored: f.Stored, Off: b.Off, Size: b.Size,
				}
				if !yield(e) {
					return
				}
			}
		}
	}
}

// ReadAt fills p with the bytes at off, or fails.
type ReadAt func(p []byte, off int64) error

// inMemory is the size in bytes up to which a table is read whole when it is
// opened: a lookup then costs no system call. Merging keeps tables few, and large
// ones are read where they lie.
const inMemory = 16 << 20

// Table is an open index file. It is safe for concurrent use if its ReadAt is.
type Table struct {
	readAt  ReadAt
	entries []byte // of a small table
	packs   [][32]byte
	fan     []uint32
	fanBits int
	n       int64
	start   int64 // offset of the first entry
}

// Open reads the head of an index of the given size. Errors of readAt are
// returned as they are; malformed bytes give an error matching ErrInvalid.
func Open(size int64, readAt ReadAt) (*Table, error) {
	var head [headerSize]byte
	if size < headerSize+32 {
		return nil, fmt.Errorf("%w: %d bytes long", ErrInvalid, size)
	}
	if err := readAt(head[:], 0); err != nil {
		return nil, err
	}
	if string(head[:8]) != magic {
		return nil, fmt.Errorf("%w: magic %q, want %q", ErrInvalid, head[:8], magic)
	}
	nPacks := int64(binary.LittleEndian.Uint32(head[8:]))
	fanBits := binary.LittleEndian.Uint32(head[12:])
	n := binary.LittleEndian.Uint64(head[16:])
	if nPacks > maxPacks || fanBits > maxFanBits || n > uint64(size)/entrySize {
		return nil, fmt.Errorf("%w: %d packs, %d fan-out bits, %d entries in %d bytes", ErrInvalid, nPacks, fanBits, n, size)
	}
	fanSize := int64(4) << fanBits
	sumOff := headerSize + 32*nPacks + fanSize
	start := sumOff + 32
	if start+int64(n)*entrySize != size {
		return nil, fmt.Errorf("%w: %d bytes long, want %d", ErrInvalid, size, start+int64(n)*entrySize)
	}
	body := make([]byte, start)
	if err := readAt(body, 0); err != nil {
		return nil, err
	}
	if blake3.Sum256(body[:sumOff]) != [32]byte(body[sumOff:]) {
		return nil, fmt.Errorf("%w: head does not match its checksum", ErrInvalid)
	}
	t := &Table{readAt: readAt, fanBits: int(fanBits), n: int64(n), start: start}
	t.packs = make([][32]byte, nPacks)
	for i := range t.packs {
		copy(t.packs[i][:], body[headerSize+32*i:])
	}
	t.fan = make([]uint32, 1<<fanBits)
	prev := uint32(0)
	for i := range t.fan {
		t.fan[i] = binary.LittleEndian.Uint32(body[sumOff-fanSize+int64(4*i):])
		if t.fan[i] < prev {
			return nil, fmt.Errorf("%w: fan-out falls at %d", ErrInvalid, i)
		}
		prev = t.fan[i]
	}
	if int64(prev) != t.n {
		return nil, fmt.Errorf("%w: fan-out ends at %d, want %d", ErrInvalid, prev, t.n)
	}
	if size <= inMemory {
		t.entries = make([]byte, size-start)
		if err := readAt(t.entries, start); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// read returns the coded entries [lo, hi).
func (t *Table) read(lo, hi int64) ([]byte, error) {
	if t.entries != nil {
		return t.entries[lo*entrySize : hi*entrySize], nil
	}
	buf := make([]byte, (hi-lo)*entrySize)
	return buf, t.readAt(buf, t.start+lo*entrySize)
}

// Len returns the number of entries.
func (t *Table) Len() int64 { return t.n }

// Packs returns the ids of the packs that the table speaks of.
func (t *Table) Packs() [][32]byte { return t.packs }

// bucket returns the range of entries that may hold a key.
func (t *Table) bucket(key [32]byte) (lo, hi int64) {
	b := bucketOf(key, t.fanBits)
	if b > 0 {
		lo = int64(t.fan[b-1])
	}
	return lo, int64(t.fan[b])
}

func bucketOf(key [32]byte, fanBits int) int {
	return int(uint64(binary.BigEndian.Uint32(key[:])) >> (32 - fanBits))
}

// Find calls fn with each entry of key until it returns false.
func (t *Table) Find(key [32]byte, fn func(pos int64, e Entry) bool) error {
	lo, hi := t.bucket(key)
	if lo == hi {
		return nil
	}
	if hi-lo > maxBucket {
		return fmt.Errorf("%w: %d entries share a bucket", ErrInvalid, hi-lo)
	}
	buf, err := t.read(lo, hi)
	if err != nil {
		return err
	}
	n := int(hi - lo)
	for i := firstAt(buf, n, key, t.fanBits); i < n && [32]byte(buf[i*entrySize:]) == key; i++ {
		e, err := t.decode(buf[i*entrySize:])
		if err != nil {
			return err
		}
		if !fn(lo+int64(i), e) {
			return nil
		}
	}
	return nil
}

// firstAt returns the first of n coded entries whose key is not less than key. The
// entries are those of a bucket, whose keys have their first fanBits bits in common:
// as keys are hashes, the bits behind tell about where it is, and the search begins
// there, in steps that double up to those of bisection.
func firstAt(buf []byte, n int, key [32]byte, fanBits int) int {
	want := binary.BigEndian.Uint64(key[:])
	lo, hi := 0, n
	mid := int(want << fanBits >> 32 * uint64(n) >> 32)
	for step := 1; lo < hi; step *= 2 {
		at := buf[mid*entrySize:]
		have := binary.BigEndian.Uint64(at)
		if have < want || have == want && bytes.Compare(at[:32], key[:]) < 0 {
			lo = mid + 1
			mid = min(mid+step, (lo+hi)/2)
		} else {
			hi = mid
			mid = max(mid-step, (lo+hi)/2)
		}
	}
	return lo
}

// All calls fn with every entry, in order, until it fails. It reads the table in
// steps of about 256 KiB.
func (t *Table) All(fn func(pos int64, e Entry) error) error {
	const step = 4096
	for pos := int64(0); pos < t.n; pos += step {
		n := min(step, t.n-pos)
		buf, err := t.read(pos, pos+n)
		if err != nil {
			return err
		}
		for i := range n {
			e, err := t.decode(buf[i*entrySize:])
			if err != nil {
				return err
			}
			if err := fn(pos+i, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

func putUint24(b []byte, v int) { b[0], b[1], b[2] = byte(v), byte(v>>8), byte(v>>16) }

func (t *Table) decode(b []byte) (Entry, error) {
	e := Entry{
		Key:    [32]byte(b),
		Frame:  int64(binary.LittleEndian.Uint32(b[36:])),
		Stored: int(binary.LittleEndian.Uint32(b[40:])),
		Off:    uint24(b[44:]),
		Size:   uint24(b[47:]),
		Codec:  pack.Codec(b[50]),
		Kind:   pack.Kind(b[51]),
	}
	p := binary.LittleEndian.Uint32(b[32:])
	if int64(p) >= int64(len(t.packs)) || e.Off+e.Size > pack.MaxFrame || e.Stored < 0 || e.Stored > 2*pack.MaxFrame {
		return Entry{}, fmt.Errorf("%w: entry %x: out of range", ErrInvalid, b[:6])
	}
	e.Pack = t.packs[p]
	return e, nil
}
