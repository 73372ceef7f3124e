package vhdx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/chunking/ondisk"
	"ferry/chunking/vdisk"
	"ferry/chunking/vdisk/vdisktest"
)

// sparse returns a disk of size bytes, most of which are zeros. The noise is in
// pieces that begin and end at sectors.
func sparse(seed byte, size int) []byte {
	b := make([]byte, size)
	src := rand.NewChaCha8([32]byte{seed})
	rng := rand.New(src)
	for range 1 + size>>20 {
		at := rng.IntN(size) &^ 4095
		src.Read(b[at:min(size, at+(1+rng.IntN(40))*4096)])
	}
	return b
}

func create(t testing.TB, disk []byte, opts CreateOptions) []byte {
	t.Helper()
	var w bytes.Buffer
	if err := Create(&w, bytes.NewReader(disk), int64(len(disk)), opts); err != nil {
		t.Fatal(err)
	}
	return w.Bytes()
}

func open(t testing.TB, image []byte) *Image {
	t.Helper()
	d, err := Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCreate(t *testing.T) {
	for _, test := range []struct {
		size int
		opts CreateOptions
	}{
		{10 * mib, CreateOptions{BlockSize: mib}},
		{10*mib + 512, CreateOptions{BlockSize: 2 * mib, ID: [16]byte{1, 2, 3}}},
		{10*mib + 4096, CreateOptions{BlockSize: mib, LogicalSector: 4096, PhysicalSector: 4096}},
		{512, CreateOptions{}},
		{40 * mib, CreateOptions{}},
	} {
		t.Run(fmt.Sprintf("%d %d %d", test.size, test.opts.BlockSize, test.opts.LogicalSector), func(t *testing.T) {
			disk := sparse(1, test.size)
			image := create(t, disk, test.opts)
			d := open(t, image)
			vdisktest.Same(t, d, image, disk)
			if all := vdisktest.Findings(t, d); all != "" {
				t.Errorf("Check finds %q", all)
			}
			if again := create(t, disk, test.opts); !bytes.Equal(again, image) {
				t.Error("created again it has other bytes")
			}
			test.opts.Zero = func(off, size int64) bool { return ondisk.IsZero(disk[off : off+size]) }
			if again := create(t, disk, test.opts); !bytes.Equal(again, image) {
				t.Error("with zeros known it has other bytes")
			}
			if len(image)%mib != 0 {
				t.Errorf("the file has %d bytes", len(image))
			}
			at := int64(0)
			for _, a := range d.Structures() {
				if a.Off < at || a.Size <= 0 || a.Off+a.Size > int64(len(image)) {
					t.Errorf("area %+v, want one from %d on", a, at)
				}
				at = a.Off + a.Size
			}
		})
	}
	for _, opts := range []CreateOptions{{BlockSize: 3 * mib}, {BlockSize: 512 * mib}, {LogicalSector: 1024}, {PhysicalSector: 1}} {
		if err := Create(io.Discard, bytes.NewReader(make([]byte, mib)), mib, opts); !errors.Is(err, ErrUnsupported) {
			t.Errorf("Create(%+v) = %v, want %v", opts, err, ErrUnsupported)
		}
	}
	if err := Create(io.Discard, bytes.NewReader(nil), 1000, CreateOptions{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Create(1000 bytes) = %v, want %v", err, ErrUnsupported)
	}
	if err := Create(io.Discard, bytes.NewReader(make([]byte, 512)), mib, CreateOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Create of a short disk = %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

func TestInfo(t *testing.T) {
	opts := CreateOptions{BlockSize: mib, ID: mustGUID("00112233-4455-6677-8899-aabbccddeeff")}
	got := fmt.Sprintf("%+v", open(t, create(t, sparse(1, 3*mib), opts)).Info())
	want := "{Kind:dynamic BlockSize:1048576 LogicalSector:512 PhysicalSector:4096 Creator:ferry ID:00112233-4455-6677-8899-aabbccddeeff LogPending:false Parent:[]}"
	if got != want {
		t.Errorf("Info() = %s, want %s", got, want)
	}
}

// sign makes the checksum of a structure of size bytes right.
func sign(image []byte, at, size int64) {
	le.PutUint32(image[at+4:], checksum(image[at:at+size]))
}

// TestHostile changes one thing in an image that has blocks 0 and 1 of 1 MiB.
func TestHostile(t *testing.T) {
	disk := sparse(3, 8*mib)
	copy(disk, "first")
	copy(disk[mib:], "second")
	good := create(t, disk, CreateOptions{BlockSize: mib})
	const bat, meta = newBAT, newMetadata
	for _, test := range []struct {
		name   string
		change func(b []byte) []byte
		open   error  // of Open
		read   error  // of Extents
		found  string // by Check
	}{
		{name: "nothing", change: func(b []byte) []byte { return b }},
		{name: "no signature", change: func(b []byte) []byte { b[0] = 0; return b }, open: ErrFormat},
		{name: "empty", change: func(b []byte) []byte { return nil }, open: ErrFormat},
		{name: "cut off in the identifier", change: func(b []byte) []byte { return b[:600] }, open: ErrInvalid},
		{name: "cut off at the headers", change: func(b []byte) []byte { return b[:130*kib] }, open: ErrInvalid},
		{name: "cut off at the log", change: func(b []byte) []byte { return b[:newLog+100] }, open: ErrInvalid},
		{name: "cut off at the metadata", change: func(b []byte) []byte { return b[:newMetadata+70*kib] }, open: ErrInvalid},
		{name: "cut off at the table", change: func(b []byte) []byte { return b[:newBAT+8] }, open: ErrInvalid},
		{name: "cut off at a block", change: func(b []byte) []byte { return b[:len(b)-100] }, read: ErrInvalid, found: "but the file has"},
		{name: "header 1", change: func(b []byte) []byte { b[64*kib+100]++; return b }, found: "header 1: wrong checksum"},
		{name: "header 2", change: func(b []byte) []byte { b[128*kib]++; return b }, found: "header 2: wrong signature"},
		{name: "both headers", change: func(b []byte) []byte { b[64*kib+100]++; b[128*kib+100]++; return b }, open: ErrInvalid},
		{name: "the same sequence number", change: func(b []byte) []byte {
			b[128*kib+8] = 1
			b[128*kib+16]++
			sign(b, 128*kib, headerSize)
			return b
		}, open: ErrInvalid},
		{name: "version 2", change: func(b []byte) []byte { b[128*kib+66] = 2; sign(b, 128*kib, headerSize); return b }, open: ErrUnsupported},
		{name: "log outside", change: func(b []byte) []byte {
			le.PutUint64(b[128*kib+72:], 1<<63)
			sign(b, 128*kib, headerSize)
			return b
		}, open: ErrInvalid},
		{name: "log over the table", change: func(b []byte) []byte {
			le.PutUint64(b[128*kib+72:], newBAT)
			sign(b, 128*kib, headerSize)
			return b
		}, open: ErrInvalid},
		{name: "region table 1", change: func(b []byte) []byte { b[192*kib+20]++; return b }, found: "region table 1: wrong checksum"},
		{name: "region table 2", change: func(b []byte) []byte { b[256*kib+20]++; return b }, found: "region table 2: wrong checksum"},
		{name: "other region table", change: func(b []byte) []byte { b[256*kib+9000]++; sign(b, 256*kib, tableSize); return b }, found: "not the same"},
		{name: "both region tables", change: func(b []byte) []byte { b[192*kib+20]++; b[256*kib+20]++; return b }, open: ErrInvalid},
		{name: "unknown region", change: func(b []byte) []byte {
			b[192*kib+8] = 3
			le.PutUint32(b[192*kib+16+64+28:], 1)
			b[192*kib+16+64]++
			sign(b, 192*kib, tableSize)
			return b
		}, open: ErrUnsupported},
		{name: "many regions", change: func(b []byte) []byte {
			le.PutUint32(b[192*kib+8:], 1<<31)
			sign(b, 192*kib, tableSize)
			b[256*kib]++
			return b
		}, open: ErrInvalid},
		{name: "regions overlap", change: func(b []byte) []byte {
			le.PutUint64(b[192*kib+16+16:], newMetadata)
			sign(b, 192*kib, tableSize)
			return b
		}, open: ErrInvalid},
		{name: "region outside", change: func(b []byte) []byte {
			le.PutUint64(b[192*kib+16+16:], 1<<62)
			sign(b, 192*kib, tableSize)
			return b
		}, open: ErrInvalid},
		{name: "metadata signature", change: func(b []byte) []byte { b[meta]++; return b }, open: ErrInvalid},
		{name: "metadata entries", change: func(b []byte) []byte { b[meta+11] = 0xff; return b }, open: ErrInvalid},
		{name: "metadata item outside", change: func(b []byte) []byte { b[meta+32+16+3] = 0xff; return b }, open: ErrInvalid},
		{name: "metadata item missing", change: func(b []byte) []byte { b[meta+10] = 4; return b }, open: ErrInvalid},
		{name: "metadata item twice", change: func(b []byte) []byte { copy(b[meta+64:], b[meta+32:meta+64]); return b }, open: ErrInvalid},
		{name: "metadata item unknown", change: func(b []byte) []byte { b[meta+32]++; return b }, open: ErrUnsupported},
		{name: "block size 3 MiB", change: func(b []byte) []byte { le.PutUint32(b[meta+tableSize:], 3*mib); return b }, open: ErrInvalid},
		{name: "block size 0", change: func(b []byte) []byte { le.PutUint32(b[meta+tableSize:], 0); return b }, open: ErrInvalid},
		{name: "disk of 100 TiB", change: func(b []byte) []byte { le.PutUint64(b[meta+tableSize+8:], 100<<40); return b }, open: ErrInvalid},
		{name: "disk too large for the table", change: func(b []byte) []byte { le.PutUint64(b[meta+tableSize+8:], 1<<40); return b }, open: ErrInvalid},
		{name: "sectors of 1024", change: func(b []byte) []byte { le.PutUint32(b[meta+tableSize+32:], 1024); return b }, open: ErrInvalid},
		{name: "parent without locator", change: func(b []byte) []byte { b[meta+tableSize+4] = flagParent; return b }, open: ErrInvalid},
		{name: "block outside", change: func(b []byte) []byte { le.PutUint64(b[bat:], 1<<43|6); return b }, read: ErrInvalid, found: "entry 0: a block at"},
		{name: "block far outside", change: func(b []byte) []byte { le.PutUint64(b[bat:], 0xfffffffffff00006); return b }, read: ErrInvalid, found: "entry 0: a block at"},
		{name: "block at 0", change: func(b []byte) []byte { le.PutUint64(b[bat:], 6); return b }, read: ErrInvalid, found: "entry 0: a block at"},
		{name: "blocks overlap", change: func(b []byte) []byte { copy(b[bat+8:], b[bat:bat+8]); return b }, read: ErrInvalid, found: "entry 1: the block at 4194304 overlaps"},
		{name: "block over the metadata", change: func(b []byte) []byte { le.PutUint64(b[bat:], newMetadata|6); return b }, read: ErrInvalid, found: "overlaps"},
		{name: "partially present", change: func(b []byte) []byte { b[bat] = 7; return b }, read: ErrInvalid, found: "no parent"},
		{name: "state 5", change: func(b []byte) []byte { b[bat] = 5; return b }, read: ErrInvalid, found: "state 5"},
		{name: "reserved bits", change: func(b []byte) []byte { b[bat+1] = 1; return b }, found: "reserved bits"},
	} {
		t.Run(test.name, func(t *testing.T) {
			vdisktest.Changed(t, Open, test.change(bytes.Clone(good)), disk, test.open, test.read, test.found)
		})
	}
}

// TestStates reads blocks in all states that are zeros.
func TestStates(t *testing.T) {
	disk := bytes.Repeat([]byte{1}, 4*mib)
	image := create(t, disk, CreateOptions{BlockSize: mib})
	for i, state := range []byte{blockNotPresent, blockUndefined, blockZero, blockUnmapped} {
		image[newBAT+8*i] = state
	}
	vdisktest.Same(t, open(t, image), image, make([]byte, 4*mib))
}

// logged is a write that appendLog puts into a log: of a sector, or of zeros.
type logged struct {
	off  int64
	data []byte // 4 KiB; nil for zeros
	size int64  // of zeros
}

var testLogID = mustGUID("01234567-89ab-cdef-0123-456789abcdef")

// appendLog writes an entry into the log of an image that Create made, and makes the
// log count. It returns where the entry ends.
func appendLog(image []byte, at, tail int64, sequence uint64, writes ...logged) int64 {
	descriptors := (64 + 32*len(writes) + logSector - 1) / logSector * logSector
	entry := make([]byte, descriptors)
	copy(entry, "loge")
	le.PutUint32(entry[12:], uint32(tail))
	le.PutUint64(entry[16:], sequence)
	le.PutUint32(entry[24:], uint32(len(writes)))
	copy(entry[32:], testLogID[:])
	le.PutUint64(entry[48:], uint64(len(image)))
	le.PutUint64(entry[56:], uint64(len(image)))
	for i, w := range writes {
		d := entry[64+32*i:][:32]
		le.PutUint64(d[16:], uint64(w.off))
		le.PutUint64(d[24:], sequence)
		if w.data == nil {
			copy(d, "zero")
			le.PutUint64(d[8:], uint64(w.size))
			continue
		}
		copy(d, "desc")
		copy(d[4:8], w.data[4092:])
		copy(d[8:16], w.data)
		sector := bytes.Clone(w.data)
		copy(sector, "data")
		le.PutUint32(sector[4:], uint32(sequence>>32))
		le.PutUint32(sector[4092:], uint32(sequence))
		entry = append(entry, sector...)
	}
	le.PutUint32(entry[8:], uint32(len(entry)))
	sign(entry, 0, int64(len(entry)))
	for i := range entry {
		image[newLog+(at+int64(i))%newRegion] = entry[i]
	}
	for _, off := range headerOffs {
		copy(image[off+48:], testLogID[:])
		sign(image, off, headerSize)
	}
	return (at + int64(len(entry))) % newRegion
}

// TestLog replays logs that write the block allocation table: blocks 0 and 1 are
// exchanged, and blocks 2 and 3 are gone.
func TestLog(t *testing.T) {
	disk := bytes.Repeat([]byte("ferry"), mib)[:4*mib]
	clean := create(t, disk, CreateOptions{BlockSize: mib})
	bat := bytes.Clone(clean[newBAT : newBAT+4096])
	other := bytes.Clone(bat)
	copy(other, bat[8:16])
	copy(other[8:], bat[:8])
	clear(other[16:])
	want := slices.Concat(disk[mib:2*mib], disk[:mib], make([]byte, 2*mib))
	const sequence = 1<<32 + 7
	for _, at := range []int64{0, 4096, newRegion - 4096, newRegion - 8192} {
		image := bytes.Clone(clean)
		appendLog(image, at, at, sequence, logged{off: newBAT, data: other}, logged{off: 192 * kib, data: clean[192*kib : 196*kib]}, logged{off: newBAT + 4096, size: 8192})
		d := open(t, image)
		vdisktest.Same(t, d, image, want)
		if !d.Info().LogPending {
			t.Error("LogPending = false")
		}
		if all := vdisktest.Findings(t, d); strings.Count(all, "\n") != 0 || all == "" {
			t.Errorf("Check finds %q", all)
		}
	}

	// What is written last counts, in an entry and among entries.
	image := bytes.Clone(clean)
	next := appendLog(image, newRegion-12288, newRegion-12288, sequence, logged{off: newBAT, size: 4096})
	next = appendLog(image, next, newRegion-12288, sequence+1, logged{off: newBAT, data: bat}, logged{off: newBAT, data: other})
	vdisktest.Same(t, open(t, image), image, want)
	// An entry that does not follow, or that another sequence of this log left behind,
	// does not.
	appendLog(image, next, next, sequence-100, logged{off: newBAT, size: 4096})
	vdisktest.Same(t, open(t, image), image, want)
	// The entry before the tail is done already, wrong as it is.
	image = bytes.Clone(clean)
	next = appendLog(image, 0, 0, sequence, logged{off: newMetadata, size: mib})
	appendLog(image, next, next, sequence+1, logged{off: newBAT, data: other})
	vdisktest.Same(t, open(t, image), image, want)

	// A log may make blocks zeros, and the file longer.
	image = bytes.Clone(clean)
	first := int64(le.Uint64(bat) &^ (mib - 1))
	appendLog(image, 0, 0, 1, logged{off: first + 8192, size: 4096}, logged{off: int64(len(image)), size: mib})
	holed := bytes.Clone(disk)
	clear(holed[8192:12288])
	vdisktest.Same(t, open(t, image), image, holed)
	image = bytes.Clone(clean)
	appendLog(image, 0, 0, 1, logged{off: first, data: bytes.Repeat([]byte{9}, 4096)})
	if err := open(t, image).Extents(func(vdisk.Extent) error { return nil }); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Extents with payload in the log = %v, want %v", err, ErrUnsupported)
	}
	got := make([]byte, 4096)
	if _, err := open(t, image).ReadAt(got, 0); err != nil || got[0] != 9 || got[8] != 9 || got[4095] != 9 {
		t.Errorf("ReadAt with payload in the log = %v, %v", got[:10], err)
	}
}

func TestBadLog(t *testing.T) {
	clean := create(t, sparse(4, 4*mib), CreateOptions{BlockSize: mib})
	entry := logged{off: newBAT, data: clean[newBAT : newBAT+4096]}
	for _, test := range []struct {
		name   string
		change func(b []byte) // of an image with an entry at the begin of its log
		want   error
	}{
		{"nothing", func(b []byte) {}, nil},
		{"checksum", func(b []byte) { b[newLog+4]++ }, ErrInvalid},
		{"data", func(b []byte) { b[newLog+5000]++ }, ErrInvalid},
		{"no entry", func(b []byte) { clear(b[newLog : newLog+newRegion]) }, ErrInvalid},
		{"tail", func(b []byte) { appendLog(b, 0, 8192, 1, entry) }, ErrInvalid},
		{"offset", func(b []byte) { appendLog(b, 0, 0, 1, logged{off: newBAT + 1, data: entry.data}) }, ErrInvalid},
		{"headers", func(b []byte) { appendLog(b, 0, 0, 1, logged{off: 64 * kib, data: entry.data}) }, ErrInvalid},
		{"far", func(b []byte) { appendLog(b, 0, 0, 1, logged{off: -4096, size: 4096}) }, ErrInvalid},
		{"long", func(b []byte) { appendLog(b, 0, 0, 1, logged{off: newBAT, size: -4096}) }, ErrInvalid},
		{"sequence number 0", func(b []byte) { appendLog(b, 0, 0, 0, entry) }, ErrInvalid},
		{"many descriptors", func(b []byte) { le.PutUint32(b[newLog+24:], 1<<31); sign(b, newLog, 8192) }, ErrInvalid},
		{"long entry", func(b []byte) { le.PutUint32(b[newLog+8:], 1<<31); sign(b, newLog, 8192) }, ErrInvalid},
		{"flushed size", func(b []byte) { le.PutUint64(b[newLog+48:], uint64(len(b)+mib)); sign(b, newLog, 8192) }, ErrInvalid},
		{"version", func(b []byte) {
			for _, off := range headerOffs {
				b[off+64] = 1
				sign(b, off, headerSize)
			}
		}, ErrUnsupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := bytes.Clone(clean)
			appendLog(bad, 0, 0, 1, entry)
			test.change(bad)
			_, err := Open(bytes.NewReader(bad), int64(len(bad)))
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Errorf("Open = %v, want %v", err, test.want)
			}
		})
	}
}

// TestFlatten compares with an array in which the writes are done.
func TestFlatten(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 300 {
		var want, got [64]byte
		var writes []write
		for i := range 1 + rng.IntN(12) {
			w := write{off: rng.Int64N(60), size: 1 + rng.Int64N(4), order: i}
			if rng.IntN(2) == 0 {
				w.data = bytes.Repeat([]byte{byte(i + 1)}, int(w.size))
				copy(want[w.off:w.end()], w.data)
			} else {
				clear(want[w.off:w.end()])
			}
			writes = append(writes, w)
		}
		end := int64(0)
		for _, w := range flatten(writes) {
			if w.off < end || w.size <= 0 || w.data != nil && int64(len(w.data)) != w.size {
				t.Fatalf("write of %d bytes at %d, after one that ends at %d", w.size, w.off, end)
			}
			end = w.end()
			copy(got[w.off:end], w.data)
		}
		if got != want {
			t.Fatalf("flatten(%+v) writes %v, want %v", writes, got, want)
		}
	}
}

// differencing makes an image a differencing one: block 0 is not present, block 1 is
// fully, block 2 partially, with the sectors of even numbers; others are as they are.
// The sector bitmap is put at the file's end.
func differencing(image []byte) []byte {
	b := bytes.Clone(image)
	b[newMetadata+tableSize+4] = flagParent
	e := b[newMetadata+32+32*5:]
	b[newMetadata+10]++
	locator := append(vhdxLocator[:len(vhdxLocator):len(vhdxLocator)], 0, 0, 2, 0)
	var texts []byte
	for _, s := range []string{"relative_path", `..\base.vhdx`, "parent_linkage", "{83ED0EC3-24C8-49A6-A959-5E4BF1288BFB}"} {
		for _, c := range s {
			texts = append(texts, byte(c), 0)
		}
	}
	sizes := []int{13, 12, 14, 38}
	at := 20 + 24
	for i := 0; i < len(sizes); i += 2 {
		locator = le.AppendUint32(locator, uint32(at))
		locator = le.AppendUint32(locator, uint32(at+2*sizes[i]))
		locator = le.AppendUint16(locator, uint16(2*sizes[i]))
		locator = le.AppendUint16(locator, uint16(2*sizes[i+1]))
		at += 2 * (sizes[i] + sizes[i+1])
	}
	locator = append(locator, texts...)
	copy(e, parentLocatorItem[:])
	le.PutUint32(e[16:], 128*kib)
	le.PutUint32(e[20:], uint32(len(locator)))
	le.PutUint32(e[24:], flagRequired)
	copy(b[newMetadata+128*kib:], locator)
	b[newBAT] = blockNotPresent
	b[newBAT+16] = b[newBAT+16]&^7 | blockPartiallyPresent
	const ratio = 8 * mib * 512 / mib
	le.PutUint64(b[newBAT+8*ratio:], uint64(len(b))|bitmapPresent)
	bitmap := make([]byte, mib)
	for i := 2 * 256; i < 3*256; i++ {
		bitmap[i] = 0x55
	}
	return append(b, bitmap...)
}

func TestDifferencing(t *testing.T) {
	base := sparse(9, 4*mib-1024)
	own := bytes.Repeat([]byte{7}, 4*mib)
	image := differencing(create(t, own, CreateOptions{BlockSize: mib}))
	_, err := Open(bytes.NewReader(image), int64(len(image)))
	var pe *ParentError
	if !errors.As(err, &pe) || !slices.Equal(pe.Paths, []string{`..\base.vhdx`}) || pe.ID != "83ed0ec3-24c8-49a6-a959-5e4bf1288bfb" {
		t.Fatalf("Open = %v %+v", err, pe)
	}
	parent := open(t, create(t, base, CreateOptions{}))
	d, err := OpenDifferencing(bytes.NewReader(image), int64(len(image)), parent)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(base[:mib], own[mib:])
	for at := 2*mib + 512; at < 3*mib; at += 1024 {
		copy(want[at:at+512], base[at:])
	}
	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("ReadAt: other bytes, %v", err)
	}
	if _, err := d.ReadAt(got[:3000], 2*mib+300); err != nil || !bytes.Equal(got[:3000], want[2*mib+300:][:3000]) {
		t.Errorf("ReadAt of a part: other bytes, %v", err)
	}
	n := 0
	if err := d.Extents(func(e vdisk.Extent) error {
		if n++; e.File >= 0 && !bytes.Equal(image[e.File:e.File+e.Size], want[e.Off:e.Off+e.Size]) {
			t.Fatalf("extent %+v: other bytes", e)
		}
		return nil
	}); err != nil || n != 2+2048-1+1 {
		t.Errorf("Extents: %d, %v", n, err)
	}
	if all := vdisktest.Findings(t, d); all != "" {
		t.Errorf("Check finds %q", all)
	}
	le.PutUint64(image[newBAT+8*4096:], 0)
	if _, err := d.ReadAt(got, 0); !errors.Is(err, ErrInvalid) {
		t.Errorf("ReadAt without a sector bitmap = %v, want %v", err, ErrInvalid)
	}
}

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not on PATH (package qemu-utils)")
	}
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v\n%s", args, err, out)
	}
}

// TestRead reads what QEMU writes.
func TestRead(t *testing.T) {
	for _, options := range []string{
		"subformat=dynamic", "subformat=dynamic,block_size=1M", "subformat=dynamic,block_size=2M,block_state_zero=off", "subformat=fixed,block_size=8M",
	} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			raw, name := filepath.Join(dir, "raw"), filepath.Join(dir, "image.vhdx")
			disk := sparse(5, 20*mib+512*3)
			if err := os.WriteFile(raw, disk, 0o666); err != nil {
				t.Fatal(err)
			}
			qemuImg(t, "convert", "-f", "raw", "-O", "vhdx", "-o", options, raw, name)
			image, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			d := open(t, image)
			vdisktest.Same(t, d, image, disk)
			if all := vdisktest.Findings(t, d); all != "" {
				t.Errorf("Check finds %q", all)
			}
			if kind := d.Info().Kind; !strings.HasPrefix(options, "subformat="+kind) {
				t.Errorf("Kind = %q", kind)
			}
		})
	}
}

// TestWritten has QEMU check and read what Create writes.
func TestWritten(t *testing.T) {
	for _, opts := range []CreateOptions{{}, {BlockSize: mib}, {BlockSize: 4 * mib, ID: [16]byte{5}}} {
		dir := t.TempDir()
		raw, name := filepath.Join(dir, "raw"), filepath.Join(dir, "image.vhdx")
		disk := sparse(6, 37*mib+512*5)
		if err := os.WriteFile(name, create(t, disk, opts), 0o666); err != nil {
			t.Fatal(err)
		}
		qemuImg(t, "check", "-f", "vhdx", name)
		qemuImg(t, "convert", "-f", "vhdx", "-O", "raw", name, raw)
		got, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, disk) {
			t.Errorf("%+v: QEMU reads %d bytes, not the %d of the disk", opts, len(got), len(disk))
		}
	}
}

func FuzzOpen(f *testing.F) {
	disk := make([]byte, 3*mib)
	copy(disk[mib:], "something")
	image := create(f, disk, CreateOptions{BlockSize: mib})
	dirty := bytes.Clone(image)
	appendLog(dirty, 4096, 4096, 9, logged{off: newBAT, data: image[newBAT : newBAT+4096]}, logged{off: newBAT + 4096, size: 4096})
	for _, seed := range [][]byte{image, dirty, differencing(create(f, bytes.Repeat([]byte{1}, 3*mib), CreateOptions{BlockSize: mib}))} {
		f.Add(pack(seed), uint8(len(seed)/mib))
	}
	parent := open(f, create(f, bytes.Repeat([]byte{1}, 512), CreateOptions{BlockSize: mib}))
	f.Fuzz(func(t *testing.T, packed []byte, size uint8) {
		image := unpack(packed, int(size)%12*mib)
		d, err := OpenDifferencing(bytes.NewReader(image), int64(len(image)), parent)
		if err != nil {
			if d != nil {
				t.Fatal("an image and an error")
			}
			return
		}
		if err := d.Check(func(int64, string) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if d.Size() > 1<<30 {
			return
		}
		vdisktest.Extents(t, d, image)
	})
}

// packed are the parts of an image that a fuzzer is to change.
var packed = []struct{ off, size int }{
	{0, 16}, {64 * kib, 4096}, {128 * kib, 4096}, {192 * kib, 96}, {256 * kib, 96},
	{newLog, 5 * 4096}, {newMetadata, 256}, {newMetadata + 64*kib, 64}, {newMetadata + 128*kib, 256}, {newBAT, 64}, {newBAT + 4096*8, 8},
}

func pack(image []byte) (b []byte) {
	for _, p := range packed {
		b = append(b, image[p.off:p.off+p.size]...)
	}
	return b
}

// unpack makes an image of what pack returned. Checksums are made right, else no
// change would come far.
func unpack(b []byte, size int) []byte {
	image := make([]byte, max(size, 5*mib))
	for _, p := range packed {
		n := copy(image[p.off:p.off+p.size], b)
		b = b[n:]
	}
	for _, off := range headerOffs {
		sign(image, off, headerSize)
	}
	for _, off := range tableOffs {
		sign(image, off, tableSize)
	}
	for at := int64(newLog); at < newLog+5*4096; at += 4096 {
		if n := int64(le.Uint32(image[at+8:])); string(image[at:at+4]) == "loge" && n >= 4096 && n <= newRegion-(at-newLog) {
			sign(image, at, n)
		}
	}
	return image[:size]
}
