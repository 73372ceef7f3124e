package vhdx

import (
	"fmt"

	"ferry/chunking/vdisk"
)

// States of a payload block. 2.5.1.1.
const (
	blockNotPresent       = 0
	blockUndefined        = 1
	blockZero             = 2
	blockUnmapped         = 3
	blockFullyPresent     = 6
	blockPartiallyPresent = 7
)

// bitmapPresent is the state of a sector bitmap block that is in the file. 2.5.1.2.
const bitmapPresent = 6

// partly is where a block is that is in the file only where its sector bitmap says
// so; the place itself is in the entry.
const partly = -3

// table reads entries of the block allocation table in their order.
type table struct {
	d     *Image
	end   int64 // entries from here on are not asked for
	first int64 // entry that b begins with
	b     []byte
}

// window is how many entries are read at once, at most.
const window = 8 * kib

func (t *table) entry(i int64) (uint64, error) {
	if i < t.first || i >= t.first+int64(len(t.b)/8) {
		n := min(window, t.end-i)
		t.first = i
		t.b = append(t.b[:0], make([]byte, 8*n)...)
		if _, err := t.d.file.ReadAt(t.b, t.d.bat.off+8*i); err != nil {
			t.b = nil
			return 0, fmt.Errorf("vhdx: block allocation table entry %d: %w", i, err)
		}
	}
	return le.Uint64(t.b[8*(i-t.first):]), nil
}

// payload returns the entry of payload block i. Every ratio entries a sector bitmap
// block's entry follows.
func (d *Image) payload(i int64) int64 { return i + i/d.ratio }

// bitmap returns the entry of the sector bitmap block for payload block i.
func (d *Image) bitmap(i int64) int64 { return i/d.ratio*(d.ratio+1) + d.ratio }

// used returns how many bytes of payload block i are the virtual disk's.
func (d *Image) used(i int64) int64 { return min(d.meta.blockSize, d.meta.diskSize-i*d.meta.blockSize) }

// place returns where in the file an entry's block is. A problem says why it cannot
// be there. Of the block the first size bytes must be in the file.
func (d *Image) place(entry uint64, size int64) (at int64, problem string) {
	m := entry >> 20
	if m == 0 || m > maxFile>>20 {
		return 0, fmt.Sprintf("a block at the offset %d MiB", m)
	}
	at = int64(m) << 20
	if at > d.file.size || size > d.file.size-at {
		return 0, fmt.Sprintf("a block at %d, but the file has %d bytes", at, d.file.size)
	}
	return at, ""
}

// locate returns where the bytes of payload block i are: [vdisk.Hole],
// [vdisk.InParent], partly, or an offset in the file. A problem says what is wrong with the entry.
func (d *Image) locate(i int64, entry uint64) (at int64, problem string) {
	switch state := entry & 7; state {
	case blockNotPresent:
		if d.parent != nil {
			return vdisk.InParent, ""
		}
		return vdisk.Hole, ""
	case blockUndefined, blockZero, blockUnmapped:
		return vdisk.Hole, ""
	case blockFullyPresent:
		return d.place(entry, d.used(i))
	case blockPartiallyPresent:
		if d.parent == nil {
			return 0, "partially present, but the image has no parent"
		}
		if _, problem := d.place(entry, d.used(i)); problem != "" {
			return 0, problem
		}
		return partly, ""
	default:
		return 0, fmt.Sprintf("state %d", state)
	}
}

// walk gives what the disk's bytes [off, end) are, block by block; within the disk.
func (d *Image) walk(off, end int64, fn func(vdisk.Extent) error) error {
	if off >= end {
		return nil
	}
	size := d.meta.blockSize
	t := &table{d: d, end: d.payload((end-1)/size) + 1}
	for off < end {
		i := off / size
		start, stop := i*size, min(end, (i+1)*size)
		entry, err := t.entry(d.payload(i))
		if err != nil {
			return err
		}
		at, problem := d.locate(i, entry)
		switch {
		case problem != "":
			return invalid("block allocation table entry %d: %s", d.payload(i), problem)
		case at == partly:
			err = d.sectors(i, int64(entry>>20)<<20, off, stop, fn)
		case at >= 0:
			err = fn(vdisk.Extent{Off: off, Size: stop - off, File: at + off - start})
		default:
			err = fn(vdisk.Extent{Off: off, Size: stop - off, File: at})
		}
		if err != nil {
			return err
		}
		off = stop
	}
	return nil
}

// sectors gives what the disk's bytes [off, stop) are, that belong to payload block
// i at a place in the file: the block's own where the sector bitmap has a one, else
// the parent's. 2.4.
func (d *Image) sectors(i, at, off, stop int64, fn func(vdisk.Extent) error) error {
	index := d.bitmap(i)
	t := &table{d: d, end: index + 1}
	entry, err := t.entry(index)
	if err != nil {
		return err
	}
	bitmap, problem := d.place(entry, mib)
	if entry&7 != bitmapPresent {
		problem = "no sector bitmap, but a block needs one"
	}
	if problem != "" {
		return invalid("block allocation table entry %d: %s", index, problem)
	}
	start := i * d.meta.blockSize
	inBlock := d.meta.blockSize / d.meta.logical                               // sectors, a multiple of 8
	first, last := (off-start)/d.meta.logical, (stop-start-1)/d.meta.logical+1 // of the block
	from := first / 8
	bits := make([]byte, (last+7)/8-from) // at most 64 KiB
	if _, err := d.file.ReadAt(bits, bitmap+i%d.ratio*inBlock/8+from); err != nil {
		return fmt.Errorf("vhdx: sector bitmap of block %d: %w", i, err)
	}
	here := func(sector int64) bool { return bits[sector/8-from]>>(sector%8)&1 != 0 }
	for s := first; s < last; {
		next := s + 1
		for next < last && here(next) == here(s) {
			next++
		}
		e := vdisk.Extent{Off: max(off, start+s*d.meta.logical), File: vdisk.InParent}
		e.Size = min(stop, start+next*d.meta.logical) - e.Off
		if here(s) {
			e.File = at + e.Off - start
		}
		if err := fn(e); err != nil {
			return err
		}
		s = next
	}
	return nil
}
