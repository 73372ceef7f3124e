package qcow2

import (
	"fmt"

	"ferry/chunking/ondisk"
	"ferry/chunking/vdisk"
)

// Bits of an entry of level 2. "L2 table entry".
const (
	entryZero       = 1 << 0 // the cluster reads as zeros; in version 3
	entryCompressed = 1 << 62
)

// window is how many bytes of a table are read at once, at most.
const window = 64 << 10

// clusters gives those of the disk's clusters [first, last) to fn that a table of level 2
// tells of, by their numbers in it: where in the file each is, 0 if it is zeros. A problem
// says why it cannot be where its entry says.
func (d *Image) clusters(table, first, last int64, fn func(i, file int64, problem string) error) error {
	at, start := d.tables[table], table*d.head.reach()
	buf := make([]byte, min(window, 8*(last-first)))
	for first < last {
		b := buf[:min(int64(len(buf)), 8*(last-first))]
		if err := ondisk.ReadFull(d.r, b, at+8*first); err != nil {
			return fmt.Errorf("qcow2: table of level 2 at %d: %w", at, err)
		}
		for ; len(b) > 0; b = b[8:] {
			file, problem, err := d.place(be.Uint64(b), min(d.head.cluster, d.head.diskSize-start-first*d.head.cluster))
			if problem != "" {
				problem = fmt.Sprintf("table of level 2 at %d, entry %d: %s", at, first, problem)
			}
			if err == nil {
				err = fn(first, file, problem)
			}
			if err != nil {
				return err
			}
			first++
		}
	}
	return nil
}

// place returns where in the file a cluster of the disk is, by its entry, of which n bytes
// are the disk's; 0 if it is zeros. A problem says why it cannot be there.
func (d *Image) place(entry uint64, n int64) (at int64, problem string, err error) {
	off := entry & offsetMask
	switch {
	case entry&entryCompressed != 0:
		return 0, "", unsupported("compressed clusters")
	case entry&entryZero != 0 && d.head.version >= 3, off == 0:
		return 0, "", nil
	case !d.head.within(off, n, d.size):
		return 0, fmt.Sprintf("a cluster at %d, but the file has %d bytes", off, d.size), nil
	}
	return int64(off), "", nil
}

// walk gives what the disk's bytes [off, end) are, cluster by cluster; within the disk.
func (d *Image) walk(off, end int64, fn func(vdisk.Extent) error) error {
	c, reach := d.head.cluster, d.head.reach()
	for off < end {
		table := off / reach
		start := table * reach
		stop := min(end, start+reach)
		if d.tables[table] == 0 {
			if err := fn(vdisk.Extent{Off: off, Size: stop - off, File: vdisk.Hole}); err != nil {
				return err
			}
			off = stop
			continue
		}
		err := d.clusters(table, (off-start)/c, (stop-start-1)/c+1, func(i, file int64, problem string) error {
			if problem != "" {
				return invalid("%s", problem)
			}
			from := start + i*c
			next := min(stop, from+c)
			e := vdisk.Extent{Off: off, Size: next - off, File: vdisk.Hole}
			if file > 0 {
				e.File = file + off - from
			}
			off = next
			return fn(e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// survey looks at all tables and reports what makes the disk's contents uncertain:
// clusters that are not in the file, or used twice. Offsets are in the file.
func (d *Image) survey(report func(off int64, text string) error) error {
	c := d.head.cluster
	used := make([]uint64, d.size/c/64+1)
	use := func(at, n int64, what string) error {
		for end := at + n; at < end; at += c {
			if word, bit := &used[at/c/64], uint64(1)<<(at/c%64); *word&bit == 0 {
				*word |= bit
			} else if err := report(at, what+" overlaps what else is there"); err != nil {
				return err
			}
		}
		return nil
	}
	if err := use(0, 1, "the header"); err != nil {
		return err
	}
	if err := use(d.head.level1, 8*d.head.entries, "the table of level 1"); err != nil {
		return err
	}
	if err := use(d.head.refs, d.head.refsSize, "the table of reference counts"); err != nil {
		return err
	}
	for _, at := range d.tables {
		if at > 0 {
			if err := use(at, c, "a table of level 2"); err != nil {
				return err
			}
		}
	}
	for table, at := range d.tables {
		if at == 0 {
			continue
		}
		last := min(c/8, (d.head.diskSize-int64(table)*d.head.reach()+c-1)/c)
		err := d.clusters(int64(table), 0, last, func(i, file int64, problem string) error {
			switch {
			case problem != "":
				return report(at+8*i, problem)
			case file == 0:
				return nil
			}
			return use(file, 1, "a cluster of the disk")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Check looks at the whole structure of the image and reports what is not right: what
// the image says of itself, and what is wrong with clusters. Reference counts are not
// compared: QEMU alone needs them. Offsets are in the image file. An error of report ends
// it and is returned, as are errors of reading; findings are no errors.
func (d *Image) Check(report func(off int64, text string) error) error {
	for _, f := range []struct {
		feature uint64
		text    string
	}{{featureDirty, "it was not closed: reference counts may be wrong"}, {featureCorrupt, "QEMU found it corrupt"}} {
		if d.head.features&f.feature != 0 {
			if err := report(72, "header: "+f.text); err != nil {
				return err
			}
		}
	}
	return d.survey(report)
}
