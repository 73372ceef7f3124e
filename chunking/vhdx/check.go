package vhdx

import (
	"bytes"
	"fmt"

	"ferry/chunking/vdisk"
)

// claims are the MiB of the file that something owns.
type claims struct {
	owned []uint64
	size  int64 // MiB
}

func newClaims(size int64) *claims {
	n := (size + mib - 1) / mib
	return &claims{owned: make([]uint64, (n+63)/64), size: n}
}

// claim reports whether nothing owned a range, and owns it.
func (c *claims) claim(off, size int64) bool {
	free := true
	for m := off / mib; m < min(c.size, (off+size+mib-1)/mib); m++ {
		if bit := uint64(1) << (m % 64); c.owned[m/64]&bit != 0 {
			free = false
		} else {
			c.owned[m/64] |= bit
		}
	}
	return free
}

// survey looks at all entries of the block allocation table: fatal gets what makes
// the disk's contents uncertain, minor, if there is one, what else is not as it must
// be. Offsets are those of the entries in the file. Both may end it with an error.
func (d *Image) survey(fatal, minor func(off int64, text string) error) error {
	if minor == nil {
		minor = func(int64, string) error { return nil }
	}
	c := newClaims(d.file.size)
	c.claim(0, mib)
	for _, a := range d.Structures() {
		if a.Off >= mib {
			c.claim(a.Off, a.Size)
		}
	}
	t := &table{d: d, end: d.entries}
	needed := false // a block of the chunk is partially present
	for i := range d.entries {
		entry, err := t.entry(i)
		if err != nil {
			return err
		}
		chunk, k := i/(d.ratio+1), i%(d.ratio+1)
		var at, size int64
		var problem string
		switch block := chunk*d.ratio + k; {
		case k == d.ratio:
			size = mib
			at, problem = d.locateBitmap(entry, needed)
			needed = false
		case block >= d.blocks:
			continue // a differencing image's table has all entries of its last chunk
		default:
			size = d.meta.blockSize
			if at, problem = d.locate(block, entry); at == partly {
				at, needed = int64(entry>>20)<<20, true
			}
		}
		tell := fatal
		switch {
		case problem != "":
		case at >= 0 && !c.claim(at, size):
			problem = fmt.Sprintf("the block at %d overlaps something else", at)
		case entry>>3&(1<<17-1) != 0:
			problem, tell = "reserved bits are set", minor
		case k == d.ratio && d.parent == nil && entry&7 != 0:
			problem, tell = "a sector bitmap, but the image has no parent", minor
		}
		if problem == "" {
			continue
		}
		if err := tell(d.bat.off+8*i, fmt.Sprintf("block allocation table entry %d: %s", i, problem)); err != nil {
			return err
		}
	}
	return nil
}

// locateBitmap is locate for a sector bitmap block, which an image without a parent
// does not read.
func (d *Image) locateBitmap(entry uint64, needed bool) (at int64, problem string) {
	switch {
	case entry&7 == bitmapPresent && d.parent != nil:
		return d.place(entry, mib)
	case needed:
		return 0, "no sector bitmap, but a block needs one"
	}
	return vdisk.Hole, ""
}

// Check looks at the whole structure of the image and reports what is not right: a
// header or region table that is damaged though the other one is not, a log that is
// pending, and what is wrong with blocks. Offsets are in the image file. An error of
// report ends it and is returned, as are errors of reading; findings are no errors.
func (d *Image) Check(report func(off int64, text string) error) error {
	if err := d.checkHeaders(report); err != nil {
		return err
	}
	if d.pending {
		if err := report(d.head.logOff, "log: it was not replayed"); err != nil {
			return err
		}
	}
	return d.survey(report, report)
}

func (d *Image) checkHeaders(report func(off int64, text string) error) error {
	for i, off := range headerOffs {
		_, problem, err := readHeader(d.file, i)
		if err == nil && problem != "" {
			err = report(off, fmt.Sprintf("header %d: %s", i+1, problem))
		}
		if err != nil {
			return err
		}
	}
	var tables [2][]byte
	for i, off := range tableOffs {
		b, problem, err := readTable(d.file, i)
		if err == nil && problem != "" {
			err = report(off, fmt.Sprintf("region table %d: %s", i+1, problem))
		}
		if err != nil {
			return err
		}
		tables[i] = b
	}
	if tables[0] != nil && tables[1] != nil && !bytes.Equal(tables[0], tables[1]) {
		return report(tableOffs[1], "region table 2: not the same as region table 1")
	}
	return nil
}
