package partition

import (
	"cmp"
	"fmt"
	"slices"
)

// Types of MBR partitions.
const (
	typeProtective = 0xee // UEFI 2.10 section 5.2.3
	maxLogical     = 128  // logical partitions that are read, and boot sectors of them
)

// isExtended reports whether a partition of this type holds logical ones: of DOS,
// with LBA, of Linux.
func isExtended(kind byte) bool { return kind == 0x05 || kind == 0x0f || kind == 0x85 }

// mbrEntry is one of the four entries of a boot sector. UEFI 2.10 table 5-2.
type mbrEntry struct {
	status      byte
	kind        byte
	first, size int64 // sectors
}

// protective reports whether an entry says that the disk has a GPT. UEFI 2.10
// table 5-4.
func (e mbrEntry) protective() bool { return e.kind == typeProtective && e.first == 1 }

// mbrEntries returns the entries of a boot sector; nil if it is none.
func mbrEntries(boot []byte) []mbrEntry {
	if boot[510] != 0x55 || boot[511] != 0xaa {
		return nil
	}
	entries := make([]mbrEntry, 4)
	for i := range entries {
		b := boot[446+16*i:]
		entries[i] = mbrEntry{status: b[0], kind: b[4], first: int64(le.Uint32(b[8:])), size: int64(le.Uint32(b[12:]))}
	}
	return entries
}

// isMBR reports whether the entries are those of an MBR, and not the code or text of
// some filesystem's boot sector: there is a partition, and all of them are such as
// can be.
func (d *disk) isMBR(entries []mbrEntry) bool {
	var used []mbrEntry
	for _, e := range entries {
		if e.status != 0 && e.status != 0x80 {
			return false
		}
		if e.kind == 0 {
			continue
		}
		if e.first == 0 || e.size == 0 || e.first+e.size > d.sectors() {
			return false
		}
		used = append(used, e)
	}
	slices.SortFunc(used, func(a, b mbrEntry) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(used); i++ {
		if used[i].first < used[i-1].first+used[i-1].size {
			return false
		}
	}
	return len(used) > 0
}

func (d *disk) readMBR(boot []byte, entries []mbrEntry) error {
	id := le.Uint32(boot[440:])
	d.table.Scheme = MBR
	d.table.ID = fmt.Sprintf("0x%08x", id)
	d.area("MBR", 0, d.sector)
	for i, e := range entries {
		if e.kind != 0 {
			d.add(id, i+1, e)
		}
	}
	number := 5
	for _, e := range entries {
		if !isExtended(e.kind) {
			continue
		}
		var err error
		if number, err = d.readLogical(id, number, e); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) add(id uint32, number int, e mbrEntry) {
	d.table.Partitions = append(d.table.Partitions, Partition{
		Number:   number,
		Off:      e.first * d.sector,
		Size:     e.size * d.sector,
		Type:     fmt.Sprintf("0x%02x", e.kind),
		ID:       fmt.Sprintf("%08x-%02x", id, number),
		Extended: number <= 4 && isExtended(e.kind),
	})
}

// readLogical reads the logical partitions of an extended one: a chain of boot
// sectors, the first entry of which is the partition, from that boot sector on, and
// the second is the next boot sector, from the extended partition on. What is wrong
// with the chain ends it. It returns the number of the next logical partition.
func (d *disk) readLogical(id uint32, number int, extended mbrEntry) (int, error) {
	seen := map[int64]bool{}
	for at := extended.first; ; {
		off := at * d.sector
		if number-5 == maxLogical || len(seen) == maxLogical || seen[at] {
			d.found(off, "extended partition: the chain of logical ones has no end")
			return number, nil
		}
		seen[at] = true
		boot, err := d.read(off, 512)
		if err != nil {
			return number, err
		}
		entries := mbrEntries(boot)
		if entries == nil {
			d.found(off, "partition %d: its boot sector has no signature", number)
			return number, nil
		}
		d.area(fmt.Sprintf("EBR %d", number), off, d.sector)
		if e := entries[0]; e.kind != 0 {
			e.first += at
			if e.size == 0 || e.first == at || e.first+e.size > extended.first+extended.size {
				d.found(off, "partition %d: %d sectors from %d on are not in the extended partition", number, e.size, e.first)
			} else {
				d.add(id, number, e)
			}
			number++
		}
		next := entries[1]
		if next.kind == 0 {
			return number, nil
		}
		if !isExtended(next.kind) || next.first == 0 || next.first >= extended.size {
			d.found(off, "extended partition: the next boot sector would be at %d", next.first)
			return number, nil
		}
		at = extended.first + next.first
	}
}
