package vhd

import (
	"bytes"
	"fmt"
	"slices"

	"ferry/chunking/ondisk"
	"ferry/chunking/vdisk"
)

// unused is the entry of a block that is not in the file. "Block Allocation Table
// and Data Blocks".
const unused = 0xffffffff

// table reads entries of the block allocation table in their order.
type table struct {
	d     *Image
	end   int64 // entries from here on are not asked for
	first int64 // entry that b begins with
	b     []byte
}

// window is how many entries are read at once, at most.
const window = 16 << 10

func (t *table) entry(i int64) (uint32, error) {
	if i < t.first || i >= t.first+int64(len(t.b)/4) {
		n := min(window, t.end-i)
		t.first = i
		t.b = append(t.b[:0], make([]byte, 4*n)...)
		if err := ondisk.ReadFull(t.d.r, t.b, t.d.head.table+4*i); err != nil {
			t.b = nil
			return 0, fmt.Errorf("vhd: block allocation table entry %d: %w", i, err)
		}
	}
	return be.Uint32(t.b[4*(i-t.first):]), nil
}

// bitmapSize returns the size of a block's sector bitmap: a bit for each sector, in
// whole sectors.
func (d *Image) bitmapSize() int64 {
	return (d.head.blockSize/sector/8 + sector - 1) / sector * sector
}

// blocks returns how many blocks the virtual disk has.
func (d *Image) blocks() int64 {
	return (d.foot.diskSize + d.head.blockSize - 1) / d.head.blockSize
}

// problemOf says why block i cannot be where its entry says; it is empty if it can.
// The part of the last block that is behind the disk's end may be missing.
func (d *Image) problemOf(i int64, entry uint32) string {
	at, end := int64(entry)*sector, d.size
	if d.problem == "" {
		end -= footerSize
	}
	size := d.bitmapSize() + min(d.head.blockSize, d.foot.diskSize-i*d.head.blockSize)
	if at > end || size > end-at {
		return fmt.Sprintf("a block at %d, but the file has %d bytes for it", at, max(0, end-at))
	}
	return ""
}

// walk gives what the disk's bytes [off, end) are, block by block; within the disk.
func (d *Image) walk(off, end int64, fn func(vdisk.Extent) error) error {
	if off >= end {
		return nil
	}
	if d.foot.kind == typeFixed {
		return fn(vdisk.Extent{Off: off, Size: end - off, File: off})
	}
	absent := int64(vdisk.Hole)
	if d.parent != nil {
		absent = vdisk.InParent
	}
	size := d.head.blockSize
	t := &table{d: d, end: (end-1)/size + 1}
	for off < end {
		i := off / size
		stop := min(end, (i+1)*size)
		entry, err := t.entry(i)
		switch {
		case err != nil:
		case entry == unused:
			err = fn(vdisk.Extent{Off: off, Size: stop - off, File: absent})
		default:
			if problem := d.problemOf(i, entry); problem != "" {
				return invalid("block allocation table entry %d: %s", i, problem)
			}
			err = d.sectors(i, int64(entry)*sector, absent, off, stop, fn)
		}
		if err != nil {
			return err
		}
		off = stop
	}
	return nil
}

// sectors gives what the disk's bytes [off, stop) are, that belong to block i at a
// place in the file. The first sector is the highest bit of the bitmap's first byte.
func (d *Image) sectors(i, at, absent, off, stop int64, fn func(vdisk.Extent) error) error {
	start := i * d.head.blockSize
	first, last := (off-start)/sector, (stop-start-1)/sector+1 // of the block
	from := first / 8
	bits := make([]byte, (last+7)/8-from) // at most 64 KiB
	if err := ondisk.ReadFull(d.r, bits, at+from); err != nil {
		return fmt.Errorf("vhd: sector bitmap of block %d: %w", i, err)
	}
	here := func(s int64) bool { return bits[s/8-from]<<(s%8)&0x80 != 0 }
	for s := first; s < last; {
		next := s + 1
		for next < last && here(next) == here(s) {
			next++
		}
		e := vdisk.Extent{Off: max(off, start+s*sector), File: absent}
		e.Size = min(stop, start+next*sector) - e.Off
		if here(s) {
			e.File = at + d.bitmapSize() + e.Off - start
		}
		if err := fn(e); err != nil {
			return err
		}
		s = next
	}
	return nil
}

// survey looks at the whole block allocation table and reports what makes the
// disk's contents uncertain. Offsets are in the file.
func (d *Image) survey(report func(off int64, text string) error) error {
	if d.foot.kind == typeFixed {
		return nil
	}
	t := &table{d: d, end: d.blocks()}
	var places []uint32 // sectors
	for i := range d.blocks() {
		entry, err := t.entry(i)
		if err != nil {
			return err
		}
		if entry == unused {
			continue
		}
		if problem := d.problemOf(i, entry); problem != "" {
			if err := report(d.head.table+4*i, fmt.Sprintf("block allocation table entry %d: %s", i, problem)); err != nil {
				return err
			}
			continue
		}
		places = append(places, entry)
	}
	slices.Sort(places)
	return d.overlaps(places, report)
}

// overlaps reports the blocks, the places of which are in order, that overlap one
// another or a structure of the file.
func (d *Image) overlaps(places []uint32, report func(off int64, text string) error) error {
	size := d.bitmapSize() + d.head.blockSize
	structures := d.Structures() // of which the footer is behind all blocks
	end := int64(0)
	for _, p := range places {
		at := int64(p) * sector
		problem := ""
		if at < end {
			problem = "the block overlaps another"
		}
		for _, a := range structures {
			if a.Name != "footer" && at < a.Off+a.Size && a.Off < at+size {
				problem = "the block overlaps the " + a.Name
			}
		}
		if problem != "" {
			if err := report(at, problem); err != nil {
				return err
			}
		}
		end = at + size
	}
	return nil
}

// Check looks at the whole structure of the image and reports what is not right: a
// footer that is damaged though its copy is not, or the reverse, and what is wrong
// with blocks. Offsets are in the image file. An error of report ends it and is
// returned, as are errors of reading; findings are no errors.
func (d *Image) Check(report func(off int64, text string) error) error {
	if d.problem != "" {
		if err := report(d.size-footerSize, "footer: "+d.problem); err != nil {
			return err
		}
	}
	if d.foot.kind == typeFixed {
		if n := d.size - footerSize - d.foot.diskSize; n > 0 {
			return report(d.foot.diskSize, fmt.Sprintf("%d bytes between the disk and the footer", n))
		}
		return nil
	}
	copied, problem, err := readFooter(d.r, 0)
	if err != nil {
		return err
	}
	if problem == "" && !bytes.Equal(copied.raw, d.foot.raw) {
		problem = "not the same as the footer"
	}
	if problem != "" {
		if err := report(0, "copy of the footer: "+problem); err != nil {
			return err
		}
	}
	return d.survey(report)
}
